"""1,000 calls at once over two gateways against a budget for a tenth of them."""

import asyncio
import random
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.contestants import upstreams
from tests.bench.load import PROMPT, Caller, body, run
from tests.bench.passes import Pass, passes, say
from tests.bench.report import table, write
from tests.conftest import RunningGateway, running_gateway
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

CALLS = 1000
WORTH = 100  # calls that the budget is for
TOKENS = 50
SAY = f"{TOKENS} tokens, 5 ms"
EACH = (len(PROMPT) + len(SAY)) // 4 + TOKENS  # as the upstream counts
ROUNDS = 3


def test_hard_cap(
    world: World, servers: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("quick"):
        pytest.skip("not a quick one")
    budget = WORTH * EACH
    found: list[dict[str, Any]] = []
    with (
        upstreams(tmp_path) as to,
        running_gateway(servers) as one,
        running_gateway(servers) as two,
    ):
        for number in range(ROUNDS):
            (given,) = passes(world, to.stream, token_budget=budget)
            before = to.counted()
            began = time.monotonic()
            statuses = run(_all_at_once(given, (one, two), random.Random(number)))
            after = to.counted()
            seconds = time.monotonic() - began
            run(_one_by_one(given, (one, two)))
            found.append(
                {
                    "budget": budget,
                    "calls": after["calls"] - before["calls"],
                    "tokens": after["tokens"] - before["tokens"],
                    "at_last": to.counted()["tokens"] - before["tokens"],
                    "statuses": statuses,
                    "seconds": seconds,
                }
            )
            say(f"{CALLS} calls at once: {found[-1]}")
    rows = [
        [
            number,
            each["calls"],
            f"{each['tokens']:,}",
            f"{each['tokens'] / budget:.2f}",
            f"{each['at_last'] / budget:.2f}",
            f"{max(0, each['at_last'] / budget - 1):.0%}",
        ]
        for number, each in enumerate(found, 1)
    ]
    text = textwrap.fill(
        f"{CALLS:,} calls at once through two gateways under one grant whose token budget is worth "
        f"{WORTH} of them ({budget:,} tokens): half streams, half whole answers, and a fifth hangs "
        "up before the end. Tokens are what the upstream counted, for calls that were hung up "
        "on in full. A call that might not fit is refused; what that leaves is spent afterwards, "
        "by calls one after another, until both gateways refuse. The rest is what calls that were "
        "hung up on were charged: all that they could have cost.",
        98,
    )
    columns = ["round", "calls let through", "tokens", "of the budget", "at last", "over it"]
    write(
        "hard-cap",
        "A hard cap under concurrency",
        f"{text}\n\n{table(columns, rows)}",
        {"rounds": found},
    )


async def _all_at_once(
    given: Pass, gateways: tuple[RunningGateway, RunningGateway], chance: random.Random
) -> dict[str, int]:
    """How often each status came; "hung up" are those that left."""
    found: dict[str, int] = {}

    async def one(number: int) -> None:
        at = given.at(gateways[number % 2])
        caller = Caller(at.stream, at.key)
        data = body("bench", SAY, max_tokens=TOKENS, stream=number % 4 < 2)
        hangs_up = chance.random() < 0.2
        patience = chance.uniform(0.05, 0.2)
        call = await caller.begin(data)
        try:
            await asyncio.wait_for(call.over.wait(), patience if hangs_up else 30)
            status = str(call.status)
        except TimeoutError:
            status = "hung up" if hangs_up else "no answer"
        caller.hang_up()
        found[status] = found.get(status, 0) + 1

    await asyncio.gather(*(one(number) for number in range(CALLS)))
    return found


async def _one_by_one(given: Pass, gateways: tuple[RunningGateway, RunningGateway]) -> None:
    await asyncio.sleep(2)  # what one gateway holds and doesn't need it returns within a second
    data = body("bench", SAY, max_tokens=TOKENS)
    for gateway in gateways:
        at = given.at(gateway)
        caller = Caller(at.stream, at.key)
        for _ in range(WORTH):
            call = await caller.begin(data)
            await asyncio.wait_for(call.over.wait(), 30)
            if call.status != 200:
                break
        caller.hang_up()
