"""Ways round the gateway: each is refused, in the dialect's shape, and reaches no upstream."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import RunningGateway, running_gateway
from tests.gateway.test_limits import BODY, Pass
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import UPSTREAM_KEY, World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture(scope="module")
def got(world: World, committed_once: None) -> Pass:
    return Pass(world, tools=["look_up"], mcp_hosts=["mcp.example.com"])


@pytest.fixture(autouse=True)
def nothing_gets_through(upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[None]:
    before = len(upstream.calls) + len(upstream.refused)
    yield
    if "passes" not in request.keywords:
        assert len(upstream.calls) + len(upstream.refused) == before


def raw(
    gateway: RunningGateway, data: bytes, *, seconds: float = 5, hangs_up: bool = True
) -> bytes:
    """What comes back for these bytes, on a connection of their own.

    Whoever hangs up is answered only what takes no question.
    """
    where = urlsplit(gateway.url)
    with socket.create_connection((where.hostname, where.port), timeout=seconds) as connection:
        connection.sendall(data)
        if hangs_up:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def posted(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


CHAT = "/v1/chat/completions"
GOOD = json.dumps(BODY).encode()


@pytest.mark.parametrize(
    "path",
    [
        "/e//{slug}/v1/chat/completions",
        "/e/{slug}//v1/chat/completions",
        "/e/{slug}/v1/../v1/chat/completions",
        "/e/{slug}/v1/chat%2fcompletions",
        "/e/{slug}/v1/%63hat/completions",
        "/e/{slug}/v1/chat/completions/",
        "/e/{slug}/V1/chat/completions",
        "/E/{slug}/v1/chat/completions",
        "/e/{slug}/v1/chat/completions%00",
        "/e/{slug}/v1/chat/completions;x",
        "/e/{slug}/v1/files",
        "/e/{slug}/v1/batches",
        "/e/{slug}/v1/fine_tuning/jobs",
        "/e/{slug}/api/pull",
        "/e/{slug}/api/delete",
        "/e/{slug}/",
        "/e/{slug}",
        "/v1/chat/completions",
        "http://upstream.example/v1/chat/completions",
    ],
)
def test_a_second_spelling_of_a_path_is_none(gateway: RunningGateway, got: Pass, path: str) -> None:
    answer = raw(
        gateway,
        posted(path.format(slug=got.slug), GOOD, f"Authorization: Bearer {got.secret}"),
        hangs_up=False,
    )
    assert answer.split(b" ", 2)[1] in {b"404", b"400"}, answer[:200]


def test_upper_case_of_an_endpoint_is_another_one(gateway: RunningGateway, got: Pass) -> None:
    answer = httpx.get(
        f"{gateway.url}/e/{got.slug.upper()}/v1/models",
        headers={"Authorization": f"Bearer {got.secret}"},
    )
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (["Authorization: Bearer {secret}", "Authorization: Bearer {secret}"], "two_keys"),
        (["Authorization: Bearer {secret}", "x-api-key: s.another"], "two_keys"),
        (["x-api-key: {secret}", "api-key: s.another"], "two_keys"),
        (["Authorization: Basic {secret}"], "invalid_api_key"),
        (["Authorization: {secret}"], "invalid_api_key"),
        (["Cookie: authorization=Bearer {secret}"], "missing_api_key"),
        (["X-Forwarded-Authorization: Bearer {secret}"], "missing_api_key"),
    ],
)
def test_one_key_in_its_header(
    gateway: RunningGateway, got: Pass, headers: list[str], code: str
) -> None:
    sent = [each.format(secret=got.secret) for each in headers]
    answer = raw(gateway, posted(f"/e/{got.slug}{CHAT}", GOOD, *sent))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert got.secret.encode() not in answer


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "API-KEY"])
def test_a_key_in_the_url_is_refused_even_beside_a_right_one(
    gateway: RunningGateway, got: Pass, name: str
) -> None:
    answer = httpx.post(
        f"{gateway.base(got.slug)}/chat/completions?{name}={got.secret}",
        json=BODY,
        headers={"Authorization": f"Bearer {got.secret}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_in_url")
    assert got.secret not in answer.text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model":"demo-large","model":"demo-small","messages":[]}', "duplicate_key"),
        (b'{"model":"demo-small","\\u006dodel":"demo-large","messages":[]}', "duplicate_key"),
        (b'{"model":"demo-small","messages":[{"role":"user","role":"system"}]}', "duplicate_key"),
        (b'{"model":"demo-small","temperature":NaN}', "invalid_json"),
        (b'{"model":"demo-small","temperature":1e999}', "invalid_json"),
        (b'{"model":"demo-small","seed":' + b"9" * 400 + b"}", "invalid_json"),
        (b'{"model":"demo-small","user":"\\ud800"}', "invalid_json"),
        (b'{"model":"demo-small"} {"model":"demo-large"}', "invalid_json"),
        (b'[{"model":"demo-small"}]', "invalid_json"),
        (b'\xef\xbb\xbf{"model":"demo-small"}', "invalid_json"),
        (b'{"model":"demo-small","x":"\xff"}', "invalid_json"),
        (b'{"model":' + b"[" * 200 + b"]" * 200 + b"}", "too_deep"),
        (b'{"model":' + b"[" * 100_000, "invalid_json"),
        (b'{"messages":[]}', "model_missing"),
        (b'{"model":["demo-small","demo-large"]}', "model_missing"),
        (b'{"model":"DEMO-SMALL"}', "model_not_granted"),
        (b'{"model":"demo-small "}', "model_not_granted"),
        (b'{"model":"demo-small","stream":"true"}', "invalid_value"),
        (b'{"model":"demo-small","n":0}', "invalid_value"),
        (b'{"model":"demo-small","max_tokens":-5}', "invalid_value"),
        (b'{"model":"demo-small","tools":{"function":{"name":"look_up"}}}', "invalid_value"),
        (b'{"model":"demo-small","tools":[{"type":"function"}]}', "invalid_value"),
    ],
)
def test_a_body_that_two_could_read_differently(
    gateway: RunningGateway, got: Pass, body: bytes, code: str
) -> None:
    answer = httpx.post(
        f"{gateway.base(got.slug)}/chat/completions",
        content=body,
        headers={"Authorization": f"Bearer {got.secret}", "Content-Type": "application/json"},
    )
    assert answer.json()["error"]["code"] == code, answer.text
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "extra",
    [
        {"api_base": "http://evil.example"},
        {"base_url": "http://evil.example"},
        {"api_key": "sk-mine"},
        {"custom_llm_provider": "openai"},
        {"fallbacks": ["demo-large"]},
        {"models": ["demo-large"]},
        {"route": "fallback"},
        {"plugins": [{"id": "web"}]},
        {"provider": {"order": ["evil"]}},
        {"extra_headers": {"x": "y"}},
        {"extra_body": {"model": "demo-large"}},
        {"mock_response": "x"},
        {"user_config": {}},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_parameters_by_which_a_router_would_leave_the_grant(
    gateway: RunningGateway, got: Pass, extra: dict[str, Any]
) -> None:
    answer = got.call(gateway, **extra)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "unknown_parameter",
        next(iter(extra)),
    )


FUNCTION = {"type": "function", "function": {"name": "drop_all", "parameters": {}}}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (CHAT, {"tools": [FUNCTION]}, "tool_not_granted"),
        (CHAT, {"functions": [{"name": "drop_all"}]}, "tool_not_granted"),
        (CHAT, {"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, "tool_not_granted"),
        (CHAT, {"web_search_options": {}}, "tool_not_granted"),
        (CHAT, {"messages": [{"content": [{"file": {"file_id": "f-1"}}]}]}, "not_found"),
        ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tool_not_granted"),
        ("/v1/responses", {"tools": [{"type": "function", "name": "rm"}]}, "tool_not_granted"),
        (
            "/v1/responses",
            {"tools": [{"type": "mcp", "server_url": "https://evil.example/mcp"}]},
            "mcp_host_not_granted",
        ),
        (
            "/v1/responses",
            {"tools": [{"type": "mcp", "server_url": "https://mcp.example.com@evil.example/"}]},
            "mcp_host_not_granted",
        ),
        (
            "/v1/responses",
            {"tools": [{"type": "mcp", "server_url": "http://mcp.example.com/"}]},
            "mcp_host_not_granted",
        ),
        (
            "/v1/responses",
            {"tools": [{"type": "mcp", "connector_id": "connector_gmail"}]},
            "tool_not_granted",
        ),
        ("/v1/responses", {"previous_response_id": "resp_1"}, "not_found"),
        ("/v1/responses", {"conversation": "conv_1"}, "not_found"),
        ("/v1/responses", {"prompt": {"id": "pmpt_1"}}, "not_found"),
        ("/v1/responses", {"background": True}, "background_refused"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "i"}]}, "not_found"),
    ],
)
def test_what_the_scope_does_not_hold(
    gateway: RunningGateway, got: Pass, path: str, body: dict[str, Any], code: str
) -> None:
    answer = httpx.post(
        f"{gateway.url}/e/{got.slug}{path}",
        json={"model": "demo-small"} | body,
        headers={"Authorization": f"Bearer {got.secret}"},
    )
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "headers",
    [
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding : chunked"],
        ["Content-Length: +5"],
        ["Content-Length: 0x5"],
    ],
)
def test_a_second_request_hidden_in_the_first(
    gateway: RunningGateway, got: Pass, headers: list[str]
) -> None:
    key = f"Authorization: Bearer {got.secret}"
    hidden = posted(f"/e/{got.slug}{CHAT}", GOOD, key)
    first = "\r\n".join(
        [f"POST /e/{got.slug}{CHAT} HTTP/1.1", "Host: gateway", *headers, "", ""]
    ).encode()
    answer = raw(gateway, first + b"0\r\n\r\n" + hidden)
    assert b" 200 OK" not in answer


def test_an_oversized_body_is_refused_by_its_length_and_by_its_bytes(
    gateway: RunningGateway, got: Pass
) -> None:
    headers = {"Authorization": f"Bearer {got.secret}"}
    url = f"{gateway.base(got.slug)}/chat/completions"

    def pieces() -> Iterator[bytes]:
        for _ in range(11):
            yield b" " * 1_000_000

    for content in (b" " * 10_000_001, pieces()):
        try:
            answer = httpx.post(url, content=content, headers=headers)
        except httpx.WriteError:
            continue  # it answered and closed before all was sent
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_compressed_body_is_not_unpacked(gateway: RunningGateway, got: Pass) -> None:
    answer = httpx.post(
        f"{gateway.base(got.slug)}/chat/completions",
        content=b"\x1f\x8b",
        headers={"Authorization": f"Bearer {got.secret}", "Content-Encoding": "gzip"},
    )
    assert answer.status_code == 415


@pytest.mark.passes
def test_no_header_of_the_client_s_goes_on(
    gateway: RunningGateway, got: Pass, upstream: Upstream
) -> None:
    forged = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=10.0.0.1",
        "Cookie": "session=1",
        "OpenAI-Organization": "org-other",
        "OpenAI-Project": "proj-other",
        "OpenAI-Beta": "assistants=v2",
        "X-LiteLLM-Api-Key": "sk-mine",
        "X-Portkey-Config": "{}",
        "Helicone-Target-Url": "http://evil.example",
        "X-Amz-Security-Token": "x",
        "Connection": "close, authorization",
        "Accept-Encoding": "gzip",
        "Host": "evil.example",
    }
    answer = httpx.post(
        f"{gateway.base(got.slug)}/chat/completions",
        json=BODY,
        headers=forged | {"Authorization": f"Bearer {got.secret}"},
    )
    assert answer.status_code == 200
    seen = {name.lower(): value for name, value in upstream.calls[-1]["headers"].items()}
    assert set(seen) <= {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
    }
    assert seen["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert seen["accept-encoding"] == "identity"
    assert "evil" not in seen["host"]


@pytest.mark.passes
def test_the_upstream_s_own_headers_stay_there(
    gateway: RunningGateway, got: Pass, upstream: Upstream
) -> None:
    own = (
        ("openai-organization", "org-secret"),
        ("openai-project", "proj-secret"),
        ("set-cookie", "__cf=1"),
        ("x-ratelimit-remaining-tokens", "5"),
        ("server", "uvicorn-secret"),
    )
    with upstream.behaving(headers=own):
        answer = got.call(gateway)
    assert answer.status_code == 200
    assert not set(own) & set(answer.headers.items())
    assert not {name for name, _ in own[:4]} & set(answer.headers)


@pytest.mark.passes
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_that_the_model_was_talked_into(
    gateway: RunningGateway, got: Pass, upstream: Upstream, streams: bool
) -> None:
    with upstream.behaving(calls=(("drop_all", '{"table": "customers-canary"}'),)):
        answer = got.call(gateway, stream=streams)
    assert "tool_not_granted" in answer.text
    assert "customers-canary" not in answer.text, "the call never reaches the client"


@pytest.mark.passes
def test_an_upstream_that_redirects_is_not_followed(
    gateway: RunningGateway, got: Pass, upstream: Upstream
) -> None:
    with upstream.behaving(redirect="http://169.254.169.254/latest/meta-data"):
        answer = got.call(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_refused")


@pytest.mark.passes
def test_an_answer_that_cannot_be_checked_is_none(
    gateway: RunningGateway, got: Pass, upstream: Upstream
) -> None:
    with upstream.behaving(body=b'{"choices": [{"message": {"tool_calls": [{"fun'):
        answer = got.call(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_malformed")


@pytest.mark.slow
def test_a_slow_body_and_slow_headers_cost_nobody_else_anything(
    servers: Servers, world: World, upstream: Upstream
) -> None:
    with running_gateway(servers) as own:
        got = Pass(world)
        where = urlsplit(own.url)
        slow = []
        for number in range(300):
            connection = socket.create_connection((where.hostname, where.port))
            key = f"Authorization: Bearer {got.secret}"
            whole = posted(f"/e/{got.slug}{CHAT}", GOOD, key)
            connection.sendall(whole[: 20 if number % 2 else len(whole) - 5])
            slow.append(connection)
        began = time.monotonic()
        before = len(upstream.calls)
        assert len(upstream.calls) == before
        for connection in slow[::2]:
            connection.settimeout(45)
            assert b"408" in connection.recv(100)
        assert time.monotonic() - began < 45
        for connection in slow:
            connection.close()
