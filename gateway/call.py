"""One call of one client, from its route to its record.

In this order: route, token, grant, body, scope, upstream key, limits and budget, forward, read
the answer, settle. Whatever isn't let through by name is refused in the caller's dialect.
"""

import asyncio
import logging
import os
import re
import time
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING

import aiohttp
import orjson
from django.conf import settings

from audit.forwarded import client_address
from gateway import plain, session
from gateway.dialects import (
    ENDPOINT,
    OPENAI,
    Dialect,
    Follower,
    Operation,
    Plan,
    Refused,
    dumps,
    route,
)
from gateway.dialects.anthropic import betas
from gateway.dialects.base import Body, cost_of, tool_refused
from gateway.meter import Reservation
from gateway.recording import HUNG_UP, Record
from gateway.registry import POLL, Entry, ended
from gateway.session import Session
from gateway.upstreams import BrokeOff
from gateway.wire import (
    Headers,
    HungUp,
    Receive,
    Scope,
    Send,
    answer,
    headers_of,
    parse_body,
    read_body,
    secret_of,
)

if TYPE_CHECKING:
    from gateway.app import Gateway

logger = logging.getLogger(__name__)

# Of the upstream's headers, those that clients need. The rest could name its accounts.
PASSED_BACK = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")
REFUSED_KEY = {401, 403}
MOST_ANSWER = 100_000_000  # bytes of an answer that is read as a whole
QUICK = 0.25  # seconds; a client that hangs up sooner than this is noticed this late
ASKABLE = {"operation_not_granted", "model_not_granted", "tool_not_granted", "mcp_host_not_granted"}

_VERSION = re.compile(rb"[0-9A-Za-z.-]{1,20}")


