"""The gateway beside LiteLLM, nginx and a bare pass-through: `make bench-gateway`."""

import asyncio
import contextlib
import statistics
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.contestants import (
    Contestant,
    bare,
    cpu,
    litellm,
    plain_nginx,
    upstreams,
)
from tests.bench.load import PATIENCE, first_tokens, open_streams, quantiles, run, wrk
from tests.bench.passes import keyturn, say
from tests.bench.profile import shares
from tests.bench.report import table, write
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

CLIENTS = (1, 8, 64)
ROUNDS = 3
SECONDS = 4  # wrk takes whole ones
# Streams that last about as long for so many clients that no proxy is asked for more than it can.
SHAPES = {1: "5 tokens, 10 ms", 8: "5 tokens, 20 ms", 64: "20 tokens, 50 ms"}
OPEN = 500
OPEN_SHAPE = "1000 tokens, 500 ms"
QUANTILES = ("p50", "p95", "p99")
TITLES = {
    "nginx": "nginx",
    "bare": "bare pass-through",
    "keyturn": "**Keyturn**",
    "LiteLLM": "LiteLLM",
}
Figures = dict[str, float]


def test_gateway(
    world: World, servers: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    quick = request.config.getoption("quick")
    with contextlib.ExitStack() as stack:
        to = stack.enter_context(upstreams(tmp_path))
        contestants = [to.direct]
        if not quick:
            contestants.append(stack.enter_context(plain_nginx(tmp_path, to)))
        contestants.append(stack.enter_context(bare(to)))
        contestants.append(stack.enter_context(keyturn(servers, world, to)))
        if not quick:
            contestants.append(stack.enter_context(litellm(tmp_path, to)))
        fresh = {each.name: each.memory for each in contestants}
        for each in contestants:
            wrk(each, clients=8, seconds=1)
        whole = {clients: _whole(contestants, clients, servers, quick=quick) for clients in CLIENTS}
        if quick:
            return
        profile = {
            each.name: shares(each, tmp_path)
            for each in contestants
            if each.name in ("bare", "keyturn")
        }
        loaded = {each.name: each.memory for each in contestants}
        first = {clients: _first(contestants, clients) for clients in CLIENTS}
        held = {each.name: run(_open(each)) for each in contestants}
    memory = {
        name: {"fresh": fresh[name], "loaded": loaded[name], "open": held[name]["memory"]}
        for name in TITLES
    }
    raw = {"whole": whole, "first": first, "open": held, "memory": memory, "profile": profile}
    text = _text(whole, first, held, memory)
    if profile["keyturn"]:
        text += f"\n\n{_profile_text(whole[64], profile)}"
    write("gateway", "Gateway", text, raw)


def _whole(
    contestants: list[Contestant], clients: int, servers: Servers, *, quick: bool
) -> dict[str, Figures]:
    """Of each contestant the median of its rounds, which take turns."""
    rounds: dict[str, list[Figures]] = {each.name: [] for each in contestants}
    for _ in range(1 if quick else ROUNDS):
        for each in contestants:
            database = cpu(servers.postgres.pid or 0)
            found = wrk(each, clients=clients, seconds=2 if quick else SECONDS)
            found["database"] = cpu(servers.postgres.pid or 0) - database
            rounds[each.name].append(found)
    medians = {}
    for name, of in rounds.items():
        one = {key: statistics.median(each[key] for each in of) for key in of[0]}
        if one["cpu"]:
            one["rate_per_core"] = one["requests"] / one["cpu"]
        line = f"{name:8} {clients:3} clients {one['rate']:8,.0f}/s"
        if "rate_per_core" in one:
            line += f" {one['rate_per_core']:7,.0f}/s a core"
        say(f"{line:50}" + "".join(f" {key} {one[key]:7.2f}" for key in QUANTILES) + " ms")
        medians[name] = one
    return medians


def _first(contestants: list[Contestant], clients: int) -> dict[str, Figures]:
    found = {}
    for each in contestants:
        values = run(first_tokens(each, clients=clients, seconds=4, shape=SHAPES[clients]))
        one = found[each.name] = quantiles(values) | {"calls": len(values)}
        line = f"{each.name:8} {clients:3} clients, first token:"
        say(f"{line:50}" + "".join(f" {key} {one[key]:7.2f}" for key in QUANTILES) + " ms")
    return found


async def _open(contestant: Contestant) -> Figures:
    """With 500 streams open: first tokens of calls beside them, CPU, memory, tokens that come."""
    began = time.monotonic()
    callers, calls = await open_streams(contestant, OPEN, shape=OPEN_SHAPE)
    opened = time.monotonic() - began
    await asyncio.sleep(1)
    used, events, began = contestant.cpu, sum(call.events for call in calls), time.monotonic()
    values = await first_tokens(contestant, clients=1, seconds=5, shape=SHAPES[1])
    passed = time.monotonic() - began
    found = quantiles(values) | {
        "calls": len(values),
        "begun": sum(call.first > 0 for call in calls),
        "opened": opened,
        "cores": (contestant.cpu - used) / passed,
        "events": (sum(call.events for call in calls) - events) / passed,
        "memory": contestant.memory,
    }
    if cut := [call for call in calls if call.ended]:
        raise RuntimeError(f"{contestant.name} ended {len(cut)} streams: {cut[0].tail!r}")
    for caller in callers:
        caller.hang_up()
    await asyncio.sleep(1)
    line = f"{contestant.name:8} {found['begun']} open, {found['events']:,.0f} tokens/s:"
    say(f"{line:50}" + "".join(f" {key} {found[key]:7.2f}" for key in QUANTILES) + " ms")
    return found


def _added(figures: dict[str, Figures], name: str, key: str) -> float:
    return figures[name][key] - figures["direct"][key]


def _text(
    whole: dict[int, dict[str, Figures]],
    first: dict[int, dict[str, Figures]],
    held: dict[str, Figures],
    memory: dict[str, Figures],
) -> str:
    parts = [
        _paragraph(
            "Whole answers of one upstream (nginx, a constant chat completion with its usage; a "
            "request of 1 kB), loaded by wrk. Each contestant is one process with one worker, on "
            "the machine that also makes the load and answers it. Keyturn checks everything, with "
            "a limit of each kind that a grant can have, and meters and records each call in "
            "PostgreSQL; LiteLLM "
            "1.106.0 checks its master key, without a database; nginx and the bare pass-through "
            "(uvicorn and aiohttp, tests/bench/bare.py) check nothing. They take turns, "
            f"{ROUNDS} times {SECONDS:g} s; the median counts. Added latency is what is more than "
            "without a proxy in the same run. Requests/s a core are by the CPU that the proxy "
            "itself used."
        ),
        _whole_table(whole),
        _paragraph(
            "Time to first token that a proxy adds to streams, whose upstream sends the first "
            f"token at once: to clients that begin a call when one ends, and to one client beside "
            f"{OPEN} open streams of {OPEN_SHAPE.split(', ')[1]} a token. A call without its first "
            f"token after {PATIENCE:g} s counts as {PATIENCE:g} s."
        ),
        _first_table(first, held),
        _paragraph(
            f"Resident memory in MB: after the start, after the load above, and with {OPEN} "
            f"streams open (as many of them as {3 * PATIENCE:g} s sufficed for)."
        ),
        _memory_table(memory, held),
        "Targets, of this run:",
        _targets(whole, first, held),
    ]
    return "\n\n".join(parts)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 98)


