"""The same clients against the upstream itself and through the gateway."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import pytest
from anthropic import Anthropic
from ollama import Client
from openai import OpenAI

from credentials.actions import check_out
from tests.conftest import RunningGateway
from tests.upstream import Upstream
from tests.world import MODELS, UPSTREAM_KEY, World


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


@pytest.fixture(scope="session")
def direct(upstream: Upstream) -> Route:
    """With the upstream's own key."""
    return Route("direct", upstream.url, UPSTREAM_KEY)


@pytest.fixture(scope="session")
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
