"""The one clock: PostgreSQL's. Servers whose own clocks differ still agree on every deadline."""

import datetime as dt
import logging
import time

from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import DateTimeField, Func

logger = logging.getLogger(__name__)

# Seconds that a machine may be off: Vault's tokens, codes of authenticators and TLS go by it.
MOST_SKEW = 2.0


class Skewed(Exception):
    """This machine's clock is too far from PostgreSQL's to begin work."""


class ClockTimestamp(Func):
    """`clock_timestamp()`: the time at this moment, not the transaction's or the statement's."""

    function = "clock_timestamp"
    template = "%(function)s()"
    output_field = DateTimeField()
    arity = 0


def now() -> dt.datetime:
    """PostgreSQL's time at this moment, in UTC."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
        return moment


def skew() -> float:
    """Seconds that this machine's clock is ahead of PostgreSQL's, at least; below 0, behind."""
    connection.ensure_connection()
    before = time.time()
    theirs = now().timestamp()
    after = time.time()
    # Nobody knows when between the two the answer was made.
    return max(before - theirs, 0.0) or min(after - theirs, 0.0)


def check_skew() -> None:
    """At the start of each process. Raises Skewed; where PostgreSQL can't be asked, nobody knows,
    and work that needs no clock may begin."""
    try:
        off = skew()
    except DatabaseError as error:
        logger.warning("this clock wasn't held against PostgreSQL's: %s", type(error).__name__)
        return
    finally:
        connection.close()
    if abs(off) > MOST_SKEW:
        which = "ahead of" if off > 0 else "behind"
        raise Skewed(
            f"This machine's clock is {abs(off):.1f} s {which} PostgreSQL's, and more than "
            f"{MOST_SKEW:.0f} s are refused. Have both set by NTP, then start this again."
        )
