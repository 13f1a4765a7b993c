"""Each race is run by real threads on connections of their own, past one barrier."""

import datetime as dt
from collections import Counter
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError

from accessrequests.actions import (
    cancel_request,
    chase,
    expire_requests,
    file_request,
    file_together,
    retire_policy,
    review_request,
    save_policy,
)
from accessrequests.models import AccessRequest, Grant, PolicyVersion, Review
from accessrequests.policy.document import parse
from accessrequests.states import RequestState
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import (
    AlreadyDecided,
    CheckoutInProgress,
    Conflict,
    InvalidInput,
    KeyturnError,
    NotLive,
)
from credentials import vault
from credentials.actions import CheckedOut, check_out, checking_out, end_grant
from credentials.live import holding
from credentials.models import Credential
from credentials.states import CredentialState
from tests.accessrequests.policies import govern, step
from tests.invariants.races import at_once
from tests.invariants.target import assert_proven_gone, token_of, tokens_of, wait_out
from tests.servers import Servers
from tests.world import PROVED, World, move

pytestmark = pytest.mark.usefixtures("committed")

APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY


def review(by: User, request: AccessRequest, verdict: Review.Verdict = APPROVE) -> Any:
    return partial(
        review_request,
        by=by,
        request_id=request.pk,
        verdict=verdict,
        reason="Because.",
        proofs=PROVED,
    )


def events_of(row: AccessRequest | Grant) -> Counter[str]:
    return Counter(AuditEvent.objects.about(row.pk).values_list("event", flat=True))


def assert_one_decision(request: AccessRequest, outcomes: list[Any]) -> AccessRequest:
    """One call decided, and each of the others was told who and when."""
    request.refresh_from_db()
    won = [each for each in outcomes if not isinstance(each, Exception)]
    lost = [each for each in outcomes if isinstance(each, Exception)]
    assert len(won) == 1, Counter(repr(each) for each in outcomes)
    assert request.decided_at is not None
    for error in lost:
        assert isinstance(error, AlreadyDecided), repr(error)
        assert error.extra["state"] == request.state
        assert error.extra["decided_by"] == request.decided_by
        assert error.extra["decided_at"] == request.decided_at.isoformat()
        assert request.decided_by in error.detail
        assert f"{request.decided_at:%H:%M:%S}" in error.detail
    return request


@pytest.mark.parametrize(
    "reviewers",
    [
        pytest.param(1, id="one reviewer", marks=pytest.mark.slow),
        pytest.param(10, id="ten reviewers"),
    ],
)
def test_200_approvals_at_once_make_one_grant(reviewers: int, world: World) -> None:
    request = world.request()
    people = [world.person(request.profile.reviewers) for _ in range(reviewers)]
    outcomes = at_once([review(people[n % reviewers], request) for n in range(200)])
    assert_one_decision(request, outcomes)
    assert Grant.objects.filter(request=request).count() == 1
    assert Review.objects.filter(request=request).count() == 1
    events = events_of(request)
    assert (events[Event.REQUEST_APPROVED], events[Event.GRANT_STARTED]) == (1, 1)


@pytest.mark.parametrize("attempt", range(5))
def test_approving_and_denying_at_once(attempt: int, world: World) -> None:
    request = world.request()
    one, two = (world.person(request.profile.reviewers) for _ in range(2))
    outcomes = at_once([review(one, request), review(two, request, DENY)])
    assert_one_decision(request, outcomes)
    approved = request.state == RequestState.APPROVED
    assert Grant.objects.filter(request=request).count() == approved


@pytest.mark.parametrize("attempt", range(5))
def test_approving_and_cancelling_at_once(attempt: int, world: World) -> None:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    cancel = partial(cancel_request, by=request.requester, request_id=request.pk)
    outcomes = at_once([review(reviewer, request), cancel, review(reviewer, request), cancel])
    assert_one_decision(request, outcomes)
    approved = request.state == RequestState.APPROVED
    assert Grant.objects.filter(request=request).count() == approved


def test_approving_what_expires_at_that_moment(world: World) -> None:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    move(request, pending_until=clock.now() + dt.timedelta(seconds=0.05) - request.pending_until)
    at_once([review(reviewer, request)] * 4 + [expire_requests] * 4)
    expire_requests()
    request.refresh_from_db()
    assert Grant.objects.filter(request=request).count() == (request.state == "approved")
    events = events_of(request)
    assert events[Event.REQUEST_APPROVED] + events[Event.REQUEST_EXPIRED] == 1


