"""Dashboards and other plain HTTP: what a grant lets through, and nothing else."""

import hashlib
import socket
import threading
import time
from collections import deque
from typing import Any

import httpx
import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from credentials.actions import end_grant
from gateway import plain
from gateway.dialects import Refused
from gateway.models import Call
from tests.conftest import RunningGateway
from tests.gateway.dashboards import ORIGIN, Dashboard, dashboard
from tests.upstream import Upstream
from tests.world import UPSTREAM_KEY, World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture(scope="module")
def board(upstream: Upstream, gateway: RunningGateway, django_db_blocker: Any) -> Dashboard:
    """For all tests that leave its grant as it is."""
    with django_db_blocker.unblock():
        return dashboard(World(upstream_url=upstream.url), gateway)


def test_a_page_and_an_api(board: Dashboard, upstream: Upstream) -> None:
    page = board.send("/admin/")
    assert page.status == 200
    assert b"<h1>Models</h1>" in page.body
    assert page.header("cache-control") == "no-store"
    assert page.header("x-request-id").startswith("req_")
    assert page.header("server") in {"", "uvicorn"}
    made = board.send(
        "/admin/api/models", "POST", {"Content-Type": "application/json"}, b'{"name": "new"}'
    )
    assert (made.status, made.json) == (201, {"created": "new"})
    seen = {name.lower(): value for name, value in upstream.calls[-1]["headers"].items()}
    assert seen["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen["x-forwarded-prefix"] == f"/e/{board.slug}"
    assert board.secret not in str(upstream.calls[-1])


def test_it_is_recorded(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway)
    board.send("/admin/api/models?page=2", "POST", body=b'{"name": "x"}')
    until = time.monotonic() + 5
    while not (rows := Call.objects.filter(grant=board.grant)) and time.monotonic() < until:
        time.sleep(0.1)
    row = rows.get()
    assert (row.method, row.path, row.status) == ("POST", "/admin/api/models", 201)
    assert (row.request_bytes, row.response_bytes) == (13, len(b'{"created": "x"}'))
    assert row.charged_tokens == 0
    assert row.duration_ms > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/admin/api/models/x", 200),
        ("GET", "/admin/api/models", 200),
        ("DELETE", "/admin/echo", 200),
        ("PATCH", "/admin/echo", 200),
        ("POST", "/admin/api/models", 201),
        ("DELETE", "/admin/api/models/x", 403),
        ("POST", "/admin/", 403),
        ("POST", "/admin/apix", 403),
        ("GET", "/admin", 403),
        ("GET", "/ADMIN/", 403),
        ("GET", "/", 403),
        ("GET", "/v1/models", 403),
        ("POST", "/v1/chat/completions", 403),
        ("TRACE", "/admin/", 405),
        ("UNSUBSCRIBE", "/admin/", 405),
        ("GET", "/.keyturn/else", 404),
    ],
)
def test_methods_and_paths_are_the_grants(
    method: str, path: str, status: int, board: Dashboard, upstream: Upstream
) -> None:
    before = len(upstream.calls)
    answer = board.send(path, method, body=b"{}" if method == "POST" else None)
    assert answer.status == status
    assert (len(upstream.calls) > before) == (status < 300)
    if status == 403:
        assert answer.code == "operation_not_granted"
        assert "/request/" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/admin//echo",
        "//admin/",
        "/admin/../v1/models",
        "/admin/..",
        "/admin/./echo",
        "/admin/%2e%2e/v1/models",
        "/admin/.%2E/v1/models",
        "/admin%2fecho",
        "/admin/%5c..%5cx",
        "/admin\\..\\x",
        "/admin/..;/v1/models",
        "/admin/echo;x=1",
        "/admin/echo%3bx",
        "/admin/%00",
        "/admin/%0d%0aX-Evil:1",
        "/admin/%252e%252e/x",
        "/admin/%zz",
        "/admin/%2",
        "/admin/" + "x" * 9_000,
    ],
)
def test_path_tricks(path: str, board: Dashboard, upstream: Upstream) -> None:
    before = len(upstream.calls) + len(upstream.refused)
    answer = board.send(path)
    assert answer.status in {404, 414}
    assert answer.code in {"not_found", "too_long"}
    assert len(upstream.calls) + len(upstream.refused) == before


