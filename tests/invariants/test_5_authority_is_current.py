"""What a request rests on can be lost at any time: between filing and approval, between approval
and check-out, while it is in use."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import EndReason, RequestState
from accounts.actions import deactivate_user, leave_group
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import AuthorityLost, Forbidden, InvalidInput, KeyturnError, NotFound
from credentials.actions import check_out
from credentials.live import live
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.actions import retire_endpoint
from endpoints.models import AccessProfile
from tests.api.callers import Caller
from tests.servers import Servers
from tests.world import MODELS, World

pytestmark = pytest.mark.django_db

APPROVE = Review.Verdict.APPROVE


def requester_leaves(request: AccessRequest, reviewer: User) -> None:
    leave_group(by=None, user=request.requester, group=request.profile.requesters)


def requester_is_deactivated(request: AccessRequest, reviewer: User) -> None:
    deactivate_user(by=None, user=request.requester)


def endpoint_is_retired(request: AccessRequest, reviewer: User) -> None:
    retire_endpoint(by=None, endpoint=request.profile.endpoint)


def profile_is_retired(request: AccessRequest, reviewer: User) -> None:
    AccessProfile.objects.filter(pk=request.profile_id).update(retired_at=clock.now())


def profile_gives_fewer_models(request: AccessRequest, reviewer: User) -> None:
    AccessProfile.objects.filter(pk=request.profile_id).update(scope={"models": ["demo-small"]})


def profile_gives_less_time(request: AccessRequest, reviewer: User) -> None:
    less = dt.timedelta(minutes=30)
    AccessProfile.objects.filter(pk=request.profile_id).update(
        max_duration=less, default_duration=less
    )


def reviewer_leaves(request: AccessRequest, reviewer: User) -> None:
    leave_group(by=None, user=reviewer, group=request.profile.reviewers)


def reviewer_is_deactivated(request: AccessRequest, reviewer: User) -> None:
    deactivate_user(by=None, user=reviewer)


def reviewers_are_others_now(request: AccessRequest, reviewer: User) -> None:
    from accounts.models import Group

    another = Group.objects.exclude(
        pk__in=[request.profile.reviewers_id, request.profile.requesters_id]
    ).first()
    AccessProfile.objects.filter(pk=request.profile_id).update(
        reviewers=another or request.profile.requesters
    )


OF_THE_REQUEST: list[tuple[Callable[[AccessRequest, User], None], str]] = [
    (requester_leaves, "no longer in"),
    (requester_is_deactivated, "was deactivated"),
    (endpoint_is_retired, "was retired"),
    (profile_is_retired, "was retired"),
    (profile_gives_fewer_models, "narrowed"),
    (profile_gives_less_time, "narrowed"),
]
OF_THE_APPROVAL: list[tuple[Callable[[AccessRequest, User], None], str]] = [
    (reviewer_leaves, "Nobody who approved it"),
    (reviewer_is_deactivated, "Nobody who approved it"),
    (reviewers_are_others_now, "Nobody who approved it"),
]


def case_id(value: Any) -> str | None:
    return value.__name__.replace("_", " ") if callable(value) else None


@pytest.fixture
def request_(world: World) -> AccessRequest:
    return world.request(models=MODELS)


@pytest.fixture
def reviewer(world: World, request_: AccessRequest) -> User:
    return world.person(request_.profile.reviewers)


@pytest.fixture
def grant(request_: AccessRequest, reviewer: User) -> Grant:
    return review_request(by=reviewer, request_id=request_.pk, verdict=APPROVE).request.grant


@pytest.mark.parametrize(("lose", "why"), OF_THE_REQUEST, ids=case_id)
def test_nothing_is_approved_once_its_ground_is_gone(
    lose: Callable[..., None], why: str, request_: AccessRequest, reviewer: User
) -> None:
    lose(request_, reviewer)
    with pytest.raises(AuthorityLost, match=why):
        review_request(by=reviewer, request_id=request_.pk, verdict=APPROVE)
    request_.refresh_from_db()
    assert request_.state == RequestState.PENDING
    assert not Grant.objects.filter(request=request_).exists()


@pytest.mark.parametrize(("lose", "why"), OF_THE_REQUEST, ids=case_id)
def test_denying_needs_no_ground(
    lose: Callable[..., None], why: str, request_: AccessRequest, reviewer: User
) -> None:
    lose(request_, reviewer)
    review_request(
        by=reviewer, request_id=request_.pk, verdict=Review.Verdict.DENY, reason="Too late."
    )
    request_.refresh_from_db()
    assert request_.state == RequestState.DENIED


@pytest.mark.parametrize(
    ("lose", "error"),
    [
        # They see the request no longer, or see it and may not: either way nothing is decided.
        (reviewer_leaves, NotFound),
        (reviewer_is_deactivated, Forbidden),
    ],
    ids=case_id,
)
def test_a_reviewer_who_lost_their_right_approves_nothing(
    lose: Callable[..., None],
    error: type[KeyturnError],
    request_: AccessRequest,
    reviewer: User,
) -> None:
    lose(request_, reviewer)
    with pytest.raises(error):
        review_request(by=User.objects.get(pk=reviewer.pk), request_id=request_.pk, verdict=APPROVE)
    request_.refresh_from_db()
    assert request_.state == RequestState.PENDING


def test_a_requester_deactivated_while_their_call_runs_gets_nothing(
    request_: AccessRequest,
) -> None:
    """Break-glass and automatic grants begin with the ask, so the ask must look at the rows."""
    requester = User.objects.get(pk=request_.requester_id)
    deactivate_user(by=None, user=User.objects.get(pk=requester.pk))
    assert requester.is_active, "still so in this process"
    with pytest.raises(InvalidInput, match="no such profile"):
        file_request(by=requester, profile_id=request_.profile_id, justification="Quickly.")


def test_a_reviewer_deactivated_while_their_call_runs_approves_nothing(
    request_: AccessRequest, reviewer: User
) -> None:
    """What the process loaded of the reviewer a moment ago counts for nothing."""
    deactivate_user(by=None, user=User.objects.get(pk=reviewer.pk))
    assert reviewer.is_active, "still so in this process"
    with pytest.raises(Forbidden):
        review_request(by=reviewer, request_id=request_.pk, verdict=APPROVE)


@pytest.mark.parametrize(("lose", "why"), OF_THE_REQUEST + OF_THE_APPROVAL, ids=case_id)
def test_nothing_is_minted_once_its_ground_is_gone(
    lose: Callable[..., None], why: str, grant: Grant, reviewer: User, servers: Servers
) -> None:
    lose(grant.request, reviewer)
    with pytest.raises(AuthorityLost, match=why):
        check_out(by=grant.holder, grant_id=grant.pk)
    assert not Credential.objects.filter(grant=grant).exists()


def test_with_its_ground_unharmed_it_is_minted(grant: Grant) -> None:
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_one_of_two_approvers_is_enough(world: World, grant: Grant, reviewer: User) -> None:
    """Another who left doesn't count against it."""
    leave_group(
        by=None,
        user=world.person(grant.request.profile.reviewers),
        group=grant.request.profile.reviewers,
    )
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_the_refusal_of_a_check_out_says_why_and_is_on_record(grant: Grant, reviewer: User) -> None:
    reviewer_leaves(grant.request, reviewer)
    answer = Caller(grant.holder).send("POST", f"grants/{grant.pk}/credentials/")
    assert (answer.status_code, answer.json()["code"]) == (409, "authority-lost")
    assert "Nobody who approved it" in answer.json()["detail"]
    row = AuditEvent.objects.filter(
        event=Event.ACCESS_REFUSED, actor_id=grant.holder_id, data__code="authority-lost"
    ).latest("id")
    assert "Nobody who approved it" in row.data["detail"]


