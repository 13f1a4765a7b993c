"""From ending a grant to its last stream cut and its next call refused, over 500 open streams."""

import asyncio
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.bench.contestants import upstreams
from tests.bench.load import Call, Caller, body, open_streams, quantiles, run
from tests.bench.passes import Pass, passes, say
from tests.bench.report import table, write
from tests.conftest import RunningGateway, running_gateway
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

STREAMS = 500
GRANTS = 25  # that end one after another; then one that has all of the streams
APART = 0.3
SHAPE = "900 tokens, 500 ms"
# What Keyturn promises of the 99th in a hundred, in seconds.
PROMISED = {"up": 1.0, "down": 2.0}
Figures = dict[str, Any]


def test_revocation(
    world: World, servers: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("quick"):
        pytest.skip("not a quick one")
    found: dict[str, dict[str, Figures]] = {}
    with upstreams(tmp_path) as to, running_gateway(servers) as gateway:
        for valkey in ("up", "down"):
            many, one = passes(world, to.stream, GRANTS), passes(world, to.stream)
            down = servers.valkey if valkey == "down" else None
            found[valkey] = {
                "25 grants, one after another": run(_revoke(gateway, many, down)),
                "one grant": run(_revoke(gateway, one, down)),
            }
            if down:
                down.start()
    rows = []
    for valkey, by in found.items():
        for what, each in by.items():
            cut, refused = each["cut"], each["refused"]
            row = [valkey, what, f"{cut['p50']:,.0f}", f"{cut['p99']:,.0f}"]
            row += [f"{cut['p99'] / 1000 / PROMISED[valkey]:.2f}"]
            rows.append([*row, f"{refused['p50']:,.0f}", f"{refused['most']:,.0f}"])
    text = textwrap.fill(
        f"{STREAMS} open streams through one gateway; grants are ended as by a reviewer. From the "
        "click, transaction included, to the moment at which the client has the error event or "
        "the end of each stream, and to the answer that refuses a new call under the grant (asked "
        "each 10 ms). Promised at p99: 1 s, and 2 s with Valkey down.",
        98,
    )
    columns = ["Valkey", "ended", "cut p50, ms", "cut p99, ms", "p99 of the promise"]
    columns += ["refused p50, ms", "refused last, ms"]
    write("revocation", "From revoked to cut", f"{text}\n\n{table(columns, rows)}", found)


async def _revoke(gateway: RunningGateway, given: list[Pass], valkey: Any) -> Figures:
    """Open the streams, end the grants, and see when each stream and the next call knows."""
    streams: list[list[Call]] = []
    callers: list[Caller] = []
    for each in given:
        some, calls = await open_streams(each.at(gateway), STREAMS // len(given), shape=SHAPE)
        callers += some
        streams.append(calls)
    loop = asyncio.get_running_loop()
    if valkey:
        await loop.run_in_executor(None, valkey.stop)
        await asyncio.sleep(1)
    cut: list[float] = []
    refused: list[float] = []

    async def follow(one: Pass, calls: list[Call], ended: float) -> None:
        refused.append(await _refused(one, gateway) - ended)
        for call in calls:
            await asyncio.wait_for(call.over.wait(), 10)
            if call.complete and b"error" not in call.tail:
                raise RuntimeError(f"A stream ended as if nothing were: {call.tail!r}")
            cut.append((call.ended - ended) * 1000)

    following = []
    with ThreadPoolExecutor(1) as pool:
        for one, calls in zip(given, streams, strict=True):
            if any(call.ended for call in calls):
                raise RuntimeError("A stream ended by itself")
            ended = time.monotonic()
            ending = loop.run_in_executor(pool, one.end)
            following.append(asyncio.create_task(follow(one, calls, ended)))
            await ending
            await asyncio.sleep(APART)
        await asyncio.gather(*following)
        await loop.run_in_executor(pool, connections.close_all)
    for caller in callers:
        caller.hang_up()
    times = quantiles(cut)
    asked = sorted(each * 1000 for each in refused)
    say(
        f"{len(given):2} grants, Valkey {'down' if valkey else 'up'}: {len(cut)} streams cut, "
        f"p50 {times['p50']:.0f} p99 {times['p99']:.0f} ms; refused at most {asked[-1]:.0f} ms"
    )
    return {"cut": times, "refused": {"p50": asked[len(asked) // 2], "most": asked[-1]}}


async def _refused(one: Pass, gateway: RunningGateway) -> float:
    at = one.at(gateway)
    data = body("bench", "1 tokens, 0 ms")
    caller = Caller(at.stream, at.key)
    while True:
        call = await caller.begin(data)
        await asyncio.wait_for(call.over.wait(), 10)
        if call.status != 200:
            caller.hang_up()
            return call.ended
        await asyncio.sleep(0.01)
