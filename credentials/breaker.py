"""Asking little of what is down: after a few failures it's left alone for a moment.

A worker with a thousand revocations due must not wait a thousand time-outs, and a person at the
portal not one. Written here because pybreaker, the library for it, holds its lock while it calls,
so that one process could make one call at a time.
"""

import random
import threading
import time
from dataclasses import dataclass, field

FAILURES = 3  # in a row
SHORTEST, LONGEST = 0.25, 2.0  # seconds left alone: short, as revocations wait for its return


@dataclass
class Breaker:
    """Of one thing that can be down, in this process.

    `allows` before a call, then `worked` or `failed`. While it's open one call at a time is let
    through to see whether it's back.
    """

    _failures: int = 0
    _open_until: float = 0.0
    _pause: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allows(self) -> bool:
        """Whether to call now. Whoever is let through while it's open is the one who tries."""
        with self._lock:
            if self._failures < FAILURES:
                return True
            moment = time.monotonic()
            if moment < self._open_until:
                return False
            self._open_until = moment + self._pause
            return True

    def worked(self) -> None:
        """It answered: all may call again."""
        with self._lock:
            self._failures, self._pause, self._open_until = 0, 0.0, 0.0

    def failed(self) -> None:
        """It didn't answer."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES:
                doubled = min(LONGEST, max(SHORTEST, 2 * self._pause))
                self._pause = doubled * random.uniform(0.8, 1)  # noqa: S311 -- jitter
                self._open_until = time.monotonic() + self._pause


_breakers: dict[str, Breaker] = {}
_lock = threading.Lock()


def breaker(name: str) -> Breaker:
    """The breaker of what is named so, such as an address."""
    with _lock:
        return _breakers.setdefault(name, Breaker())