@pytest.mark.parametrize("target", ["/admin/\xe9", "/admin/ x", "/admin/\x01", "/admin/\tx"])
def test_bytes_that_are_no_path(target: str, board: Dashboard, upstream: Upstream) -> None:
    before = len(upstream.calls)
    with socket.create_connection(("127.0.0.1", int(board.gateway.url.rpartition(":")[2]))) as raw:
        line = f"GET /e/{board.slug}{target} HTTP/1.1\r\nHost: x\r\n"
        raw.sendall(f"{line}Authorization: Bearer {board.secret}\r\n\r\n".encode("latin-1"))
        assert raw.recv(1000).split(b" ")[1] in {b"400", b"404"}
    assert len(upstream.calls) == before


segments = st.lists(
    st.sampled_from(["api", "apix", "", ".", "..", "%2e", "%2F", "%2e%2e", ";", "a;b", "é", "%41"]),
    max_size=5,
).map(lambda parts: "/" + "/".join(parts))


@given(segments | st.text(max_size=30), st.sampled_from(["GET", "POST", "HEAD", "WEBSOCKET"]))
def test_what_passes_is_below_a_prefix_however_it_is_read(path: str, method: str) -> None:
    try:
        plain.check(path.encode(), b"")
    except Refused:
        return
    held = plain.holds({"GET /api", "POST /other/"}, method, path)
    if held:
        assert path.startswith(("/api", "/other/"))
        assert method in {"GET", "HEAD", "POST"}
    decoded = httpx.URL(f"http://x{path}").path
    assert not {".", "..", ""} & set(decoded.split("/")[1:-1])
    assert "\\" not in decoded
    assert ";" not in decoded


@pytest.mark.parametrize(
    ("operation", "method", "path", "held"),
    [
        ("GET /api", "GET", "/api", True),
        ("GET /api", "GET", "/api/", True),
        ("GET /api", "HEAD", "/api/x", True),
        ("GET /api", "GET", "/apix", False),
        ("GET /api/", "GET", "/api", False),
        ("GET /api/", "GET", "/api/", True),
        ("GET /api/", "POST", "/api/", False),
        ("GET /", "WEBSOCKET", "/ws", False),
        ("* /", "WEBSOCKET", "/ws", True),
        ("* /", "DELETE", "/", True),
        ("HEAD /", "GET", "/", False),
    ],
)
def test_prefixes(operation: str, method: str, path: str, held: bool) -> None:
    assert plain.holds({operation}, method, path) is held


