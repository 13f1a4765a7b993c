"""Whatever goes wrong under /api/ is told as RFC 9457 has it, by a type that has a page."""

from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from accessrequests.api.requests import RequestViewSet
from accessrequests.models import AccessRequest
from tests.api.callers import Caller, problem
from tests.world import World

pytestmark = pytest.mark.django_db

GET, POST, DELETE = "GET", "POST", "DELETE"
LARGE = b'"' + b"x" * settings.DATA_UPLOAD_MAX_MEMORY_SIZE + b'"'
WRONG: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "no such address": (GET, "nothing/", {}, 404, "not-found"),
    "no such address, written to": (POST, "nothing/", {"data": b"{}"}, 404, "not-found"),
    "without its slash": (POST, "requests", {"data": b"{}"}, 404, "not-found"),
    "no id": (GET, "grants/%00/", {}, 404, "not-found"),
    "not its method": (DELETE, "grants/", {}, 405, "method-not-allowed"),
    "no method at all": ("BREW", "grants/", {}, 405, "method-not-allowed"),
    "another form wanted": (GET, "grants/", {"HTTP_ACCEPT": "text/html"}, 406, "not-acceptable"),
    "half a body": (POST, "requests/", {"data": b'{"profile": '}, 400, "parse-error"),
    "no UTF-8": (POST, "requests/", {"data": b'{"profile": "\xff"}'}, 400, "parse-error"),
    "a list": (POST, "requests/", {"data": b"[]"}, 400, "invalid-input"),
    "too much": (POST, "requests/", {"data": LARGE}, 413, "too-large"),
    "a form": (
        POST,
        "requests/",
        {"data": b"profile=1", "content_type": "application/x-www-form-urlencoded"},
        415,
        "unsupported-media-type",
    ),
    "another's host": (GET, "grants/", {"HTTP_HOST": "evil.example"}, 400, "bad-request"),
    "a made-up cursor": (GET, "grants/?cursor=x%ff", {}, 404, "not-found"),
    "an impossible filter": (GET, "grants/?state=x", {}, 400, "invalid-input"),
}


def sent(method: str, path: str, caller: Caller, extra: dict[str, Any]) -> Any:
    given = {"content_type": "application/json"} | extra
    return caller.client.generic(method, f"/api/v1/{path}", headers=caller.headers, **given)


@pytest.mark.parametrize("how", ["session", "token"])
@pytest.mark.parametrize(("method", "path", "extra", "status", "code"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_call_is_a_problem_with_a_page(
    method: str, path: str, extra: dict[str, Any], status: int, code: str, how: str, world: World
) -> None:
    answer = sent(method, path, Caller(world.person(), how), extra)
    told = problem(answer, status, code)
    assert Client().get(told["type"].removeprefix(settings.KEYTURN_BASE_URL)).status_code == 200
    assert answer["X-Request-Id"]
    if status == 405:
        assert "GET" in answer["Allow"]
    assert AccessRequest.objects.count() == 0


def test_what_nobody_foresaw_tells_its_number_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("canary-4711")

    monkeypatch.setattr(RequestViewSet, "list", fails)
    answer = Caller(world.person(), "token").get("requests/")
    told = problem(answer, 500, "internal-error")
    assert told["trace"] == answer["X-Request-Id"]
    assert "canary" not in answer.content.decode()
    assert Client().get("/problems/internal-error/").status_code == 200


def test_a_call_without_its_slash_is_read_at_the_address_that_has_one(world: World) -> None:
    answer = Caller(world.person(), "token").get("requests")
    assert answer.status_code == 301
    assert answer["Location"] == "/api/v1/requests/"
