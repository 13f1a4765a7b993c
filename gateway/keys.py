"""Upstream keys: kept in memory, read anew when they're replaced, and reported as long as used.

A rotation retires the old key at its provider once every gateway has said that it uses a newer
one. A call needs its key until the upstream begins to answer: what comes after was let in by it.
"""

import asyncio
import datetime as dt
import json
import logging
import time
from dataclasses import dataclass, field

from django.db import connection

from credentials.live import Live, usable_key
from gateway.asking import Ask, Unreachable
from gateway.dialects import Refused

logger = logging.getLogger(__name__)

KEY_AGE = 30.0  # seconds for which a key is used without asking again
UNUSED = 600.0  # seconds after which one that nobody called with is forgotten
# Seconds after which an upstream that hasn't answered has read the key of a call all the same:
# a leaked key must not live on for as long as the slowest answer takes.
ON_THE_WAY = 60.0
SILENT = 15  # seconds without a beat after which a gateway isn't waited for


@dataclass(eq=False)
class _Key:
    value: str = field(repr=False)
    version: int
    fetched: float
    used: float


class Keys:
    """One per process, for one event loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, _Key] = {}
        self._reading: dict[str, asyncio.Task[_Key | None]] = {}
        self._again: set[str] = set()
        self._on_the_way: dict[str, dict[object, tuple[int, float]]] = {}

    async def take(self, live: Live, call: object) -> str:
        """The endpoint's own key, for this call until `answered`. Raises Refused."""
        if live.key_header == "none":
            return ""
        known = self._known.get(live.endpoint)
        moment = time.monotonic()
        if known is None:
            known = await self._first(live.endpoint)
        elif moment - known.fetched >= KEY_AGE:
            known.fetched = moment - KEY_AGE + 2  # one call asks; all use it meanwhile
            self._read_anew(live.endpoint)
        known.used = moment
        self._on_the_way.setdefault(live.endpoint, {})[call] = known.version, moment
        return known.value

    def answered(self, live: Live, call: object) -> None:
        """The upstream has taken this call's key, or this call is over."""
        calls = self._on_the_way.get(live.endpoint)
        if calls is not None and calls.pop(call, None) is not None and not calls:
            del self._on_the_way[live.endpoint]

    async def refused(self, live: Live, key: str, call: object) -> str | None:
        """The upstream refused this key: the one that replaced it, if there is another."""
        known = self._known.get(live.endpoint)
        if known is not None and known.value == key:
            del self._known[live.endpoint]
        try:
            newer = await self.take(live, call)
        except Refused:
            return None
        return newer if newer != key else None

    def heard(self, data: bytes) -> None:
        """A push says which version endpoints have now."""
        try:
            versions = {str(slug): int(number) for slug, number in json.loads(data).items()}
        except (ValueError, TypeError, AttributeError):
            logger.warning("ignored a push that names no versions")
            return
        for endpoint, version in versions.items():
            known = self._known.get(endpoint)
            if endpoint in self._reading:
                self._again.add(endpoint)  # what it reads may be older than this push
            elif known is not None and known.version != version:
                self._read_anew(endpoint)

    def look(self) -> None:
        """Read what is old anew, so that this process says the truth of keys that nobody calls
        with; forget those that nobody called with for long. Called each second."""
        moment = time.monotonic()
        for endpoint, key in list(self._known.items()):
            if moment - key.used > UNUSED:
                del self._known[endpoint]
            elif moment - key.fetched >= KEY_AGE:
                self._read_anew(endpoint)

    def versions(self) -> dict[str, int]:
        """By endpoint, the oldest version that is in use here; 0 while one is being read."""
        found = {endpoint: key.version for endpoint, key in self._known.items()}
        since = time.monotonic() - ON_THE_WAY
        for endpoint, calls in self._on_the_way.items():
            used = [version for version, at in calls.values() if at > since]
            if used:
                found[endpoint] = min(*used, found.get(endpoint, used[0]))
        # What Vault answers in a moment may have been there when the question was asked.
        return found | dict.fromkeys(self._reading, 0)

    async def _first(self, endpoint: str) -> _Key:
        try:
            # One caller hanging up must not end the question for the others.
            found = await asyncio.shield(self._read_anew(endpoint))
        except Unreachable as error:
            logger.warning("no upstream key for %s: %s", endpoint, error)
            raise Refused(
                503, "cannot_verify", "Keyturn can't reach its Vault at the moment.", retry=True
            ) from error
        if found is None:
            raise Refused(
                502,
                "upstream_key_missing",
                "No upstream key is stored for this endpoint. Its owner can store one with "
                "`manage.py upstream_key`.",
            )
        return found

    def _read_anew(self, endpoint: str) -> asyncio.Task[_Key | None]:
        reading = self._reading.get(endpoint)
        if reading is None:
            reading = asyncio.create_task(self._read(endpoint), name="key")
            self._reading[endpoint] = reading
            reading.add_done_callback(lambda task: self._have_read(endpoint, task))
        return reading

    async def _read(self, endpoint: str) -> _Key | None:
        self._again.add(endpoint)
        while endpoint in self._again:
            self._again.discard(endpoint)
            found = await self._ask(usable_key, endpoint)
        known, moment = self._known.get(endpoint), time.monotonic()
        if found is None:
            self._known.pop(endpoint, None)
            return None
        key = _Key(found.secret, found.version, moment, known.used if known else moment)
        self._known[endpoint] = key
        return key

    def _have_read(self, endpoint: str, task: asyncio.Task[_Key | None]) -> None:
        del self._reading[endpoint]
        if not task.cancelled() and task.exception() is not None:
            logger.warning("can't read the key of %s: %s", endpoint, task.exception())


def users_of_older(endpoint: str, version: int, since: dt.datetime) -> list[str]:
    """Hosts of gateways that may use an older version of this endpoint's key than this one.

    What a gateway says is as of its beat before: `keys_at` is when it can't have known less.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT host FROM gateway_process"
            " WHERE beat_at > clock_timestamp() - make_interval(secs => %s)"
            " AND (keys_at IS NULL OR keys_at <= %s OR (keys->>%s)::int < %s)",
            [SILENT, since, endpoint, version],
        )
        return [str(host) for (host,) in cursor.fetchall()]
