"""Waiting within a call until something is decided."""

import secrets
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from django.conf import settings
from django.db.models import Model, QuerySet
from rest_framework.request import Request

from broker.errors import InvalidInput

NAME = "wait"
LONGEST = 60  # seconds
EVERY = 0.5  # seconds between two looks
MOST_OF_ONE = 4  # calls of one caller that wait at once in one process

_waiting: Counter[uuid.UUID] = Counter()
_lock = threading.Lock()


@contextmanager
def place(caller: uuid.UUID) -> Iterator[bool]:
    """Whether this caller may wait now; the place is theirs until the block ends.

    A call that waits holds one of its process's threads, also after its client has gone: those
    who wait must leave most of them, and no caller may take all the places.
    """
    places = settings.KEYTURN_WAITING
    own = min(MOST_OF_ONE, -(-places // 2))
    with _lock:
        free = _waiting.total() < places and _waiting[caller] < own
        if free:
            _waiting[caller] += 1
    try:
        yield free
    finally:
        if free:
            with _lock:
                _waiting[caller] -= 1
                if not _waiting[caller]:
                    del _waiting[caller]


def while_in(undecided: QuerySet[Model], seconds: float) -> None:
    """Return once none of these rows is there, or after so many seconds.

    Looks in PostgreSQL, outside of any transaction: no message could be lost.
    """
    deadline = monotonic() + seconds
    while undecided.exists() and (left := deadline - monotonic()) > 0:
        sleep(min(EVERY, left))


def asked(request: Request) -> int:
    """For how many seconds this call would wait; 0 if it wouldn't. Raises InvalidInput."""
    text = request.query_params.get(NAME)
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= LONGEST):
        raise InvalidInput({NAME: f"Must be a whole number of seconds from 1 to {LONGEST}."})
    return int(text)


def ask_again_after() -> str:
    """Seconds for Retry-After. Not the same for all who were sent away, lest they come back as
    one."""
    return str(1 + secrets.randbelow(3))
