import datetime as dt
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse

from accessrequests.actions import file_request, hand_over, note_absence, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import RequestState
from accounts.actions import create_token, join_group
from accounts.models import ApiToken, User
from accounts.stepup import HEADER
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from broker.errors import Forbidden, InvalidInput, NotFound, SelfReview
from tests.accessrequests.policies import govern, step
from tests.accounts.authenticator import authenticator, code
from tests.api.callers import Caller
from tests.world import PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


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
        review_request(
            by=user, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
        )
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
    assert answer.json()["code"] == "token-scope"
    assert_refusal_on_record(owner, "token-scope")
    assert_undecided(request_)


@pytest.mark.parametrize("whose", ["one's own", "a service account's"])
def test_a_token_with_a_second_factor_approves_nothing_of_ones_own(
    whose: str, request_: AccessRequest, world: World
) -> None:
    """All that there is to have, of somebody who reviews: still not their own request."""
    owner = request_.requester
    if whose == "a service account's":
        until = clock.now() + dt.timedelta(days=1)
        program = world.person(request_.profile.requesters, owner=owner, ends_at=until)
        request_ = world.request(profile=request_.profile, requester=program)
    caller = Caller(owner, "token", verbs=["review"])
    caller.headers[HEADER] = code(authenticator(owner))
    answer = caller.post(f"requests/{request_.pk}/reviews/", {"verdict": "approve"})
    assert (answer.status_code, answer.json()["code"]) == (403, "self-review")
    assert_refusal_on_record(owner, "self-review")
    assert_undecided(request_)


@pytest.mark.parametrize("by", ["its own code", "its owner's code"])
def test_a_service_account_s_token_reviews_nothing(
    by: str, request_: AccessRequest, other: User, world: World
) -> None:
    until = clock.now() + dt.timedelta(days=1)
    program = world.person(request_.profile.reviewers, owner=other, ends_at=until)
    caller = Caller(program, "token")
    ApiToken.objects.filter(owner=program).update(verbs=["review"])
    caller.headers[HEADER] = code(authenticator(other)) if "owner" in by else "123456"
    answer = caller.post(f"requests/{request_.pk}/reviews/", {"verdict": "approve"})
    assert (answer.status_code, answer.json()["code"]) == (403, "needs-person")
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
    assert (answer.status_code, answer.json()["code"]) == (403, "token-scope")
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


# ── Others who would be the requester ───────────────────────────────────────────────────────────


@pytest.fixture
def of_a_service(world: World) -> AccessRequest:
    """A request of a service account whose owner is in the group of its reviewers."""
    profile = world.profile()
    owner = world.person(profile.reviewers)
    service = world.person(profile.requesters, profile.reviewers, owner=owner)
    return world.request(profile=profile, requester=service)


def owner_of(request: AccessRequest) -> User:
    assert request.requester.owner is not None
    return request.requester.owner


@pytest.mark.parametrize("review", ROUTES)
def test_the_owner_of_a_service_account_may_not_review_its_request(
    review: Any, of_a_service: AccessRequest
) -> None:
    assert review(owner_of(of_a_service), of_a_service) == 403
    assert_undecided(of_a_service)


@pytest.mark.parametrize("review", ROUTES)
def test_another_may_review_a_service_account_s_request(
    review: Any, of_a_service: AccessRequest, world: World
) -> None:
    assert review(world.person(of_a_service.profile.reviewers), of_a_service) == 201


