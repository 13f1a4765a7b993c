"""Budgets, rates and concurrency, by what the upstream counted."""

import asyncio
import datetime as dt
import time
from typing import Any

import aiohttp
import httpx
import pytest
from django.db.models import F

from accessrequests.models import Grant
from credentials.actions import check_out
from endpoints.models import ModelPrice
from gateway.books import _settle_silent
from gateway.models import Call, Holding, Meter, Process
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
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            meter = Meter.objects.filter(grant=self.grant).first()
            if meter and meter.calls >= calls:
                assert meter.calls == calls
                return meter
            time.sleep(0.05)
        raise AssertionError(f"not {calls} calls were written down")


def test_a_call_is_charged_what_the_upstream_counted(gateway: RunningGateway, world: World) -> None:
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


def test_a_client_that_hangs_up_is_charged_what_it_reserved(
    gateway: RunningGateway, world: World, upstream: Upstream
) -> None:
    got = Pass(world, token_budget=5000)
    with (
        upstream.behaving(pause=0.2, words=50),
        httpx.stream(
            "POST",
            f"{gateway.base(got.slug)}/chat/completions",
            json=BODY | {"stream": True},
            headers={"Authorization": f"Bearer {got.secret}"},
        ) as answer,
    ):
        assert next(answer.iter_lines()).startswith("data:")
    meter = got.written(1)
    row = Call.objects.get(grant=got.grant)
    assert row.status == 499
    assert meter.charged_tokens >= 50, "the output that was reserved, and the input"
    upstream.wait(lambda up: up.open == 0)


def test_an_explicit_zero_is_not_a_missing_count(
    gateway: RunningGateway, world: World, upstream: Upstream
) -> None:
    got = Pass(world, token_budget=5000)
    with upstream.behaving(usage="zero"):
        counted = got.call(gateway).json()["usage"]["total_tokens"]
    assert got.written(1).charged_tokens == counted < 50
    with upstream.behaving(usage="missing"):
        assert got.call(gateway).status_code == 200
    assert got.written(2).charged_tokens > counted + 50


@pytest.mark.parametrize("status", [400, 429, 500])
def test_what_the_upstream_refuses_is_free(
    gateway: RunningGateway, world: World, upstream: Upstream, status: int
) -> None:
    got = Pass(world, token_budget=5000)
    with upstream.behaving(status=status, times=1):
        assert got.call(gateway).status_code == status
    assert got.written(1).charged_tokens == 0


def test_an_upstream_that_ignores_the_cap_is_cut(
    gateway: RunningGateway, world: World, upstream: Upstream
) -> None:
    got = Pass(world, token_budget=1000)
    with upstream.behaving(obeys=False, words=200, pause=0):
        answer = got.call(gateway, stream=True, max_tokens=20)
    assert "budget_exhausted" in answer.text
    assert answer.text.count('"delta"') <= 25
    got.written(1)


def test_the_last_call_gets_what_is_left(gateway: RunningGateway, world: World) -> None:
    got = Pass(world, token_budget=260)
    answer = got.call(gateway, max_tokens=100_000)
    assert answer.status_code == 200, "with less output than it asked for"
    refused = got.call(gateway, messages=[{"role": "user", "content": "x" * 300}])
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "budget_exhausted"
    assert f"/grants/{got.grant.pk}/" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"


def test_a_cost_budget_needs_a_price(gateway: RunningGateway, world: World) -> None:
    got = Pass(world, cost_budget="1")
    answer = got.call(gateway, model="demo-large")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "no_price")


