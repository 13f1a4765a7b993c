"""The gateway beside LiteLLM, nginx and a bare pass-through: `make bench-gateway`."""

import contextlib
import datetime as dt
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accessrequests.models import Grant
from credentials.actions import check_out
from endpoints.models import ModelPrice
from endpoints.scope import Scope
from tests.bench.contestants import Contestant, Upstreams, bare, litellm, plain_nginx, upstreams
from tests.bench.load import wrk
from tests.conftest import RunningGateway, running_gateway
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

CLIENTS = (1, 8, 64)
# Every check and every limit, none of which is reached.
SCOPE: dict[str, Any] = {
    "models": ["bench"],
    "max_output_tokens": 1000,
    "requests_per_minute": 10_000_000,
    "concurrency": 10_000,
    "token_budget": 10_000_000_000,
    "cost_budget": "1000000",
}
BEGUN = time.monotonic()


def say(what: str) -> None:
    """A line of progress, with the minute it was said in."""
    passed = time.monotonic() - BEGUN
    sys.stdout.write(f"{passed // 60:3.0f}:{passed % 60:02.0f}  {what}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Pass:
    """A live grant and the credential that was checked out under it."""

    slug: str
    secret: str
    grant: Grant

    def url(self, gateway: RunningGateway) -> str:
        return f"{gateway.base(self.slug)}/chat/completions"


def passes(world: World, url: str, count: int = 1, **scope: Any) -> list[Pass]:
    """Grants of `SCOPE`, or of this much of it, on one new endpoint with prices."""
    endpoint = world.endpoint(upstream_url=url)
    profile = world.profile(endpoint=endpoint, models=["bench"])
    profile.scope = Scope.parse(SCOPE | scope).as_json()
    profile.save()
    ModelPrice.objects.create(
        endpoint=endpoint,
        model="bench",
        input_price=1,
        output_price=2,
        since=dt.datetime.now(dt.UTC).date(),
        set_by=endpoint.owner,
    )
    found = []
    for _ in range(count):
        grant = world.grant(profile=profile)
        secret = check_out(by=grant.holder, grant_id=grant.pk).secret
        found.append(Pass(endpoint.slug, secret, grant))
    return found


@contextlib.contextmanager
def keyturn(servers: Servers, world: World, to: Upstreams) -> Iterator[Contestant]:
    """The gateway, one process, with a grant under which every check and limit applies.

    One credential is for one endpoint: `key` opens the fast one.
    """
    (fast,) = passes(world, to.fast)
    with running_gateway(servers) as running:
        yield Contestant("keyturn", fast.url(running), "", fast.secret, process=running.process)


def test_gateway(
    world: World, servers: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    quick = request.config.getoption("quick")
    with contextlib.ExitStack() as stack:
        to = stack.enter_context(upstreams(tmp_path))
        contestants = [to.direct]
        contestants.append(stack.enter_context(bare(to)))
        contestants.append(stack.enter_context(keyturn(servers, world, to)))
        if not quick:
            contestants.append(stack.enter_context(plain_nginx(tmp_path, to)))
            contestants.append(stack.enter_context(litellm(tmp_path, to)))
        for each in contestants:
            wrk(each, clients=8, seconds=1)
        for clients in CLIENTS:
            for each in contestants:
                say(_line(each, clients, wrk(each, clients=clients, seconds=3)))


def _line(each: Contestant, clients: int, found: dict[str, float]) -> str:
    rate = f"{each.name:8} {clients:3} clients {found['rate']:8,.0f}/s"
    if each.process:
        rate += f" {found['requests'] / found['cpu']:7,.0f}/s a core"
    return f"{rate:50}" + "".join(f" {name} {found[name]:7.2f}" for name in ("p50", "p95", "p99"))
