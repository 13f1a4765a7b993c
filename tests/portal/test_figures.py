"""The figures of the dashboard, counted as things are decided."""

import datetime as dt
from typing import Any

import pytest
from django.urls import reverse

from accessrequests.actions import review_request
from accessrequests.figures import figures, wait_words
from accessrequests.models import Review, Tally
from accessrequests.models.figures import WAITS
from audit import clock
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db


def test_they_teach_while_there_are_none(world: World, signed_in: Any) -> None:
    html = signed_in(world.person()).get(reverse("approvals-figures")).content.decode()
    assert "Nothing was decided in this time" in html


def test_they_count_what_was_decided(world: World, signed_in: Any) -> None:
    profile = world.profile()
    ben = world.person(profile.reviewers, full_name="Ben <Okafor>")
    for verdict in (Review.Verdict.APPROVE, Review.Verdict.APPROVE, Review.Verdict.DENY):
        row = world.request(profile=profile, reviewer=ben)
        review_request(by=ben, request_id=row.pk, verdict=verdict, reason="Seen.", proofs=PROVED)
    today = clock.now().date()
    found = figures(ben, days=30, today=today)
    assert found.total == 3
    assert found.median == "Within 5 minutes"
    assert found.denied == 33
    assert found.automatic == 0
    assert [(d.name, d.approved.count, d.denied.count) for d in found.deciders] == [
        ("Ben <Okafor>", 2, 1)
    ]
    html = signed_in(ben).get(reverse("approvals-figures") + "?days=90").content.decode()
    assert "Ben &lt;Okafor&gt;" in html
    assert "last 90 days" in html
    assert "style=" not in html
    assert signed_in(ben).get(reverse("approvals-figures") + "?days=x").status_code == 200


def test_they_are_those_of_ones_own_profiles(world: World) -> None:
    profile, other = world.profile(), world.profile()
    ben, auditor = world.person(profile.reviewers), world.person(is_auditor=True)
    today = clock.now().date()
    before = figures(auditor, days=30, today=today).total
    for each, number in ((profile, 3), (other, 5)):
        Tally.objects.create(
            day=today, profile=each, outcome=Tally.Outcome.EXPIRED, wait=5, count=number
        )
    assert figures(ben, days=30, today=today).total == 3
    assert figures(other.endpoint.owner, days=30, today=today).total == 5
    assert figures(auditor, days=30, today=today).total == before + 8
    assert figures(world.person(), days=30, today=today).total == 0


def test_a_period_ends_with_its_first_day(world: World) -> None:
    profile = world.profile()
    ben = world.person(profile.reviewers)
    today = dt.date(2026, 11, 23)
    for age in (0, 29, 30, 89, 90):
        Tally.objects.create(
            day=today - dt.timedelta(days=age),
            profile=profile,
            reviewer=ben,
            outcome=Tally.Outcome.APPROVED,
            wait=age % 6,
        )
    assert figures(ben, days=30, today=today).total == 2
    found = figures(ben, days=90, today=today)
    assert found.total == 4
    assert sum(bar.count for bar in found.waits) == 4
    assert sum(bar.width for bar in found.outcomes) == 1000


def test_classes_of_waits_meet() -> None:
    words = [wait_words(at) for at in range(len(WAITS) + 1)]
    assert words == [
        "Within 5 minutes",
        "5 to 15 minutes",
        "15 minutes to 1 hour",
        "1 to 4 hours",
        "4 hours to 1 day",
        "More than 1 day",
    ]
