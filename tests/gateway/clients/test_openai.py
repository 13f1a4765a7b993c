"""OpenAI's own SDK, against the upstream and through the gateway, with one and the same result."""

import asyncio
import json
from typing import Any

import openai
import pydantic
import pytest
from openai import pydantic_function_tool

from tests.gateway.clients.conftest import Route
from tests.upstream import Upstream

SAY: Any = [{"role": "user", "content": "hello there"}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)


class Weather(pydantic.BaseModel):
    """Say what the weather is like."""

    city: str
    days: int


class Clock(pydantic.BaseModel):
    """Say what time it is."""

    zone: str


WEATHER: Any = pydantic_function_tool(Weather)
CLOCK: Any = pydantic_function_tool(Clock)


def test_completion(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo-small", messages=SAY)
    assert (answer.choices[0].message.content or "").endswith("You said: hello there")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 11)


def test_several_choices_and_a_limit(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo-small", messages=SAY, n=3, max_tokens=2)
    assert [c.finish_reason for c in answer.choices] == ["length"] * 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    newer = client.chat.completions.create(
        model="demo-small", messages=SAY, max_completion_tokens=1
    )
    assert newer.choices[0].message.content == "[Keyturn "


def test_image(client: openai.OpenAI) -> None:
    content: Any = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    answer = client.chat.completions.create(
        model="demo-small", messages=[{"role": "user", "content": content}]
    )
    assert "what is this" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 85


def test_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="demo-small", messages=SAY, stream=True) as stream:
        chunks = list(stream)
    assert all(c.choices for c in chunks), "usage that nobody asked for"
    assert all(c.usage is None for c in chunks)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text.endswith("You said: hello there")
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo-small", messages=SAY, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [c.usage is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 11


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="demo-small", messages=SAY) as stream:
        deltas = [e.delta for e in stream if e.type == "content.delta" and e.delta]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content
    assert len(deltas) == 11


def test_parallel_tool_calls_and_their_results(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "Weather and Clock please"}]
    answer = client.chat.completions.create(
        model="demo-small", messages=asked, tools=[WEATHER, CLOCK]
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in message.tool_calls or ()] == ["Weather", "Clock"]  # type: ignore[union-attr]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        for call in message.tool_calls or ()
    ]
    after = client.chat.completions.create(
        model="demo-small",
        messages=[*asked, message, *results],  # type: ignore[list-item]
        tools=[WEATHER, CLOCK],
    )
    assert (after.choices[0].message.content or "").endswith("sunny")


