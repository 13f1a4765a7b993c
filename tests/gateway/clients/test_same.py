"""Whole answers and whole streams, field by field: the gateway adds, drops and reorders nothing."""

from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.gateway.clients.conftest import Route
from tests.gateway.clients.test_anthropic import CLOCK as ANTHROPIC_CLOCK
from tests.gateway.clients.test_anthropic import WEATHER as ANTHROPIC_WEATHER
from tests.gateway.clients.test_ollama import weather
from tests.gateway.clients.test_openai import CLOCK, PIXEL, WEATHER
from tests.upstream import Upstream

BOTH: Any = [{"role": "user", "content": "Weather and Clock and weather and clock please"}]
SAY: Any = [{"role": "user", "content": "hello there"}]
SEE: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ],
    }
]
FUNCTIONS: Any = [{"type": "function", **tool["function"]} for tool in (WEATHER, CLOCK)]

# Drawn anew by the upstream for each call, or by the client.
OWN = {"id", "call_id", "item_id", "tool_call_id", "created", "created_at", "_request_id"}
# The gateway has nothing kept at the upstream, where nobody but its own key could delete it.
SAID_OTHERWISE = {"store"}


def scrubbed(value: Any) -> Any:
    """Without what differs from call to call."""
    if isinstance(value, dict):
        dropped = OWN | SAID_OTHERWISE
        return {key: scrubbed(item) for key, item in value.items() if key not in dropped}
    return [scrubbed(item) for item in value] if isinstance(value, list) else value


def chat(**asked: Any) -> Callable[[Route], Any]:
    def call(route: Route) -> Any:
        create: Any = route.openai.chat.completions.create
        return _dumped(create(model="demo-small", **asked), asked)

    return call


def completion(**asked: Any) -> Callable[[Route], Any]:
    def call(route: Route) -> Any:
        return _dumped(route.openai.completions.create(model="demo-small", **asked), asked)

    return call


def response(**asked: Any) -> Callable[[Route], Any]:
    def call(route: Route) -> Any:
        return _dumped(route.openai.responses.create(model="demo-small", **asked), asked)

    return call


def message(**asked: Any) -> Callable[[Route], Any]:
    def call(route: Route) -> Any:
        create: Any = route.anthropic.messages.create
        return _dumped(create(model="demo-small", **{"max_tokens": 99, **asked}), asked)

    return call


def llama(**asked: Any) -> Callable[[Route], Any]:
    def call(route: Route) -> Any:
        ask: Any = route.ollama.generate if "prompt" in asked else route.ollama.chat
        return _dumped(ask(model="demo-small", **asked), asked)

    return call


def _dumped(answer: Any, asked: dict[str, Any]) -> Any:
    if asked.get("stream"):
        return [event.model_dump(mode="json") for event in answer]
    return answer.model_dump(mode="json")


def raw(path: str, headers: dict[str, str] | None = None, **body: Any) -> Callable[[Route], Any]:
    """Status, kind and bytes, as no SDK shows them."""

    def call(route: Route) -> Any:
        answer = httpx.post(
            f"{route.root}{path}",
            json={"model": "demo-small", "messages": SAY} | body,
            headers={"Authorization": f"Bearer {route.key}"} | (headers or {}),
        )
        kind = answer.headers["content-type"].partition(";")[0]
        lines = [line for line in answer.text.splitlines() if '"id"' not in line]
        return [answer.status_code, kind, lines]

    return call


