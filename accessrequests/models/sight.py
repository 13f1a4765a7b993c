"""Lists of what somebody may see, found among millions.

Somebody sees a row in one of several ways. Asked for all ways at once (`OR`), PostgreSQL reads
backwards through everything until a page is full, which for who sees little is the whole table.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, TypeVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, Model, OuterRef, Q, QuerySet, Subquery, Value

from accounts.models import Membership, User
from endpoints.models import AccessProfile

Rows = TypeVar("Rows", bound=QuerySet[Any])
FEW = 500


class Sight(NamedTuple):
    """By what somebody sees things: ids, or subqueries that give them."""

    services: Any  # accounts that they answer for
    groups: Any
    reviewed: Any  # profiles whose reviewers they're among
    owned: Any  # profiles on endpoints of theirs


def sight_of(user: User) -> Sight:
    """As subqueries: nothing is asked yet."""
    return _sight(user.pk)


def known_sight(user: User) -> Sight:
    """As ids, in one query. By these PostgreSQL knows how much it would find."""
    arrays = [ArraySubquery(rows) for rows in _sight(OuterRef("pk"))]
    return Sight(*User.objects.filter(pk=user.pk).values_list(*arrays).get())


def _sight(pk: Any) -> Sight:
    groups = Membership.objects.filter(user=pk).order_by().values("group")
    if isinstance(pk, OuterRef):
        within = Membership.objects.filter(user=OuterRef(OuterRef("pk"))).values("group")
    else:
        within = groups
    profiles = AccessProfile.objects.order_by()
    return Sight(
        services=User.objects.filter(owner=pk).order_by().values("pk"),
        groups=groups,
        reviewed=profiles.filter(reviewers__in=within).values("pk"),
        owned=profiles.filter(endpoint__owner=pk).values("pk"),
    )


class Way(NamedTuple):
    """One way to see a row: as a condition by which such rows are found, and as one by which a row
    is judged that was found otherwise."""

    find: Q
    judge: Q


def plain(**condition: Any) -> Way:
    """A way whose condition does for both: one on columns that have an index."""
    return Way(Q(**condition), Q(**condition))


def related(find: Q, rows: QuerySet[Any]) -> Way:
    """A way by rows elsewhere: `rows` are those that belong to the row in question."""
    return Way(find, some(rows))


def some(rows: QuerySet[Any]) -> Q:
    """Whether there are such rows, looked up for each row in question. For Exists, PostgreSQL may
    first read those of everything."""
    return Q(Subquery(rows.values_list(Value(value=True))[:1], output_field=BooleanField()))


def in_any(rows: Rows, ways: Sequence[Way]) -> Rows:
    """Those of `rows` that are seen in one of these ways."""
    return rows.filter(reduce(or_, (way.judge for way in ways)))


def listed(rows: Rows, ways: Sequence[Way]) -> Rows:
    """The same, for one query more: what is few in a way is found beforehand and named by its id,
    so that only ways in which somebody sees much are left to be judged by."""
    model: type[Model] = rows.model
    each: list[Any] = [
        model._default_manager.order_by()
        .filter(way.find)
        .annotate(way=Value(number))
        .values_list("way", "pk")[: FEW + 1]
        for number, way in enumerate(ways)
    ]
    found: dict[int, list[Any]] = {}
    for number, pk in each[0].union(*each[1:], all=True):
        found.setdefault(number, []).append(pk)
    many = [ways[number].judge for number, ids in found.items() if len(ids) > FEW]
    few = {pk for ids in found.values() if len(ids) <= FEW for pk in ids}
    return rows.filter(reduce(or_, many, Q(pk__in=few)))