def _whole_table(whole: dict[int, dict[str, Figures]]) -> str:
    columns = ["clients", "through", "requests/s", "of bare", "× LiteLLM", "a core"]
    columns += ["added p50, ms", "p95", "p99", "p50 × LiteLLM"]
    rows: list[list[Any]] = []
    for clients, by in whole.items():
        for name, title in TITLES.items():
            own = by[name]
            added = [_added(by, name, key) for key in QUANTILES]
            row = [clients, title, f"{own['rate']:,.0f}", f"{own['rate'] / by['bare']['rate']:.2f}"]
            row += [f"{own['rate'] / by['LiteLLM']['rate']:.1f}", f"{own['rate_per_core']:,.0f}"]
            row += [f"{value:.2f}" for value in added]
            rows.append([*row, f"{added[0] / _added(by, 'LiteLLM', 'p50'):.3f}"])
    return table(columns, rows)


def _first_table(first: dict[int, dict[str, Figures]], held: dict[str, Figures]) -> str:
    columns = ["clients", "through", "added p50, ms", "p95", "p99", "p50 over bare, ms"]
    rows: list[list[Any]] = []
    for label, by in [*((str(key), value) for key, value in first.items()), (f"{OPEN} open", held)]:
        for name, title in TITLES.items():
            added = [_added(by, name, key) for key in QUANTILES]
            over = _added(by, name, "p50") - _added(by, "bare", "p50")
            rows.append([label, title, *(f"{value:.2f}" for value in added), f"{over:+.2f}"])
    return table(columns, rows)


