"""What the gateway refuses or cuts, each SDK raises."""

import threading
import time
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.conftest import RunningGateway
from tests.gateway.clients.conftest import (
    Ask,
    Granted,
    ask_chat,
    ask_llama,
    ask_message,
    ask_response,
)
from tests.gateway.clients.test_anthropic import WEATHER as ANTHROPIC_WEATHER
from tests.gateway.clients.test_ollama import weather
from tests.gateway.clients.test_openai import CLOCK, WEATHER
from tests.gateway.clients.test_same import FUNCTIONS
from tests.upstream import Upstream
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

DROP: Any = (("drop_tables", '{"really": true, "all_of_them": true}'),)


@pytest.fixture(scope="module")
def granted(
    upstream: Upstream, gateway: RunningGateway, django_db_setup: None, django_db_blocker: Any
) -> Granted:
    """A grant of all models and of one tool."""
    with django_db_blocker.unblock():
        return Granted(World(upstream.url), gateway, upstream, ["Weather", "weather"])


ASK: list[tuple[Ask, type[Exception], type[Exception]]] = [
    (ask_chat, openai.PermissionDeniedError, openai.APIError),
    (ask_response, openai.PermissionDeniedError, openai.APIError),
    (ask_message, anthropic.PermissionDeniedError, anthropic.APIStatusError),
    (ask_llama, ollama.ResponseError, ollama.ResponseError),
]
each_sdk = pytest.mark.parametrize(
    ("ask", "refused", "cut"), ASK, ids=[ask.__name__ for ask, _, _ in ASK]
)


def clock(zone: str) -> str:
    """Say what time it is."""
    return zone


@each_sdk
def test_a_tool_that_is_not_granted(
    ask: Ask, refused: type[Exception], cut: type[Exception], granted: Granted, reached: Any
) -> None:
    """`clock` isn't held, `weather` is."""
    held, other = {
        "ask_chat": (WEATHER, CLOCK),
        "ask_response": tuple(FUNCTIONS),
        "ask_message": (ANTHROPIC_WEATHER, ANTHROPIC_WEATHER | {"name": "clock"}),
        "ask_llama": (weather, clock),
    }[ask.__name__]
    ask(granted.route, tools=[held])
    with pytest.raises(refused, match=r"(?i)clock.*Ask for more at http"):
        ask(granted.route, tools=[held, other])
    assert len(reached()) == 1


@each_sdk
def test_a_call_of_a_tool_that_is_not_granted(
    ask: Ask,
    refused: type[Exception],
    cut: type[Exception],
    granted: Granted,
    upstream: Upstream,
) -> None:
    """A model may call what it was never offered; nothing of that call reaches the client."""
    with upstream.behaving(calls=DROP):
        with pytest.raises(refused, match="drop_tables"):
            ask(granted.route)
        seen: list[str] = []
        stream = ask(granted.route, stream=True)
        with pytest.raises(cut, match="drop_tables"):
            seen.extend(event.model_dump_json() for event in stream)
    assert "really" not in "".join(seen)


def test_what_is_kept_at_the_upstream(granted: Granted, upstream: Upstream, reached: Any) -> None:
    """It may be somebody else's: the one key of the gateway's would open it."""
    client = granted.route.openai
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key=granted.upstream_key) as other:
        kept = other.responses.create(model="demo-small", input="secret plans").id
        assert other.responses.retrieve(kept).output_text
    assert len(reached()) == 2
    for call in (
        lambda: client.responses.retrieve(kept),
        lambda: client.responses.delete(kept),
        lambda: client.responses.create(
            model="demo-small", input="go on", previous_response_id=kept
        ),
        lambda: client.chat.completions.retrieve(kept),
        lambda: client.files.list(),
        lambda: client.batches.list(),
        lambda: client.vector_stores.list(),
        lambda: client.fine_tuning.jobs.list(),
        lambda: client.conversations.create(),
        lambda: client.moderations.create(input="hello"),
        lambda: client.images.generate(model="demo-small", prompt="hello"),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="demo-small", input="hello", background=True)
    claude = granted.route.anthropic
    for look in (
        lambda: claude.messages.batches.list(),
        lambda: claude.files.list(),
        lambda: claude.skills.list(),
    ):
        with pytest.raises(anthropic.NotFoundError):
            look()
    llama = granted.route.ollama
    for change in (
        lambda: llama.pull("demo-small"),
        lambda: llama.delete("demo-small"),
        lambda: llama.create("mine", from_="demo-small"),
        lambda: llama.push("demo-small"),
        lambda: llama.show("demo-small"),
        lambda: llama.ps(),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            change()
        assert caught.value.status_code == 404
    assert len(reached()) == 2
    answer = ask_response(granted.route)
    assert answer.store is False
    assert answer.id not in upstream.responses


def test_a_calls_id_is_where_each_sdk_looks_for_it(granted: Granted) -> None:
    found = [ask_chat(granted.route)._request_id, ask_message(granted.route)._request_id]
    with pytest.raises(openai.NotFoundError) as no_model:
        granted.route.openai.models.retrieve("demo-none")
    with pytest.raises(anthropic.NotFoundError) as none_either:
        granted.route.anthropic.models.retrieve("demo-none")
    found += [no_model.value.request_id, none_either.value.request_id]
    assert all(str(each).startswith("req_") for each in found)
    assert len(set(found)) == 4


def test_the_end_of_the_grant_in_the_middle_of_streams(
    world: World, gateway: RunningGateway, upstream: Upstream
) -> None:
    """One of each SDK: each raises its own error, soon."""
    granted = Granted(world, gateway, upstream, [])
    begun = threading.Barrier(len(ASK) + 1, timeout=10)
    raised: dict[str, tuple[Exception, float]] = {}

    def read(ask: Ask) -> None:
        stream = iter(ask(granted.route, stream=True))
        next(stream)
        begun.wait()
        try:
            for _ in stream:
                pass
        except Exception as error:  # noqa: BLE001 -- which one is looked at below
            raised[ask.__name__] = (error, time.monotonic())

    with upstream.behaving(pause=0.05, words=200):
        readers = [threading.Thread(target=read, args=[ask]) for ask, _, _ in ASK]
        for reader in readers:
            reader.start()
        begun.wait()
        granted.end()
        ended_at = time.monotonic()
        for reader in readers:
            reader.join(10)
    for ask, _, cut in ASK:
        error, at = raised[ask.__name__]
        assert isinstance(error, cut)
        assert "has ended" in str(error)
        assert at - ended_at < 1
    upstream.wait(lambda it: it.open == 0, 2)