class Call:
    """From `serve` to its end; `record` is what stays of it."""

    def __init__(self, gateway: "Gateway", scope: Scope, receive: Receive, send: Send) -> None:
        self.gateway = gateway
        self.scope = scope
        self.receive = receive
        self.send = send
        client = scope.get("client")
        now = time.time()
        # A ULID, as `audit.ids` makes them, at a fifth of what the library takes.
        pk = uuid.UUID(bytes=int(now * 1000).to_bytes(6) + os.urandom(10))
        self.record = Record(
            pk,
            f"req_{pk.hex}",
            now,
            time.perf_counter(),
            scope.get("method", "WEBSOCKET"),
            "",
            OPENAI.name,
            self._address(client[0] if client else ""),
        )
        self.dialect: Dialect = OPENAI
        self.entry: Entry | None = None
        self.session: Session | None = None
        self.headers: Headers = {}
        self.plan: Plan | None = None
        self.price = (0.0, 0.0)
        self.reservation: Reservation | None = None
        self.follower: Follower | None = None
        self.answered = 0  # the upstream's status
        self.was_sent = False  # the upstream may have it
        self.started = False
        self.streaming = False
        self.hung_up = False
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | asyncio.TimerHandle | None = None

    def _address(self, peer: str) -> str:
        if not settings.KEYTURN_TRUSTED_PROXIES:
            return peer
        named = [
            value.decode("latin-1")
            for name, value in self.scope["headers"]
            if name == b"x-forwarded-for"
        ]
        return client_address(peer, named)

    async def serve(self) -> None:
        """Answer, whatever happens, and leave a record."""
        try:
            await self._serve()
        except Refused as refused:
            await self._refuse(refused)
        except HungUp:
            self.hung_up = True
        except asyncio.CancelledError:
            await self._cut()
        except Exception:
            logger.exception("%s could not be served", self.record.trace)
            await self._refuse(Refused(500, "internal", "Keyturn failed; its log says why."))
        finally:
            self._finish()

    async def _serve(self) -> None:
        endpoint, rest, self.record.path = split(self.scope.get("raw_path") or b"")
        headers = self.headers = headers_of(self.scope)
        if b"traceparent" in headers:
            self.record.parent = headers[b"traceparent"].decode("latin-1")
        target = route(rest, headers)
        self.dialect = plain.HTTP if target is None else target.dialect
        self.record.dialect = self.dialect.name
        # Before anybody is let in, so that whatever is recorded fits its column.
        if self.record.method not in plain.METHODS:
            raise Refused(405, "method_not_allowed", "This method isn't known here.")
        if target is None:
            plain.check(rest, self.scope["query_string"])
            if rest.startswith(session.OWN):
                await session.serve(self, endpoint, rest, headers)
                return
        entry = await self.enter(headers, endpoint)
        live = entry.live
        if target is None or (
            self.dialect.name not in live.dialects and plain.HTTP.name in live.dialects
        ):
            await plain.serve(self, entry, rest, headers)
            return
        if self.dialect.name not in live.dialects:
            raise Refused(404, "not_found", f"This endpoint doesn't speak {self.dialect.name}.")
        if self.record.method != target.method:
            raise Refused(405, "method_not_allowed", f"Use {target.method} here.")
        if target.operation is None:
            names = live.scope.models | {
                a for a, m in live.aliases.items() if m in live.scope.models
            }
            if target.one is not None and target.one not in names:
                raise Refused(404, "model_not_found", "This grant holds no model of this name.")
            found = self.dialect.models(names if target.one is None else frozenset({target.one}))
            self.record.status = 200
            own = self.own_headers()
            await answer(self.send, 200, found if target.one is None else found["data"][0], own)
            return
        raw = await read_body(headers, self.receive)
        self.record.request_bytes = len(raw)
        plan = self.plan = target.operation.plan(parse_body(raw), raw, live.scope, live.aliases)
        self.record.model, self.record.streamed = plan.model, plan.streams
        self.record.tools_declared = plan.tools
        key = await self.take_key(entry)
        await self.reserve(entry, plan)
        self.watch_client()
        await self._forward(entry, target.operation, plan, key)

    async def enter(self, headers: Headers, endpoint: str) -> Entry:
        """Verify the credential and take a place among its open calls. Raises Refused."""
        if self.gateway.books.is_behind:
            raise Refused(
                503, "cannot_record", "Calls can't be recorded at the moment.", retry=True
            )
        registry = self.gateway.registry
        self.session = session.read(self.scope, headers)
        if self.session is None:
            entry = await registry.admit(secret_of(self.scope, headers), endpoint)
        else:
            session.check(self.session, self.scope, headers, endpoint)
            entry = await registry.by_credential(self.session.credential, endpoint)
        self.take_place(entry)
        return entry

    def take_place(self, entry: Entry) -> None:
        """From here on the end of the grant cuts this call. Raises Refused if it has ended."""
        if self._task is not None:
            entry.calls.add(self._task)
        self.entry = entry
        live, record = entry.live, self.record
        record.grant, record.credential = live.grant, live.credential
        record.endpoint, record.slug = live.endpoint_id, live.endpoint
        if entry.ended:
            raise ended(entry)  # between the look and the entry in its list of calls

    async def reserve(self, entry: Entry, plan: Plan) -> None:
        """Take what this call may need of its grant's limits. Raises Refused."""
        books = self.gateway.books
        if plan.model:
            self.price = books.price_now(entry.live, plan) or await books.price(entry.live, plan)
        if entry.limits is None:
            return
        allowance = books.allowance(entry.live.grant, entry.limits)
        reservation = allowance.reserve_now(plan, self.price)
        if reservation is None:
            reservation = await allowance.reserve(plan, self.price)
        self.reservation = reservation
        self.record.is_reserved = True
        if reservation.output is not None:
            plan.cap_output(reservation.output)

    async def take_key(self, entry: Entry) -> str:
        """The upstream's key, in use by this call until its upstream answers. Raises Refused."""
        return await self.gateway.registry.keys.take(entry.live, self)

    async def newer_key(self, entry: Entry, key: str) -> str | None:
        """The upstream refused this key unread, so that nothing was billed: the key that took its
        place, with which the call may be made once more."""
        return await self.gateway.registry.keys.refused(entry.live, key, self)

    def let_go_of_key(self) -> None:
        """The upstream has let this call in, or it's over."""
        if self.entry is not None:
            self.gateway.registry.keys.answered(self.entry.live, self)

    def _sent(self, entry: Entry, headers: Headers, key: str) -> dict[str, str]:
        sent = entry.upstream_headers(self.dialect, key)
        if self.dialect.name == "anthropic":
            version = headers.get(b"anthropic-version", b"2023-06-01")
            if _VERSION.fullmatch(version) is None:
                raise Refused(400, "invalid_value", "anthropic-version is no version.")
            sent = sent | {"anthropic-version": version.decode()}
            if wanted := betas(headers.get(b"anthropic-beta", b"")):
                sent["anthropic-beta"] = wanted
        return sent

    async def _forward(self, entry: Entry, operation: Operation, plan: Plan, key: str) -> None:
        # Serialised anew: the upstream reads exactly what was checked.
        data = dumps(plan.body)
        sent = self._sent(entry, self.headers, key)
        request = self.gateway.upstreams.request
        self.was_sent = True
        try:
            upstream = await request(entry.live, "POST", operation.path, sent, data)
            if upstream.status in REFUSED_KEY and (newer := await self.newer_key(entry, key)):
                upstream.release()
                sent = self._sent(entry, self.headers, newer)
                upstream = await request(entry.live, "POST", operation.path, sent, data)
            self.let_go_of_key()
        except BrokeOff:
            raise
        except Refused:
            self.was_sent = False
            raise
        async with upstream:
            self.answered = upstream.status
            if upstream.status in REFUSED_KEY or 300 <= upstream.status < 400:
                logger.error("%s answered %s to its key", entry.live.endpoint, upstream.status)
                raise Refused(
                    502,
                    "upstream_refused",
                    "The upstream doesn't take the key that Keyturn holds for it. This is not "
                    "about your credential; the endpoint's owner has to look at it.",
                )
            try:
                if upstream.status < 400 and upstream.content_type == self.dialect.streams_as:
                    await self._stream(entry, operation, plan, upstream)
                else:
                    await self._whole(entry, operation, upstream)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("%s: %s", entry.live.endpoint, type(error).__name__)
                raise BrokeOff(
                    502, "upstream_broke_off", "The upstream broke off in the middle of its answer."
                ) from error

    async def _whole(
        self, entry: Entry, operation: Operation, upstream: aiohttp.ClientResponse
    ) -> None:
        data = await _read(upstream)
        if upstream.status < 400:
            try:
                found = orjson.loads(data)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                # Nothing in it can be checked.
                raise Refused(502, "upstream_malformed", "The upstream's answer is no JSON object.")
            called = list(operation.read(found, self.record.usage))
            self.record.tools_called = [name[:200] for name in called]
            for name in called:
                if not entry.live.scope.holds_tool(name):
                    raise tool_refused(name, entry.live.scope)
        self.record.status = upstream.status
        self.record.first_byte = time.perf_counter()
        self.record.response_bytes = len(data)
        self.started = True
        await self.send(
            {
                "type": "http.response.start",
                "status": upstream.status,
                "headers": [
                    (b"content-length", b"%d" % len(data)),
                    *_passed_back(upstream),
                    *self.own_headers(),
                ],
            }
        )
        await self.send({"type": "http.response.body", "body": data})

    async def _stream(
        self, entry: Entry, operation: Operation, plan: Plan, upstream: aiohttp.ClientResponse
    ) -> None:
        follower = operation.follow(plan, entry.live.scope, self.record.usage)
        self.follower = follower
        self.record.tools_called = follower.called
        self.record.status = upstream.status
        self.record.streamed = self.streaming = self.started = True
        await self.send(
            {
                "type": "http.response.start",
                "status": upstream.status,
                "headers": [*_passed_back(upstream), *self.own_headers()],
            }
        )
        most = None if self.reservation is None else self.reservation.output
        async for chunk in upstream.content.iter_any():
            passed = follower.feed(chunk)
            if most is not None and follower.pieces > most:
                raise Refused(
                    429,
                    "budget_exhausted",
                    "The upstream went on beyond what was reserved of this grant's budget.",
                )
            if passed:
                await self.pass_on(passed)
        if passed := follower.finish():
            await self.pass_on(passed)
        await self.send({"type": "http.response.body", "body": b""})

    async def pass_on(self, passed: bytes) -> None:
        """Send a part of the answer."""
        if not self.record.first_byte:
            self.record.first_byte = time.perf_counter()
        self.record.response_bytes += len(passed)
        await self.send({"type": "http.response.body", "body": passed, "more_body": True})

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every answer."""
        return [*self.ids(), (b"cache-control", b"no-store")]

    def ids(self) -> list[tuple[bytes, bytes]]:
        """By which this call is found again."""
        trace = self.record.trace.encode()
        return [(name, trace) for name in self.dialect.id_headers]

    def watch_client(self) -> None:
        """A client that hangs up ends its call at the upstream too.

        Begun a moment later: most calls are over by then, and a task for each would be a tenth of
        what they cost.
        """
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._watch = loop.create_task(self._wait_for_hang_up())

        self._watch = loop.call_later(QUICK, begin)

    async def _wait_for_hang_up(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.hung_up = True
        if self._task is not None:
            self._task.cancel()

    async def _refuse(self, refused: Refused) -> None:
        """An error in the caller's dialect; within a stream as an event, then the end."""
        self.record.refusal = refused.code
        self._unwatch()
        if refused.code in ASKABLE and self.entry is not None:
            refused.message += (
                f" Ask for more at {settings.KEYTURN_BASE_URL}/request/{self.entry.live.profile}/"
            )
        elif refused.code == "budget_exhausted" and self.entry is not None:
            refused.message += (
                f" Ask for more at {settings.KEYTURN_BASE_URL}/grants/{self.entry.live.grant}/"
            )
        if not self.started:
            self.record.status = refused.status
            headers = [
                *self.ids(),
                (b"x-should-retry", b"true" if refused.retry else b"false"),
            ]
            if refused.retry_after is not None:
                headers.append((b"retry-after", b"%d" % refused.retry_after))
            body: Body | bytes = self.dialect.error(refused, self.record.trace)
            if self.dialect is plain.HTTP and session.wants_page(self.headers):
                body, of_page = session.page(refused, self.session)
                headers += of_page
            await answer(self.send, refused.status, body, headers)
        elif self.streaming:
            event = self.dialect.event(refused, self.record.trace)
            await self.send({"type": "http.response.body", "body": event})
        else:
            # Half of a plain answer is out: only a broken connection says that it's no whole.
            raise refused

    async def _cut(self) -> None:
        """This call was cancelled: by its client, by the end of its grant, or by doubt."""
        entry = self.entry
        if self.hung_up or entry is None:
            return
        if self._task is not None:
            self._task.uncancel()
        if entry.ended or time.monotonic() >= entry.deadline:
            await self._refuse(ended(entry))
        elif time.monotonic() - entry.confirmed > POLL:
            await self._refuse(
                Refused(503, "cannot_verify", "Keyturn can't verify this grant any more.")
            )
        else:
            raise asyncio.CancelledError  # the server is stopping

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _finish(self) -> None:
        self._unwatch()
        record = self.record
        record.ended = time.perf_counter()
        if self.hung_up:
            record.status = HUNG_UP
        if self.entry is not None:
            if self._task is not None:
                self.entry.calls.discard(self._task)
            self.let_go_of_key()
            self._charge()
        self.gateway.recorder.add(record)

    def _charge(self) -> None:
        """Once, by what the upstream counted; where it didn't, the larger of seen and possible."""
        usage, plan, record = self.record.usage, self.plan, self.record
        if plan is not None and self.was_sent and (usage.is_complete or self.answered < 400):
            seen_in, seen_out = usage.input or 0, usage.output or 0
            if not usage.is_complete:
                seen_in = max(seen_in, plan.input_bound)
                possible = self.reservation.output if self.reservation else None
                pieces = self.follower.pieces if self.follower else 0
                seen_out = max(seen_out, possible or 0, pieces)
            record.charged_tokens = seen_in + seen_out
            record.charged_cost = cost_of(seen_in, seen_out, self.price)
        if self.reservation is not None:
            record.is_forfeited = self.reservation.allowance.is_forfeited
            self.reservation.allowance.settle(
                self.reservation, record.charged_tokens, record.charged_cost
            )


@lru_cache(maxsize=10_000)
def split(path: bytes) -> tuple[str, bytes, str]:
    """An endpoint's slug, and the path below it as it was sent and as it is recorded."""
    found = ENDPOINT.fullmatch(path)
    if found is None:
        return "", b"", ""
    rest = found["rest"] or b""
    return found["endpoint"].decode(), rest, rest.decode("latin-1")


async def _read(upstream: aiohttp.ClientResponse) -> bytes:
    if (upstream.content_length or 0) <= MOST_ANSWER and upstream.content_length is not None:
        return await upstream.read()
    parts, size = [], 0
    async for chunk in upstream.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > MOST_ANSWER:
            raise Refused(502, "upstream_malformed", "The upstream's answer is too large.")
    return b"".join(parts)


def _passed_back(upstream: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    headers = upstream.headers
    return [
        (name.encode(), headers[name].encode("latin-1")) for name in PASSED_BACK if name in headers
    ]