@pytest.mark.parametrize("lose", [requester_is_deactivated, endpoint_is_retired], ids=case_id)
def test_what_is_live_ends_with_the_next_sweep(
    lose: Callable[..., None], grant: Grant, reviewer: User, sweep: Callable[[], int]
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    lose(grant.request, reviewer)
    assert live([out.credential.pk]) == {}, "the gateway refuses before any sweep"
    sweep()
    grant.refresh_from_db()
    out.credential.refresh_from_db()
    assert out.credential.state == CredentialState.REVOKED
    assert grant.end_reason == (
        EndReason.ENDPOINT_RETIRED
        if lose is endpoint_is_retired
        else EndReason.REQUESTER_DEACTIVATED
    )


@pytest.mark.parametrize(
    ("lose", "field"),
    [
        (requester_leaves, "profile"),
        (endpoint_is_retired, "profile"),
        (profile_is_retired, "profile"),
        (profile_gives_fewer_models, "models"),
        (profile_gives_less_time, "duration"),
    ],
    ids=case_id,
)
def test_nothing_is_filed_once_its_ground_is_gone(
    lose: Callable[..., None], field: str, request_: AccessRequest, reviewer: User
) -> None:
    lose(request_, reviewer)
    before = AccessRequest.objects.count()
    with pytest.raises(InvalidInput) as caught:
        file_request(
            by=request_.requester,
            profile_id=request_.profile_id,
            justification="Once more.",
            duration=request_.duration,
            models=MODELS,
        )
    assert list(caught.value.errors) == [field]
    assert AccessRequest.objects.count() == before