def _memory_table(memory: dict[str, Figures], held: dict[str, Figures]) -> str:
    columns = ["through", "start", "after load", f"{OPEN} open", "× LiteLLM"]
    columns += ["streams", "cores used for them", f"of {OPEN * 2:,} tokens/s came"]
    rows: list[list[Any]] = []
    for name, title in TITLES.items():
        own = memory[name]
        row: list[Any] = [title, *(f"{own[key]:,.0f}" for key in ("fresh", "loaded", "open"))]
        row.append(f"{own['open'] / memory['LiteLLM']['open']:.2f}")
        row.append(f"{held[name]['begun']:.0f}")
        rows.append([*row, f"{held[name]['cores']:.2f}", f"{held[name]['events']:,.0f}"])
    return table(columns, rows)


def _profile_text(by: dict[str, Figures], profile: dict[str, Figures]) -> str:
    cost = {name: 1e6 / by[name]["rate_per_core"] for name in profile}
    rows: list[list[Any]] = []
    for place in sorted(
        profile["bare"] | profile["keyturn"], key=lambda each: -profile["keyturn"].get(each, 0)
    ):
        own = [profile[name].get(place, 0) * cost[name] for name in ("keyturn", "bare")]
        if max(own) >= 1:
            rows.append([place, *(f"{each:.0f}" for each in own)])
    rows.append(["all", *(f"{cost[name]:.0f}" for name in ("keyturn", "bare"))])
    text = _paragraph(
        "Where the CPU of a call goes at 64 clients, in µs, by py-spy: each sample counts for the "
        "innermost of these that was at work."
    )
    return text + "\n\n" + table(["", "Keyturn", "bare pass-through"], rows)


def _targets(
    whole: dict[int, dict[str, Figures]],
    first: dict[int, dict[str, Figures]],
    held: dict[str, Figures],
) -> str:
    def rate(clients: int, beside: str) -> float:
        return whole[clients]["keyturn"]["rate"] / whole[clients][beside]["rate"]

    def latency(key: str) -> str:
        worst = max(
            _added(by, "keyturn", key) / _added(by, "LiteLLM", key) for by in whole.values()
        )
        return f"{worst:.3f}"

    later = max(
        by["keyturn"]["p50"] - by["bare"]["p50"] for by in (first[1], first[8], first[64], held)
    )

    def at_both(beside: str) -> str:
        return " / ".join(f"{rate(clients, beside):.2f}" for clients in (8, 64))

    rows = [
        ["requests/s of the bare one's, at 8 / 64 clients", "≥ 0.5", at_both("bare")],
        ["requests/s × LiteLLM, at 8 / 64 clients", "≥ 30", at_both("LiteLLM")],
        *([f"added {key} of LiteLLM's, the worst", "≤ 0.05", latency(key)] for key in QUANTILES),
        ["first token over the bare one's, p50, the worst", "≤ 1 ms", f"{later:+.2f} ms"],
    ]
    used = whole[64]["keyturn"]
    note = _paragraph(
        f"Beside the gateway's own process PostgreSQL used {used['database'] / used['seconds']:.2f}"
        f" of a core at 64 clients, for the records."
    )
    return table(["target", "wanted", "measured"], rows) + "\n\n" + note
