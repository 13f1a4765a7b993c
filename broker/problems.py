"""Errors of the API, in the form of RFC 9457."""

from itertools import islice
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from broker.errors import (
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    NotSignedIn,
    TooLarge,
    Unavailable,
)
from broker.middleware import audit_refusal, problem_headers

MEDIA_TYPE = "application/problem+json"
# A body with a hundred thousand faults must not be answered with as many sentences.
MOST_FAULTS = 50


class _Other(KeyturnError):
    """The request can't be answered."""

    def __init__(self, status: int, code: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.title = status, code, title  # type: ignore[misc]


def flatten(detail: Any, prefix: str = "") -> dict[str, str]:
    """DRF's nested messages as {"field.inner": "message"}."""
    if isinstance(detail, dict):
        flat: dict[str, str] = {}
        for field, inner in detail.items():
            name = prefix if field == "non_field_errors" else f"{prefix}.{field}".lstrip(".")
            flat |= flatten(inner, name)
        return flat
    if isinstance(detail, list):
        if any(isinstance(item, dict | list) for item in detail):
            return {
                name: text
                for i, item in enumerate(detail)
                for name, text in flatten(item, f"{prefix}.{i}".lstrip(".")).items()
            }
        return {prefix or "body": " ".join(str(item) for item in detail)}
    return {prefix or "body": str(detail)}


def _sayable(text: str) -> str:
    """Names and values are said back, and JSON can carry what UTF-8 can't: half a surrogate."""
    return text.encode(errors="replace").decode()


def _as_problem(error: Exception) -> KeyturnError | None:
    match error:
        case KeyturnError():
            return error
        case exceptions.ValidationError():
            found = islice(flatten(error.detail).items(), MOST_FAULTS)
            return InvalidInput({_sayable(field): _sayable(text) for field, text in found})
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return NotSignedIn(str(error.detail))
        case exceptions.NotFound() | Http404():
            return NotFound()
        case exceptions.PermissionDenied():
            return Forbidden(str(error.detail))
        case PermissionDenied():
            return Forbidden()
        case RequestDataTooBig():
            return TooLarge()
        case OperationalError():
            return Unavailable("The database can't answer at the moment; nothing was done.")
        case exceptions.APIException():
            code = str(error.default_code).replace("_", "-")
            return _Other(
                error.status_code, code, code.replace("-", " ").capitalize(), str(error.detail)
            )
    return None


def as_json(problem: KeyturnError, path: str) -> dict[str, Any]:
    """The members of a problem that came of a call to `path`."""
    return {
        "type": f"{settings.KEYTURN_BASE_URL}/problems/{problem.code}/",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "code": problem.code,
        # What one may not see has nothing to tell.
        **({} if isinstance(problem, NotFound) else problem.extra),
    }


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """The answer to an error, as application/problem+json (RFC 9457).

    None for what nobody foresaw: Django then logs it and answers 500.
    """
    problem = _as_problem(error)
    if problem is None:
        return None
    request = context["request"]
    set_rollback()
    audit_refusal(problem, request)
    response = Response(
        as_json(problem, request.path), status=problem.status, content_type=MEDIA_TYPE
    )
    problem_headers(problem, response)
    challenge = getattr(error, "auth_header", None)
    if problem.status == 401:
        response["WWW-Authenticate"] = challenge or 'Bearer realm="keyturn"'
    return response
