"""Verbs on what one was told, and on how one wants to be told."""

import datetime as dt
import uuid
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from accounts.door import fetch
from accounts.models import User
from accounts.preconditions import ANYTHING, Expected
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput
from notifications.models import Notification, Preference

CHOSEN = (
    "email_waiting",
    "email_access",
    "email_comments",
    "chat_waiting",
    "chat_access",
    "chat_comments",
    "chat_handle",
    "digest_hour",
)


def preference(user: User) -> Preference:
    """What this person chose, or the defaults."""
    return Preference.objects.filter(person=user).first() or Preference(person=user)


def mark_read(*, by: User, notification_id: uuid.UUID | str) -> Notification:
    """Note that its person has seen it. Nothing more hangs on it, so the record has none of it.

    Raises NotFound.
    """
    row = fetch(Notification.objects.visible_to(by), notification_id)
    Notification.objects.filter(pk=row.pk).unread().update(read_at=clock.now())
    row.refresh_from_db()
    return row


def mark_all_read(*, by: User) -> int:
    """The same for all that this person hasn't read; how many."""
    return Notification.objects.visible_to(by).unread().update(read_at=clock.now())


@transaction.atomic
def change_settings(*, by: User, expected: Expected = ANYTHING, **chosen: Any) -> Preference:
    """Choose how to be told: any of CHOSEN.

    What is queued already goes as it was to go, but chat takes the name that holds at the time.
    Raises InvalidInput and PreconditionFailed.
    """
    Preference.objects.get_or_create(person=by)
    row = Preference.objects.select_for_update().get(person=by)
    expected.check(row)
    changed = {name: chosen[name] for name in CHOSEN if name in chosen}
    changed = {name: value for name, value in changed.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    try:
        row.clean_fields(exclude=["person"])
    except ValidationError as error:
        raise InvalidInput(
            {name: " ".join(found) for name, found in error.message_dict.items()}
        ) from error
    if changed:
        row.save(update_fields=list(changed))
        record(Event.NOTIFICATIONS_CHANGED, by=by, about=by, **changed)
    return row


def forget_old() -> None:
    """Drop what nobody looks for any more: what is older than 400 days, or read and 90."""
    now = clock.now()
    Notification.objects.filter(
        Q(at__lt=now - dt.timedelta(days=400))
        | Q(at__lt=now - dt.timedelta(days=90), read_at__isnull=False)
    ).delete()
