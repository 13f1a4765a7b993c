"""Load on a contestant: whole answers by wrk, streams by a small client of our own."""

import asyncio
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
PROMPT = (
    "You are a support assistant of Example Bank. Answer in two sentences, name the page of the "
    "handbook that you rely on, and never guess an amount. "
) * 4


def body(model: str, say: str, **more: Any) -> str:
    """A chat completion's request, about a kilobyte of it."""
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": say}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 200} | more)


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
    found["rate"] = found["requests"] / found["seconds"]
    return found


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


@dataclass
class Call:
    """One streamed call; times are of the monotonic clock."""

    sent: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    status: int = 0
    complete: bool = False
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
        if not call.first and b"data: " in data:
            call.first = time.monotonic()
            call.begun.set()
        call.tail = (call.tail + data)[-400:]
        if call.tail.endswith(b"0\r\n\r\n") or (call.status != 200 and b"}" in data):
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


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run it on uvloop."""
    return uvloop.run(main)
