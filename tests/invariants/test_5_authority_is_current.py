"""What a request rests on can be lost at any time: between filing and approval, between approval
and check-out, while it is in use."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from accessrequests.actions import file_request, retire_policy, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.queue import waiting_for
from accessrequests.states import EndReason, RequestState
from accounts.actions import deactivate_user, join_group, leave_group
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import AuthorityLost, Forbidden, InvalidInput, KeyturnError, NotFound
from credentials.actions import check_out
from credentials.live import holding
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.actions import change, retire_endpoint
from endpoints.models import AccessProfile
from tests.accessrequests.policies import govern, step
from tests.api.callers import Caller
from tests.servers import Servers
from tests.world import MODELS, PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

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
    return review_request(
        by=reviewer, request_id=request_.pk, verdict=APPROVE, proofs=PROVED
    ).request.grant


@pytest.mark.parametrize(("lose", "why"), OF_THE_REQUEST, ids=case_id)
def test_nothing_is_approved_once_its_ground_is_gone(
    lose: Callable[..., None], why: str, request_: AccessRequest, reviewer: User
) -> None:
    lose(request_, reviewer)
    with pytest.raises(AuthorityLost, match=why):
        review_request(by=reviewer, request_id=request_.pk, verdict=APPROVE, proofs=PROVED)
    request_.refresh_from_db()
    assert request_.state == RequestState.PENDING
    assert not Grant.objects.filter(request=request_).exists()


@pytest.mark.parametrize(("lose", "why"), OF_THE_REQUEST, ids=case_id)
def test_denying_needs_no_ground(
    lose: Callable[..., None], why: str, request_: AccessRequest, reviewer: User
) -> None:
    lose(request_, reviewer)
    review_request(
        by=reviewer,
        request_id=request_.pk,
        verdict=Review.Verdict.DENY,
        reason="Too late.",
        proofs=PROVED,
    )
    request_.refresh_from_db()
    assert request_.state == RequestState.DENIED


@pytest.mark.parametrize(
    ("lose", "error"),
    [
        # Who is deactivated is out of their groups too.
        (reviewer_leaves, NotFound),
        (reviewer_is_deactivated, NotFound),
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
        review_request(
            by=User.objects.get(pk=reviewer.pk),
            request_id=request_.pk,
            verdict=APPROVE,
            proofs=PROVED,
        )
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
    with pytest.raises(NotFound):
        review_request(by=reviewer, request_id=request_.pk, verdict=APPROVE, proofs=PROVED)


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
    assert holding([out.credential.pk]) == {}, "the gateway refuses before any sweep"
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


# ── Policies of several approvals ───────────────────────────────────────────────────────────────


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile()


@pytest.fixture
def three(world: World, profile: AccessProfile) -> list[User]:
    """Who may review it."""
    return [world.person(profile.reviewers) for _ in range(3)]


def approve(request: AccessRequest, *people: User) -> None:
    for person in people:
        review_request(by=person, request_id=request.pk, verdict=APPROVE, proofs=PROVED)


def refused_on_record(by: User, *words: str) -> None:
    row = AuditEvent.objects.filter(
        event=Event.ACCESS_REFUSED, actor_id=by.pk, data__code="authority-lost"
    ).latest("id")
    for each in words:
        assert each in row.data["detail"], row.data["detail"]


def test_one_of_two_approvers_demoted_is_too_few(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=three[0])
    approve(request, *three[:2])
    grant = Grant.objects.get(request=request)
    leave_group(by=None, user=three[1], group=profile.reviewers)
    answer = Caller(grant.holder).send("POST", f"grants/{grant.pk}/credentials/")
    assert (answer.status_code, answer.json()["code"]) == (409, "authority-lost")
    assert "Too few of those who approved it" in answer.json()["detail"]
    refused_on_record(grant.holder, "Too few of those who approved it")
    assert not Credential.objects.filter(grant=grant).exists()
    join_group(by=None, user=three[1], group=profile.reviewers)
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_an_approver_demoted_before_the_last_approval_does_not_count(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=three[0])
    approve(request, three[0])
    leave_group(by=None, user=three[0], group=profile.reviewers)
    approve(request, three[1])
    assert not Grant.objects.filter(request=request).exists(), "one who counts, of two"
    approve(request, three[2])
    assert Grant.objects.filter(request=request).exists()


def test_a_step_whose_approver_was_demoted_is_asked_again(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    security = world.group()
    second, another = world.person(security), world.person(security)
    govern(profile, step(), step(security, name="Security"))
    request = world.request(profile=profile, reviewer=three[0])
    approve(request, three[0])
    deactivate_user(by=None, user=three[0])
    approve(request, second)
    assert not Grant.objects.filter(request=request).exists()
    assert waiting_for(three[1]).filter(request=request).exists()
    assert not waiting_for(another).filter(request=request).exists()
    approve(request, three[1])
    assert Grant.objects.filter(request=request).exists()


STRICTER: list[tuple[str, dict[str, Any]]] = [
    ("more approvals", {"steps": [step(approvals=2)]}),
    ("a further step", {"steps": [step(), step(name="Second pair of eyes")]}),
    ("shorter", {"limits": {"max_duration": "PT10M"}}),
    ("a ticket", {"limits": {"ticket": {}}}),
    ("more words", {"limits": {"justification_length": 1000}}),
    (
        "a constraint",
        {"constraints": [{"expression": "request.ticket != ''", "message": "Name a change."}]},
    ),
]
LOOSER: list[tuple[str, dict[str, Any]]] = [
    ("the same in other words", {"description": "As before."}),
    ("decides by itself", {"auto_approve_when": "true"}),
    ("longer", {"limits": {"max_duration": "P6D"}}),
    ("skipped", {"steps": [step(), step(name="Never", skip_when="true")]}),
]


def changed(profile: AccessProfile, fields: dict[str, Any]) -> None:
    fields = dict(fields)
    govern(profile, *fields.pop("steps", [step()]), **fields)


@pytest.mark.parametrize(("what", "fields"), STRICTER, ids=[what for what, _ in STRICTER])
def test_a_stricter_policy_holds_for_what_was_filed_before(
    what: str, fields: dict[str, Any], world: World, profile: AccessProfile, three: list[User]
) -> None:
    """Refused by the name of the policy and both versions, and on record, before and after."""
    govern(profile, step())
    waiting = world.request(profile=profile, reviewer=three[0])
    grant = world.grant(profile=profile, reviewer=three[0])
    changed(profile, fields)
    words = "Ours changed from version 1 to 2 since"
    answer = Caller(three[0]).post(f"requests/{waiting.pk}/reviews/", {"verdict": "approve"})
    assert (answer.status_code, answer.json()["code"]) == (409, "authority-lost")
    assert words in answer.json()["detail"]
    refused_on_record(three[0], words)
    waiting.refresh_from_db()
    assert waiting.state == RequestState.PENDING
    answer = Caller(grant.holder).send("POST", f"grants/{grant.pk}/credentials/")
    assert (answer.status_code, answer.json()["code"]) == (409, "authority-lost")
    refused_on_record(grant.holder, words)
    assert not Credential.objects.filter(grant=grant).exists()


@pytest.mark.parametrize(("what", "fields"), LOOSER, ids=[what for what, _ in LOOSER])
def test_a_looser_or_equal_policy_hinders_nothing(
    what: str, fields: dict[str, Any], world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, step())
    waiting = world.request(profile=profile, reviewer=three[0])
    grant = world.grant(profile=profile, reviewer=three[0])
    changed(profile, fields)
    approve(waiting, three[0])
    assert Grant.objects.filter(request=waiting).exists()
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_a_looser_policy_gives_no_discount_on_what_was_asked_of(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=three[0])
    govern(profile, step(approvals=1))
    approve(request, three[0])
    assert not Grant.objects.filter(request=request).exists()
    approve(request, three[1])
    assert Grant.objects.filter(request=request).exists()


def test_enough_approvals_for_the_stricter_policy_are_enough(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=three[0])
    approve(request, *three[:2])
    grant = Grant.objects.get(request=request)
    govern(profile, step(), step(name="Again"))
    assert check_out(by=grant.holder, grant_id=grant.pk).secret, "one for each step"


def test_a_policy_on_the_endpoint_since_is_named(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    security = world.group()
    world.person(security)
    request = world.request(profile=profile, reviewer=three[0])
    policy = govern(profile.endpoint, step(security, name="Security"), name="House rule")
    with pytest.raises(AuthorityLost, match=r"The policy House rule applies since.*“Security”"):
        approve(request, three[0])
    retire_policy(by=None, slug=policy.slug)
    approve(request, three[0])


@pytest.mark.parametrize(
    "named", [{"requester_manager": True}, {"endpoint_owner": True}], ids=["manager", "owner"]
)
def test_who_is_in_their_place_by_now_decides(
    named: dict[str, Any], world: World, profile: AccessProfile
) -> None:
    """The one who was when it was filed doesn't, and their approval doesn't last."""
    old, new = world.person(), world.person()
    requester = world.person(profile.requesters, manager=old)
    change(profile.endpoint, by=None, owner=old)
    govern(profile, {"name": "Review", "reviewers": named})
    first, second = (
        world.request(profile=profile, requester=requester, reviewer=old) for _ in range(2)
    )
    approve(first, old)
    User.objects.filter(pk=requester.pk).update(manager=new)
    change(profile.endpoint, by=None, owner=new)
    with pytest.raises(Forbidden):
        approve(second, old)
    with pytest.raises(AuthorityLost, match="Nobody who approved it"):
        check_out(by=requester, grant_id=first.grant.pk)


def test_what_let_a_step_be_skipped_must_hold_too(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    trusted, security = world.group(), world.group()
    world.person(security)
    spared = step(security, name="Security", skip_when=f"'{trusted.slug}' in requester.groups")
    govern(profile, spared, step())
    requester = world.person(profile.requesters, trusted)
    waiting, granted = (
        world.request(profile=profile, requester=requester, reviewer=three[0]) for _ in range(2)
    )
    approve(granted, three[0])
    assert check_out(by=requester, grant_id=granted.grant.pk).secret
    leave_group(by=None, user=requester, group=trusted)
    with pytest.raises(AuthorityLost, match=r"no longer holds.*“Security”"):
        approve(waiting, three[0])
    with pytest.raises(AuthorityLost, match=r"no longer holds.*“Security”"):
        check_out(by=requester, grant_id=granted.grant.pk)


def test_narrowing_brings_no_skipped_step_back(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    security = world.group()
    world.person(security)
    spared = step(security, name="Security", skip_when="size(request.models) > 1")
    govern(profile, spared, step())
    request = world.request(profile=profile, reviewer=three[0])
    review_request(
        by=three[0], request_id=request.pk, verdict=APPROVE, models=["demo-small"], proofs=PROVED
    )
    assert check_out(by=request.requester, grant_id=Grant.objects.get(request=request).pk).secret


def test_what_a_condition_let_through_must_hold_at_check_out(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    group = world.group()
    govern(profile, auto_approve_when=f"'{group.slug}' in requester.groups")
    requester = world.person(profile.requesters, group)
    grant = world.request(profile=profile, requester=requester, reviewer=three[0]).grant
    assert check_out(by=requester, grant_id=grant.pk).secret
    leave_group(by=None, user=requester, group=group)
    with pytest.raises(AuthorityLost, match="Nobody approved it"):
        check_out(by=requester, grant_id=grant.pk)


def test_a_condition_that_was_taken_back_lets_nothing_through(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    govern(profile, auto_approve_when="true")
    grant = world.request(profile=profile, reviewer=three[0]).grant
    govern(profile)
    with pytest.raises(AuthorityLost, match=r"changed from version 1 to 2.*Nobody approved it"):
        check_out(by=grant.holder, grant_id=grant.pk)


def test_break_glass_is_for_members_at_check_out_too(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    called = world.group()
    govern(profile, break_glass={"groups": [called.slug]})
    requester = world.person(profile.requesters, called)
    grant = file_request(
        by=requester,
        profile_id=profile.pk,
        justification="It burns.",
        break_glass=True,
        proofs=PROVED,
    ).grant
    assert check_out(by=requester, grant_id=grant.pk).secret
    leave_group(by=None, user=requester, group=called)
    answer = Caller(requester).send("POST", f"grants/{grant.pk}/credentials/")
    assert (answer.status_code, answer.json()["code"]) == (409, "authority-lost")
    assert f"Only for members of {called.slug}" in answer.json()["detail"]


def test_an_extension_of_what_the_profile_no_longer_gives_is_refused_in_words(
    world: World, profile: AccessProfile, three: list[User]
) -> None:
    """What is left of the grant within the profile may be nothing at all."""
    grant = world.grant(profile=profile, reviewer=three[0], models=["demo-small"])
    change(profile, by=None, scope={"models": ["demo-large"]})
    with pytest.raises(InvalidInput) as caught:
        file_request(
            by=grant.holder, profile_id=profile.pk, justification="More.", extends=grant.pk
        )
    assert list(caught.value.errors) == ["models"]