def test_only_known_headers_go_up(board: Dashboard, upstream: Upstream) -> None:
    upper = {
        "Accept": "text/plain",
        "X-CSRF-Token": "t",
        "If-Match": '"1"',
        "Cookie": "theirs=1; keyturn=portal; keyturn-csrf=c; __Host-keyturn=x",
        "Origin": ORIGIN,
        "Referer": "http://localhost:8080/e/other/",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "for=10.0.0.1",
        "OpenAI-Organization": "org",
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": "/v1/models",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQAAP__",
        "Connection": "close, x-csrf-token, authorization",
    }
    seen = board.send("/admin/echo", "POST", upper, b"x").json["headers"]
    seen = {name.lower(): value for name, value in seen.items()}
    assert seen["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen["x-forwarded-prefix"] == f"/e/{board.slug}"
    assert seen["cookie"] == "theirs=1"
    assert seen["origin"] == upstream.url
    assert set(seen) == {
        "host", "accept", "accept-encoding", "authorization", "content-length", "content-type",
        "cookie", "if-match", "origin", "user-agent", "x-forwarded-prefix",
    }  # fmt: skip
    elsewhere = board.send("/admin/echo", "POST", {"Origin": "https://x.example"}, b"x")
    assert "Origin" not in elsewhere.json["headers"]


def test_two_lengths_and_a_hidden_request(board: Dashboard, upstream: Upstream) -> None:
    before = len(upstream.calls)
    hidden = f"GET /e/{board.slug}/admin/ HTTP/1.1\r\nHost: x\r\n\r\n"
    start = f"POST /e/{board.slug}/admin/echo HTTP/1.1\r\nHost: x\r\n"
    start += f"Authorization: Bearer {board.secret}\r\n"
    for lengths in (
        f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked\r\n",
        f"Content-Length: 5\r\nContent-Length: {len(hidden)}\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ):
        with socket.create_connection(
            ("127.0.0.1", int(board.gateway.url.rpartition(":")[2]))
        ) as raw:
            raw.sendall(f"{start}{lengths}\r\n0\r\n\r\n{hidden}".encode())
            assert raw.recv(1000).split(b" ")[1] == b"400"
    assert len(upstream.calls) == before


@pytest.mark.parametrize(
    ("headers", "path", "code"),
    [
        ([("x-api-key", "another")], "/admin/", "two_keys"),
        ([("Authorization", "Bearer another")], "/admin/", "two_keys"),
        ([], "/admin/?token=x", "key_in_url"),
        ([], "/admin/?API_KEY=x", "key_in_url"),
        ([("Service-Worker", "script")], "/admin/", "no_service_worker"),
    ],
)
def test_refused_before_the_upstream(
    headers: Any, path: str, code: str, board: Dashboard, upstream: Upstream
) -> None:
    before = len(upstream.calls)
    assert board.send(path, headers=headers).code == code
    assert len(upstream.calls) == before


def test_nobody_and_somebody_elses(board: Dashboard, world: World) -> None:
    assert board.send("/admin/", key=False).status == 401
    other = dashboard(world, board.gateway)
    stolen = Dashboard(board.gateway, board.grant, other.secret).send("/admin/")
    assert (stolen.status, stolen.code) == (403, "wrong_endpoint")


def test_an_endpoint_that_is_no_plain_http(world: World, board: Dashboard) -> None:
    other = dashboard(world, board.gateway, dialects=["openai"])
    assert other.send("/admin/").status == 404
    assert other.send("/v1/models").status == 200


def test_an_endpoint_that_is_both(world: World, board: Dashboard, upstream: Upstream) -> None:
    both = dashboard(world, board.gateway, ["GET /"], dialects=["openai", "http"])
    assert [m["id"] for m in both.send("/v1/models").json["data"]] == ["demo-small"]
    asked = b'{"model": "demo-large", "messages": [{"role": "user", "content": "x"}]}'
    assert both.send("/v1/chat/completions", "POST", body=asked).code == "model_not_granted"
    assert both.send("/v1/models", "POST", body=b"{}").status == 405
    assert both.send("/admin/").status == 200


def test_bodies_are_streamed_both_ways_and_bounded(board: Dashboard, upstream: Upstream) -> None:
    big = b"x" * 9_000_000
    up = board.send("/admin/echo", "PUT", body=big).json
    assert (up["size"], up["sha256"]) == (len(big), hashlib.sha256(big).hexdigest())
    down = board.send("/admin/download?size=20000000")
    assert len(down.body) == 20_000_000
    before = len(upstream.calls)
    assert board.send("/admin/echo", "PUT", body=b"x" * 10_000_001).status == 413
    assert len(upstream.calls) == before

    def chunks() -> Any:
        for _ in range(200):
            yield b"x" * 60_000

    url = f"{board.gateway.url}/e/{board.slug}/admin/echo"
    headers = {"Authorization": f"Bearer {board.secret}"}
    answer = httpx.post(url, content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert httpx.post(url, content=iter([b"a", b"b"]), headers=headers).json()["size"] == 2


def test_redirects_stay_below_the_endpoint(board: Dashboard, upstream: Upstream) -> None:
    moved = board.send("/admin/moved")
    assert (moved.status, moved.header("location")) == (302, f"/e/{board.slug}/admin/")
    assert board.send("/admin/old").header("location") == f"/e/{board.slug}/admin/"
    for away in (
        "https://elsewhere.example.com/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/x",
        "//elsewhere.example.com/x",
        "/\\elsewhere.example.com/x",
        "/%2e%2e/%2e%2e/e/other/",
        f"{upstream.url}@elsewhere.example.com/",
        "javascript:alert(1)",
        "http://[::1",
    ):
        with upstream.behaving(redirect=away):
            answer = board.send("/admin/echo")
        assert (answer.status, answer.code) == (502, "upstream_redirects_away"), away
        assert "elsewhere" not in str(answer)


@pytest.mark.parametrize(
    ("upstreams", "location", "becomes"),
    [
        (["http://u"], "/x?a=1#b", "/e/s/x?a=1#b"),
        (["http://u"], "http://u:80/x", "/e/s/x"),
        (["http://u/base"], "/base/x", "/e/s/x"),
        (["http://u/base"], "/base", "/e/s/"),
        (["http://u/base"], "/based/x", None),
        (["http://u/base"], "/x", None),
        (["http://u/base"], "../x", None),
        (["http://u", "http://v:81"], "http://v:81/y", "/e/s/y"),
        (["http://u"], "https://u/x", None),
    ],
)
def test_where_a_redirect_leads(upstreams: list[str], location: str, becomes: str | None) -> None:
    assert plain.own_location(location, f"{upstreams[0]}/here", upstreams, "s") == becomes


@pytest.mark.parametrize(
    ("cookie", "becomes"),
    [
        ("a=1", "a=1; Path=/e/s/; SameSite=Lax"),
        (
            "a=1; Path=/admin/; Domain=example.com; HttpOnly; Secure",
            "a=1; Path=/e/s/admin/; HttpOnly; Secure; SameSite=Lax",
        ),
        ("a=1; path=/../../; SameSite=None", "a=1; Path=/e/s/; SameSite=Lax"),
        ("a=1; SameSite=Strict; Max-Age=5", "a=1; Path=/e/s/; SameSite=Strict; Max-Age=5"),
        ("a=1; Path=/base/x", "a=1; Path=/e/s/x; SameSite=Lax"),
        ("keyturn-gateway=forged; Path=/", None),
        ("KEYTURN=x", None),
        ("__Host-keyturn-gateway=x; Path=/; Secure", None),
        ("__Host-a=x; Path=/; Secure", None),
        ("noequals", None),
    ],
)
def test_an_upstreams_cookies(cookie: str, becomes: str | None) -> None:
    assert plain.own_cookie(cookie, "s", "/base") == becomes


def test_an_upstreams_cookie_comes_back_to_it(board: Dashboard, upstream: Upstream) -> None:
    set_cookie = board.send("/admin/").header("set-cookie")
    assert set_cookie.startswith(f"dashboard=seen; Path=/e/{board.slug}/admin/; ")
    assert "HttpOnly" in set_cookie
    board.send("/admin/echo", headers={"Cookie": "dashboard=seen"})
    assert upstream.calls[-1]["headers"]["Cookie"] == "dashboard=seen"


def test_a_key_in_a_header_of_its_own_and_none(
    world: World, gateway: RunningGateway, board: Dashboard, upstream: Upstream
) -> None:
    own = dashboard(world, gateway, key_header="X-Admin-Key")
    own.send("/admin/echo", headers={"X-Admin-Key": "theirs"})
    seen = {name.lower(): value for name, value in upstream.calls[-1]["headers"].items()}
    assert seen["x-admin-key"] == UPSTREAM_KEY
    assert "authorization" not in seen
    none = dashboard(world, gateway, key_header="none", with_key=False)
    assert none.send("/admin/").status == 401  # the upstream's own
    assert "Authorization" not in upstream.refused[-1]["headers"]
    with upstream.behaving(status=401, times=1):
        assert board.send("/admin/echo").code == "upstream_refused"


def test_rate_and_concurrency(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway, limits={"requests_per_minute": 3, "cost_budget": "1"})
    answers = [board.send("/admin/echo").status for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_an_upstream_that_is_down(
    world: World, gateway: RunningGateway, upstream: Upstream
) -> None:
    board = dashboard(
        world, gateway, upstream_url="http://127.0.0.1:1", further_upstreams=[upstream.url]
    )
    assert board.send("/admin/echo", "PUT", body=b"abc").json["size"] == 3
    down = dashboard(world, gateway, upstream_url="http://127.0.0.1:1")
    assert down.send("/admin/").code == "upstream_unreachable"


def test_the_end_of_the_grant_cuts_an_answer(
    world: World, gateway: RunningGateway, django_db_blocker: Any
) -> None:
    board = dashboard(world, gateway)
    url = f"{board.gateway.url}/e/{board.slug}/admin/download?size=400000000"
    headers = {"Authorization": f"Bearer {board.secret}"}

    def give_back() -> None:
        with django_db_blocker.unblock():
            end_grant(grant_id=board.grant.pk, by=User.objects.get(pk=board.grant.holder_id))
            connection.close()

    with httpx.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_raw()
        next(chunks)
        ending = threading.Thread(target=give_back)
        ending.start()
        ending.join()
        time.sleep(1)
        with pytest.raises(httpx.RemoteProtocolError):
            deque(chunks, maxlen=0)
    assert board.send("/admin/").code == "grant_ended"
