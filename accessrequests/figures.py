"""How requests were decided of late: read from the tallies, never from the requests."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from django.db.models import Q, Sum

from accessrequests.models import Tally
from accessrequests.models.figures import WAITS
from accessrequests.models.requests import reviewed_by
from accounts.models import User
from audit.templatetags.keyturn import duration
from endpoints.models import AccessProfile

PERIODS = (30, 90)  # days
MOST_PEOPLE = 12
BY_PEOPLE = (Tally.Outcome.APPROVED, Tally.Outcome.DENIED)


@dataclass(frozen=True)
class Bar:
    """One part of a whole: how many, and where it lies on a bar that is 1000 long."""

    label: str
    count: int
    percent: int
    x: int
    width: int
    key: str = ""


@dataclass(frozen=True)
class Decider:
    """One reviewer's decisions; the bars are to the scale of whoever decided most."""

    name: str
    count: int
    approved: Bar
    denied: Bar


@dataclass(frozen=True)
class Figures:
    """What became of the requests of a period."""

    total: int
    outcomes: list[Bar]
    waits: list[Bar]
    median: str
    automatic: int
    denied: int
    deciders: list[Decider]
    more_deciders: int


def wait_words(at: int) -> str:
    """A class of waits as people say it."""
    if at == 0:
        return f"Within {duration(WAITS[0])}"
    if at == len(WAITS):
        return f"More than {duration(WAITS[-1])}"
    (start, unit), end = duration(WAITS[at - 1]).split(), duration(WAITS[at])
    # "5 to 15 minutes", but "15 minutes to 1 hour".
    return f"{start} to {end}" if unit.rstrip("s") in end else f"{start} {unit} to {end}"


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole) if whole else 0


def _stacked(parts: list[tuple[str, str, int]], whole: int) -> list[Bar]:
    """Parts of one bar, each beginning where the last ended."""
    bars, x = [], 0
    for key, label, count in parts:
        width = round(1000 * count / whole) if whole else 0
        bars.append(Bar(label, count, _percent(count, whole), x, width, key))
        x += width
    return bars


def _median(waits: Counter[int]) -> str:
    passed, middle = 0, sum(waits.values()) / 2
    for at in sorted(waits):
        passed += waits[at]
        if passed >= middle:
            return wait_words(at)
    return ""


def figures(user: User, *, days: int, today: dt.date) -> Figures:
    """The last days' figures of the profiles that this person reviews, owns or decided on in that
    time; of all for those who see everything."""
    rows = Tally.objects.filter(day__gt=today - dt.timedelta(days=days))
    if not user.sees_everything:
        mine = AccessProfile.objects.filter(reviewed_by(user, "") | Q(endpoint__owner=user))
        decided = rows.filter(reviewer=user).values_list("profile", flat=True).distinct()
        rows = rows.filter(profile__in={*mine.values_list("pk", flat=True), *decided})
    outcomes: Counter[str] = Counter()
    waits: Counter[int] = Counter()
    people: Counter[tuple[str, str]] = Counter()
    sums = list(rows.values("outcome", "wait", "reviewer").annotate(sum=Sum("count")))
    reviewers = User.objects.in_bulk({row["reviewer"] for row in sums} - {None})
    for row in sums:
        outcomes[row["outcome"]] += row["sum"]
        if row["outcome"] in BY_PEOPLE:
            waits[row["wait"]] += row["sum"]
            if row["reviewer"] is not None:
                people[f"{row['reviewer']} {reviewers[row['reviewer']]}", row["outcome"]] += row[
                    "sum"
                ]
    total = sum(outcomes.values())
    most = max(waits.values(), default=0)
    decided_by_people = sum(waits.values())
    deciders = _deciders(people)
    return Figures(
        total=total,
        outcomes=_stacked(
            [(each.value, str(each.label), outcomes[each]) for each in Tally.Outcome], total
        ),
        waits=[
            Bar(
                wait_words(at),
                waits[at],
                _percent(waits[at], decided_by_people),
                0,
                round(1000 * waits[at] / most) if most else 0,
            )
            for at in range(len(WAITS) + 1)
        ],
        median=_median(waits),
        automatic=_percent(outcomes[Tally.Outcome.AUTOMATIC], total),
        denied=_percent(outcomes[Tally.Outcome.DENIED], decided_by_people),
        deciders=deciders[:MOST_PEOPLE],
        more_deciders=max(0, len(deciders) - MOST_PEOPLE),
    )


def _deciders(people: Counter[tuple[str, str]]) -> list[Decider]:
    counts: dict[str, Counter[str]] = {}
    for (who, outcome), number in people.items():
        counts.setdefault(who, Counter())[outcome] += number
    most = max((sum(each.values()) for each in counts.values()), default=0)
    found = []
    for who, each in counts.items():
        parts = [(key.value, str(key.label), each[key]) for key in BY_PEOPLE]
        approved, denied = _stacked(parts, most)
        found.append(Decider(who.partition(" ")[2], sum(each.values()), approved, denied))
    return sorted(found, key=lambda decider: (-decider.count, decider.name))
