"""Ids that sort by the time of their making."""

import datetime as dt
import uuid

from ulid import ULID


def new_id() -> uuid.UUID:
    """A new id: a ULID's 128 bits as a UUID, so that a row's name can show it either way."""
    return ULID().to_uuid()


def first_id(moment: dt.datetime, *, later: int = 0) -> uuid.UUID:
    """The smallest id that could be made so many seconds later than this moment."""
    milliseconds = max(int((moment.timestamp() + later) * 1000), 0)
    return uuid.UUID(int=min(milliseconds, (1 << 48) - 1) << 80)