# ── Policies of several approvals ───────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_200_reviews_at_once_of_a_step_for_two_of_three(world: World) -> None:
    profile = world.profile()
    people = [world.person(profile.reviewers) for _ in range(3)]
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=people[0])
    outcomes = at_once([review(people[n % 3], request) for n in range(200)])
    counted = Review.objects.filter(request=request)
    assert counted.count() == 2
    assert len({each.reviewer_id for each in counted}) == 2
    assert Grant.objects.filter(request=request).count() == 1
    lost = [each for each in outcomes if isinstance(each, Exception)]
    assert len(lost) == 198
    # Either it was decided, or this person had approved already.
    assert {type(each) for each in lost} <= {AlreadyDecided, Conflict}, Counter(map(repr, lost))
    events = events_of(request)
    assert (events[Event.REQUEST_REVIEWED], events[Event.REQUEST_APPROVED]) == (1, 1)
    assert events[Event.GRANT_STARTED] == 1


@pytest.mark.parametrize("attempt", range(3))
def test_the_approvals_of_two_steps_at_once(attempt: int, world: World) -> None:
    """Whoever is of the second step can't have been asked yet, or completes it: never both at once
    for one step, and never a grant by one."""
    profile, second = world.profile(), world.group()
    one, two = world.person(profile.reviewers), world.person(second)
    govern(profile, step(), step(second, name="Security"))
    request = world.request(profile=profile, reviewer=one)
    outcomes = at_once([review(two, request), review(one, request)] * 5)
    rows = Review.objects.filter(request=request)
    assert sorted(rows.values_list("step", flat=True)) == list(range(rows.count()))
    granted = Grant.objects.filter(request=request).exists()
    assert granted == (rows.count() == 2)
    assert all(isinstance(each, Review | KeyturnError) for each in outcomes), outcomes
    if not granted:
        review(two, request)()
    assert Grant.objects.filter(request=request).count() == 1


@pytest.mark.parametrize("attempt", range(5))
def test_approving_denying_and_cancelling_at_once_under_a_quorum(
    attempt: int, world: World
) -> None:
    profile = world.profile()
    people = [world.person(profile.reviewers) for _ in range(3)]
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=people[0])
    cancel = partial(cancel_request, by=request.requester, request_id=request.pk)
    calls = [review(people[0], request), review(people[1], request)]
    outcomes = at_once([*calls, review(people[2], request, DENY), cancel])
    request.refresh_from_db()
    assert all(not isinstance(e, Exception) or isinstance(e, AlreadyDecided) for e in outcomes)
    events = events_of(request)
    decided = [Event.REQUEST_APPROVED, Event.REQUEST_DENIED, Event.REQUEST_CANCELLED]
    assert sum(events[each] for each in decided) == 1
    assert Grant.objects.filter(request=request).count() == (request.state == "approved")
    if request.state == RequestState.APPROVED:
        assert Review.objects.filter(request=request, verdict=APPROVE).count() == 2


def test_extending_a_grant_20_times_at_once_files_one(world: World) -> None:
    grant = world.grant()
    ask = partial(
        file_request,
        by=grant.holder,
        profile_id=grant.request.profile_id,
        justification="It takes longer.",
        extends=grant.pk,
    )
    outcomes = at_once([ask] * 20)
    filed = [each for each in outcomes if isinstance(each, AccessRequest)]
    assert len(filed) == 1, outcomes
    assert {type(each) for each in outcomes} == {AccessRequest, InvalidInput}
    assert grant.extensions.count() == 1


def test_filing_together_at_once_leaves_whole_sets(world: World) -> None:
    group = world.group()
    profiles = [world.profile(requesters=group) for _ in range(3)]
    for profile in profiles:
        world.person(profile.reviewers)
    by, ids = world.person(group), [profile.pk for profile in profiles]
    calls = [
        partial(file_together, by=by, profile_ids=order, justification="Ticket 4711.")
        for order in (ids, ids[::-1])
    ]
    outcomes = at_once(calls * 4)
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    sets = Counter(AccessRequest.objects.filter(requester=by).values_list("together", flat=True))
    assert list(sets.values()) == [3] * 8


