"""Who is let in: verified credentials in memory, and what is open under each.

A credential is verified once with Vault and PostgreSQL, then kept by the full SHA-256 of its
secret. A JWT is verified once by the published keys, then kept so too, until its own end. What
ends a credential: its deadline on this process's monotonic clock, a push on Redis, or the poll of
PostgreSQL each second that finds what a lost push missed.
"""

import asyncio
import json
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

import redis.asyncio
import redis.exceptions
from django.conf import settings

from credentials import vault
from credentials.kinds import gateway_token, jwt
from credentials.live import Live, holding
from credentials.push import CHANNEL, KEYS
from gateway.asking import Ask, Unreachable
from gateway.dialects import Dialect, Refused
from gateway.keys import Keys
from gateway.meter import Limits

logger = logging.getLogger(__name__)
T = TypeVar("T")

POLL = 1.0  # seconds
FORGET_UNKNOWN = 3.0  # seconds for which an unknown secret isn't asked about again
FORGET_ENDED = 600.0  # seconds for which an ended grant is still told apart from an unknown key
MOST = 100_000  # entries of either kind


@dataclass(eq=False)
class Entry:
    """One verified credential. `calls` are the tasks that serve its open calls."""

    live: Live
    facts: tuple[Any, ...]
    deadline: float
    confirmed: float
    ended: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None
    limits: Limits | None = field(init=False)
    _headers: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.limits = Limits.of(self.live.scope)

    def learn(self, facts: tuple[Any, ...]) -> None:
        """What it's for may have changed: a budget was raised, an upstream added."""
        if facts != self.facts:
            self.facts, self.live = facts, Live.of(facts)
            self.limits = Limits.of(self.live.scope)
            self._headers.clear()

    def upstream_headers(self, dialect: Dialect, key: str) -> dict[str, str]:
        """The same dict as long as the key is the same."""
        known = self._headers.get(dialect.name)
        if known is None or known[0] != key:
            headers = dialect.upstream_headers(key, self.live.key_header)
            known = self._headers[dialect.name] = key, headers
        return known[1]

    def is_stale(self, moment: float) -> bool:
        """Whether it was last confirmed too long ago to be served on."""
        most: float = settings.KEYTURN_GATEWAY_MAX_STALE
        if self.live.critical:
            most = 0
        elif self.live.max_stale is not None:
            most = self.live.max_stale
        return moment - self.confirmed > max(most, 2 * POLL)

    def end(self) -> None:
        """From here on it's refused, and what is open under it is cut."""
        if self.ended:
            return  # cutting twice would cut the error event of the first cut
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()
        for task in tuple(self.calls):
            task.cancel()


@dataclass(slots=True)
class _Token:
    """A verified JWT. One credential has one after the other, each with an end of its own."""

    credential: uuid.UUID
    audience: str
    deadline: float


