"""Telling people: rows in the transaction that makes the news true, delivered afterwards.

If the transaction rolls back, nobody was told of what never happened. If it commits, the rows are
the queue (notifications/delivery.py): neither a mail server nor a chat can hold an action up.
"""

import datetime as dt
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from accounts.models import ApiToken, Change, ScimToken, User
from audit import clock
from audit.context import Identified, origin
from notifications.kinds import TOPICS, Email, Kind
from notifications.models import Delivery, Notification, Preference
from notifications.text import line, passage

SENTENCE, LABEL, VALUE, QUOTE, FACTS = 200, 40, 200, 1000, 12
PATIENCE = dt.timedelta(days=1)  # how long a delivery is tried
_PATH = re.compile(r"/(?:[A-Za-z0-9._~=&?#-][A-Za-z0-9._~=&?#/-]*)?")

__all__ = ["Kind", "Notice", "notify", "notify_many", "withdraw"]


@dataclass(frozen=True)
class Notice:
    """One piece of news, and who is told; as `notify` takes it."""

    kind: Kind
    to: Iterable[User]
    about: Identified
    path: str
    sentence: str
    facts: Iterable[tuple[str, str]] = ()
    quote: str = ""
    occasion: str = ""

    def row_for(self, person: User) -> Notification:
        """What this person will read."""
        return Notification(
            person=person,
            kind=self.kind,
            subject_id=self.about.pk,
            occasion=self.occasion,
            path=self.path,
            sentence=line(self.sentence, SENTENCE) or self.kind.label,
            facts=[
                [line(label, LABEL), line(str(value), VALUE)]
                for label, value in list(self.facts)[:FACTS]
            ],
            quote=passage(self.quote, QUOTE),
        )


def notify(
    kind: Kind,
    *,
    to: Iterable[User],
    about: Identified,
    path: str,
    sentence: str,
    facts: Iterable[tuple[str, str]] = (),
    quote: str = "",
    occasion: str = "",
) -> list[Notification]:
    """Tell these people, within the transaction that makes it true; the notifications made.

    One for each person and event: the same kind about the same thing on the same `occasion` adds
    nothing. The inactive and service accounts get none. `path` is the portal's page, `sentence`
    also the subject of the mail, `quote` what somebody wrote; nothing of it may be secret.
    Raises RuntimeError outside of a transaction, ValueError for a path that leaves the portal.
    """
    notice = Notice(
        kind,
        to=to,
        about=about,
        path=path,
        sentence=sentence,
        facts=facts,
        quote=quote,
        occasion=occasion,
    )
    return notify_many([notice])


def notify_many(notices: Iterable[Notice]) -> list[Notification]:
    """Tell all of these, as `notify` does one, in a few statements."""
    told = [(notice, {person.pk for person in notice.to}) for notice in notices]
    for notice, _ in told:
        if not transaction.get_connection().in_atomic_block:
            raise RuntimeError(f"{notice.kind} must be told in the transaction that makes it true")
        if not _PATH.fullmatch(notice.path) or len(notice.path) > 300:
            raise ValueError(f"{notice.path!r} is no path in the portal")
    if not told:
        return []
    # In one order everywhere: two transactions that tell the same people wait, and don't lock.
    people = (
        User.objects.filter(pk__in=set().union(*(to for _, to in told)), is_active=True, owner=None)
        .select_related("notification_preference")
        .order_by("pk")
    )
    rows = [notice.row_for(person) for person in people for notice, to in told if person.pk in to]
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
    # What was there already is under another id.
    made = set(
        Notification.objects.filter(pk__in=[row.pk for row in rows]).values_list("pk", flat=True)
    )
    new = [row for row in rows if row.pk in made]
    now = clock.now() if new else None
    if now is not None:
        Delivery.objects.bulk_create(
            [delivery for row in new for delivery in _deliveries(row, now)]
        )
    return new


def withdraw(
    *,
    about: Identified | uuid.UUID | list[uuid.UUID],
    kinds: Iterable[Kind],
    of: User | None = None,
) -> int:
    """Take back what is no longer so, of everybody or of one person; how many notifications.

    They count as read, and what wasn't delivered yet never will be.
    """
    if not isinstance(about, list):
        about = [about if isinstance(about, uuid.UUID) else about.pk]
    rows = Notification.objects.filter(
        subject_id__in=about,
        kind__in=[kind.value for kind in kinds],
    )
    if of is not None:
        rows = rows.filter(person=of)
    Delivery.objects.filter(notification__in=rows, state=Delivery.State.DUE).update(
        state=Delivery.State.WITHDRAWN
    )
    return rows.unread().update(read_at=clock.now())


