"""The same clients against the upstream itself and through the gateway."""

import secrets
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import pytest
from anthropic import Anthropic
from ollama import Client
from openai import OpenAI

from accessrequests.models import Grant
from credentials.actions import check_out, end_grant, store_upstream_key
from tests.conftest import RunningGateway
from tests.upstream import Upstream
from tests.world import MODELS, UPSTREAM_KEY, World

SAY: Any = [{"role": "user", "content": "hello there"}]


class Route:
    """A way to the model: what a user of an SDK sets, and no more."""

    def __init__(self, name: Literal["direct", "gateway"], root: str, key: str) -> None:
        self.name = name
        self.root = root
        self.for_openai: dict[str, Any] = {
            "base_url": f"{root}/v1",
            "api_key": key,
            "max_retries": 0,
        }
        self.for_anthropic: dict[str, Any] = {"base_url": root, "api_key": key, "max_retries": 0}
        self.for_ollama: dict[str, Any] = {
            "host": root,
            "headers": {"Authorization": f"Bearer {key}"},
        }
        self.key = key

    # One of each for all tests: to make one takes longer than most calls.

    @cached_property
    def openai(self) -> OpenAI:
        return OpenAI(**self.for_openai)

    @cached_property
    def anthropic(self) -> Anthropic:
        return Anthropic(**self.for_anthropic)

    @cached_property
    def ollama(self) -> Client:
        return Client(**self.for_ollama)


class Granted:
    """A grant of its own, with an upstream key of its own to count by."""

    def __init__(
        self,
        world: World,
        gateway: RunningGateway,
        upstream: Upstream,
        tools: list[str],
        **limits: int,
    ) -> None:
        scope = {"models": MODELS, "tools": tools, **limits}
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


# One call of each API, by its own SDK.

Ask = Callable[..., Any]


def ask_chat(route: Route, **asked: Any) -> Any:
    create: Any = route.openai.chat.completions.create
    return create(model="demo-small", messages=SAY, **asked)


def ask_response(route: Route, **asked: Any) -> Any:
    create: Any = route.openai.responses.create
    return create(model="demo-small", input="hello there", **asked)


def ask_message(route: Route, **asked: Any) -> Any:
    create: Any = route.anthropic.messages.create
    return create(model="demo-small", messages=SAY, max_tokens=99, **asked)


def ask_llama(route: Route, **asked: Any) -> Any:
    say: Any = route.ollama.chat
    return say(model="demo-small", messages=SAY, **asked)


@pytest.fixture(scope="session")
def direct(upstream: Upstream) -> Route:
    """With the upstream's own key."""
    return Route("direct", upstream.url, UPSTREAM_KEY)


@pytest.fixture(scope="module")
def through(
    upstream: Upstream, gateway: RunningGateway, django_db_setup: None, django_db_blocker: Any
) -> Route:
    """With a grant of every model and tool that the client runs."""
    world = World(upstream.url)
    scope = {"models": MODELS, "tools": ["*"]}
    with django_db_blocker.unblock():
        endpoint = world.endpoint(dialects=["openai", "anthropic", "ollama"])
        grant = world.grant(profile=world.profile(endpoint=endpoint, scope=scope), scope=scope)
        secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    return Route("gateway", f"{gateway.url}/e/{endpoint.slug}", secret)


@pytest.fixture(params=["direct", "gateway"])
def route(request: pytest.FixtureRequest) -> Route:
    """Each test once this way, once that."""
    name = "direct" if request.param == "direct" else "through"
    found: Route = request.getfixturevalue(name)
    return found


@pytest.fixture
def client(route: Route) -> OpenAI:
    """OpenAI's, synchronous."""
    return route.openai


@pytest.fixture
def claude(route: Route) -> Anthropic:
    """Anthropic's, synchronous."""
    return route.anthropic


@pytest.fixture
def llama(route: Route) -> Client:
    """Ollama's, synchronous."""
    return route.ollama


@pytest.fixture
def reached(upstream: Upstream) -> Callable[[], list[dict[str, Any]]]:
    """The calls that reached the upstream since the test began."""
    before = upstream.calls[-1] if upstream.calls else None

    def since() -> list[dict[str, Any]]:
        calls = list(upstream.calls)
        at = next((i for i, call in enumerate(calls) if call is before), -1)
        return calls[at + 1 :]

    return since