class Registry:
    """All that this gateway process knows; others have their own."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._by_digest: OrderedDict[bytes, Entry] = OrderedDict()
        self._by_credential: dict[uuid.UUID, Entry] = {}
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Any]] = {}
        self.keys = Keys(ask)
        self._polled_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to poll and to listen; call within the running loop."""
        self._tasks = [
            asyncio.create_task(self._poll_for_ever(), name="poll"),
            asyncio.create_task(self._listen_for_ever(), name="listen"),
        ]

    async def stop(self) -> None:
        """Stop polling and listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def confirmed_age(self) -> float:
        """Seconds since the database was last asked what ended."""
        return time.monotonic() - self._polled_at

    @property
    def live_count(self) -> int:
        """Live credentials in memory."""
        return sum(not entry.ended for entry in list(self._by_credential.values()))

    @property
    def faults(self) -> list[str]:
        """Why this gateway shouldn't be sent anything now."""
        is_old = self.confirmed_age > 3 * POLL
        return ["the database can't be asked what ended"] if is_old else []

    async def admit(self, secret: str, endpoint: str) -> Entry:
        """The live entry of this secret on this endpoint. Raises Refused."""
        digest = sha256(secret.encode()).digest()
        entry = self._by_digest.get(digest)
        if entry is None:
            token = self._tokens.get(digest)
            if token is not None or jwt.SHAPE.fullmatch(secret) is not None:
                entry = await self._of_token(digest, token, secret, endpoint)
            elif gateway_token.SHAPE.fullmatch(secret) is not None:
                entry = await self._entry(digest, secret)
        if entry is None:
            raise unknown()
        self.check(entry, endpoint)
        return entry

    async def by_credential(self, credential: uuid.UUID, endpoint: str) -> Entry:
        """The live entry of a credential whose secret was verified when its browser session was
        opened: here PostgreSQL alone is asked. Raises Refused."""
        entry = await self._of_credential(credential)
        if entry is None:
            raise Refused(
                401,
                "grant_ended",
                "The grant behind this session has ended, or its credential was replaced.",
            )
        self.check(entry, endpoint)
        return entry

    async def _of_credential(self, credential: uuid.UUID) -> Entry | None:
        entry = self._by_credential.get(credential)
        if entry is None:
            # No secret's digest is as short as an id.
            entry = await self._entry(credential.bytes, credential)
        return entry

    async def _of_token(
        self, digest: bytes, token: _Token | None, secret: str, endpoint: str
    ) -> Entry | None:
        """The entry of a JWT's credential. What it says of itself is checked once, who it is for
        and its own end each time. Raises Refused."""
        if token is None:
            token = await self._shared(digest, lambda: self._verify_token(digest, secret))
        if token is None:
            return None
        if token.audience != jwt.gateway_audience(endpoint):
            raise Refused(403, "wrong_endpoint", "This token was made for another audience.")
        entry = await self._of_credential(token.credential)
        # A call that began in time goes on for as long as its credential.
        if entry is not None and not entry.ended and time.monotonic() >= token.deadline:
            raise Refused(
                401,
                "token_expired",
                "This token's own time is up. Refresh it at "
                f"{settings.KEYTURN_BASE_URL}/grants/{entry.live.grant}/",
            )
        return entry

    async def _verify_token(self, digest: bytes, secret: str) -> _Token | None:
        asked_at = time.monotonic()
        found = await self._ask(jwt.read_now, secret)
        if found is None:
            self._is_unknown(digest)
            return None
        said, remaining = found
        token = _Token(said.credential, said.audience, asked_at + remaining)
        self._tokens[digest] = token
        while len(self._tokens) > MOST:
            self._tokens.popitem(last=False)
        return token

    def check(self, entry: Entry, endpoint: str) -> None:
        """Raise Refused unless this entry holds now, on this endpoint."""
        if entry.live.endpoint != endpoint:
            raise Refused(
                403, "wrong_endpoint", "This credential was granted for another endpoint."
            )
        moment = time.monotonic()
        if entry.ended or moment >= entry.deadline:
            raise ended(entry)
        if entry.is_stale(moment):
            raise Refused(
                503,
                "cannot_verify",
                "Keyturn's database can't be asked whether this grant still holds. "
                "Calls are refused until it can.",
                retry=True,
            )

    async def _entry(self, digest: bytes, claim: str | uuid.UUID) -> Entry | None:
        return await self._shared(digest, lambda: self._verify(digest, claim))

    async def _shared(
        self, digest: bytes, verify: Callable[[], Coroutine[Any, Any, T | None]]
    ) -> T | None:
        """What `verify` finds; asked once, however many wait for it. Raises Refused."""
        since = self._unknown.get(digest)
        if since is not None and time.monotonic() - since < FORGET_UNKNOWN:
            return None
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(verify())
            self._asking[digest] = asking
            asking.add_done_callback(lambda _: self._asking.pop(digest, None))
        try:
            # One caller hanging up must not end the question for the others.
            return await asyncio.shield(asking)
        except Unreachable as error:
            logger.warning("can't verify a credential: %s", error)
            raise Refused(
                503,
                "cannot_verify",
                "Keyturn can't verify this credential at the moment. Try again in a few seconds.",
                retry=True,
            ) from error

    async def _verify(self, digest: bytes, claim: str | uuid.UUID) -> Entry | None:
        asked_at = time.monotonic()
        credential = claim if isinstance(claim, uuid.UUID) else await self._ask(vault.whose, claim)
        found = await self._ask(holding, [credential]) if credential is not None else {}
        if credential is None or credential not in found:
            self._is_unknown(digest)
            return None
        known = self._by_credential.get(credential)
        if known is not None and not known.ended:
            # By its secret and by its session it is one entry, or only one would be cut.
            self._by_digest[digest] = known
            return known
        fresh = found[credential]
        # `remaining` was true at some moment after this question began: counting it from its
        # beginning ends early rather than late.
        entry = Entry(
            Live.of(fresh.facts), fresh.facts, asked_at + fresh.remaining, confirmed=asked_at
        )
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(max(0.0, entry.deadline - time.monotonic()), entry.end)
        self._by_digest[digest] = entry
        self._by_credential[credential] = entry
        while len(self._by_digest) > MOST:
            _, old = self._by_digest.popitem(last=False)
            self._drop(old)
            old.end()
        return entry

    def _is_unknown(self, digest: bytes) -> None:
        self._unknown[digest] = time.monotonic()
        while len(self._unknown) > MOST:
            self._unknown.popitem(last=False)

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            try:
                async with asyncio.timeout(2 * POLL):
                    await self._poll()
                self._polled_at = time.monotonic()
                self.keys.look()
            except (Unreachable, TimeoutError) as error:
                logger.warning("can't ask the database what ended: %r", error)
                self._cut_stale()

    async def _poll(self) -> None:
        moment = time.monotonic()
        watched = {pk: e for pk, e in self._by_credential.items() if not e.ended}
        found = await self._ask(holding, list(watched))
        if watched:
            for pk, entry in watched.items():
                if pk in found:
                    entry.confirmed = moment
                    entry.learn(found[pk].facts)
                else:
                    entry.end()
        self._forget()

    def _cut_stale(self) -> None:
        """Streams too may not outlive what can be verified."""
        moment = time.monotonic()
        for entry in self._by_credential.values():
            if not entry.ended and entry.is_stale(moment):
                for task in tuple(entry.calls):
                    task.cancel()

    def _drop(self, entry: Entry) -> None:
        if self._by_credential.get(entry.live.credential) is entry:
            del self._by_credential[entry.live.credential]

    def _forget(self) -> None:
        moment = time.monotonic()
        for digest, entry in list(self._by_digest.items()):
            if entry.ended and moment - entry.confirmed > FORGET_ENDED:
                del self._by_digest[digest]
                self._drop(entry)
        while self._tokens:
            digest, token = next(iter(self._tokens.items()))
            if moment - token.deadline < FORGET_ENDED:
                break
            del self._tokens[digest]
        while self._unknown:
            digest, since = next(iter(self._unknown.items()))
            if moment - since < FORGET_UNKNOWN:
                break
            del self._unknown[digest]

    async def _listen_for_ever(self) -> None:
        while True:
            try:
                await self._listen()
            except (redis.exceptions.RedisError, OSError) as error:
                logger.warning("no push (%s); polling goes on", type(error).__name__)
                await asyncio.sleep(1)

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=1, health_check_interval=5
        )
        async with client, client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CHANNEL, KEYS)
            while True:
                message = await channel.get_message(timeout=5)
                if message is None:
                    continue
                if message["channel"] == KEYS.encode():
                    self.keys.heard(message["data"])
                else:
                    self._heard(message["data"])

    def _heard(self, data: bytes) -> None:
        try:
            credentials = [uuid.UUID(item) for item in json.loads(data)]
        except (ValueError, TypeError):
            logger.warning("ignored a push that isn't a list of ids")
            return
        for credential in credentials:
            entry = self._by_credential.get(credential)
            if entry is not None:
                entry.end()


def unknown() -> Refused:
    """The answer to a secret that is no live credential; the same for all reasons."""
    return Refused(
        401,
        "invalid_api_key",
        "This key is unknown, expired or revoked. Check out a credential at "
        f"{settings.KEYTURN_BASE_URL}/",
    )


def ended(entry: Entry) -> Refused:
    """The answer to a credential whose grant is over: where to ask again."""
    return Refused(
        401,
        "grant_ended",
        "The grant of this credential has ended. Ask again at "
        f"{settings.KEYTURN_BASE_URL}/request/{entry.live.profile}/",
    )
