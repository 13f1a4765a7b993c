"""Writing the record."""

import uuid
from typing import Any, Protocol

from django.db import transaction

from audit.context import origin
from audit.events import Event
from audit.models import AuditEvent

KEYTURN = "Keyturn"


class Identified(Protocol):
    """Anything with an id whose text names it to a reader."""

    @property
    def pk(self) -> Any: ...


def record(
    event: Event,
    *,
    by: Identified | None,
    about: Identified | None = None,
    related: tuple[Identified | uuid.UUID, ...] = (),
    **data: Any,
) -> AuditEvent:
    """Add one audit row, within the transaction that makes the change.

    `by` is the person who acted; None is Keyturn itself. `data` must hold nothing secret and be
    JSON. Raises RuntimeError outside of a transaction: a change whose row can't be written must
    not happen, so the two have to stand or fall together.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"{event} must be recorded in the transaction that makes it true")
    source = origin()
    ids = [item if isinstance(item, uuid.UUID) else item.pk for item in related]
    ids += [item.pk for item in (by, about) if item is not None]
    return AuditEvent.objects.create(
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
