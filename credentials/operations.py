"""What operators look at: what is still to be taken back, where, and what keeps it."""

import datetime as dt
import uuid
from dataclasses import dataclass, field

from django.db.models import Count, Max, Min, Q
from ulid import ULID

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from credentials.models import STUCK_AFTER, Credential, Credentials, Reconciliation, Rotation
from credentials.standing import (
    Standing,
    ending,
    kind_or_none,
    of_target,
    standing,
    target_of,
)

PAGE = 50
GROUPS = 50
FOUND_SHOWN = 8
ROTATIONS_SHOWN = 20
FOUND_FOR = dt.timedelta(days=7)
SHOWN = ("stuck", "due", "waiting")


@dataclass
class Group:
    """All of one kind that wait for one target."""

    kind: str
    label: str
    target: str
    count: int = 0
    stuck: int = 0
    waiting: int = 0
    since: dt.datetime | None = None
    next_attempt_at: dt.datetime | None = None
    error: str = ""

    @property
    def due(self) -> int:
        """How many should be gone by now."""
        return self.count - self.waiting


@dataclass(frozen=True)
class Summary:
    """All that is still to be taken back, in figures."""

    groups: list[Group]
    now: dt.datetime

    @property
    def count(self) -> int:
        """How many are revoking."""
        return sum(group.count for group in self.groups)

    @property
    def due(self) -> int:
        """How many of them should be gone by now."""
        return sum(group.due for group in self.groups)

    @property
    def stuck(self) -> int:
        """How many should have been gone for more than a minute."""
        return sum(group.stuck for group in self.groups)

    @property
    def waiting(self) -> int:
        """How many have not come to their time."""
        return sum(group.waiting for group in self.groups)

    @property
    def oldest(self) -> dt.datetime | None:
        """Since when the first of them should be gone."""
        moments = [group.since for group in self.groups if group.since is not None]
        return min((moment for moment in moments if moment <= self.now), default=None)

    @property
    def oldest_age(self) -> dt.timedelta:
        """For how long the first of them should have been gone."""
        return self.now - self.oldest if self.oldest is not None else dt.timedelta(0)


@dataclass(frozen=True)
class Asked:
    """What of it an operator wants to see, as the address says it."""

    show: str = ""
    kind: str = ""
    target: str = ""
    words: str = ""
    page: int = 1


@dataclass(frozen=True)
class Listed:
    """One page of what was asked for."""

    rows: list[tuple[Standing, str]]
    has_next: bool = False
    asked: Asked = field(default_factory=Asked)


def may_look(user: User) -> bool:
    """Whether this person sees what is owed, everywhere."""
    return user.sees_everything


def summary() -> Summary:
    """Counts by kind and target, those with the most that is stuck first.

    The database groups by what profiles say, of which there are few however many credentials
    wait; which target that is, its kind knows.
    """
    now = clock.now()
    waiting = Q(gone_by=None) | Q(gone_by__gt=now)
    found = (
        ending()
        .order_by()
        .values("kind", "settings")
        .annotate(
            count=Count("pk"),
            stuck=Count("pk", filter=Q(gone_by__lt=now - STUCK_AFTER)),
            waiting=Count("pk", filter=waiting),
            since=Min("gone_by"),
            next=Min("next_attempt_at"),
            error=Max("last_error"),
        )
    )
    groups: dict[tuple[str, str], Group] = {}
    for row in found:
        target = target_of(Credential(kind=row["kind"], settings=row["settings"]))
        kind = kind_or_none(row["kind"])
        group = groups.setdefault(
            (row["kind"], target),
            Group(row["kind"], kind.label if kind else row["kind"], target),
        )
        group.count += row["count"]
        group.stuck += row["stuck"]
        group.waiting += row["waiting"]
        group.since = min(filter(None, (group.since, row["since"])), default=None)
        group.next_attempt_at = min(filter(None, (group.next_attempt_at, row["next"])))
        group.error = group.error or row["error"]
    ordered = sorted(groups.values(), key=lambda group: (-group.stuck, -group.due, group.target))
    return Summary(ordered, now)


def listed(asked: Asked, now: dt.datetime) -> Listed:
    """One page of the credentials that were asked for, the latest first to be late."""
    rows = of_target(asked.kind, asked.target) if asked.target else Credential.objects.all()
    if asked.kind:
        rows = rows.filter(kind=asked.kind)
    rows = ending(_matching(rows, asked.words))
    match asked.show:
        case "stuck":
            rows = rows.filter(gone_by__lt=now - STUCK_AFTER)
        case "due":
            rows = rows.filter(gone_by__lte=now)
        case "waiting":
            rows = rows.filter(Q(gone_by=None) | Q(gone_by__gt=now))
    start = (asked.page - 1) * PAGE
    found = list(
        rows.select_related("grant__holder", "grant__request__profile__endpoint").order_by(
            "gone_by", "pk"
        )[start : start + PAGE + 1]
    )
    shown = [(standing(row, now), target_of(row)) for row in found[:PAGE]]
    return Listed(shown, has_next=len(found) > PAGE, asked=asked)


def _matching(rows: Credentials, words: str) -> Credentials:
    if not words:
        return rows
    of_grant = Q()
    for word in words.split():
        of_grant &= (
            Q(grant__holder__full_name__icontains=word)
            | Q(grant__holder__email__icontains=word)
            | Q(grant__request__profile__endpoint__name__icontains=word)
            | Q(grant__request__profile__endpoint__slug__icontains=word)
        )
    named = _named(words)
    return rows.filter(of_grant | Q(pk=named) if named else of_grant)


def _named(words: str) -> uuid.UUID | None:
    try:
        return ULID.from_str(words.strip().removeprefix("kt-").upper()).to_uuid()
    except ValueError:
        return None


def rotations(now: dt.datetime) -> list[tuple[Rotation, bool]]:
    """Rotations that aren't over, the oldest first, and whether each is late."""
    rows = Rotation.objects.open().select_related("secret__endpoint").order_by("due_at", "pk")
    return [(row, row.is_late(now)) for row in rows[:ROTATIONS_SHOWN]]


def latest_look() -> Reconciliation | None:
    """The last time that what is out there was held against the record."""
    return Reconciliation.objects.first()


def found_outside(now: dt.datetime) -> list[AuditEvent]:
    """What no record accounted for and was found of late, with what was ended of it."""
    events = (Event.ORPHAN_FOUND, Event.ORPHAN_ENDED)
    return list(AuditEvent.objects.filter(event__in=events, at__gt=now - FOUND_FOR)[:FOUND_SHOWN])
