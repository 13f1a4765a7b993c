"""Ollama's own client, against the upstream and through the gateway, with the same result."""

import asyncio
import base64
import json
from typing import Any

import ollama
import pytest

from tests.gateway.clients.conftest import Route
from tests.gateway.clients.test_anthropic import PIXEL
from tests.upstream import Upstream

SAY: Any = [{"role": "user", "content": "hello there"}]


def weather(city: str, days: int) -> str:
    """Say what the weather is like.

    Args:
      city: where
      days: how far ahead
    """
    return f"sunny in {city} for {days}"


def test_chat(llama: ollama.Client) -> None:
    answer = llama.chat(model="demo-small", messages=SAY)
    assert (answer.message.content or "").endswith("You said: hello there")
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (2, 11)
    short = llama.chat(model="demo-small", messages=SAY, options={"num_predict": 1})
    assert short.done_reason == "length"


def test_stream(llama: ollama.Client) -> None:
    parts = list(llama.chat(model="demo-small", messages=SAY, stream=True))
    assert "".join(p.message.content or "" for p in parts).endswith("You said: hello there")
    assert [p.done for p in parts] == [False] * 11 + [True]
    assert parts[-1].eval_count == 11


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(llama: ollama.Client, streamed: bool) -> None:
    if streamed:
        parts = list(llama.chat(model="demo-small", messages=SAY, tools=[weather], stream=True))
        [message] = [part.message for part in parts if part.message.tool_calls]
    else:
        message = llama.chat(model="demo-small", messages=SAY, tools=[weather]).message
    [call] = message.tool_calls or []
    assert call.function.name == "weather"
    result = weather(**call.function.arguments)
    assert result == "sunny in hello there for 7"
    after = llama.chat(
        model="demo-small",
        messages=[*SAY, message, {"role": "tool", "content": result, "tool_name": "weather"}],
        tools=[weather],
    )
    assert (after.message.content or "").endswith(result)


def test_image_and_json(llama: ollama.Client) -> None:
    said: Any = [{"role": "user", "content": "hello", "images": [base64.b64decode(PIXEL)]}]
    answer = llama.chat(model="demo-small", messages=said, format="json")
    assert json.loads(answer.message.content or "") == {"said": "hello"}
    assert answer.prompt_eval_count == 86


def test_generate(llama: ollama.Client) -> None:
    answer = llama.generate(model="demo-small", prompt="hello there", system="Be.")
    assert (answer.response or "").endswith("You said: hello there")
    parts = list(llama.generate(model="demo-small", prompt="hello there", stream=True))
    assert "".join(p.response or "" for p in parts).endswith("You said: hello there")


def test_embed_and_list(llama: ollama.Client) -> None:
    assert len(llama.embed(model="demo-embed", input=["a", "b"]).embeddings) == 2
    assert {m.model for m in llama.list().models} == {
        "demo-small",
        "demo-large",
        "demo-slow",
        "demo-embed",
    }


def test_async(route: Route) -> None:
    async def all_of_it() -> None:
        async with ollama.AsyncClient(**route.for_ollama) as client:
            answer = await client.chat(model="demo-small", messages=SAY)
            assert "hello there" in (answer.message.content or "")
            stream: Any = await client.chat(model="demo-small", messages=SAY, stream=True)
            assert len([part async for part in stream]) == 12

    asyncio.run(all_of_it())


def test_errors(route: Route, llama: ollama.Client, upstream: Upstream) -> None:
    with ollama.Client(
        host=route.root, headers={"Authorization": "Bearer " + "x" * 40}
    ) as stranger:
        with pytest.raises(ollama.ResponseError) as caught:
            stranger.chat(model="demo-small", messages=SAY)
        assert caught.value.status_code == 401
        with pytest.raises(ollama.ResponseError):
            list(stranger.chat(model="demo-small", messages=SAY, stream=True))
    with pytest.raises(ollama.ResponseError, match="demo-none") as caught:
        llama.chat(model="demo-none", messages=SAY)
    assert caught.value.status_code == (404 if route.name == "direct" else 403)
    with (
        upstream.behaving(status=500),
        pytest.raises(ollama.ResponseError, match="says 500") as caught,
    ):
        llama.chat(model="demo-small", messages=SAY)
    assert caught.value.status_code == 500
