"""The queue of a reviewer: what they may decide, each once, the most urgent first."""

import datetime as dt

import pytest

from accessrequests.actions import file_request, note_absence, review_request
from accessrequests.models import AccessRequest, Review, Route
from accessrequests.policy.document import Reviewers
from accessrequests.queue import waiting_for
from accessrequests.routing import lay_routes, wait_at
from accounts.models import User
from audit import clock
from tests.world import PROVED, World, move

pytestmark = pytest.mark.django_db


def queue(user: User) -> list[AccessRequest]:
    return [route.request for route in waiting_for(user)]


def test_risk_brings_a_request_forward(world: World) -> None:
    reviewers = world.group()
    reviewer = world.person(reviewers)
    filed = [
        world.request(
            profile=world.profile(
                endpoint=world.endpoint(risk=risk, with_key=False), reviewers=reviewers
            )
        )
        for risk in ("low", "critical", "elevated")
    ]
    low, critical, elevated = filed
    assert queue(reviewer) == [critical, elevated, low]


def test_a_request_that_reaches_somebody_by_several_ways_waits_once(world: World) -> None:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    lay_routes(
        request,
        0,
        Reviewers(people=(reviewer.email,), groups=(request.profile.reviewers.slug,)),
        waiting=True,
        escalated=True,
    )
    assert Route.objects.to(reviewer).count() == 3
    assert queue(reviewer) == [request]


def test_what_one_asked_or_decided_or_what_lapsed_waits_no_more(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    service = world.person(profile.requesters, owner=reviewer)
    world.request(profile=profile, requester=service)
    world.person(profile.requesters)
    decided = world.request(profile=profile)
    lapsed = world.request(profile=profile)
    assert queue(reviewer) == [decided, lapsed]
    review_request(
        by=reviewer, request_id=decided.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    move(lapsed, pending_until=dt.timedelta(days=-2))
    assert queue(reviewer) == []


def test_a_later_step_waits_when_its_turn_has_come(world: World) -> None:
    request = world.request()
    later = world.person()
    lay_routes(request, 1, Reviewers(people=(later.email,)), waiting=False)
    assert queue(later) == []
    wait_at(request, 1)
    assert queue(later) == [request]


def test_a_review_that_is_owed_comes_first(world: World) -> None:
    reviewers = world.group()
    critical = world.profile(
        endpoint=world.endpoint(risk="critical", with_key=False), reviewers=reviewers
    )
    profile = world.profile(reviewers=reviewers)
    world.policy(profile=profile, break_glass={"groups": [profile.requesters.slug]})
    reviewer = world.person(reviewers)
    pending = world.request(profile=critical)
    taken = file_request(
        by=world.person(profile.requesters),
        profile_id=profile.pk,
        justification="Ticket 4711.",
        break_glass=True,
        proofs=PROVED,
    )
    assert queue(reviewer) == [taken, pending]


def test_being_away_takes_nothing_out_of_ones_queue(world: World) -> None:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    note_absence(by=reviewer, ends_at=clock.now() + dt.timedelta(days=1))
    assert queue(reviewer) == [request]
