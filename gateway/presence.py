"""Who is in at this moment: live grants by endpoint or by person, with what they do."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from django.db.models import Count, F, Prefetch, Q, Sum, Window
from django.db.models.functions import RowNumber

from accessrequests.models import Grant, Grants
from accounts.models import User
from audit import clock
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.models import EmergencyStop, Endpoint
from gateway.models import Call, Process
from gateway.usage import NONE, Rate, Usage, rates, rates_of

SILENT = dt.timedelta(seconds=5)  # a gateway that hasn't beaten for this long isn't counted
GROUPS = 50
ROWS = 6  # of each group
ROWS_OF_ONE = 200  # where one group is asked for

By = Literal["endpoint", "person"]
KEYS: dict[By, str] = {"endpoint": "request__profile__endpoint_id", "person": "holder_id"}
CALL_KEYS: dict[By, str] = {"endpoint": "endpoint_id", "person": "grant__holder_id"}


def may_look(user: User) -> bool:
    """Whether this person sees who is in: on every endpoint, or on those that they own."""
    return user.sees_everything or Endpoint.objects.filter(owner=user).exists()


def inside(user: User) -> Grants:
    """Live grants as far as this person may see who is in."""
    rows = Grant.objects.live()
    return rows if user.sees_everything else rows.filter(request__profile__endpoint__owner=user)


def calls_inside(user: User) -> Any:
    """Calls on the endpoints whose live access this person sees."""
    if user.sees_everything:
        return Call.objects.all()
    return Call.objects.filter(endpoint__in=Endpoint.objects.filter(owner=user))


def with_parts(rows: Grants) -> Grants:
    """With all that a row of the live page shows."""
    return rows.select_related(
        "holder", "request__on_behalf_of", "request__profile__endpoint", "meter"
    ).prefetch_related(
        "raises",
        Prefetch(
            "credentials",
            queryset=Credential.objects.filter(state=CredentialState.ACTIVE).order_by("-id"),
            to_attr="out",
        ),
    )


class Inside(NamedTuple):
    """One live grant, what it has spent, and what it does now."""

    grant: Grant
    usage: Usage
    rate: Rate
    credential: Credential | None
    may_end: bool


@dataclass(frozen=True)
class Group:
    """All live grants of one endpoint or one person; `rows` are those that called last."""

    key: uuid.UUID
    name: str
    endpoint: Endpoint | None
    person: User | None
    grants: int
    others: int
    rate: Rate
    rows: list[Inside]
    stop: EmergencyStop | None
    may_stop: bool

    @property
    def more(self) -> int:
        """How many aren't in `rows`."""
        return self.grants - len(self.rows)


@dataclass(frozen=True)
class Presence:
    """Who is in, as far as one person may see it."""

    now: dt.datetime
    grants: int
    people: int
    rate: Rate
    open_calls: int
    gateways: int
    groups: list[Group]
    more_groups: int
    stops: list[EmergencyStop]


def presence(
    user: User, *, by: By = "endpoint", only: uuid.UUID | None = None, words: str = ""
) -> Presence:
    """Who is in. `only` one endpoint or person; `words` are looked for in the names of both."""
    now = clock.now()
    key = KEYS[by]
    rows = inside(user)
    for word in words.split()[:8]:
        rows = rows.filter(
            Q(holder__full_name__icontains=word)
            | Q(holder__email__icontains=word)
            | Q(request__profile__endpoint__name__icontains=word)
            | Q(request__profile__endpoint__slug__icontains=word)
        )
    if only is not None:
        rows = rows.filter(**{key: only})
    totals = rows.aggregate(grants=Count("pk"), people=Count("holder", distinct=True))
    other = KEYS["person" if by == "endpoint" else "endpoint"]
    counted = list(
        rows.order_by()
        .values_list(key)
        .annotate(grants=Count("pk"), others=Count(other, distinct=True))
        .order_by("-grants", key)[: GROUPS + 1]
    )
    shown = [each[0] for each in counted[:GROUPS]]
    per_group = rates(calls_inside(user), CALL_KEYS[by], now)
    stops = list(
        EmergencyStop.objects.visible_to(user).in_force().select_related("endpoint", "stopped_by")
    )
    found = _rows(user, rows, key, shown, only, now)
    running = Process.objects.filter(beat_at__gt=now - SILENT).aggregate(
        calls=Sum("open_calls"), gateways=Count("pk")
    )
    return Presence(
        now=now,
        grants=totals["grants"],
        people=totals["people"],
        rate=Rate(
            sum(each.calls for each in per_group.values()),
            sum(each.refused for each in per_group.values()),
        ),
        open_calls=running["calls"] or 0,
        gateways=running["gateways"],
        # Between two queries a grant may have ended: a group without rows is gone.
        groups=[
            _group(by, each, found[each[0]], per_group, stops)
            for each in counted[:GROUPS]
            if each[0] in found
        ],
        more_groups=max(0, len(counted) - GROUPS),
        stops=stops,
    )


def _rows(
    user: User,
    rows: Grants,
    key: str,
    shown: Sequence[uuid.UUID],
    only: uuid.UUID | None,
    now: dt.datetime,
) -> dict[uuid.UUID, list[Inside]]:
    """Those of each group that called last, in as many queries however many groups there are."""
    # Ranked by their keys alone: sorting whole rows of ten thousand grants takes three times as
    # long.
    ranked = (
        rows.filter(**{f"{key}__in": shown})
        .order_by()
        .annotate(
            place=Window(
                RowNumber(),
                partition_by=[F(key)],
                order_by=[F("meter__last_call_at").desc(nulls_last=True), F("pk").desc()],
            )
        )
        .filter(place__lte=ROWS if only is None else ROWS_OF_ONE)
        .values_list("pk", key, "place")
    )
    places = {pk: (place, group) for pk, group, place in ranked}
    grants: list[Any] = list(with_parts(Grant.objects.filter(pk__in=places)).order_by())
    rate = rates_of(grants, now)
    found: dict[uuid.UUID, list[Inside]] = {}
    for grant in sorted(grants, key=lambda each: places[each.pk][0]):
        owned = grant.request.profile.endpoint.owner_id == user.pk
        found.setdefault(places[grant.pk][1], []).append(
            Inside(
                grant,
                Usage.of(grant),
                rate.get(grant.pk, NONE),
                grant.out[0] if grant.out else None,
                user.is_administrator or owned,
            )
        )
    return found


def _group(
    by: By,
    counted: tuple[uuid.UUID, int, int],
    rows: list[Inside],
    per_group: dict[uuid.UUID, Rate],
    stops: list[EmergencyStop],
) -> Group:
    key, grants, others = counted
    first = rows[0].grant
    endpoint = first.request.profile.endpoint if by == "endpoint" else None
    return Group(
        key=key,
        name=str(endpoint or first.holder),
        endpoint=endpoint,
        person=None if endpoint else first.holder,
        grants=grants,
        others=others,
        rate=per_group.get(key, NONE),
        rows=rows,
        stop=next((each for each in stops if endpoint and each.endpoint_id == key), None),
        may_stop=endpoint is not None and rows[0].may_end,
    )
