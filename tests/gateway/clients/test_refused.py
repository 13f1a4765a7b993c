"""What the gateway refuses or cuts, each SDK raises; and what passes is charged as counted."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import anthropic
import ollama
import openai
import pytest
from django.db.models import Sum

from accessrequests.models import Grant
from credentials.actions import check_out, end_grant, store_upstream_key
from gateway.models import Call, Meter
from tests.conftest import RunningGateway
from tests.gateway.clients.conftest import Route
from tests.gateway.clients.test_anthropic import WEATHER as ANTHROPIC_WEATHER
from tests.gateway.clients.test_ollama import weather
from tests.gateway.clients.test_openai import CLOCK, WEATHER
from tests.gateway.clients.test_same import CALLS, FUNCTIONS
from tests.upstream import Upstream
from tests.world import MODELS, World

pytestmark = pytest.mark.usefixtures("committed")

SAY: Any = [{"role": "user", "content": "hello there"}]
DROP: Any = (("drop_tables", '{"really": true, "all_of_them": true}'),)


class Granted:
    """A grant of its own, with an upstream key of its own to count by."""

    def __init__(
        self, world: World, gateway: RunningGateway, upstream: Upstream, tools: list[str]
    ) -> None:
        scope = {"models": MODELS, "tools": tools}
        endpoint = world.endpoint(dialects=["openai", "anthropic", "ollama"])
        self.upstream_key = f"sk-{secrets.token_hex(12)}"
        upstream.keys.add(self.upstream_key)
        store_upstream_key(by=None, endpoint=endpoint, key=self.upstream_key)
        self.grant: Grant = world.grant(
            profile=world.profile(endpoint=endpoint, scope=scope), scope=scope
        )
        secret = check_out(by=self.grant.holder, grant_id=self.grant.pk).secret
        self.route = Route("gateway", f"{gateway.url}/e/{endpoint.slug}", secret)

    def end(self) -> None:
        end_grant(grant_id=self.grant.pk, by=self.grant.holder)


@pytest.fixture(scope="module")
def granted(
    upstream: Upstream, gateway: RunningGateway, django_db_setup: None, django_db_blocker: Any
) -> Granted:
    """A grant of all models and of one tool."""
    with django_db_blocker.unblock():
        return Granted(World(upstream.url), gateway, upstream, ["Weather", "weather"])


def chat(route: Route, **asked: Any) -> Any:
    create: Any = route.openai.chat.completions.create
    return create(model="demo-small", messages=SAY, **asked)


def response(route: Route, **asked: Any) -> Any:
    create: Any = route.openai.responses.create
    return create(model="demo-small", input="hello there", **asked)


def message(route: Route, **asked: Any) -> Any:
    create: Any = route.anthropic.messages.create
    return create(model="demo-small", messages=SAY, max_tokens=99, **asked)


def llama(route: Route, **asked: Any) -> Any:
    say: Any = route.ollama.chat
    return say(model="demo-small", messages=SAY, **asked)


Ask = Callable[..., Any]
ASK: list[tuple[Ask, type[Exception], type[Exception]]] = [
    (chat, openai.PermissionDeniedError, openai.APIError),
    (response, openai.PermissionDeniedError, openai.APIError),
    (message, anthropic.PermissionDeniedError, anthropic.APIStatusError),
    (llama, ollama.ResponseError, ollama.ResponseError),
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
        "chat": (WEATHER, CLOCK),
        "response": tuple(FUNCTIONS),
        "message": (ANTHROPIC_WEATHER, ANTHROPIC_WEATHER | {"name": "clock"}),
        "llama": (weather, clock),
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
    answer = response(granted.route)
    assert answer.store is False
    assert answer.id not in upstream.responses


def test_a_calls_id_is_where_each_sdk_looks_for_it(granted: Granted) -> None:
    found = [chat(granted.route)._request_id, message(granted.route)._request_id]
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


def test_what_is_charged_is_what_the_upstream_counted(
    world: World, gateway: RunningGateway, upstream: Upstream
) -> None:
    """Of every kind of call there is here, in every dialect."""
    granted = Granted(world, gateway, upstream, ["*"])
    for call in CALLS.values():
        call(granted.route)
    spent = upstream.spent(key=granted.upstream_key)
    until = time.monotonic() + 5
    written: Any = {}
    while written.get("charged_tokens") != spent and time.monotonic() < until:
        time.sleep(0.1)
        written = Meter.objects.filter(grant=granted.grant).values().first() or {}
    assert spent > 0
    assert written["charged_tokens"] == spent
    assert written["input_tokens"] + written["output_tokens"] == spent
    assert written["calls"] == len(CALLS)
    rows = Call.objects.filter(grant=granted.grant).aggregate(Sum("charged_tokens"))
    assert rows["charged_tokens__sum"] == spent