def test_whoever_became_its_owner_since_does_not_count(
    of_a_service: AccessRequest, world: World
) -> None:
    """One of two approvals came from who is its owner by now."""
    profile = of_a_service.profile
    people = [world.person(profile.reviewers) for _ in range(3)]
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, requester=of_a_service.requester, reviewer=people[0])
    review_request(
        by=people[0], request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    User.objects.filter(pk=request.requester_id).update(owner=people[0])
    review_request(
        by=people[1], request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    assert not Grant.objects.filter(request=request).exists()
    review_request(
        by=people[2], request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    assert Grant.objects.filter(request=request).exists()


def test_postgresql_refuses_a_review_by_the_owner(of_a_service: AccessRequest) -> None:
    with pytest.raises(DatabaseError, match="nobody reviews their own request"):
        insert_review(of_a_service, owner_of(of_a_service))
    assert_undecided(of_a_service)


def test_a_service_account_reviews_nothing(request_: AccessRequest, world: World) -> None:
    service = world.person(request_.profile.reviewers, owner=world.person())
    with pytest.raises(Forbidden):
        review_request(
            by=service, request_id=request_.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
        )
    with pytest.raises(DatabaseError, match="only people review"):
        insert_review(request_, service)
    with pytest.raises(Forbidden):
        review_request(
            by=service,
            request_id=request_.pk,
            verdict=Review.Verdict.DENY,
            reason="No.",
            proofs=PROVED,
        )
    assert_undecided(request_)


NAMED = [
    {"endpoint_owner": True},
    {"requester_manager": True},
    {"people": ["the requester"]},
    {"profile_reviewers": True},
]


@pytest.mark.parametrize("named", NAMED, ids=lambda named: next(iter(named)))
def test_being_named_by_a_policy_helps_nobody(named: dict[str, Any], world: World) -> None:
    """As owner, as manager of one's own service account, by name or by group."""
    profile = world.profile()
    person = world.person(profile.requesters, profile.reviewers)
    other = world.person(profile.reviewers)
    User.objects.filter(pk=person.pk).update(manager=other)
    requester = person
    if "endpoint_owner" in named:
        type(profile.endpoint).objects.update(owner=person)
    if "requester_manager" in named:
        requester = world.person(profile.requesters, owner=person, manager=person)
    if "people" in named:
        named = {"people": [person.email]}
    govern(profile, {"name": "Review", "reviewers": {**named, "profile_reviewers": True}})
    request = world.request(profile=profile, requester=requester, reviewer=other)
    assert by_action(person, request) == 403
    assert_undecided(request)
    assert by_action(other, request) == 201


def test_a_request_that_only_its_requester_could_review_is_refused(world: World) -> None:
    profile = world.profile()
    person = world.person(profile.requesters, profile.reviewers)
    with pytest.raises(InvalidInput, match="Nobody could approve this"):
        file_request(by=person, profile_id=profile.pk, justification="For me.")


def test_standing_in_for_a_reviewer_gives_no_right(request_: AccessRequest, other: User) -> None:
    for delegate in (request_.requester, None):
        note_absence(
            by=other if delegate else request_.requester,
            ends_at=clock.now() + dt.timedelta(hours=1),
            delegate=delegate.email if delegate else "",
        )
    assert by_action(request_.requester, request_) == 403
    assert_undecided(request_)


def test_a_stranger_s_delegation_opens_nothing(
    request_: AccessRequest, other: User, world: World
) -> None:
    stranger = world.person()
    note_absence(by=other, ends_at=clock.now() + dt.timedelta(hours=1), delegate=stranger.email)
    with pytest.raises(NotFound):
        review_request(
            by=stranger, request_id=request_.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
        )
    assert_undecided(request_)


@pytest.mark.parametrize("to", ["requester", "owner", "service", "stranger", "oneself", "nobody"])
def test_it_is_handed_to_nobody_who_may_not_decide_it(
    to: str, of_a_service: AccessRequest, world: World
) -> None:
    request = of_a_service
    other = world.person(request.profile.reviewers)
    email = {
        "requester": request.requester.email,
        "owner": owner_of(request).email,
        "service": world.person(request.profile.reviewers, owner=other).email,
        "stranger": world.person().email,
        "oneself": other.email,
        "nobody": "nobody@example.com",
    }[to]
    with pytest.raises(InvalidInput) as caught:
        hand_over(by=other, request_id=request.pk, to=email)
    assert list(caught.value.errors) == ["to"]
    assert not request.hand_overs.exists()


@pytest.mark.parametrize("review", ROUTES)
def test_a_review_afterwards_is_another_s_too(review: Any, world: World) -> None:
    profile, called = world.profile(), world.group()
    world.person(profile.reviewers)
    govern(profile, break_glass={"groups": [called.slug]})
    requester = world.person(profile.requesters, profile.reviewers, called)
    request = file_request(
        by=requester,
        profile_id=profile.pk,
        justification="It burns.",
        break_glass=True,
        proofs=PROVED,
    )
    assert review(requester, request) == 403
    assert not Review.objects.filter(request=request).exists()


def test_one_reviewer_is_not_two(world: World) -> None:
    """In both groups, by both steps, and by asking PostgreSQL."""
    profile, second = world.profile(), world.group()
    both = world.person(profile.reviewers, second)
    world.person(second)
    govern(profile, step(), step(second, name="Security"))
    request = world.request(profile=profile, reviewer=both)
    assert by_action(both, request) == 201
    client = Client()
    client.force_login(both)
    assert by_api(both, request) == 409
    with pytest.raises(DatabaseError, match="review_once_each"):
        insert_review(request, both)
    assert not Grant.objects.filter(request=request).exists()


def test_postgresql_refuses_a_grant_of_fewer_than_the_policy_asks_for(world: World) -> None:
    profile, second = world.profile(), world.group()
    people = [world.person(profile.reviewers) for _ in range(3)]
    last = world.person(second)
    govern(profile, step(approvals=2), step(second, name="Security"))
    request = world.request(profile=profile, reviewer=people[0])
    Review.objects.create(request=request, reviewer=people[0], verdict="approve", step=0)
    # Of the first step one is lacking, however many approved the second.
    for reviewer in (people[1], last):
        Review.objects.create(request=request, reviewer=reviewer, verdict="approve", step=1)
    now = clock.now()
    AccessRequest.objects.filter(pk=request.pk).update(
        state=RequestState.APPROVED, decided_at=now, decided_by="me", remind_at=None
    )
    with pytest.raises(DatabaseError, match="beyond what was approved"), transaction.atomic():
        Grant.objects.create(
            request=request,
            holder=request.requester,
            scope=request.scope,
            starts_at=now,
            ends_at=now + request.duration,
        )
