"""Tries that were refused, on the record."""

from django.db import transaction

from audit.context import Identified
from audit.events import Event
from audit.record import record
from audit.redaction import neutral, redact
from broker.errors import AuthorityLost, Forbidden, KeyturnError, NotFound

# Somebody reached for what isn't theirs. Other errors are mistakes or bad luck.
RECORDED = (Forbidden, NotFound, AuthorityLost)


def record_refusal(error: KeyturnError, *, by: Identified, method: str | None, path: str) -> None:
    """Put a refused try on the record, if it's one of RECORDED.

    In a transaction of its own, after the one that the refusal rolled back.
    """
    if not isinstance(error, RECORDED):
        return
    with transaction.atomic():
        record(
            Event.ACCESS_REFUSED,
            by=by,
            code=error.code,
            method=method,
            path=neutral(redact(path))[:300],
            detail=error.detail,
        )
