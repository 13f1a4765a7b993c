"""What all of the API shares: pages, errors, and the OpenAPI document's idea of them."""

from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404
from drf_spectacular.openapi import AutoSchema
from rest_framework import exceptions, pagination, serializers
from rest_framework.response import Response
from rest_framework.views import set_rollback

from broker.errors import (
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    NotSignedIn,
    Unavailable,
)
from broker.middleware import audit_refusal, problem_headers


class Cursor(pagination.CursorPagination):
    """Newest first. Pages stay what they were while rows are added."""

    ordering = "-id"
    page_size_query_param = "limit"
    max_page_size = 200


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, in the form of RFC 9457."""

    type = serializers.URLField(help_text="Names the kind of problem, and has a page about it")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(required=False)
    code = serializers.CharField(help_text="the last part of `type`")
    errors = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()),
        required=False,
        help_text="for `invalid-input`: each field at fault, with its message",
    )


class Schema(AutoSchema):
    """Adds to each operation the problems that it can answer with."""

    def get_tags(self) -> list[str]:
        """Operations are grouped by the resource: the first part of the path."""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def _get_response_bodies(self, direction: str = "response") -> Any:
        bodies = super()._get_response_bodies(direction)  # type: ignore[no-untyped-call]
        statuses = {"401", "403"}
        if "{" in self.path:
            statuses.add("404")
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses |= {"400", "409", "415"}
        if self.method == "GET" and "{" not in self.path:
            statuses.add("400" if self.view.__class__.__name__ != "Schema" else "401")
            statuses.add("404")
        if "credentials" in self.path and self.method == "POST":
            statuses.add("503")
        for status in sorted(statuses - set(bodies)):
            body = self._get_response_for_code(  # type: ignore[no-untyped-call]
                ProblemSerializer, status, media_types=["application/problem+json"]
            )
            bodies[status] = body
        return bodies


class _Other(KeyturnError):
    """The request can't be answered."""

    def __init__(self, status: int, code: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.title = status, code, title  # type: ignore[misc]


def _flatten(detail: Any, prefix: str = "") -> dict[str, str]:
    """DRF's nested messages as {"field.inner": "message"}."""
    if isinstance(detail, dict):
        flat: dict[str, str] = {}
        for field, inner in detail.items():
            name = prefix if field == "non_field_errors" else f"{prefix}.{field}".lstrip(".")
            flat |= _flatten(inner, name)
        return flat
    if isinstance(detail, list):
        if any(isinstance(item, dict | list) for item in detail):
            return {
                name: text
                for i, item in enumerate(detail)
                for name, text in _flatten(item, f"{prefix}.{i}".lstrip(".")).items()
            }
        return {prefix or "body": " ".join(str(item) for item in detail)}
    return {prefix or "body": str(detail)}


def _as_problem(error: Exception) -> KeyturnError | None:
    match error:
        case KeyturnError():
            return error
        case exceptions.ValidationError():
            return InvalidInput(_flatten(error.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return NotSignedIn(str(error.detail))
        case exceptions.NotFound() | Http404():
            return NotFound()
        case exceptions.PermissionDenied():
            return Forbidden(str(error.detail))
        case PermissionDenied():
            return Forbidden()
        case OperationalError():
            return Unavailable("The database can't answer at the moment; nothing was done.")
        case exceptions.APIException():
            code = str(error.default_code).replace("_", "-")
            return _Other(
                error.status_code, code, code.replace("-", " ").capitalize(), str(error.detail)
            )
    return None


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
        {
            "type": f"{settings.KEYTURN_BASE_URL}/problems/{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "instance": request.path,
            "code": problem.code,
            **({} if isinstance(problem, NotFound) else problem.extra),
        },
        status=problem.status,
        content_type="application/problem+json",
    )
    problem_headers(problem, response)
    challenge = getattr(error, "auth_header", None)
    if problem.status == 401:
        response["WWW-Authenticate"] = challenge or 'Bearer realm="keyturn"'
    return response
