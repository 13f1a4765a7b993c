from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse

from accessrequests.actions import review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import RequestState
from accounts.actions import create_token, join_group
from accounts.models import User
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from broker.errors import SelfReview
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_(world: World) -> AccessRequest:
    """A pending request whose requester is in the group of its reviewers too."""
    profile = world.profile()
    requester = world.person(profile.requesters, profile.reviewers)
    return world.request(profile=profile, requester=requester)


@pytest.fixture
def other(world: World, request_: AccessRequest) -> User:
    """Who may review it: every test below works with them."""
    return world.person(request_.profile.reviewers)


def assert_undecided(request: AccessRequest) -> None:
    request.refresh_from_db()
    assert request.state == RequestState.PENDING
    assert not Review.objects.filter(request=request).exists()
    assert not Grant.objects.filter(request=request).exists()


def assert_refusal_on_record(user: User, code: str) -> None:
    row = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=user.pk).latest("id")
    assert row.data["code"] == code


def by_action(user: User, request: AccessRequest) -> int:
    try:
        review_request(by=user, request_id=request.pk, verdict=Review.Verdict.APPROVE)
    except SelfReview as error:
        return error.status
    return 201


def by_api(user: User, request: AccessRequest) -> int:
    client = Client()
    client.force_login(user)
    return client.post(
        f"/api/v1/requests/{request.pk}/reviews/",
        {"verdict": "approve"},
        content_type="application/json",
    ).status_code


def by_portal(user: User, request: AccessRequest) -> int:
    client = Client()
    client.force_login(user)
    answer = client.post(reverse("request-review", args=[request.pk]), {"verdict": "approve"})
    return 201 if answer.status_code == 302 else answer.status_code


ROUTES = [by_action, by_api, by_portal]


@pytest.mark.parametrize("review", ROUTES)
def test_another_reviewer_may(review: Any, request_: AccessRequest, other: User) -> None:
    """The same set-up as below, with one thing changed: who reviews."""
    assert review(other, request_) == 201
    request_.refresh_from_db()
    assert request_.state == RequestState.APPROVED


@pytest.mark.parametrize("review", ROUTES)
def test_a_member_of_the_reviewers_may_not_review_their_own(
    review: Any, request_: AccessRequest
) -> None:
    assert review(request_.requester, request_) == 403
    assert_undecided(request_)
    if review is not by_action:
        assert_refusal_on_record(request_.requester, "self-review")


@pytest.mark.parametrize("review", ROUTES)
def test_joining_the_reviewers_afterwards_helps_nobody(review: Any, world: World) -> None:
    request = world.request()
    join_group(by=None, user=request.requester, group=request.profile.reviewers)
    assert review(request.requester, request) == 403
    assert_undecided(request)


@pytest.mark.parametrize("review", ROUTES)
@pytest.mark.parametrize("power", ["is_administrator", "is_auditor"])
def test_power_over_everything_helps_nobody(power: str, review: Any, world: World) -> None:
    profile, powers = world.profile(), dict[str, Any]({power: True})
    requester = world.person(profile.requesters, profile.reviewers, **powers)
    request = world.request(profile=profile, requester=requester)
    assert review(requester, request) == 403
    assert_undecided(request)


@pytest.mark.parametrize("review", ROUTES)
def test_owning_the_endpoint_helps_nobody(review: Any, world: World) -> None:
    owner = world.person()
    profile = world.profile(endpoint=world.endpoint(owner=owner))
    join_group(by=None, user=owner, group=profile.requesters)
    request = world.request(profile=profile, requester=owner)
    assert review(owner, request) == 403
    assert_undecided(request)


@pytest.mark.parametrize("whose", ["one's own", "a reviewer's"])
def test_an_api_token_approves_nothing(whose: str, request_: AccessRequest, other: User) -> None:
    """A stolen token of a reviewer's is not a reviewer."""
    owner = other if whose == "a reviewer's" else request_.requester
    _, text = create_token(by=owner, owner=owner, name="script")
    answer = Client().post(
        f"/api/v1/requests/{request_.pk}/reviews/",
        {"verdict": "approve"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert answer.status_code == 403
    assert answer.json()["code"] == "needs-person"
    assert_refusal_on_record(owner, "needs-person")
    assert_undecided(request_)


def test_a_token_sent_along_with_a_session_is_a_token(request_: AccessRequest, other: User) -> None:
    _, text = create_token(by=other, owner=other, name="script")
    client = Client()
    client.force_login(other)
    answer = client.post(
        f"/api/v1/requests/{request_.pk}/reviews/",
        {"verdict": "approve"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "needs-person")
    assert_undecided(request_)


def insert_review(request: AccessRequest, reviewer: User) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accessrequests_review (id, request_id, reviewer_id, step, verdict, reason)"
            " VALUES (%s, %s, %s, 0, 'approve', '')",
            [new_id(), request.pk, reviewer.pk],
        )


def test_postgresql_takes_a_review_by_another(request_: AccessRequest, other: User) -> None:
    insert_review(request_, other)
    assert Review.objects.get(request=request_).reviewer == other


def test_postgresql_refuses_a_review_by_the_requester(request_: AccessRequest) -> None:
    with pytest.raises(DatabaseError, match="nobody reviews their own request"):
        insert_review(request_, request_.requester)
    assert_undecided(request_)


def test_postgresql_refuses_to_change_whose_request_or_review_it_is(
    request_: AccessRequest, other: User
) -> None:
    insert_review(request_, other)
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Review.objects.filter(request=request_).update(reviewer=request_.requester)
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        AccessRequest.objects.filter(pk=request_.pk).update(requester=other)


def test_postgresql_refuses_a_grant_that_no_other_approved(request_: AccessRequest) -> None:
    from audit import clock

    now = clock.now()
    AccessRequest.objects.filter(pk=request_.pk).update(
        state=RequestState.APPROVED, decided_at=now, decided_by="nobody", remind_at=None
    )
    with pytest.raises(DatabaseError, match="beyond what was approved"), transaction.atomic():
        Grant.objects.create(
            request=request_,
            holder=request_.requester,
            scope=request_.scope,
            starts_at=now,
            ends_at=now + request_.duration,
        )
