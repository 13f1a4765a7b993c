"""Writing the record."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.db import transaction

from audit.context import Identified, origin
from audit.events import Event
from audit.models import AuditEvent

KEYTURN = "Keyturn"


class Entry(NamedTuple):
    """One of many rows of the same event: what it's about, whom else it concerns, what to add."""

    about: Identified
    related: tuple[Identified | uuid.UUID, ...] = ()
    data: Mapping[str, Any] = {}


def record(
    event: Event,
    *,
    by: Identified | None,
    about: Identified | None = None,
    related: tuple[Identified | uuid.UUID, ...] = (),
    **data: Any,
) -> AuditEvent:
    """Add one audit row, within the transaction that makes the change.

    `by` is the person who acted; None is the origin's agent, or Keyturn itself. `data` must hold
    nothing secret and be JSON. Raises RuntimeError outside of a transaction: a change whose row
    can't be written must not happen, so the two have to stand or fall together.
    """
    row = _row(event, by, about, related, data)
    row.save(force_insert=True)
    return row


def record_many(event: Event, *, by: Identified | None, entries: Iterable[Entry]) -> None:
    """Add an audit row for each, in as few statements as that takes; else as `record`."""
    AuditEvent.objects.bulk_create(
        [_row(event, by, each.about, each.related, dict(each.data)) for each in entries],
        batch_size=1000,
    )


def _row(
    event: Event,
    by: Identified | None,
    about: Identified | None,
    related: tuple[Identified | uuid.UUID, ...],
    data: dict[str, Any],
) -> AuditEvent:
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"{event} must be recorded in the transaction that makes it true")
    source = origin()
    by = by if by is not None else source.agent
    ids = [item if isinstance(item, uuid.UUID) else item.pk for item in related]
    ids += [item.pk for item in (by, about) if item is not None]
    return AuditEvent(
        event=event,
        actor_id=by.pk if by is not None else None,
        actor=str(by) if by is not None else KEYTURN,
        via=source.via,
        address=source.address,
        trace=source.trace,
        subject_kind=about.__class__.__name__.lower() if about is not None else "",
        subject_id=about.pk if about is not None else None,
        subject=str(about)[:300] if about is not None else "",
        related=sorted(set(ids)),
        data=data,
    )
