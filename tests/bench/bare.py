"""A pass-through without a check, a count or a record: what Python can do at most.

Served as the gateway is, by uvicorn with one process, and with the same HTTP client.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

UPSTREAMS = {
    "/fast": os.environ.get("BENCH_FAST", ""),
    "/stream": os.environ.get("BENCH_STREAM", ""),
}
Message = MutableMapping[str, Any]


class PassThrough:
    """`/fast/...` and `/stream/...` to one upstream each."""

    session: aiohttp.ClientSession

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        head, slash, rest = scope["path"][1:].partition("/")
        upstream = UPSTREAMS.get(f"/{head}")
        if upstream is None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        async with self.session.post(
            f"{upstream}{slash}{rest}", data=body, headers={"content-type": "application/json"}
        ) as answer:
            kind = answer.headers.get("content-type", "").encode()
            headers = [(b"content-type", kind)]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            if not kind.startswith(b"text/event-stream"):
                whole = await answer.read()
                headers.append((b"content-length", b"%d" % len(whole)))
                await send(start)
                await send({"type": "http.response.body", "body": whole})
                return
            await send(start)
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

    async def _lifespan(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        await receive()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.session.close()
        await send({"type": "lifespan.shutdown.complete"})


application = PassThrough()
