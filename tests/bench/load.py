"""Load on a contestant: whole answers by wrk, streams by a small client of our own."""

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.contestants import Contestant

SCRIPT = Path(__file__).with_name("post.lua")
PATIENCE = 10.0  # seconds
PROMPT = (
    "You are a support assistant of Example Bank. Answer in two sentences, name the page of the "
    "handbook that you rely on, and never guess an amount. "
) * 4


def body(model: str, say: str, **more: Any) -> str:
    """A chat completion's request, about a kilobyte of it."""
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": say}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 1000} | more)


def wrk(contestant: Contestant, *, clients: int, seconds: float) -> dict[str, float]:
    """Requests/s, milliseconds at p50, p95 and p99, and cores used, of whole answers."""
    used = contestant.cpu
    ran = subprocess.run(
        [
            shutil.which("wrk") or "wrk",
            "-t1",
            f"-c{clients}",
            f"-d{seconds:g}s",
            "--timeout=20s",
            "-s",
            SCRIPT,
            contestant.fast,
        ],
        env=os.environ
        | {"BENCH_KEY": contestant.key, "BENCH_BODY": body(contestant.fast_model, "Hello?")},
        capture_output=True,
        check=True,
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    if found["refused"] or found["broken"]:
        raise RuntimeError(f"{contestant.name}: {found}")
    found["cpu"] = contestant.cpu - used
    found["rate"] = max(1, found["requests"]) / found["seconds"]
    return found


def stream(contestant: Contestant, shape: str, **more: Any) -> str:
    """The request of a stream of this shape, such as "12 tokens, 50 ms"."""
    return body(contestant.stream_model, shape, stream=True, **more)


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    # One value alone is all of them.
    cuts = statistics.quantiles(values * 2, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


@dataclass
class Call:
    """One streamed call; times are of the monotonic clock."""

    sent: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    status: int = 0
    missing: int | None = None  # bytes of an answer that said its length
    complete: bool = False
    events: int = 0
    tail: bytes = b""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Client(asyncio.Protocol):
    """A connection that is kept for one call after another."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.transport = None
        self._over(complete=False)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            return
        if not call.status:
            call.status = int(data[9:12])
            head = data.partition(b"\r\n\r\n")[0].lower()
            _, found, size = head.partition(b"\r\ncontent-length:")
            if found:
                call.missing = len(head) + 4 + int(size.partition(b"\r\n")[0])
        if not call.first and b"data: " in data:
            call.first = time.monotonic()
            call.begun.set()
        call.events += data.count(b"data: ")
        call.tail = (call.tail + data)[-400:]
        if call.missing is not None:
            call.missing -= len(data)
        if call.missing == 0 or call.tail.endswith(b"0\r\n\r\n"):
            self._over(complete=True)

    def _over(self, *, complete: bool) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.ended, call.complete = time.monotonic(), complete
            call.begun.set()
            call.over.set()


class Caller:
    """A client of one contestant's streams. Calls of one caller come one after another."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {key}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self.client = Client()

    async def begin(self, data: str) -> Call:
        """Send a call. `begun` is set at its first token, `over` at its end."""
        if self.client.transport is None or self.client.transport.is_closing():
            loop = asyncio.get_running_loop()
            _, self.client = await loop.create_connection(Client, self.host, self.port)
        call = self.client.call = Call()
        content = data.encode()
        assert self.client.transport is not None
        call.sent = time.monotonic()
        self.client.transport.write(self.head + b"%d\r\n\r\n" % len(content) + content)
        return call

    def hang_up(self) -> None:
        """Leave, whatever is still coming."""
        if self.client.transport is not None:
            self.client.transport.abort()


async def first_tokens(
    contestant: Contestant, *, clients: int, seconds: float, shape: str
) -> list[float]:
    """Milliseconds to each call's first token, of clients that begin a call as one ends.

    A call that has none within `PATIENCE` counts as that, and is left.
    """
    data, found = stream(contestant, shape), []
    tokens, _, apart, _ = shape.split()
    length = int(tokens) * int(apart) / 1000
    until = time.monotonic() + seconds

    async def client(number: int) -> None:
        # Spread over the length of a stream: in step they would queue behind each other.
        await asyncio.sleep(number / clients * length)
        caller = Caller(contestant.stream, contestant.stream_key or contestant.key)
        while time.monotonic() < until:
            call = await caller.begin(data)
            try:
                await asyncio.wait_for(call.over.wait(), PATIENCE)
            except TimeoutError:
                caller.hang_up()
                caller = Caller(contestant.stream, contestant.stream_key or contestant.key)
            else:
                if call.status != 200 or not call.complete:
                    raise RuntimeError(f"{contestant.name}: {call.status} {call.tail!r}")
            found.append((call.first - call.sent if call.first else PATIENCE) * 1000)
        caller.hang_up()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return found


async def open_streams(
    contestant: Contestant, count: int, *, shape: str
) -> tuple[list[Caller], list[Call]]:
    """So many streams, each past its first token, or as many of them as 30 s suffice for."""
    data = stream(contestant, shape)
    callers = [
        Caller(contestant.stream, contestant.stream_key or contestant.key) for _ in range(count)
    ]
    calls = []
    until = time.monotonic() + 3 * PATIENCE
    for at in range(0, count, 20):
        begun = await asyncio.gather(*(each.begin(data) for each in callers[at : at + 20]))
        calls += begun
        waiting = asyncio.gather(*(each.begun.wait() for each in begun))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting, max(0.01, until - time.monotonic()))
    if failed := [call for call in calls if call.status not in (0, 200)]:
        raise RuntimeError(f"{contestant.name}: {failed[0].status} {failed[0].tail!r}")
    return callers, calls


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run it on uvloop."""
    return uvloop.run(main)
