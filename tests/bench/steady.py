"""The gateway's memory over 200,000 calls and 10,000 streams that were cut."""

import asyncio
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connections

from tests.bench.contestants import Contestant, upstreams
from tests.bench.load import open_streams, run, wrk
from tests.bench.passes import Pass, passes, say
from tests.bench.report import table, write
from tests.conftest import running_gateway
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

CALLS = 200_000
CUT = 10_000
AT_ONCE = 500
SHAPE = "900 tokens, 500 ms"


def test_memory(
    world: World, servers: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("quick"):
        pytest.skip("not a quick one")
    calls: dict[int, float] = {}
    cut: dict[int, float] = {}
    with upstreams(tmp_path) as to, running_gateway(servers) as gateway:
        (given,) = passes(world, to.fast)
        at = given.at(gateway)
        calls[0] = at.memory
        done = 0
        while done < CALLS:
            done += int(wrk(at, clients=64, seconds=5)["requests"])
            time.sleep(1.5)  # what waits to be written is memory too, but not for long
            calls[done] = at.memory
            say(f"{done:,} calls: {at.memory:.1f} MB")
        cut[0] = at.memory
        for number, each in enumerate(passes(world, to.stream, CUT // AT_ONCE), 1):
            run(_cut(each, each.at(gateway)))
            cut[number * AT_ONCE] = at.memory
            say(f"{number * AT_ONCE:,} streams cut: {at.memory:.1f} MB")
    rows = _rows("calls", calls) + _rows("streams cut", cut)
    text = textwrap.fill(
        f"Resident memory of one gateway process over {CALLS:,} calls from 64 clients, each time "
        f"when they had been written down, and then over {CUT:,} streams, {AT_ONCE} of them open "
        "at a time until their grant was ended.",
        98,
    )
    columns = ["after", "MB", "of the first measured"]
    write(
        "gateway-memory",
        "The gateway's memory over time",
        f"{text}\n\n{table(columns, rows)}",
        {"calls": calls, "cut": cut},
    )


def _rows(what: str, found: dict[int, float]) -> list[list[str]]:
    """The first measured under load, and a few after it: what a start takes is no leak."""
    counts = [count for count in found if count]
    chosen = sorted({counts[round(part * (len(counts) - 1) / 4)] for part in range(5)})
    first = found[chosen[0]]
    return [
        [f"{count:,} {what}", f"{found[count]:.1f}", f"{found[count] / first:.2f}"]
        for count in chosen
    ]


async def _cut(given: Pass, at: Contestant) -> None:
    """Open the streams, end their grant, and wait until each is over."""
    callers, calls = await open_streams(at, AT_ONCE, shape=SHAPE)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, given.end)
        await loop.run_in_executor(pool, connections.close_all)
    await asyncio.wait_for(asyncio.gather(*(call.over.wait() for call in calls)), 10)
    if wrong := [call for call in calls if call.complete and b"error" not in call.tail]:
        raise RuntimeError(f"A stream ended as if nothing were: {wrong[0].tail!r}")
    for caller in callers:
        caller.hang_up()
    await asyncio.sleep(0.2)
