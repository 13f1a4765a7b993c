"""How long calls are kept."""

import datetime as dt

from django.conf import settings
from django.db import connection

from audit import clock
from audit.ticker import Ticker

LOCK = 0x4B45_5952  # "KEYR": the advisory lock of whoever deletes at this moment
EVERY = 60.0  # seconds between two looks
BATCH = 5_000  # rows in one transaction
MOST = 200_000  # rows at one look: the next one goes on


def drop_old_calls(*, most: int = MOST) -> int:
    """Delete calls older than KEYTURN_CALL_DAYS, the oldest first, in batches; how many.

    What a grant has spent is in its meter, and stays.
    """
    before = clock.now() - dt.timedelta(days=settings.KEYTURN_CALL_DAYS)
    count = 0
    while count < most:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM gateway_call WHERE id = ANY(ARRAY("
                "SELECT id FROM gateway_call WHERE at < %s ORDER BY at LIMIT %s))",
                [before, min(BATCH, most - count)],
            )
            gone = cursor.rowcount
        count += gone
        if gone < BATCH:
            break
    return count


def dropper() -> Ticker:
    """Deletes each minute, unless another worker is at it."""
    return Ticker("retention of calls", lock=LOCK, every=EVERY, work=drop_old_calls)