@pytest.mark.parametrize("attempt", range(3))
def test_two_reviews_of_break_glass_access_at_once_are_one(attempt: int, world: World) -> None:
    profile, called = world.profile(), world.group()
    people = [world.person(profile.reviewers) for _ in range(2)]
    govern(profile, break_glass={"groups": [called.slug]})
    request = file_request(
        by=world.person(profile.requesters, called),
        profile_id=profile.pk,
        justification="It burns.",
        break_glass=True,
        proofs=PROVED,
    )
    outcomes = at_once([review(people[0], request), review(people[1], request, DENY)])
    won = [each for each in outcomes if isinstance(each, Review)]
    lost = [each for each in outcomes if not isinstance(each, Review)]
    assert len(won) == 1, outcomes
    assert isinstance(lost[0], AlreadyDecided)
    assert Review.objects.get(request=request) == won[0]
    request.grant.refresh_from_db()
    assert (request.grant.state == "ended") == (won[0].verdict == DENY)
    assert events_of(request)[Event.BREAK_GLASS_REVIEWED] == 1


def test_saving_a_policy_20_times_at_once_numbers_each_once(world: World) -> None:
    profile = world.profile()
    world.person(profile.reviewers)
    policy = govern(profile)
    text = policy.current.document  # type: ignore[union-attr]
    calls = [
        partial(save_policy, by=None, document=parse(text | {"description": f"Edit {n}"}))
        for n in range(20)
    ]
    outcomes = at_once([*calls, partial(retire_policy, by=None, slug=policy.slug)])
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    numbers = PolicyVersion.objects.filter(policy=policy).values_list("number", flat=True)
    assert sorted(numbers) == list(range(1, 22))
    policy.refresh_from_db()
    assert policy.current.number == 21  # type: ignore[union-attr]
    assert policy.bindings.count() == (policy.retired_at is None)


@pytest.mark.parametrize("attempt", range(3))
def test_two_policies_claim_a_profile_at_once(attempt: int, world: World) -> None:
    """One has it; the other is told so, and nothing fails in between."""
    profile = world.profile()
    world.person(profile.reviewers)
    where = {"profiles": [f"{profile.endpoint.slug}/{profile.slug}"]}
    calls = [
        partial(
            save_policy,
            by=None,
            document=parse(
                {
                    "slug": f"{profile.slug}-{n}",
                    "name": "Mine",
                    "steps": [step()],
                    "applies_to": where,
                }
            ),
        )
        for n in range(4)
    ]
    outcomes = at_once(calls)
    lost = [each for each in outcomes if isinstance(each, Exception)]
    assert len(lost) == 3
    for error in lost:
        assert isinstance(error, InvalidInput), repr(error)
        assert "governs" in error.errors["applies_to.profiles.0"]


def test_sweeps_at_once_chase_everything_once(world: World) -> None:
    profile, fallback = world.profile(), world.group()
    world.person(fallback)
    govern(profile, step(escalation=[{"after": "PT1H", "to": {"groups": [fallback.slug]}}]))
    request = world.request(profile=profile)
    move(request, escalate_at=dt.timedelta(hours=-2), step_since=dt.timedelta(hours=-2))
    outcomes = at_once([chase] * 8)
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    request.refresh_from_db()
    assert (request.escalations, request.escalate_at) == (1, None)
    assert events_of(request)[Event.REQUEST_ESCALATED] == 1


# ── Check-outs and ends ─────────────────────────────────────────────────────────────────────────


