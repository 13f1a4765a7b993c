"""What a proxy is told, and what it has to say: the gateway asked as proxies ask it."""

import http.client
import json
import uuid
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessrequests.models import Grant
from credentials.actions import check_out
from credentials.live import Live
from endpoints.scope import Scope
from gateway.admission import may_call
from gateway.dialects import Refused
from gateway.plain import check
from tests.conftest import RunningGateway
from tests.world import World

NGINX = [("X-Original-Method", "GET"), ("X-Original-URI", "/v1/models")]
CADDY = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/v1/models")]


@pytest.fixture
def grant(committed: None, world: World) -> Grant:
    return world.grant(models=["demo-small"])


@pytest.fixture
def secret(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


def ask(
    gateway: RunningGateway, path: str, *headers: tuple[str, str], method: str = "GET"
) -> tuple[int, dict[str, Any], dict[str, str]]:
    wire = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    try:
        wire.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            wire.putheader(name, value)
        wire.endheaders()
        answer = wire.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {}, dict(answer.headers)
    finally:
        wire.close()


def test_who_it_is(gateway: RunningGateway, grant: Grant, secret: str) -> None:
    slug = grant.request.profile.endpoint.slug
    for path, said in (
        (f"/authz/{slug}/envoy/v1/models?x=1", []),
        (f"/authz/{slug}/nginx", NGINX),
        (f"/authz/{slug}/traefik", CADDY),
        (f"/authz/{slug}/caddy?after=x", CADDY),
    ):
        status, body, headers = ask(gateway, path, ("api-key", secret), *said)
        assert (status, body) == (200, {})
        assert headers["x-keyturn-user"] == grant.holder.email
        assert headers["x-keyturn-grant"] == str(grant.pk)
        assert secret not in str(headers)


def test_operations_of_a_grant_on_plain_http(
    gateway: RunningGateway, world: World, committed: None
) -> None:
    scope = {"operations": ["GET /api/", "POST /api/jobs"]}
    endpoint = world.endpoint(with_key=False, dialects=["http"])
    grant = world.grant(profile=world.profile(endpoint=endpoint, scope=scope))
    key = ("x-api-key", check_out(by=grant.holder, grant_id=grant.pk).secret)
    for method, target, status in (
        ("GET", "/api/jobs?page=2", 200),
        ("HEAD", "/api/jobs", 200),
        ("POST", "/api/jobs/7/stop", 200),
        ("POST", "/api/users", 403),
        ("DELETE", "/api/jobs/7", 403),
        ("GET", "/apis/jobs", 403),
        ("GET", "/", 403),
        ("GET", "/v1/models", 403),
        ("GET", "/api/../admin", 403),
        ("GET", "/api/%2e%2e/admin", 403),
        ("GET", "/api/..%2fadmin", 403),
        ("GET", "/api//admin", 403),
    ):
        said = [("X-Original-Method", method), ("X-Original-URI", target)]
        found, _, _ = ask(gateway, f"/authz/{endpoint.slug}/nginx", key, *said)
        assert found == status, (method, target)
        found, _, _ = ask(gateway, f"/authz/{endpoint.slug}/envoy{target}", key, method=method)
        assert found == status, (method, target)


def test_a_proxy_that_does_not_say_what_is_called(
    gateway: RunningGateway, grant: Grant, secret: str
) -> None:
    authz = f"/authz/{grant.request.profile.endpoint.slug}"
    for path, said in (
        (authz, NGINX),
        (f"{authz}/", NGINX),
        (f"{authz}/apache", NGINX),
        (f"{authz}/nginx", []),
        (f"{authz}/nginx", NGINX[:1]),
        (f"{authz}/nginx", CADDY),
        (f"{authz}/nginx", [*NGINX, NGINX[1]]),
        (f"{authz}/nginx", [*NGINX, ("x-original-uri", "/v1/files")]),
        (f"{authz}/nginx/v1/models", NGINX),
        (f"{authz}/caddy", NGINX),
        (f"{authz}/caddy/v1/models", CADDY),
        (f"{authz}/envoy", [*NGINX, *CADDY]),
        (f"{authz}/envoy/../nginx", NGINX),
        (f"{authz}/envoy/v1/files", [*NGINX, *CADDY]),
        (f"{authz}/envoy//v1/models", []),
        (f"{authz}//nginx", NGINX),
        (f"{authz}/x/../nginx", NGINX),
        (f"{authz}%2fnginx", NGINX),
        (f"{authz.upper()}/nginx", NGINX),
    ):
        status, body, _ = ask(gateway, path, ("x-api-key", secret), *said)
        assert status in {403, 404}, path
        assert body["error"]["message"]
    status, _, _ = ask(gateway, f"{authz}/envoy/v1/models", ("x-api-key", secret), method="PUT")
    assert status == 403


@pytest.mark.parametrize(
    "keys",
    [
        ["Authorization: Bearer {}", "x-api-key: another"],
        ["Authorization: Bearer {}", "Authorization: Bearer {}"],
        ["api-key: {}", "x-api-key: another"],
        ["Authorization: {}"],
        ["Authorization: Basic {}"],
        ["Authorization: Bearer"],
        ["x-api-key:"],
        ["Cookie: key={}"],
        [],
    ],
    ids=str,
)
def test_other_than_one_key(
    keys: list[str], gateway: RunningGateway, grant: Grant, secret: str
) -> None:
    sent = [
        (name, value.strip()) for name, _, value in (k.format(secret).partition(":") for k in keys)
    ]
    status, body, headers = ask(
        gateway, f"/authz/{grant.request.profile.endpoint.slug}/nginx", *sent, *NGINX
    )
    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer ")
    assert secret not in str(body)


def test_a_web_socket_is_not_let_through(
    gateway: RunningGateway, grant: Grant, secret: str
) -> None:
    upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    authz = f"/authz/{grant.request.profile.endpoint.slug}"
    key = ("Authorization", f"Bearer {secret}")
    for path, said in ((f"{authz}/caddy", CADDY), (f"{authz}/envoy/v1/models", [])):
        wire = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
        wire.request("GET", path, headers=dict([key, *said, *upgrade]))
        assert wire.getresponse().status in {403, 404}
        wire.close()


def test_a_key_in_the_url_is_refused_with_another_in_its_place(
    gateway: RunningGateway, grant: Grant, secret: str
) -> None:
    authz = f"/authz/{grant.request.profile.endpoint.slug}"
    key = ("Authorization", f"Bearer {secret}")
    for query in (f"api_key={secret}", "x=1&Access_Token=", "%61pi_key=x"):
        said = [NGINX[0], ("X-Original-URI", f"/v1/models?{query}")]
        assert ask(gateway, f"{authz}/nginx", key, *said)[0] == 401
        assert ask(gateway, f"{authz}/envoy/v1/models?{query}", key)[0] == 401


def live(*dialects: str, **scope: set[str]) -> Live:
    held = Scope.parse({name: sorted(values) for name, values in scope.items()})
    one = uuid.uuid4()
    return Live(
        one,
        one,
        one,
        "ana@example.com",
        one,
        "e",
        frozenset(dialects),
        (),
        "",
        None,
        False,
        {},
        held,
    )


@pytest.mark.parametrize(
    ("method", "path", "held"),
    [
        ("GET", b"/api/", True),
        ("GET", b"/api/users/7", True),
        ("GET", b"/api", False),
        ("GET", b"/apis", False),
        ("GET", b"/API/users", False),
        ("HEAD", b"/api/users", True),
        ("POST", b"/api/users", False),
        ("GET", b"/own", True),
        ("DELETE", b"/own/7", True),
        ("GET", b"/owner", False),
        ("GET", b"/", False),
        ("WEBSOCKET", b"/live/1", True),
        ("GET", b"/live/1", False),
        ("GET", b"/v1/models", False),
    ],
)
def test_operations_are_prefixes_by_whole_segments(method: str, path: bytes, held: bool) -> None:
    operations = {"GET /api/", "* /own", "WEBSOCKET /live", "POST /a%20b"}
    assert may_call(live("http", "openai", operations=operations), method, path, {}) is held


def test_calls_are_those_of_the_dialects_that_the_endpoint_speaks() -> None:
    openai, ollama = live("openai", models={"small"}), live("ollama", "http", models={"small"})
    assert may_call(openai, "POST", b"/v1/chat/completions", {})
    assert may_call(ollama, "POST", b"/api/chat", {})
    assert not may_call(ollama, "POST", b"/api/pull", {})
    assert not may_call(live("openai", operations={"* /"}), "GET", b"/v1/files", {})
    assert not may_call(ollama, "POST", b"/v1/chat/completions", {})
    assert not may_call(openai, "POST", b"/v1/models", {})
    assert not may_call(openai, "GET", b"/", {})
    assert may_call(openai, "GET", b"/v1/models/small", {})
    assert not may_call(openai, "GET", b"/v1/models/large", {})
    assert not may_call(openai, "GET", b"/v1/models/small/admin", {})
    assert not may_call(openai, "GET", b"/v1/models", {b"anthropic-version": b"2023-06-01"})


tricks = st.sampled_from(
    ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "\\", ";", "%00", "%0a", "\n", "%", "%2",
     "%252e", "?", "#", " ", "a", "api", "é", "%c3%a9", "~", ":", "@"]
)  # fmt: skip


@given(st.lists(tricks, max_size=8).map(lambda parts: "/" + "".join(parts)))
def test_a_plain_path_means_the_same_to_everybody(path: str) -> None:
    try:
        check(path.encode(), b"")
    except Refused:
        return
    once = unquote(path)
    assert once == unquote(once)
    assert once.count("/") == path.count("/")
    assert "\\" not in once
    assert "//" not in once
    assert once.isprintable()
    assert not {".", ".."} & {segment.partition(";")[0] for segment in once.split("/")}


@pytest.mark.parametrize("path", ["/", "/v1/models", "/a/b/", "/a%20b", "/a:b@c", "/x..y/..z/a."])
def test_usual_paths_are_plain(path: str) -> None:
    check(path.encode(), b"")
