"""Being away, and who is told meanwhile."""

import datetime as dt
import uuid

from django.db import transaction

from accessrequests.models import Absence
from accounts.door import fetch
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput

LONGEST = dt.timedelta(days=366)


@transaction.atomic
def note_absence(
    *,
    by: User,
    starts_at: dt.datetime | None = None,
    ends_at: dt.datetime,
    delegate: str = "",
    note: str = "",
) -> Absence:
    """Be out of office, from now or later; the delegate, by e-mail, is told of what they may
    decide in their own right.

    Raises InvalidInput by field.
    """
    now = clock.now()
    starts_at = max(starts_at or now, now)
    errors = {}
    if ends_at <= starts_at:
        errors["ends_at"] = "Must be in the future and after its begin."
    elif ends_at > starts_at + LONGEST:
        errors["ends_at"] = "Must be within a year."
    other = None
    if delegate.strip():
        email = User.objects.normalize_email(delegate)
        if email.isprintable():  # PostgreSQL refuses to look for what it can't hold
            other = User.objects.active().filter(email=email, owner=None).first()
        if other is None:
            errors["delegate"] = "There is no such person."
        elif other.pk == by.pk:
            errors["delegate"] = "Must be somebody else."
    if len(note.strip()) > 200 or "\x00" in note:
        errors["note"] = "Must be at most 200 plain characters."
    # Two at once must not both find no other.
    User.objects.select_for_update().get(pk=by.pk)
    if by.absences.filter(starts_at__lt=ends_at, ends_at__gt=starts_at).exists():
        errors.setdefault("starts_at", "You noted an absence in that time already; drop it first.")
    if errors:
        raise InvalidInput(errors)
    row = Absence.objects.create(
        person=by, delegate=other, starts_at=starts_at, ends_at=ends_at, note=note.strip()
    )
    record(
        Event.ABSENCE_BEGUN,
        by=by,
        about=row,
        related=(other,) if other else (),
        starts_at=starts_at.isoformat(),
        ends_at=ends_at.isoformat(),
        delegate=other.email if other else "",
    )
    return row


@transaction.atomic
def drop_absence(*, by: User, absence_id: uuid.UUID | str) -> None:
    """Be back, or not go after all. Raises NotFound."""
    row = fetch(Absence.objects.visible_to(by), absence_id, lock=True)
    record(Event.ABSENCE_DROPPED, by=by, about=row)
    row.delete()
