"""The policy enforcement point, as an ASGI application.

One call, in this order: route, token, grant, body, model, upstream key, forward. Whatever isn't
let through by name is refused in the caller's dialect.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from django.conf import settings

from gateway.dialects import METHODS, OPENAI, ROUTE, Dialect, Refused, spoken
from gateway.registry import POLL, Entry, Registry, ended

logger = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Of the upstream's headers, those that clients need. The rest could name its accounts.
PASSED_BACK = ("content-type", "retry-after", "x-should-retry")
BODY_TIMEOUT = 30.0  # seconds for a client to send its body


class Gateway:
    """The ASGI application. One per process."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.upstream: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if scope["path"] == "/healthz":
                await _answer(send, 200, {"status": "ok"}, [])
            else:
                await _Call(self, scope, receive, send).serve()
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def start(self) -> None:
        """Open the pool of upstream connections and begin to watch for what ends."""
        self.upstream = aiohttp.ClientSession(
            # Shorter than any usual server's: one that closes an idle connection just as a call
            # goes out on it would fail that call, which may not be repeated.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=10, sock_read=settings.KEYTURN_GATEWAY_UPSTREAM_TIMEOUT
            ),
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self.registry.start()

    async def stop(self) -> None:
        """Close everything that `start` opened."""
        await self.registry.stop()
        if self.upstream is not None:
            await self.upstream.close()


async def _answer(
    send: Send, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]]
) -> None:
    data = json.dumps(body).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(data)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": data})


