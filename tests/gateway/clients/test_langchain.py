"""LangChain's OpenAI chat model, against the upstream and through the gateway."""

import asyncio
from typing import Any

import openai
import pydantic
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.gateway.clients.conftest import Route

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


def chat(route: Route, **options: Any) -> ChatOpenAI:
    fields: dict[str, Any] = {
        "model": "demo-small",
        "max_retries": 0,
        "stream_usage": True,
    } | options
    return ChatOpenAI(base_url=f"{route.root}/v1", api_key=route.key, **fields)  # type: ignore[arg-type]


@tool
def weather(city: str, days: int) -> str:
    """Say what the weather is like."""
    return f"sunny in {city} for {days}"


class Weather(pydantic.BaseModel):
    """Say what the weather is like."""

    city: str
    days: int


@pytest.mark.parametrize("responses", [False, True])
def test_invoke_and_stream(route: Route, responses: bool) -> None:
    model = chat(route, use_responses_api=responses)
    answer = model.invoke("hello there")
    assert answer.text.endswith("You said: hello there")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 11
    chunks = list(model.stream("hello there"))
    assert "".join(chunk.text for chunk in chunks).endswith("You said: hello there")
    assert sum(c.usage_metadata["output_tokens"] for c in chunks if c.usage_metadata) == 11


@pytest.mark.parametrize("responses", [False, True])
def test_tools(route: Route, responses: bool) -> None:
    model = chat(route, use_responses_api=responses).bind_tools([weather])
    asked = HumanMessage("hello there")
    answer = model.invoke([asked])
    [call] = answer.tool_calls
    assert call["args"] == {"city": "hello there", "days": 7}
    whole: Any = None
    for chunk in model.stream([asked]):
        whole = chunk if whole is None else whole + chunk
    assert [c["args"] for c in whole.tool_calls] == [call["args"]]
    result: ToolMessage = weather.invoke(call)
    after = model.invoke([asked, answer, result])
    assert not after.tool_calls
    assert after.text


def test_structured_output(route: Route) -> None:
    for method in ("json_schema", "function_calling"):
        model = chat(route).with_structured_output(Weather, method=method)
        assert model.invoke("hello there") == Weather(city="hello there", days=7)


def test_async_and_batch(route: Route) -> None:
    async def all_of_it() -> None:
        model = chat(route)
        several = await model.abatch(["one", "two", "three"])
        assert [a.text.rpartition(" ")[2] for a in several] == ["one", "two", "three"]
        text = [chunk.text async for chunk in model.astream("hello there")]
        assert "".join(text).endswith("hello there")

    asyncio.run(all_of_it())


def test_embeddings(route: Route) -> None:
    model = OpenAIEmbeddings(
        base_url=f"{route.root}/v1",
        api_key=route.key,  # type: ignore[arg-type]
        model="demo-embed",
        check_embedding_ctx_length=False,  # else it downloads a tokeniser
    )
    assert len(model.embed_documents(["a", "b"])) == 2


def test_errors(route: Route) -> None:
    with pytest.raises(openai.AuthenticationError):
        chat(Route(route.name, route.root, "sk-" + "x" * 40)).invoke("hello")
    kind = openai.NotFoundError if route.name == "direct" else openai.PermissionDeniedError
    with pytest.raises(kind):
        chat(route, model="demo-none").invoke("hello")
