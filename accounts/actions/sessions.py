"""Ending sessions from elsewhere."""

from django.db import transaction

from accounts.models import Session, User
from accounts.permissions import check_administer
from accounts.sessions import name_of, opened
from audit.events import Event
from audit.record import record
from broker.errors import NotFound


@transaction.atomic
def end_session(*, by: User, name: str) -> None:
    """End the one of the person's own sessions that has this name. Raises NotFound."""
    keys = [row.session_key for row in opened(by) if name_of(row.session_key) == name]
    if not Session.objects.filter(session_key__in=keys, person=by).delete()[0]:
        raise NotFound("There is no such session of yours; it may have ended.")
    record(Event.SESSIONS_ENDED, by=by, about=by, sessions=1)


@transaction.atomic
def end_sessions(*, by: User | None, person: User, but: str | None = None) -> int:
    """End this person's sessions, all but the one with this key; how many there were.

    By the person, or by an administrator. Raises Forbidden.
    """
    if by is not None and by.pk != person.pk:
        check_administer(by)
    ended, _ = Session.objects.filter(person=person).exclude(session_key=but).delete()
    if ended:
        record(Event.SESSIONS_ENDED, by=by, about=person, sessions=ended)
    return ended
