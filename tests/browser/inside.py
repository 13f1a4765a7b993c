"""An endpoint in use: three people in, one of them near the end of a budget, one refused."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from accessrequests.models import Grant
from accounts.models import User
from audit import clock
from credentials.actions import check_out, end_due_grants
from credentials.stopping import end_all
from endpoints.actions import set_price
from endpoints.models import Endpoint
from gateway.models import Process, UpstreamHealth
from tests.accounts.authenticator import authenticator
from tests.gateway.using import call, refused, used
from tests.world import PASSWORD, PROVED, World


@dataclass(frozen=True)
class Inside:
    """Who runs security, with their authenticator's secret; who is in; and where."""

    chidi: User
    secret: bytes
    ana: User
    owner: User
    endpoint: Endpoint
    busy: Grant
    low: Grant


def close_all(*, by: User) -> None:
    """Let nobody be in."""
    end_all(by=by, endpoint=None, reason="The next scene.", proofs=PROVED)
    while end_due_grants():
        pass
    Process.objects.all().delete()


def inside(world: World, zone: str = "Europe/Madrid", mark: str = "") -> Inside:
    """Make it all, with what gateways write made by hand.

    `mark` ends each name: tests commit, and who is in is on one page for all of them.
    """
    look: dict[str, Any] = {"password": PASSWORD, "time_zone": zone}
    owner = world.person(full_name=f"Dana Levi{mark}", **look)
    chidi = world.person(
        full_name=f"Chidi Eze{mark}", is_administrator=True, is_auditor=True, **look
    )
    endpoint = world.endpoint(
        name=f"Support assistant{mark}",
        description="Answers customers; its tools can refund.",
        risk="critical",
        owner=owner,
        further_upstreams=["https://llm-2.internal:8443"],
    )
    both: dict[str, Any] = {"requesters": world.group(), "reviewers": world.group()}
    profile = world.profile(
        endpoint=endpoint,
        scope={
            "models": ["demo-large", "demo-small"],
            "tools": ["look_up_order"],
            "token_budget": 50_000,
            "cost_budget": "5.00",
        },
        **both,
    )
    plain = world.profile(
        endpoint=world.endpoint(name=f"Research models{mark}", owner=owner), **both
    )
    ana = world.person(both["requesters"], full_name=f"Ana Castillo{mark}", **look)
    mei = world.person(both["requesters"], full_name=f"Mei Tanaka{mark}", **look)
    long = world.person(
        both["requesters"], full_name=f"Maximiliane Freifrau von Hohenstein-Wetterau{mark}", **look
    )
    busy = world.grant(profile=profile, requester=ana)
    low = world.grant(profile=profile, requester=mei)
    idle = world.grant(profile=plain, requester=long)
    world.grant(profile=plain, requester=ana)
    for grant in (busy, low, idle):
        check_out(by=grant.holder, grant_id=grant.pk)
    tools = {"tools_declared": ["look_up_order"], "tools_called": ["look_up_order"]}
    for ago in (3, 9, 21, 34, 58, 90):
        call(busy, ago=ago, streamed=ago % 2 == 0, **(tools if ago < 20 else {}))
    refused(busy, "tool_not_granted", ago=14, model="demo-large", tools_declared=["refund"])
    call(busy, ago=44, status=499, output_tokens=12, streamed=True)
    call(busy, ago=70, status=502, input_tokens=None, output_tokens=None, charged_tokens=0)
    used(busy, charged_tokens=21_740, input_tokens=15_100, output_tokens=6_640,
         charged_cost=1_204_300)  # fmt: skip
    call(low, ago=130)
    used(low, calls=212, charged_tokens=47_100, input_tokens=40_000, output_tokens=7_100,
         charged_cost=3_900_000)  # fmt: skip
    Process.objects.create(host="gateway-1", open_calls=3)
    moment = clock.now()
    UpstreamHealth.objects.create(
        endpoint=endpoint,
        url=endpoint.upstream_url.rstrip("/"),
        is_up=True,
        since=moment - dt.timedelta(hours=7),
        checked_at=moment,
    )
    UpstreamHealth.objects.create(
        endpoint=endpoint,
        url="https://llm-2.internal:8443",
        is_up=False,
        since=moment - dt.timedelta(minutes=12),
        checked_at=moment,
        last_error="connection refused",
    )
    for model, ingoing, out in (("demo-large", "2.5", "10"), ("demo-small", "0.15", "0.6")):
        price: dict[str, Any] = {"input_price": Decimal(ingoing), "output_price": Decimal(out)}
        set_price(by=owner, endpoint=endpoint, model=model, proofs=PROVED, **price)
    return Inside(chidi, authenticator(chidi), ana, owner, endpoint, busy, low)