def _deliveries(row: Notification, now: dt.datetime) -> Iterable[Delivery]:
    chosen = getattr(row.person, "notification_preference", None) or Preference(person=row.person)
    topic = TOPICS[Kind(row.kind)]
    email = chosen.email_for(topic)
    if settings.KEYTURN_EMAIL and email != Email.OFF:
        digest = email == Email.DIGEST
        due = chosen.next_digest(now) if digest else now
        yield Delivery(
            notification=row,
            channel=Delivery.Channel.EMAIL,
            digest=digest,
            next_attempt_at=due,
            give_up_at=due + PATIENCE,
        )
    if settings.KEYTURN_CHAT_URL and chosen.chat_for(topic):
        yield Delivery(
            notification=row,
            channel=Delivery.Channel.CHAT,
            next_attempt_at=now,
            give_up_at=now + PATIENCE,
        )


def factor_changed(person: User, what: str) -> None:
    """Tell a person that their second factor was set up, replaced or removed."""
    notify(
        Kind.FACTOR_CHANGED,
        to=[person],
        about=person,
        path=reverse("factor"),
        sentence=f"Your second factor was {what}",
        quote="If that wasn’t you, tell an administrator at once.",
        occasion=clock.now().isoformat(timespec="milliseconds"),
    )


def password_changed(person: User) -> None:
    """Tell a person that their password is another one now."""
    notify(
        Kind.PASSWORD_CHANGED,
        to=[person],
        about=person,
        path=reverse("password"),
        sentence="Your password was changed",
        quote="If that wasn’t you, tell an administrator at once.",
        occasion=clock.now().isoformat(timespec="milliseconds"),
    )


def change_told(change: Change, news: str, people: Iterable[User]) -> None:
    """Tell those who could decide a change that it waits, and everyone concerned what became of
    it."""
    path = reverse("change", args=[change.pk])
    facts = [("Proposed by", str(change.proposed_by))]
    if news == "proposed":
        notify(
            Kind.CHANGE_WAITING,
            to=people,
            about=change,
            path=path,
            sentence=f"A change waits for a second administrator: {change.label}",
            facts=[*facts, ("Until", f"{change.expires_at:%Y-%m-%d %H:%M} UTC")],
            quote=change.reason,
        )
        return
    withdraw(about=change, kinds=[Kind.CHANGE_WAITING])
    if change.decided_by is not None:
        facts.append(("Decided by", str(change.decided_by)))
    notify(
        Kind.CHANGE_DECIDED,
        to=people,
        about=change,
        path=path,
        sentence=f"{_BECAME[news]}: {change.label}",
        facts=facts,
        quote=change.note,
    )


_BECAME = {
    "applied": "Two people agreed, and it is done",
    "rejected": "Rejected",
    "withdrawn": "Withdrawn",
    "expired": "Nobody decided in time",
}


def service_ends(service: User, news: str) -> None:
    """Tell who answers for a service account that it ends in a while, or has ended; once each."""
    if service.owner is None or service.ends_at is None:
        return
    over = news == "ended"
    notify(
        Kind.SERVICE_ENDS,
        to=[service.owner],
        about=service,
        path=reverse("person", args=[service.pk]),
        sentence=f"{service} {'has ended' if over else 'ends soon'}",
        facts=[("Ends", f"{service.ends_at:%Y-%m-%d %H:%M} UTC")],
        quote="What it held is gone." if over else "Extend it if it is still needed.",
        occasion=f"{news} {service.ends_at:%Y-%m-%dT%H:%M}",
    )


def token_leaked(token: ApiToken | ScimToken, people: Iterable[User], url: str) -> None:
    """Tell these that their token was reported as leaked, and is worth nothing any more."""
    notify(
        Kind.TOKEN_LEAKED,
        to=people,
        about=token,
        path=reverse("tokens"),
        sentence=f"Your token “{token}” leaked and is revoked",
        facts=[("Begins with", f"…_{token.lookup}_"), *([("Found at", url)] if url else [])],
        quote="Whoever found it reported it. Look through the record for what was done with it, "
        "and make another one for your program.",
    )


def token_in_url(token: ApiToken, person: User) -> None:
    """Tell who answers for a token that it was sent in a URL; once a day."""
    now = clock.now()
    notify(
        Kind.TOKEN_IN_URL,
        to=[person],
        about=token,
        path=reverse("tokens"),
        sentence=f"Your API token “{token}” was sent in a URL",
        facts=[
            ("Begins with", f"kt_{token.kind}_{token.lookup}_"),
            ("From", str(origin().address)),
        ],
        quote="URLs are kept in logs and histories, where others find them. Revoke it, make "
        "another one, and have your program send that in the header Authorization.",
        occasion=f"{now:%Y-%m-%d}",
    )
