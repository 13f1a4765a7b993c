"""One WebSocket through the gateway: a call that lasts, cut when its grant ends."""

import asyncio
import contextlib
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from django.conf import settings

from gateway import plain
from gateway.call import Call, split
from gateway.dialects import Plan, Refused
from gateway.registry import Entry
from gateway.wire import Headers, HungUp, answer, headers_of

REASON = 123  # bytes, the most that a close frame has room for
CODES = {413: 1009, 401: 1008, 403: 1008, 404: 1008, 429: 1013, 503: 1013}
# These are said by no frame: they stand for frames that never came.
UNSENDABLE = {1005: 1000, 1006: 1011, 1015: 1011}

_closing: set[asyncio.Task[bool]] = set()


class Socket(Call):
    """A call over a WebSocket. Refused before it is accepted, it is answered over HTTP."""

    async def _serve(self) -> None:
        self.dialect = plain.HTTP
        self.record.dialect = plain.HTTP.name
        await self.receive()  # that it connects
        endpoint, rest, self.record.path = split(self.scope.get("raw_path") or b"")
        headers = headers_of(self.scope)
        query = self.scope["query_string"]
        plain.check(rest, query)
        entry = await self.enter(headers, endpoint)
        path = rest.decode()
        plain.check_held(entry, "WEBSOCKET", path)
        key = await self.take_key(entry)
        await self.reserve(entry, Plan(body={}, model=""))
        upstream = await self._connect(entry, plain.target(path, query), headers, key)
        self.let_go_of_key()
        self._closed: tuple[int, str] = (1001, "")  # as the upstream is told
        try:
            accept = {"subprotocol": upstream.protocol, "headers": self.own_headers()}
            await self.send({"type": "websocket.accept", **accept})
            self.started, self.record.streamed, self.record.status = True, True, 101
            await self._both_ways(upstream)
        finally:
            # Not waited for: an upstream that doesn't answer must not keep this one open.
            code, reason = self._closed
            closing = asyncio.create_task(upstream.close(code=code, message=_cut_off(reason)))
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)

    async def _connect(
        self, entry: Entry, target: str, headers: Headers, key: str
    ) -> aiohttp.ClientWebSocketResponse:
        connect, protocols = self.gateway.upstreams.connect, self.scope["subprotocols"]
        try:
            sent = plain.sent_up(self, entry, headers, key)
            return await connect(entry.live, target, sent, protocols)
        except Refused as refused:
            newer = None
            if refused.code == "upstream_refused":
                newer = await self.newer_key(entry, key)
            if newer is None:
                raise
        sent = plain.sent_up(self, entry, headers, newer)
        return await connect(entry.live, target, sent, protocols)

    async def _both_ways(self, upstream: aiohttp.ClientWebSocketResponse) -> None:
        tasks = [asyncio.create_task(self._up(upstream)), asyncio.create_task(self._down(upstream))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _up(self, upstream: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1005
                self._closed = UNSENDABLE.get(code, code), message.get("reason") or ""
                return
            text, data = message.get("text"), message.get("bytes")
            size = len(text.encode()) if text is not None else len(data or b"")
            most = settings.KEYTURN_GATEWAY_MAX_BODY
            if size > most:
                raise Refused(413, "too_large", f"A message may have at most {most} bytes.")
            self.record.request_bytes += size
            try:
                if text is not None:
                    await upstream.send_str(text)
                else:
                    await upstream.send_bytes(data or b"")
            except (aiohttp.ClientError, ConnectionError):
                return  # `_down` knows why

    async def _down(self, upstream: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await upstream.receive()
            if message.type is WSMsgType.TEXT:
                self.record.response_bytes += len(message.data.encode())
                await self._say({"type": "websocket.send", "text": message.data})
            elif message.type is WSMsgType.BINARY:
                self.record.response_bytes += len(message.data)
                await self._say({"type": "websocket.send", "bytes": message.data})
            elif message.type is WSMsgType.CLOSE:
                code = message.data or 1000
                await self._close(UNSENDABLE.get(code, code), message.extra or "")
                return
            else:
                raise Refused(502, "upstream_broke_off", "The upstream broke off.")

    async def _say(self, message: dict[str, Any]) -> None:
        try:
            await self.send(message)
        except OSError:  # uvicorn's ClientDisconnected
            raise HungUp from None

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(OSError):
            close = {"code": code, "reason": _cut_off(reason).decode()}
            await self.send({"type": "websocket.close", **close})

    async def _refuse(self, refused: Refused) -> None:
        self.record.refusal = refused.code
        if self.started:
            await self._close(CODES.get(refused.status, 1011), refused.message)
            return
        self.record.status = refused.status
        if "websocket.http.response" not in self.scope.get("extensions", {}):
            await self._close(1008, refused.message)
            return

        async def send(message: Any) -> None:
            await self.send(message | {"type": f"websocket.{message['type']}"})

        body = self.dialect.error(refused, self.record.trace)
        with contextlib.suppress(OSError):
            await answer(send, refused.status, body, self.ids())


def _cut_off(reason: str) -> bytes:
    return reason.encode()[:REASON].decode(errors="ignore").encode()
