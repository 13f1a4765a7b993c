"""What a benchmark of the gateway goes in with, and what it says meanwhile."""

import datetime as dt
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accessrequests.models import Grant
from accessrequests.states import EndReason
from credentials.actions import check_out, end_grant
from endpoints.models import ModelPrice
from endpoints.scope import Scope
from tests.bench.contestants import Contestant, Upstreams
from tests.conftest import RunningGateway, running_gateway
from tests.servers import Servers
from tests.world import World

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
    sys.stdout.write(f"{passed // 60:3.0f}:{passed % 60:04.1f}  {what}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Pass:
    """A live grant and the credential that was checked out under it."""

    slug: str
    secret: str
    grant: Grant

    def end(self) -> None:
        """Revoke the grant."""
        end_grant(grant_id=self.grant.pk, by=None, reason=EndReason.REVOKED)

    def at(self, gateway: RunningGateway) -> Contestant:
        """The gateway as it serves this credential; both addresses are the endpoint's."""
        url = f"{gateway.base(self.slug)}/chat/completions"
        return Contestant("keyturn", url, url, self.secret, process=gateway.process)


def passes(world: World, url: str, count: int = 1, **scope: Any) -> list[Pass]:
    """Grants of `SCOPE`, with these limits instead, on one new endpoint that has prices."""
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
    requester, reviewer = world.person(profile.requesters), world.person(profile.reviewers)
    found = []
    for _ in range(count):
        grant = world.grant(profile=profile, requester=requester, reviewer=reviewer)
        secret = check_out(by=grant.holder, grant_id=grant.pk).secret
        found.append(Pass(endpoint.slug, secret, grant))
    return found


@contextmanager
def keyturn(servers: Servers, world: World, to: Upstreams) -> Iterator[Contestant]:
    """The gateway, one process, with a grant for either upstream."""
    (fast,), (stream,) = passes(world, to.fast), passes(world, to.stream)
    with running_gateway(servers) as running:
        yield Contestant(
            "keyturn",
            fast.at(running).fast,
            stream.at(running).stream,
            fast.secret,
            stream.secret,
            process=running.process,
        )
