"""Budgets, rates and concurrency, by what the upstream counted."""

import asyncio
import datetime as dt
import time
from typing import Any

import httpx
import pytest

from accessrequests.models import Grant
from credentials.actions import check_out
from endpoints.models import ModelPrice
from gateway.models import Call, Holding, Meter
from tests.conftest import RunningGateway, running_gateway
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

BODY: dict[str, Any] = {
    "model": "demo-small",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 50,
}


class Pass:
    """A live grant with this scope, and its credential."""

    def __init__(self, world: World, **scope: Any) -> None:
        profile = world.profile(with_key=True)
        profile.scope = profile.scope | scope
        profile.save()
        ModelPrice.objects.create(
            endpoint=profile.endpoint,
            model="demo-small",
            input_price=10,
            output_price=20,
            since=dt.date(2026, 1, 1),
            set_by=profile.endpoint.owner,
        )
        self.grant: Grant = world.grant(profile=profile)
        self.secret = check_out(by=self.grant.holder, grant_id=self.grant.pk).secret
        self.slug = profile.endpoint.slug

    def call(self, gateway: RunningGateway, **body: Any) -> httpx.Response:
        return httpx.post(
            f"{gateway.base(self.slug)}/chat/completions",
            json=BODY | body,
            headers={"Authorization": f"Bearer {self.secret}"},
            timeout=20,
        )

    def written(self, calls: int) -> Meter:
        """The grant's meter once this many calls were written down."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            meter = Meter.objects.filter(grant=self.grant).first()
            if meter and meter.calls >= calls:
                assert meter.calls == calls
                return meter
            time.sleep(0.05)
        raise AssertionError(f"not {calls} calls were written down")


def test_a_call_is_charged_what_the_upstream_counted(
    gateway: RunningGateway, world: World
) -> None:
    got = Pass(world, token_budget=5000, cost_budget="1")
    answer = got.call(gateway)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    meter = got.written(1)
    assert meter.charged_tokens == usage["total_tokens"]
    assert meter.charged_cost == usage["prompt_tokens"] * 10 + usage["completion_tokens"] * 20
    row = Call.objects.get(grant=got.grant)
    assert (row.model, row.status, row.refusal) == ("demo-small", 200, "")
    assert row.trace == answer.headers["x-request-id"]
