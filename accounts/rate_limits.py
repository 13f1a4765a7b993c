"""How many calls of the API anybody may make in a minute, counted in Redis.

It keeps one caller's loop from being everybody's outage, and guards nothing else: where Redis
doesn't answer, calls are let in. See docs/adr/0044.
"""

import ipaddress
import logging
import math
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import TooManyRequests

logger = logging.getLogger(__name__)
WINDOW = 60  # seconds
PATIENCE = 0.25  # seconds that a call waits for Redis
PAUSE = 5.0  # seconds for which Redis is left alone after it didn't answer
SAID_EVERY = 60.0  # seconds between lines in the log about that


@dataclass(frozen=True)
class Standing:
    """What a caller has left of a quota."""

    policy: str
    quota: int
    left: int
    ends_in: int  # seconds until the window ends
    allowed: bool

    def check(self) -> None:
        """Raise TooManyRequests where nothing was left for this call."""
        if not self.allowed:
            raise TooManyRequests(
                f"At most {self.quota} {self.policy} a minute.", retry_after=self.ends_in
            )

    def tell(self, response: HttpResponse) -> None:
        """Say so in an answer, as draft-ietf-httpapi-ratelimit-headers-10 has it."""
        response["RateLimit-Policy"] = f'"{self.policy}";q={self.quota};w={WINDOW}'
        response["RateLimit"] = f'"{self.policy}";r={self.left};t={self.ends_in}'


def count(who: str, *, writes: bool) -> Standing | None:
    """Count a call of this caller; None where nothing is counted, or can't be."""
    policy = "writes" if writes else "reads"
    quota = (
        settings.KEYTURN_API_WRITES_PER_MINUTE if writes else settings.KEYTURN_API_READS_PER_MINUTE
    )
    if not quota or not _redis.allows():
        return None
    item = RateLimitItemPerMinute(quota, namespace=policy)
    try:
        allowed = _limiter().hit(item, who)
        before, weighs, now, ends = _storage().get_sliding_window(item.key_for(who), WINDOW)
    except (RedisError, OSError) as error:
        _redis.failed(error)
        return None
    _redis.worked()
    left = quota - now - math.floor(before * weighs / WINDOW)
    # What counts now is kept for one more window, as what was before.
    ends_in = max(1, math.ceil(ends - WINDOW))
    return Standing(policy, quota, max(0, left), ends_in, allowed)


def network(address: str) -> str:
    """Whom calls of nobody in particular are counted as: of IPv6 the /64, which one machine has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


class _Redis:
    """Whether to ask Redis: while it's down one call at a time finds out, and none waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone_until = 0.0
        self._said_at = -math.inf

    def allows(self) -> bool:
        if not self._alone_until:
            return True
        with self._lock:
            if time.monotonic() < self._alone_until:
                return False
            self._alone_until = time.monotonic() + PAUSE
            return True

    def worked(self) -> None:
        if self._alone_until:
            self._alone_until = 0.0

    def failed(self, error: Exception) -> None:
        with self._lock:
            now = time.monotonic()
            self._alone_until = now + PAUSE
            if now - self._said_at >= SAID_EVERY:
                self._said_at = now
                logger.warning(
                    "calls of the API aren't counted: Redis doesn't answer (%s)",
                    type(error).__name__,
                )


_redis = _Redis()


@cache
def _storage() -> RedisStorage:
    options: Any = {
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        # The library would try again and again, with pauses, while somebody waits.
        "retry": Retry(NoBackoff(), 0),
    }
    return RedisStorage(settings.REDIS_URL, key_prefix="keyturn:rate", **options)


@cache
def _limiter() -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(_storage())