def test_streamed_tool_calls(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo-small",
        messages=[{"role": "user", "content": "Weather and Clock please"}],
        tools=[WEATHER, CLOCK],
    ) as stream:
        pieces = [e for e in stream if e.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    assert len(pieces) > 6
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [
        Weather(city="Weather and Clock please", days=7),
        Clock(zone="Weather and Clock please"),
    ]


def test_parse(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo-small", messages=SAY, response_format=Weather
    )
    assert answer.choices[0].message.parsed == Weather(city="hello there", days=7)
    called = client.chat.completions.parse(model="demo-small", messages=SAY, tools=[WEATHER])
    [call] = called.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == Weather(city="hello there", days=7)


def test_json(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo-small", messages=SAY, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content or "") == {"said": "hello there"}


@pytest.mark.parametrize("streamed", [False, True])
def test_legacy_functions(client: openai.OpenAI, streamed: bool) -> None:
    asked: Any = {
        "model": "demo-small",
        "messages": SAY,
        "functions": [WEATHER["function"] | {"strict": None}],
    }
    asked["functions"][0].pop("strict")
    if streamed:
        deltas = [
            chunk.choices[0].delta.function_call
            for chunk in client.chat.completions.create(stream=True, **asked)
            if chunk.choices[0].delta.function_call
        ]
        name = deltas[0].name
        arguments = "".join(delta.arguments or "" for delta in deltas)
    else:
        message = client.chat.completions.create(**asked).choices[0].message
        assert message.function_call is not None
        name, arguments = message.function_call.name, message.function_call.arguments
    assert name == "Weather"
    assert json.loads(arguments) == {"city": "hello there", "days": 7}


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="demo-small", prompt=["one", "two"], max_tokens=20, n=1
    )
    assert [c.text.rpartition(" ")[2] for c in answer.choices] == ["one", "two"]
    chunks = list(
        client.completions.create(model="demo-small", prompt="one", max_tokens=20, stream=True)
    )
    assert all(c.choices for c in chunks)
    assert "".join(c.choices[0].text for c in chunks).endswith("You said: one")


def test_embeddings(client: openai.OpenAI) -> None:
    """The SDK asks for base64 unless told otherwise."""
    packed = client.embeddings.create(model="demo-embed", input=["a", "b"])
    plain = client.embeddings.create(model="demo-embed", input=["a", "b"], encoding_format="float")
    assert len(packed.data) == 2
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
    assert packed.usage.total_tokens == 2


def test_models(client: openai.OpenAI) -> None:
    assert {m.id for m in client.models.list()} == {
        "demo-small",
        "demo-large",
        "demo-slow",
        "demo-embed",
    }
    assert client.models.retrieve("demo-small").id == "demo-small"
    for name in ("demo-none", "a/b", "../models"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


def test_raw_and_streaming_response(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="demo-small", messages=SAY)
    assert raw.headers["content-type"].startswith("application/json")
    assert "hello there" in (raw.parse().choices[0].message.content or "")
    with client.chat.completions.with_streaming_response.create(
        model="demo-small", messages=SAY, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


# Responses


def test_response(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="demo-small", input="hello there", instructions="Be.")
    assert answer.output_text.endswith("You said: hello there")
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 11
    short = client.responses.create(model="demo-small", input="hello", max_output_tokens=1)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


def test_streamed_response(client: openai.OpenAI) -> None:
    kinds = [
        event.type
        for event in client.responses.create(model="demo-small", input="hello", stream=True)
    ]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 10,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_response_stream_helper_with_tools(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", **tool["function"]} for tool in (WEATHER, CLOCK)]
    with client.responses.stream(
        model="demo-small",
        input="Weather and Clock please",
        tools=tools,
    ) as stream:
        pieces = [e for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert len(pieces) > 6
    calls: list[Any] = [item for item in final.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["Weather", "Clock"]
    assert final.usage is not None
    results: list[Any] = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        for call in calls
    ]
    asked: list[Any] = [{"role": "user", "content": "Weather and Clock please"}]
    items: Any = [*asked, *[call.to_dict() for call in calls], *results]
    after = client.responses.create(model="demo-small", input=items)
    assert after.status == "completed"


def test_response_parse(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="demo-small", input="hello there", text_format=Weather)
    assert answer.output_parsed == Weather(city="hello there", days=7)


# Asynchronously


def test_async(route: Route) -> None:
    async def all_of_it() -> None:
        async with openai.AsyncOpenAI(**route.for_openai) as client:
            several = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="demo-small", messages=[{"role": "user", "content": f"hello {n}"}]
                    )
                    for n in range(20)
                )
            )
            for n, answer in enumerate(several):
                assert (answer.choices[0].message.content or "").endswith(f"hello {n}")
            stream = await client.chat.completions.create(
                model="demo-small", messages=SAY, stream=True
            )
            text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(text).endswith("hello there")
            async with client.chat.completions.stream(
                model="demo-small", messages=SAY, tools=[WEATHER]
            ) as helped:
                final = await helped.get_final_completion()
            [call] = final.choices[0].message.tool_calls or []
            assert call.function.parsed_arguments == Weather(city="hello there", days=7)
            parsed = await client.chat.completions.parse(
                model="demo-small", messages=SAY, response_format=Weather
            )
            assert parsed.choices[0].message.parsed == Weather(city="hello there", days=7)
            async with client.responses.stream(model="demo-small", input="hello") as responding:
                response = await responding.get_final_response()
            assert response.output_text.endswith("hello")
            vectors = await client.embeddings.create(model="demo-embed", input="a")
            assert len(vectors.data[0].embedding) == 8
            assert {m.id async for m in client.models.list()} > {"demo-small"}

    asyncio.run(all_of_it())


# What goes wrong


def test_wrong_key(client: openai.OpenAI) -> None:
    stranger = client.with_options(api_key="sk-" + "x" * 40)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="demo-small", messages=SAY)
    with pytest.raises(openai.AuthenticationError):
        list(stranger.chat.completions.create(model="demo-small", messages=SAY, stream=True))
    with pytest.raises(openai.AuthenticationError):
        stranger.responses.create(model="demo-small", input="hello")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_unknown_model(route: Route, client: openai.OpenAI) -> None:
    """A model that doesn't exist isn't granted either, and the gateway says no more than that."""
    kind = openai.NotFoundError if route.name == "direct" else openai.PermissionDeniedError
    with pytest.raises(kind, match="demo-none"):
        client.chat.completions.create(model="demo-none", messages=SAY)
    with pytest.raises(kind, match="demo-none"):
        client.responses.create(model="demo-none", input="hello")
    with pytest.raises(kind, match="demo-none"):
        client.embeddings.create(model="demo-none", input="hello")


def test_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages") as caught:
        client.chat.completions.create(model="demo-small", messages=[])
    assert caught.value.status_code == 400
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_statuses(
    status: int, kind: type[Exception], client: openai.OpenAI, upstream: Upstream
) -> None:
    with upstream.behaving(status=status):
        with pytest.raises(kind, match=f"says {status}"):
            client.chat.completions.create(model="demo-small", messages=SAY)
        with pytest.raises(kind, match=f"says {status}"):
            client.chat.completions.create(model="demo-small", messages=SAY, stream=True)


def test_rate_limit_is_retried(client: openai.OpenAI, upstream: Upstream, reached: Any) -> None:
    with upstream.behaving(status=429, retry_after="0", times=1):
        answer = client.with_options(max_retries=2).chat.completions.create(
            model="demo-small", messages=SAY
        )
    assert "hello there" in (answer.choices[0].message.content or "")
    assert [call["status"] for call in reached()] == [429, 200]


def test_stream_that_breaks_off(client: openai.OpenAI, upstream: Upstream) -> None:
    with upstream.behaving(dies_after=3):
        stream = client.chat.completions.create(model="demo-small", messages=SAY, stream=True)
        with pytest.raises(openai.APIError):
            list(stream)
        events = client.responses.create(model="demo-small", input="hello", stream=True)
        with pytest.raises(openai.APIError):
            list(events)


def test_answer_that_breaks_off(client: openai.OpenAI, upstream: Upstream) -> None:
    with upstream.behaving(dies_after=3), pytest.raises(openai.APIError):
        client.chat.completions.create(model="demo-small", messages=SAY)


def test_time_out_of_the_client(client: openai.OpenAI, upstream: Upstream, reached: Any) -> None:
    """The upstream is told: it may stop."""
    with upstream.behaving(first_byte=20):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.8).chat.completions.create(
                model="demo-small", messages=SAY
            )
        upstream.wait(lambda it: it.open == 0, 2)
    assert [call["hung_up"] for call in reached()] == [True]


def test_hanging_up_in_a_stream(client: openai.OpenAI, upstream: Upstream, reached: Any) -> None:
    with (
        upstream.behaving(pause=0.1),
        client.chat.completions.create(model="demo-small", messages=SAY, stream=True) as stream,
    ):
        next(iter(stream))
    upstream.wait(lambda it: it.open == 0, 3)
    assert [call["hung_up"] for call in reached()] == [True]