def test_a_minute_holds_so_many_calls(gateway: RunningGateway, world: World) -> None:
    if (left := 60 - time.time() % 60) < 8:
        time.sleep(left + 0.1)  # the window must not slide on in the middle
    got = Pass(world, requests_per_minute=5)
    answers = [got.call(gateway) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


@pytest.fixture(scope="module")
def second(servers: Servers, django_db_setup: None, gateway: RunningGateway) -> Any:
    with running_gateway(servers) as running:
        time.sleep(1)  # until the first has heard of it
        yield running


async def _calls(
    got: Pass, gateways: list[RunningGateway], count: int, **body: Any
) -> list[tuple[int, str]]:
    """This many at once, by turns over the gateways; each third of them hangs up in the middle."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {got.secret}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def call(number: int) -> tuple[int, str]:
            url = f"{gateways[number % len(gateways)].base(got.slug)}/chat/completions"
            streams = number % 3 == 0
            async with session.post(url, json=BODY | body | {"stream": streams}) as answer:
                if streams and answer.status == 200:
                    await answer.content.readany()
                    answer.close()
                    return 499, ""
                return answer.status, await answer.text()

        return await asyncio.gather(*map(call, range(count)))


def test_a_thousand_calls_at_once_never_come_to_more_than_the_budget(
    gateway: RunningGateway, second: RunningGateway, world: World, upstream: Upstream
) -> None:
    one = Pass(world, token_budget=5000)
    cost = one.call(gateway).json()["usage"]["total_tokens"]
    budget = 100 * cost
    got = Pass(world, token_budget=budget)
    answers = asyncio.run(_calls(got, [gateway, second], 1000, user=got.slug))
    upstream.wait(lambda up: up.open == 0)
    counted = sum(
        each["prompt_tokens"] + each["completion_tokens"]
        for each in upstream.calls
        if isinstance(each["body"], dict) and each["body"].get("user") == got.slug
    )
    statuses = [status for status, _ in answers]
    assert 0 < counted <= budget
    assert set(statuses) <= {200, 499, 429}
    meter = got.written(1000)
    assert counted <= meter.charged_tokens <= budget
    assert meter.refused == statuses.count(429)
    deadline = time.monotonic() + 20
    while Holding.objects.filter(grant=got.grant).exclude(tokens=0).exists():
        assert time.monotonic() < deadline, "what nobody uses any more is given back"
        time.sleep(0.1)


def test_slots_hold_over_two_gateways(
    gateway: RunningGateway, second: RunningGateway, world: World, upstream: Upstream
) -> None:
    got = Pass(world, concurrency=2)

    async def three() -> list[int]:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {got.secret}"}) as client:

            async def call(running: RunningGateway) -> int:
                url = f"{running.base(got.slug)}/chat/completions"
                return (await client.post(url, json=BODY, timeout=20)).status_code

            return await asyncio.gather(*map(call, [gateway, second, gateway]))

    with upstream.behaving(first_byte=2.5):
        assert sorted(asyncio.run(three())) == [200, 200, 429]
    assert got.call(second).status_code == 200, "and they are free again"


def test_what_a_dead_gateway_held_is_charged(world: World, gateway: RunningGateway) -> None:
    got = Pass(world, token_budget=5000)
    assert got.call(gateway).status_code == 200
    before = got.written(1).charged_tokens
    dead = Process.objects.create(host="dead")
    Holding.objects.create(grant=got.grant, process=dead, tokens=1000)
    Process.objects.filter(pk=dead.pk).update(beat_at=F("beat_at") - dt.timedelta(seconds=20))
    _settle_silent()
    assert not Process.objects.filter(pk=dead.pk).exists()
    assert got.written(1).charged_tokens == before + 1000


@pytest.mark.slow
def test_a_gateway_that_was_taken_for_dead_begins_anew(servers: Servers, world: World) -> None:
    with running_gateway(servers) as own:
        got = Pass(world, token_budget=5000)
        assert got.call(own).status_code == 200
        charged = got.written(1).charged_tokens
        held = Holding.objects.get(grant=got.grant)
        Process.objects.filter(pk=held.process_id).update(beat_at=F("beat_at") - dt.timedelta(1))
        _settle_silent()
        settled = Meter.objects.get(grant=got.grant).charged_tokens
        assert charged <= settled <= charged + held.tokens
        time.sleep(1.2)
        answer = got.call(own)
        assert answer.status_code in {200, 429}, answer.text
        meter = got.written(2)
        assert meter.charged_tokens <= 5000
        new = Process.objects.filter(holdings__grant=got.grant).exclude(pk=held.process_id)
        assert answer.status_code == 429 or new.exists()


def test_a_call_that_cannot_be_written_whole_is_written_and_charged(
    gateway: RunningGateway, world: World, upstream: Upstream
) -> None:
    got = Pass(world, token_budget=5000)
    with upstream.behaving(calls=(("a\0b" + "c" * 300, "{}"),)):
        assert got.call(gateway).status_code == 403
    with upstream.behaving(
        body=b'{"choices": [], "usage": {"prompt_tokens": 99999999999, "completion_tokens": 1}}'
    ):
        assert got.call(gateway).status_code == 200
    meter = got.written(2)
    assert meter.charged_tokens > 1_000_000_000
    assert Call.objects.filter(grant=got.grant).count() == 2
    called = [row.tools_called for row in Call.objects.filter(grant=got.grant)]
    assert ["a\ufffdb" + "c" * 197] in called