CALLS: dict[str, Callable[[Route], Any]] = {
    "chat": chat(messages=SAY),
    "chat with limits": chat(messages=SAY, n=2, max_tokens=3, temperature=0, seed=1, stop=["x"]),
    "chat with an image": chat(messages=SEE),
    "chat with tools": chat(messages=BOTH, tools=[WEATHER, CLOCK]),
    "chat with one tool": chat(messages=BOTH, tools=[WEATHER, CLOCK], parallel_tool_calls=False),
    "chat with a chosen tool": chat(
        messages=SAY,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "Clock"}},
    ),
    "chat streamed": chat(messages=SAY, stream=True),
    "chat streamed with usage": chat(
        messages=SAY, stream=True, stream_options={"include_usage": True}
    ),
    "chat streamed twice": chat(messages=SAY, stream=True, n=2),
    "chat streamed with tools": chat(messages=BOTH, tools=[WEATHER, CLOCK], stream=True),
    "chat cut short in a tool call": chat(
        messages=BOTH, tools=[WEATHER, CLOCK], stream=True, max_tokens=3
    ),
    "completion": completion(prompt="hello there", max_tokens=20),
    "completions streamed": completion(prompt=["one", "two"], max_tokens=20, stream=True),
    "response": response(input="hello there", instructions="Be.", metadata={"a": "b"}),
    "response with tools": response(input=BOTH, tools=FUNCTIONS),
    "response streamed": response(input="hello there", stream=True),
    "response streamed with tools": response(input=BOTH, tools=FUNCTIONS, stream=True),
    "response cut short": response(input="hello there", stream=True, max_output_tokens=2),
    "message": message(messages=SAY, system="Be."),
    "message with tools": message(messages=BOTH, tools=[ANTHROPIC_WEATHER, ANTHROPIC_CLOCK]),
    "message streamed": message(messages=SAY, stream=True),
    "message streamed with tools": message(
        messages=BOTH, tools=[ANTHROPIC_WEATHER, ANTHROPIC_CLOCK], stream=True
    ),
    "message cut short": message(messages=SAY, stream=True, max_tokens=2),
    "ollama": llama(messages=SAY),
    "ollama with a tool": llama(messages=SAY, tools=[weather]),
    "ollama streamed": llama(messages=SAY, stream=True),
    "ollama streamed with a tool": llama(messages=SAY, tools=[weather], stream=True),
    "ollama generated": llama(prompt="hello there", stream=True),
    "ollama by default": raw("/api/chat"),
    "chat bytes": raw("/v1/chat/completions", stream=True),
    "message bytes": raw(
        "/v1/messages", {"anthropic-version": "2023-06-01"}, stream=True, max_tokens=9
    ),
}


# What the gateway asks for besides: a stream's usage, and that nothing is kept.
ADDED = {"stream_options", "store"}


def without_added(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in ADDED}


@pytest.mark.parametrize("name", CALLS)
def test_same_answer(name: str, direct: Route, through: Route, reached: Any) -> None:
    expected = CALLS[name](direct)
    assert scrubbed(CALLS[name](through)) == scrubbed(expected)
    one, other = reached()
    assert without_added(other["body"]) == without_added(one["body"])
    assert other["path"] == one["path"]


@pytest.mark.parametrize("usage", ["missing", "partial", "zero"])
@pytest.mark.parametrize(
    "name", ["chat", "chat streamed", "response streamed", "message", "ollama"]
)
def test_same_answer_where_usage_is_not_whole(
    usage: str, name: str, direct: Route, through: Route, upstream: Upstream
) -> None:
    with upstream.behaving(usage=usage):
        expected = CALLS[name](direct)
        assert scrubbed(CALLS[name](through)) == scrubbed(expected)


def _raised(call: Callable[[Route], Any], route: Route) -> tuple[type[Exception], Any, Any]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- which one is what is compared
        call(route)
    error: Any = caught.value
    return type(error), getattr(error, "status_code", None), getattr(error, "body", None)


@pytest.mark.parametrize("status", [400, 409, 422, 429, 500, 529])
@pytest.mark.parametrize(
    "name", ["chat", "chat streamed", "response", "completion", "message", "message streamed",
             "ollama", "ollama streamed"]
)  # fmt: skip
def test_same_exception(
    status: int, name: str, direct: Route, through: Route, upstream: Upstream
) -> None:
    with upstream.behaving(status=status):
        assert _raised(CALLS[name], through) == _raised(CALLS[name], direct)


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [("chat", openai.BadRequestError), ("message", anthropic.BadRequestError)],
)
def test_same_bad_request(
    dialect: str, kind: type[Exception], direct: Route, through: Route
) -> None:
    call = {"chat": chat(messages=[]), "message": message(messages=[])}[dialect]
    expected = _raised(call, direct)
    assert expected[0] is kind
    assert _raised(call, through)[:2] == expected[:2]