class _Call:
    """One call of one client."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self.gateway = gateway
        self.scope = scope
        self.receive = receive
        self.send = send
        self.trace = f"req_{uuid.uuid4().hex}"
        self.headers: dict[bytes, bytes] = {}
        self.dialect: Dialect = OPENAI
        self.entry: Entry | None = None
        self.started = False
        self.streaming = False
        self.hung_up = False

    async def serve(self) -> None:
        """Answer, whatever happens."""
        try:
            await self._serve()
        except Refused as refused:
            await self._refuse(refused)
        except asyncio.CancelledError:
            await self._cut()
        finally:
            if self.entry is not None:
                task = asyncio.current_task()
                if task is not None:
                    self.entry.calls.discard(task)

    async def _serve(self) -> None:
        route = ROUTE.fullmatch(self.scope.get("raw_path") or b"")
        for name, value in self.scope["headers"]:
            if name in self.headers and name in {b"authorization", b"x-api-key", b"api-key"}:
                raise Refused(400, "two_keys", "Send exactly one key, once.")
            self.headers[name] = value
        if route is None:
            raise Refused(404, "not_found", "The gateway has nothing at this path.")
        call = route["call"]
        self.dialect = spoken(call, self.headers)
        if self.scope["method"] != METHODS[call]:
            raise Refused(405, "method_not_allowed", f"Use {METHODS[call]} here.")
        secret = self._secret()
        entry = await self.gateway.registry.admit(secret, route["endpoint"].decode())
        if self.dialect.name not in entry.live.dialects:
            raise Refused(404, "not_found", f"This endpoint doesn't speak {self.dialect.name}.")
        task = asyncio.current_task()
        if task is not None:
            entry.calls.add(task)
        self.entry = entry
        if entry.ended:
            raise ended(entry)  # between the look and the entry in its list of calls
        if call == b"models":
            await _answer(self.send, 200, self.dialect.models(entry.live.scope.models), self._own())
            return
        body = _parsed(await self._body())
        self._check_model(body, entry)
        key = await self.gateway.registry.upstream_key(entry.live.endpoint)
        await self._forward(entry, call.decode(), body, key)

    def _secret(self) -> str:
        query = self.scope.get("query_string", b"").decode("latin-1")
        if any(
            name.lower() in {"key", "api_key", "api-key", "token", "access_token"}
            for name, _ in parse_qsl(query, keep_blank_values=True)
        ):
            raise Refused(
                401,
                "key_in_url",
                "Keys in URLs end up in logs. Send it as `Authorization: Bearer`, and give this "
                "one back: it may have leaked.",
            )
        found = set()
        authorization = self.headers.get(b"authorization", b"").decode("latin-1")
        if authorization:
            scheme, _, value = authorization.partition(" ")
            if scheme.lower() != "bearer" or not value.strip():
                raise Refused(401, "invalid_api_key", "Send `Authorization: Bearer <credential>`.")
            found.add(value.strip())
        for name in (b"x-api-key", b"api-key"):
            if self.headers.get(name):
                found.add(self.headers[name].decode("latin-1").strip())
        if len(found) > 1:
            raise Refused(400, "two_keys", "Two different keys were sent; send exactly one.")
        if not found:
            raise Refused(
                401,
                "missing_api_key",
                f"No key was sent. Check out a credential at {settings.KEYTURN_BASE_URL}/",
            )
        return found.pop()

    async def _body(self) -> bytes:
        most = settings.KEYTURN_GATEWAY_MAX_BODY
        too_large = Refused(413, "too_large", f"The body may have at most {most} bytes.")
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise too_large
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Refused(415, "unsupported_encoding", "Send the body uncompressed.")
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        self.hung_up = True
                        raise asyncio.CancelledError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(
                408, "body_too_slow", f"The body took longer than {BODY_TIMEOUT:.0f} s."
            ) from None

    def _check_model(self, body: dict[str, Any], entry: Entry) -> None:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise Refused(400, "model_missing", "`model` must be a string.", param="model")
        if model not in entry.live.scope.models:
            raise Refused(
                403,
                "model_not_granted",
                f"This grant doesn't hold the model {model[:200]!r}. It holds: "
                f"{', '.join(sorted(entry.live.scope.models))}. Ask for more at "
                f"{settings.KEYTURN_BASE_URL}/request/{entry.live.profile}/",
                param="model",
            )

    async def _forward(self, entry: Entry, call: str, body: dict[str, Any], key: str) -> None:
        upstream = self.gateway.upstream
        assert upstream is not None  # noqa: S101 -- set by lifespan before any call
        watch = asyncio.create_task(self._watch_client(asyncio.current_task()))
        try:
            async with upstream.post(
                f"{entry.live.upstreams[0]}/v1/{call}",
                # Serialised anew: the upstream reads exactly what was checked.
                data=json.dumps(body, ensure_ascii=False).encode(),
                headers=self.dialect.upstream_headers(key, self.headers),
                allow_redirects=False,
            ) as answer:
                if answer.status in {401, 403} or 300 <= answer.status < 400:
                    self.gateway.registry.drop_key(entry.live.endpoint)
                    logger.error("%s answered %s to its key", entry.live.endpoint, answer.status)
                    raise Refused(
                        502,
                        "upstream_refused",
                        "The upstream doesn't take the key that Keyturn holds for it. This is not "
                        "about your credential; the endpoint's owner has to look at it.",
                    )
                await self._pass_back(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("%s: %s", entry.live.endpoint, type(error).__name__)
            raise Refused(
                502, "upstream_unreachable", "The upstream can't be reached or broke off."
            ) from error
        finally:
            watch.cancel()

    async def _watch_client(self, serving: asyncio.Task[Any] | None) -> None:
        """A client that hangs up ends its call at the upstream too."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.hung_up = True
        if serving is not None:
            serving.cancel()

    async def _pass_back(self, answer: aiohttp.ClientResponse) -> None:
        kept = [
            (name.encode(), answer.headers[name].encode("latin-1"))
            for name in PASSED_BACK
            if name in answer.headers
        ]
        self.streaming = answer.content_type == "text/event-stream"
        if not self.streaming and answer.content_length is not None:
            kept.append((b"content-length", str(answer.content_length).encode()))
        await self.send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [*kept, *self._own()],
            }
        )
        self.started = True
        chunks = _events(answer.content.iter_any()) if self.streaming else answer.content.iter_any()
        async for chunk in chunks:
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self.send({"type": "http.response.body", "body": b""})

    def _own(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", self.trace.encode()), (b"cache-control", b"no-store")]

    async def _refuse(self, refused: Refused) -> None:
        """An error in the caller's dialect; within a stream as an event, then the end."""
        if not self.started:
            retry = b"true" if refused.retry else b"false"
            await _answer(
                self.send,
                refused.status,
                self.dialect.error(refused, self.trace),
                [(b"x-request-id", self.trace.encode()), (b"x-should-retry", retry)],
            )
        elif self.streaming:
            event = self.dialect.event(refused, self.trace)
            await self.send({"type": "http.response.body", "body": event})
        else:
            # Half of a plain answer is out: only a broken connection says that it's no whole.
            raise refused

    async def _cut(self) -> None:
        """This call was cancelled: by its client, by the end of its grant, or by doubt."""
        entry = self.entry
        if self.hung_up or entry is None:
            return
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if entry.ended or time.monotonic() >= entry.deadline:
            await self._refuse(ended(entry))
        elif time.monotonic() - entry.confirmed > POLL:
            await self._refuse(
                Refused(503, "cannot_verify", "Keyturn can't verify this grant any more.")
            )
        else:
            raise asyncio.CancelledError  # the server is stopping


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole server-sent events only, so that an error event never lands inside another one."""
    held = b""
    async for chunk in chunks:
        held += chunk
        end = max(held.rfind(b"\n\n") + 2, held.rfind(b"\r\n\r\n") + 4)
        if end > 3:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers may each take another one of two `model` keys.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused(400, "duplicate_key", "The body names a key twice.")
    return found


def _not_a_number(name: str) -> None:
    raise Refused(400, "invalid_json", f"{name} is no JSON.")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body, object_pairs_hook=_no_duplicates, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_json", "The body must be one JSON object.") from error
    if not isinstance(data, dict):
        raise Refused(400, "invalid_json", "The body must be one JSON object.")
    return data
