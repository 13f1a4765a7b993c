"""Anthropic's own SDK, against the upstream and through the gateway, with the same result."""

import asyncio
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_async_tool, beta_tool

from tests.gateway.clients.conftest import Route
from tests.upstream import Upstream

SAY: Any = [{"role": "user", "content": "hello there"}]
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
WEATHER: Any = {
    "name": "weather",
    "description": "What the weather is like.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
CLOCK: Any = {
    "name": "clock",
    "description": "What time it is.",
    "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}},
}


class Weather(pydantic.BaseModel):
    city: str
    days: int


def text(message: Any) -> str:
    [block] = message.content
    assert block.type == "text"
    return str(block.text)


def test_message(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(model="demo-small", max_tokens=99, messages=SAY, system="Be.")
    assert text(message).endswith("You said: hello there")
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (4, 11)
    short = claude.messages.create(model="demo-small", max_tokens=1, messages=SAY)
    assert short.stop_reason == "max_tokens"


def test_image(claude: anthropic.Anthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "what is this"}]
    message = claude.messages.create(
        model="demo-small", max_tokens=99, messages=[{"role": "user", "content": content}]
    )
    assert "what is this" in text(message)
    assert message.usage.input_tokens > 85


def test_stream(claude: anthropic.Anthropic) -> None:
    stream = claude.messages.create(model="demo-small", max_tokens=99, messages=SAY, stream=True)
    events = list(stream)
    assert [e.type for e in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 11,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_stream_helper(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="demo-small", max_tokens=99, messages=SAY) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == text(final)
    assert len(pieces) == 11
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 11)


def test_tools_and_their_results(claude: anthropic.Anthropic) -> None:
    asked: list[Any] = [{"role": "user", "content": "weather and clock please"}]
    message = claude.messages.create(
        model="demo-small", max_tokens=99, messages=asked, tools=[WEATHER, CLOCK]
    )
    assert message.stop_reason == "tool_use"
    calls: list[Any] = list(message.content)
    assert [call.name for call in calls] == ["weather", "clock"]
    assert calls[0].input == {"city": "weather and clock please", "days": 7}
    results: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls
    ]
    after = claude.messages.create(
        model="demo-small",
        max_tokens=99,
        messages=[
            *asked,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ],
        tools=[WEATHER, CLOCK],
    )
    assert after.stop_reason == "end_turn"
    one = claude.messages.create(
        model="demo-small",
        max_tokens=99,
        messages=asked,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    assert len(one.content) == 1


def test_streamed_tools(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="demo-small",
        max_tokens=99,
        messages=[{"role": "user", "content": "weather and clock please"}],
        tools=[WEATHER, CLOCK],
    ) as stream:
        pieces = [event for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(pieces) > 6
    calls: list[Any] = list(final.content)
    assert calls[0].input == {"city": "weather and clock please", "days": 7}
    assert calls[1].input == {"zone": "weather and clock please"}


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_runner(claude: anthropic.Anthropic, streamed: bool) -> None:
    seen: list[str] = []

    @beta_tool
    def weather(city: str) -> str:
        """What the weather is like."""
        seen.append(city)
        return "sunny"

    if streamed:
        turns = claude.beta.messages.tool_runner(
            model="demo-small", max_tokens=99, messages=SAY, tools=[weather], stream=True
        )
        final: Any = [turn.get_final_message() for turn in turns][-1]
    else:
        final = claude.beta.messages.tool_runner(
            model="demo-small", max_tokens=99, messages=SAY, tools=[weather]
        ).until_done()
    assert seen == ["hello there"]
    assert final.stop_reason == "end_turn"


def test_thread(claude: anthropic.Anthropic, route: Route, reached: Any) -> None:
    """The upstream may keep the conversation; the gateway lets it not, and the SDK says it anew."""
    thread: Any = claude.beta.messages.thread(model="demo-small", max_tokens=99, system="Be.")
    for said in ("one", "two", "three"):
        assert text(thread.send({"role": "user", "content": said})).endswith(said)
    assert len(thread.messages) == 6
    if route.name == "gateway":
        assert not any("thread" in call["body"] for call in reached())
        assert [len(call["body"]["messages"]) for call in reached()] == [1, 3, 5]


def test_parse(claude: anthropic.Anthropic) -> None:
    message = claude.messages.parse(
        model="demo-small", max_tokens=99, messages=SAY, output_format=Weather
    )
    assert message.parsed_output == Weather(city="hello there", days=7)


def test_count_tokens(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model="demo-small", messages=SAY, tools=[WEATHER])
    assert counted.input_tokens > 3


def test_models(claude: anthropic.Anthropic) -> None:
    assert {m.id for m in claude.models.list()} == {
        "demo-small",
        "demo-large",
        "demo-slow",
        "demo-embed",
    }
    assert claude.models.retrieve("demo-small").id == "demo-small"
    for name in ("demo-none", "a/b", "../models"):
        with pytest.raises(anthropic.NotFoundError):
            claude.models.retrieve(name)


def test_raw_response(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(model="demo-small", max_tokens=99, messages=SAY)
    assert raw.headers["content-type"].startswith("application/json")
    assert "hello there" in text(raw.parse())


def test_async(route: Route) -> None:
    seen: list[str] = []

    @beta_async_tool
    async def weather(city: str) -> str:
        """What the weather is like."""
        seen.append(city)
        return "sunny"

    async def all_of_it() -> None:
        async with anthropic.AsyncAnthropic(**route.for_anthropic) as client:
            several = await asyncio.gather(
                *(
                    client.messages.create(
                        model="demo-small",
                        max_tokens=99,
                        messages=[{"role": "user", "content": f"hello {n}"}],
                    )
                    for n in range(20)
                )
            )
            for n, message in enumerate(several):
                assert text(message).endswith(f"hello {n}")
            async with client.messages.stream(
                model="demo-small", max_tokens=99, messages=SAY
            ) as stream:
                assert (await stream.get_final_text()).endswith("hello there")
            runner = client.beta.messages.tool_runner(
                model="demo-small", max_tokens=99, messages=SAY, tools=[weather]
            )
            assert (await runner.until_done()).stop_reason == "end_turn"
            counted = await client.messages.count_tokens(model="demo-small", messages=SAY)
            assert counted.input_tokens == 3
            assert {m.id async for m in client.models.list()} > {"demo-small"}

    asyncio.run(all_of_it())
    assert seen == ["hello there"]


def test_wrong_key(claude: anthropic.Anthropic) -> None:
    stranger = claude.with_options(api_key="sk-" + "x" * 40)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="demo-small", max_tokens=99, messages=SAY)
    with (
        pytest.raises(anthropic.AuthenticationError),
        stranger.messages.stream(model="demo-small", max_tokens=99, messages=SAY),
    ):
        pass
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.count_tokens(model="demo-small", messages=SAY)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.models.list()


def test_unknown_model(route: Route, claude: anthropic.Anthropic) -> None:
    kind = anthropic.NotFoundError if route.name == "direct" else anthropic.PermissionDeniedError
    with pytest.raises(kind, match="demo-none"):
        claude.messages.create(model="demo-none", max_tokens=99, messages=SAY)


def test_bad_request(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="messages") as caught:
        claude.messages.create(model="demo-small", max_tokens=99, messages=[])
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
def test_statuses(
    status: int, kind: type[Exception], claude: anthropic.Anthropic, upstream: Upstream
) -> None:
    with upstream.behaving(status=status):
        with pytest.raises(kind, match=f"says {status}"):
            claude.messages.create(model="demo-small", max_tokens=99, messages=SAY)
        with pytest.raises(kind, match=f"says {status}"):
            claude.messages.create(model="demo-small", max_tokens=99, messages=SAY, stream=True)


def test_rate_limit_is_retried(
    claude: anthropic.Anthropic, upstream: Upstream, reached: Any
) -> None:
    with upstream.behaving(status=429, retry_after="0", times=1):
        message = claude.with_options(max_retries=2).messages.create(
            model="demo-small", max_tokens=99, messages=SAY
        )
    assert "hello there" in text(message)
    assert [call["status"] for call in reached()] == [429, 200]


def test_stream_that_breaks_off(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    """Where it breaks, this SDK lets its HTTP library's error through."""
    with upstream.behaving(dies_after=3):
        stream = claude.messages.create(
            model="demo-small", max_tokens=99, messages=SAY, stream=True
        )
        with pytest.raises(Exception, match=r"(?i)incomplete|broke|peer|reset"):
            list(stream)


def test_hanging_up_in_a_stream(
    claude: anthropic.Anthropic, upstream: Upstream, reached: Any
) -> None:
    with (
        upstream.behaving(pause=0.1),
        claude.messages.stream(model="demo-small", max_tokens=99, messages=SAY) as stream,
    ):
        next(iter(stream))
    upstream.wait(lambda it: it.open == 0, 3)
    assert [call["hung_up"] for call in reached()] == [True]


def test_betas(route: Route, claude: anthropic.Anthropic, reached: Any) -> None:
    """What opens more than the grant, or keeps things at the upstream, stays behind."""
    asked = ["mcp-client-2025-11-20", "files-api-2025-04-14", "context-1m-2025-08-07"]
    claude.beta.messages.create(model="demo-small", max_tokens=9, messages=SAY, betas=asked)
    [call] = reached()
    sent = call["headers"]["anthropic-beta"].split(",")
    assert sent == (asked if route.name == "direct" else asked[:1])