def test_100_check_outs_at_once_leave_one_live_credential(
    world: World, servers: Servers, sweep: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mint that takes longer than this is taken for dead by the next check-out, rightly; where 99
    # threads share its interpreter on a busy machine, each of them would be.
    monkeypatch.setattr(checking_out, "DOUBT_AFTER", dt.timedelta(minutes=2))
    settings.VAULT_TIMEOUT = 60
    grant = world.grant()
    outcomes = at_once([partial(check_out, by=grant.holder, grant_id=grant.pk)] * 100)
    won = [each for each in outcomes if isinstance(each, CheckedOut)]
    lost = [each for each in outcomes if not isinstance(each, CheckedOut)]
    assert won
    assert {type(each) for each in lost} <= {CheckoutInProgress, Conflict}, lost
    open_rows = Credential.objects.filter(
        grant=grant, state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
    )
    assert open_rows.count() == 1
    for each in Credential.objects.filter(grant=grant, state=CredentialState.REVOKING):
        wait_out(each, 80)
    sweep()
    held = tokens_of(servers, grant)
    assert [each["meta"]["credential"] for each in held] == [str(open_rows.get().pk)]
    still_good = [each for each in won if token_of(servers, each.secret)]
    assert [each.credential.pk for each in still_good] == [open_rows.get().pk]
    assert list(holding([each.credential.pk for each in won])) == [open_rows.get().pk]


def test_checking_out_again_replaces(world: World, servers: Servers, sweep: Any) -> None:
    grant = world.grant()
    first = check_out(by=grant.holder, grant_id=grant.pk)
    second = check_out(by=grant.holder, grant_id=grant.pk)
    assert list(holding([first.credential.pk, second.credential.pk])) == [second.credential.pk]
    sweep()
    assert_proven_gone(first.credential)
    assert token_of(servers, first.secret) is None
    assert token_of(servers, second.secret) is not None


@pytest.mark.parametrize("attempt", range(8))
def test_ending_and_checking_out_at_once_leaves_nothing_live(
    attempt: int, world: World, servers: Servers, sweep: Any
) -> None:
    grant = world.grant()
    end = partial(end_grant, grant_id=grant.pk, by=grant.holder)
    outcomes = at_once([partial(check_out, by=grant.holder, grant_id=grant.pk)] * 3 + [end])
    assert not isinstance(outcomes[-1], Exception)
    for each in outcomes[:3]:
        assert isinstance(each, CheckedOut | NotLive | Conflict), repr(each)
    for credential in Credential.objects.filter(grant=grant):
        assert credential.state not in {CredentialState.ISSUING, CredentialState.ACTIVE}
        wait_out(credential, 80)
    sweep()
    assert tokens_of(servers, grant) == []
    for credential in Credential.objects.filter(grant=grant):
        assert_proven_gone(credential)
    assert events_of(grant)[Event.GRANT_ENDED] == 1


def test_a_credential_that_was_taken_back_before_its_ttl_was_raised(
    world: World, servers: Servers, role: Any
) -> None:
    """The grant ends and a worker revokes between the confirmation and the last call of a mint.

    A domain error must come of it, not a fault of the server's.
    """
    grant = world.grant()
    out = check_out(by=grant.holder, grant_id=grant.pk)
    with role("worker"):
        vault.revoke(out.credential.accessor)
    with pytest.raises(vault.VaultError) as caught:
        vault.raise_ttl(out.credential.accessor, 60)
    assert not caught.value.unknown


@pytest.mark.slow
def test_ending_200_times_at_once_ends_once(world: World) -> None:
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    reviewer = world.person(grant.request.profile.reviewers)
    people = [grant.holder, reviewer]
    outcomes = at_once(
        [partial(end_grant, grant_id=grant.pk, by=people[n % 2]) for n in range(200)]
    )
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    events = events_of(grant)
    assert (events[Event.GRANT_ENDED], events[Event.CREDENTIAL_REVOKING]) == (1, 1)
    assert len({(each.ended_at, each.ended_by, each.end_reason) for each in outcomes}) == 1


def test_reviews_on_two_requests_do_not_wait_for_each_other(world: World) -> None:
    profile = world.profile()
    requests = [world.request(profile=profile) for _ in range(10)]
    reviewer = world.person(profile.reviewers)
    outcomes = at_once([review(reviewer, request) for request in requests])
    assert not [each for each in outcomes if isinstance(each, KeyturnError)], outcomes
    assert Grant.objects.filter(request__in=requests).count() == 10


def test_postgresql_refuses_a_second_grant_of_a_request(world: World) -> None:
    grant = world.grant()
    with pytest.raises(IntegrityError, match="request_id"):
        Grant.objects.create(
            request=grant.request,
            holder=grant.holder,
            scope=grant.scope,
            starts_at=grant.starts_at,
            ends_at=grant.ends_at,
        )


def test_postgresql_refuses_a_second_open_credential_of_a_grant(world: World) -> None:
    grant = world.grant()
    checking_out._begin(by=grant.holder, grant_id=grant.pk)
    with pytest.raises(IntegrityError, match="credential_one_live_per_grant"):
        Credential.objects.create(grant=grant, kind="gateway_token")
