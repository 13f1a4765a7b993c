"""The one clock: PostgreSQL's. Servers whose own clocks differ still agree on every deadline."""

import datetime as dt

from django.db import connection
from django.db.models import DateTimeField, Func


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
