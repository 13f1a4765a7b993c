"""Who calls the API, and how."""

import copy
import functools
import json
import re
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.test import Client

from accounts.actions import create_token
from accounts.models import ApiToken, User
from accounts.scopes import BY_ITSELF, Verb
from accounts.stepup import Purpose
from tests.world import prove

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = "application/problem+json"
CSRF = "c" * 32


class Caller:
    """Calls as a person with a session, as their API token, or as nobody."""

    def __init__(
        self,
        user: User | None,
        how: str = "session",
        *,
        verbs: Collection[str] = (),
        endpoints: Collection[uuid.UUID] = (),
        **extra: Any,
    ) -> None:
        self.user, self.how = user, how
        self.client = Client(enforce_csrf_checks=True, raise_request_exception=False, **extra)
        self.headers: dict[str, str] = {}
        if user is not None and how == "session":
            self.client.force_login(user)
            self.client.cookies[settings.CSRF_COOKIE_NAME] = CSRF
            self.headers = {"X-CSRFToken": CSRF}
        elif user is not None:
            row, text = create_token(
                by=user,
                owner=user,
                name="script",
                verbs=verbs or (BY_ITSELF if user.is_service else Verb.values),
            )
            # Whether or not they see these.
            ApiToken.objects.filter(pk=row.pk).update(endpoints=list(endpoints))
            self.headers = {"Authorization": f"Bearer {text}"}

    def again(self) -> "Caller":
        """The same caller, whom the answers to this one told nothing."""
        other = copy.copy(self)
        other.client = copy.copy(self.client)
        other.client.cookies = copy.deepcopy(self.client.cookies)
        return other

    def prove(self, *purposes: Purpose) -> None:
        """Let this session have proved a second factor for these just now."""
        prove(self.client, *purposes)

    def get(self, path: str, **query: Any) -> Any:
        return _documented(self.client.get(f"/api/v1/{path}", query, headers=self.headers))

    def post(self, path: str, body: Any = None) -> Any:
        """POST this as JSON; bytes and text are sent as they are."""
        data = body if isinstance(body, str | bytes) else json.dumps({} if body is None else body)
        return self.send("POST", path, data)

    def send(
        self,
        method: str,
        path: str,
        data: str | bytes = b"",
        content_type: str = "application/json",
    ) -> Any:
        return _documented(
            self.client.generic(
                method, f"/api/v1/{path}", data, content_type=content_type, headers=self.headers
            )
        )


@functools.cache
def document() -> Any:
    """The committed OpenAPI document, which tests/openapi/test_document.py knows to be current."""
    return yaml.load((ROOT / "docs/openapi.yaml").read_text(), Loader=yaml.CSafeLoader)


@functools.cache
def _codes() -> dict[tuple[str, str], set[str]]:
    """By method and path, the problems that the committed document names."""
    found = {}
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            answers = operation["responses"].values()
            kinds = [answer.get("content", {}).get(PROBLEM, {}) for answer in answers]
            codes = {code for kind in kinds for code in kind.get("examples", {})}
            found[method.upper(), re.sub("{.*?}", "{}", path)] = codes
    return found


def _documented(answer: Any) -> Any:
    """The same answer, which is no problem that the OpenAPI document doesn't name."""
    call = answer.wsgi_request
    refused = 400 <= answer.status_code < 500
    if refused and answer["Content-Type"].startswith(PROBLEM) and call.resolver_match is not None:
        path = "/" + re.sub("<.*?>", "{}", call.resolver_match.route)
        code, named = answer.json()["code"], _codes().get((call.method, path))
        assert named is None or code in named, f"{call.method} {path} isn't said to answer {code}"
    return answer


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem in this answer, which must be one by RFC 9457, of this status and code."""
    assert answer.status_code == status, (answer.status_code, answer.content[:500])
    assert answer["Content-Type"].split(";")[0] == "application/problem+json"
    data: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= data.keys()
    assert data["status"] == status
    assert data["code"] == code
    assert data["type"] == f"{settings.KEYTURN_BASE_URL}/problems/{code}/"
    assert data["title"]
    assert data["detail"]
    assert data["instance"] == answer.wsgi_request.path
    return data


def faults(answer: Any) -> dict[str, str]:
    """The fields at fault in a 400, with their messages."""
    data = problem(answer, 400, "invalid-input")
    return {each["field"]: each["message"] for each in data["errors"]}
