"""A reviewer's desk: their queue in pages, and what each of its rows says.

A page takes the same few queries however long the queue is.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from urllib.parse import urlencode

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils.dateparse import parse_datetime

from accessrequests.models import Absence, AccessRequest, Comment, HandOver, Review, Route
from accessrequests.queue import waiting_for
from accounts.models import Membership, User
from audit import clock
from endpoints.models import Endpoint

SHOWN = 50
SOON = dt.timedelta(hours=1)
COUNTED = 100  # more than 99 is just many
KINDS = {
    "review": "Owed reviews",
    "extension": "Extensions",
    "scheduled": "Scheduled starts",
    "handed": "Handed to me",
}


@dataclass(frozen=True)
class Filters:
    """What of the queue to show, as it stands in the address."""

    q: str = ""
    risk: str = ""
    environment: str = ""
    endpoint: str = ""
    kind: str = ""
    after: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Filters":
        """From a query string; what can't be meant is left out."""
        said = {
            item.name: query.get(item.name, "").replace("\x00", "")[:200] for item in fields(cls)
        }
        known = {
            "risk": Endpoint.Risk.values,
            "environment": Endpoint.Environment.values,
            "kind": list(KINDS),
        }
        for name, values in known.items():
            if said[name] not in values:
                said[name] = ""
        said["q"] = said["q"].strip()
        if _cursor(said["after"]) is None:
            said["after"] = ""
        return cls(**said)

    @property
    def chosen(self) -> bool:
        """Whether they leave anything out."""
        return any(getattr(self, item.name) for item in fields(self) if item.name != "after")

    def query(self, **more: object) -> str:
        """As a query string, with these parameters more or instead; empty where there are none."""
        said = {item.name: getattr(self, item.name) for item in fields(self)} | more
        text = urlencode({name: str(value) for name, value in said.items() if value})
        return f"?{text}" if text else ""


@dataclass(frozen=True)
class Item:
    """One request of the queue, and what its row says beside who asks for what."""

    request: AccessRequest
    route: Route
    place: int
    steps: int
    needed: int
    given: int
    late: bool
    soon: bool
    asks: Comment | None = None
    handed_to_me: HandOver | None = None
    handed_on: HandOver | None = None
    in_place_of: list[User] = field(default_factory=list)

    @property
    def owed(self) -> bool:
        """Whether it's the review afterwards of break-glass access."""
        return self.request.break_glass

    @property
    def cursor(self) -> str:
        """Where the next page begins."""
        return f"{self.route.sort_at.isoformat()} {self.request.pk}"


@dataclass(frozen=True)
class Page:
    """So much of the queue, and where it goes on."""

    items: list[Item]
    after: str


def _cursor(text: str) -> tuple[dt.datetime, uuid.UUID] | None:
    moment, _, pk = text.rpartition(" ")
    try:
        at = parse_datetime(moment)
        return (at, uuid.UUID(pk)) if at is not None and at.tzinfo is not None else None
    except ValueError:
        return None


def count(user: User) -> int:
    """How many wait for this person, counted no further than a hundred."""
    return waiting_for(user).order_by()[:COUNTED].count()


def _chosen(routes: QuerySet[Route], user: User, filters: Filters) -> QuerySet[Route]:
    endpoint = "request__profile__endpoint__"
    for word in filters.q.split()[:8]:
        routes = routes.filter(
            Q(request__requester__full_name__icontains=word)
            | Q(request__requester__email__icontains=word)
            | Q(**{f"{endpoint}name__icontains": word})
        )
    exact = {
        f"{endpoint}risk": filters.risk,
        f"{endpoint}environment": filters.environment,
        f"{endpoint}slug": filters.endpoint,
    }
    routes = routes.filter(**{name: value for name, value in exact.items() if value})
    match filters.kind:
        case "review":
            routes = routes.filter(request__break_glass=True)
        case "extension":
            routes = routes.filter(request__extends__isnull=False)
        case "scheduled":
            routes = routes.filter(request__starts_at__isnull=False)
        case "handed":
            handed = HandOver.objects.filter(request=OuterRef("request"), to=user)
            routes = routes.filter(Exists(handed))
    cursor = _cursor(filters.after)
    if cursor is not None:
        at, pk = cursor
        routes = routes.filter(Q(sort_at__gt=at) | Q(sort_at=at, request__gt=pk), sort_at__gte=at)
    return routes


def page(user: User, filters: Filters, *, shown: int = SHOWN) -> Page:
    """One page of what waits for this person."""
    rows = list(
        _chosen(waiting_for(user), user, filters).select_related(
            "request__profile__endpoint__owner", "request__profile__requesters"
        )[: shown + 1]
    )
    items = _items(user, rows[:shown])
    return Page(items, items[-1].cursor if len(rows) > shown else "")


def endpoints(user: User) -> list[Endpoint]:
    """The endpoints of what waits for this person, to choose from."""
    found = Route.objects.to(user).filter(waiting=True).values("request__profile__endpoint")
    return list(Endpoint.objects.filter(pk__in=found).only("slug", "name"))


def _items(user: User, routes: list[Route]) -> list[Item]:
    ids = [route.request_id for route in routes]
    last = {
        comment.request_id: comment
        for comment in Comment.objects.filter(request__in=ids)
        .order_by("request_id", "-at")
        .distinct("request_id")
    }
    handed = HandOver.objects.filter(Q(to=user) | Q(by=user), request__in=ids)
    to_me: dict[object, HandOver] = {}
    by_me: dict[object, HandOver] = {}
    for row in handed.select_related("by", "to"):
        (to_me if row.to_id == user.pk else by_me)[row.request_id] = row
    given: dict[tuple[object, int], int] = {}
    approvals = Review.objects.filter(request__in=ids, verdict=Review.Verdict.APPROVE)
    for pk, step in approvals.values_list("request", "step"):
        given[pk, step] = given.get((pk, step), 0) + 1
    absent = _in_place_of(user, ids)
    now = clock.now()
    items = []
    for route in routes:
        request = route.request
        steps = request.policy["steps"]
        taken = [at for at, step in enumerate(steps) if not step["skipped"]]
        said = last.get(request.pk)
        items.append(
            Item(
                request=request,
                route=route,
                place=taken.index(request.step) + 1 if request.step in taken else 1,
                steps=len(taken),
                needed=steps[request.step]["approvals"],
                given=given.get((request.pk, request.step), 0),
                late=request.decide_by <= now,
                soon=request.decide_by <= now + SOON,
                asks=said if said is not None and said.kind == Comment.Kind.QUESTION else None,
                handed_to_me=to_me.get(request.pk),
                handed_on=by_me.get(request.pk),
                in_place_of=absent.get(request.pk, []),
            )
        )
    return items


def _in_place_of(user: User, ids: list[uuid.UUID]) -> dict[object, list[User]]:
    """For each request, those who are away and would decide it, whose delegate this person is."""
    away = Absence.objects.now().filter(delegate=user, person__is_active=True)
    people = [absence.person for absence in away.select_related("person")]
    if not people:
        return {}
    groups: dict[object, set[object]] = {}
    for person, group in Membership.objects.filter(user__in=people).values_list("user", "group"):
        groups.setdefault(person, set()).add(group)
    found: dict[object, list[User]] = {}
    routes = Route.objects.filter(request__in=ids, waiting=True).exclude(
        request__requester=F("person")
    )
    for pk, group, person in routes.values_list("request", "group", "person"):
        for absent in people:
            reached = person == absent.pk or group in groups.get(absent.pk, set())
            if reached and absent not in found.setdefault(pk, []):
                found[pk].append(absent)
    return found
