"""An emergency stop: who declares and lifts it, what it does at once, what is left to the sweep."""

import datetime as dt
import json
from typing import Any

import pytest

from accessrequests.actions import file_request, preview_request, review_request
from accessrequests.models import Grant, Review
from accessrequests.states import EndReason, RequestState
from accounts.models import User
from accounts.stepup import NONE, Proofs
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import (
    AuthorityLost,
    Conflict,
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    StepUpNeeded,
)
from credentials import push
from credentials.actions import check_out, end_due_grants, sweep
from credentials.live import holding
from credentials.models import Credential
from credentials.states import CredentialState
from credentials.stopping import end_all, lift, stop
from endpoints.models import EmergencyStop, Endpoint
from notifications.kinds import Kind
from notifications.models import Notification
from tests.invariants.races import at_once
from tests.world import PROVED, Proved, World, move

WHY = "Its key is in a public repository."


def declare(by: User, endpoint: Endpoint | None, verb: Any = stop) -> EmergencyStop:
    row: EmergencyStop = verb(by=by, endpoint=endpoint, reason=WHY, proofs=PROVED)
    return row


def raise_stop(row: EmergencyStop, by: User) -> EmergencyStop:
    return lift(by=by, stop_id=row.pk, proofs=PROVED)


def nothing_else_due() -> None:
    """Tests that commit leave grants behind, whose time may be up by now."""
    while end_due_grants():
        pass


def endpoint_of(grant: Grant) -> Endpoint:
    endpoint: Endpoint = grant.request.profile.endpoint
    return endpoint


@pytest.mark.django_db
@pytest.mark.parametrize("of", ["one endpoint", "everything"])
@pytest.mark.parametrize("verb", [stop, end_all])
def test_what_is_live_is_refused_at_once_and_ended_by_the_sweep(
    of: str, verb: Any, world: World
) -> None:
    grant, other = world.grant(), world.grant()
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    elsewhere = check_out(by=other.holder, grant_id=other.pk).credential
    admin = world.person(is_administrator=True)
    assert holding([credential.pk, elsewhere.pk]).keys() == {credential.pk, elsewhere.pk}

    declare(admin, endpoint_of(grant) if of == "one endpoint" else None, verb)
    left = {elsewhere.pk} if of == "one endpoint" else set()
    assert holding([credential.pk, elsewhere.pk]).keys() == left, "before any worker"
    end_due_grants()
    grant.refresh_from_db()
    credential.refresh_from_db()
    other.refresh_from_db()
    assert (grant.end_reason, grant.ended_by) == (EndReason.EMERGENCY_STOP, str(admin))
    assert credential.state == CredentialState.REVOKING
    assert (other.ended_at is None) == (of == "one endpoint")
    told = Notification.objects.get(person=grant.holder, kind=Kind.GRANT_ENDED)
    assert told.quote == WHY
    assert ["Why", "emergency stop"] in told.facts


@pytest.mark.django_db
def test_nothing_is_handed_out_approved_or_asked_for_while_it_is_in_force(world: World) -> None:
    grant = world.grant()
    profile = grant.request.profile
    pending = world.request(profile=profile)
    reviewer = world.person(profile.reviewers)
    row = declare(profile.endpoint.owner, profile.endpoint)
    with pytest.raises(AuthorityLost, match=r"is stopped by .*: Its key is in a public repository"):
        check_out(by=grant.holder, grant_id=grant.pk)
    approve: dict[str, Any] = {
        "by": reviewer,
        "request_id": pending.pk,
        "verdict": Review.Verdict.APPROVE,
        "proofs": PROVED,
    }
    with pytest.raises(AuthorityLost, match="is stopped by"):
        review_request(**approve)
    with pytest.raises(InvalidInput, match="Ask once the stop is lifted"):
        preview_request(by=pending.requester, profile_id=profile.pk)

    raise_stop(row, profile.endpoint.owner)
    assert review_request(**approve).request.state == RequestState.APPROVED
    with pytest.raises(AuthorityLost, match="Ask anew"):
        check_out(by=grant.holder, grant_id=grant.pk)


@pytest.mark.django_db
def test_what_policy_decides_by_itself_does_not_start_either(world: World) -> None:
    profile = world.profile()
    world.policy(profile=profile, auto_approve_when="true")
    asking = world.person(profile.requesters)
    declare(profile.endpoint.owner, profile.endpoint)
    with pytest.raises(InvalidInput, match="is stopped by"):
        file_request(by=asking, profile_id=profile.pk, justification="Ticket 4711.")
    assert not Grant.objects.filter(holder=asking).exists()


@pytest.mark.django_db
def test_a_stop_that_is_lifted_before_the_sweep_has_still_ended_all(world: World) -> None:
    """What it was against doesn't come back because no worker got round to it."""
    grant = world.grant()
    scheduled = world.grant(profile=grant.request.profile)
    move(scheduled, starts_at=dt.timedelta(hours=1), ends_at=dt.timedelta(hours=1))
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    owner = endpoint_of(grant).owner
    raise_stop(declare(owner, endpoint_of(grant)), owner)
    later = world.grant(profile=grant.request.profile)
    out = check_out(by=later.holder, grant_id=later.pk).credential
    assert holding([credential.pk, out.pk]).keys() == {out.pk}
    end_due_grants()
    reasons = [Grant.objects.get(pk=each.pk).end_reason for each in (grant, scheduled, later)]
    assert reasons == [EndReason.EMERGENCY_STOP, EndReason.EMERGENCY_STOP, ""]


@pytest.mark.django_db
def test_an_extension_goes_with_what_it_extends(world: World) -> None:
    grant = world.grant()
    request = file_request(
        by=grant.holder,
        profile_id=grant.request.profile_id,
        justification="Not done yet.",
        extends=grant.pk,
    )
    reviewer = world.person(grant.request.profile.reviewers)
    review_request(
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    declare(endpoint_of(grant).owner, endpoint_of(grant))
    end_due_grants()
    assert not Grant.objects.filter(holder=grant.holder, ended_at=None).exists()


@pytest.mark.django_db
def test_gateways_are_told_at_once_in_few_messages(
    world: World, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    grants = [world.grant() for _ in range(3)]
    out = [check_out(by=each.holder, grant_id=each.pk).credential for each in grants]
    messages: list[list[str]] = []

    class Redis:
        def publish(self, channel: str, text: str) -> None:
            assert channel == push.CHANNEL
            messages.append(json.loads(text))

    monkeypatch.setattr(push, "_client", Redis)
    monkeypatch.setattr("credentials.actions.telling.AT_ONCE", 2)
    with django_capture_on_commit_callbacks(execute=True):
        declare(world.person(is_administrator=True), None)
    assert {str(each.pk) for each in out} <= {pk for ids in messages for pk in ids}
    assert all(len(ids) <= 2 for ids in messages)


ATTACKERS = {
    "holder": (Forbidden, Forbidden, NotFound),
    "reviewer": (Forbidden, Forbidden, NotFound),
    "owner": (None, Forbidden, None),
    "another owner": (NotFound, Forbidden, NotFound),
    "auditor": (Forbidden, Forbidden, Forbidden),
    "administrator": (None, None, None),
    "stranger": (NotFound, Forbidden, NotFound),
}


@pytest.mark.django_db
@pytest.mark.parametrize("who", ATTACKERS)
def test_who_may_stop_and_lift(who: str, world: World) -> None:
    grant = world.grant()
    endpoint = endpoint_of(grant)
    person = {
        "holder": lambda: grant.holder,
        "reviewer": lambda: world.person(grant.request.profile.reviewers),
        "owner": lambda: endpoint.owner,
        "another owner": lambda: world.endpoint(with_key=False).owner,
        "auditor": lambda: world.person(is_auditor=True),
        "administrator": lambda: world.person(is_administrator=True),
        "stranger": world.person,
    }[who]()

    def outcome(verb: Any) -> type[KeyturnError] | None:
        try:
            verb()
        except KeyturnError as error:
            return type(error)
        return None

    stopping = outcome(lambda: declare(person, endpoint))
    EmergencyStop.objects.in_force().update(lifted_at=clock.now(), lifted_by=endpoint.owner)
    everything = outcome(lambda: declare(person, None))
    EmergencyStop.objects.in_force().update(lifted_at=clock.now(), lifted_by=endpoint.owner)
    row = declare(endpoint.owner, endpoint)
    lifting = outcome(lambda: raise_stop(row, person))
    assert (stopping, everything, lifting) == ATTACKERS[who]
    row.refresh_from_db()
    assert (row.lifted_at is None) == (ATTACKERS[who][2] is not None)


@pytest.mark.django_db
def test_what_an_administrator_stopped_its_owner_does_not_open(world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    one = declare(world.person(is_administrator=True), endpoint)
    everything = declare(world.person(is_administrator=True), None)
    for row in (one, everything):
        with pytest.raises(Forbidden, match="Only administrators lift"):
            raise_stop(row, endpoint.owner)
    raise_stop(one, world.person(is_administrator=True))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "proofs", [NONE, Proved(ago=dt.timedelta(minutes=6))], ids=["never", "too old"]
)
def test_it_takes_a_fresh_second_factor(proofs: Proofs, world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    for verb in (stop, end_all):
        with pytest.raises(StepUpNeeded):
            verb(by=endpoint.owner, endpoint=endpoint, reason=WHY, proofs=proofs)
    row = declare(endpoint.owner, endpoint)
    with pytest.raises(StepUpNeeded):
        lift(by=endpoint.owner, stop_id=row.pk, proofs=proofs)


@pytest.mark.django_db
@pytest.mark.parametrize("reason", ["", "  \n", "x" * 501, "nul\x00"])
def test_it_takes_a_reason(reason: str, world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    with pytest.raises(InvalidInput):
        stop(by=endpoint.owner, endpoint=endpoint, reason=reason, proofs=PROVED)


@pytest.mark.django_db
def test_what_is_stopped_or_lifted_already_is_said(world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    row = declare(endpoint.owner, endpoint)
    with pytest.raises(Conflict, match="is stopped by"):
        declare(endpoint.owner, endpoint)
    declare(endpoint.owner, endpoint, end_all)
    raise_stop(row, endpoint.owner)
    with pytest.raises(Conflict, match="lifted it at"):
        raise_stop(row, endpoint.owner)
    events = AuditEvent.objects.about(endpoint.pk).filter(event__startswith="emergency_stop:")
    assert sorted(events.values_list("event", flat=True)) == [
        Event.STOP_DECLARED,
        Event.ALL_ENDED,
        Event.STOP_LIFTED,
    ]


@pytest.mark.django_db
def test_ending_many_asks_postgresql_no_more_often_than_ending_one(
    world: World, django_assert_max_num_queries: Any
) -> None:
    nothing_else_due()
    first = world.grant()
    for _ in range(5):
        world.grant(profile=first.request.profile)
    declare(endpoint_of(first).owner, endpoint_of(first))
    with django_assert_max_num_queries(45):
        assert end_due_grants() == 6


@pytest.mark.django_db
def test_many_are_ended_in_batches_each_its_own_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_else_due()
    monkeypatch.setattr("credentials.actions.ending.BATCH", 2)
    first = world.grant()
    for _ in range(4):
        world.grant(profile=first.request.profile)
    row = declare(endpoint_of(first).owner, endpoint_of(first))
    assert [end_due_grants(), end_due_grants()] == [2, 2]
    # It may be lifted before the rest is done.
    raise_stop(row, endpoint_of(first).owner)
    assert [end_due_grants(), end_due_grants()] == [1, 0]


@pytest.mark.usefixtures("committed")
def test_a_stop_that_races_check_outs_and_approvals_leaves_nothing_live(world: World) -> None:
    profile = world.profile()
    grants = [world.grant(profile=profile) for _ in range(4)]
    pending = [world.request(profile=profile) for _ in range(4)]
    reviewer = world.person(profile.reviewers)
    owner = profile.endpoint.owner
    calls: list[Any] = [lambda: declare(owner, profile.endpoint)] * 2
    calls += [lambda g=g: check_out(by=g.holder, grant_id=g.pk) for g in grants]
    calls += [
        lambda r=r: review_request(
            by=reviewer, request_id=r.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
        )
        for r in pending
    ]
    outcomes = at_once(calls)
    allowed = (Conflict,)  # AuthorityLost and NotLive are such
    assert all(isinstance(each, allowed) for each in outcomes if isinstance(each, Exception))
    assert EmergencyStop.objects.in_force().filter(endpoint=profile.endpoint).count() == 1
    of_it = {"grant__request__profile": profile}
    assert not holding(Credential.objects.filter(**of_it).values_list("pk", flat=True))
    sweep()
    assert not Grant.objects.filter(request__profile=profile, ended_at=None).exists()
    open_ = Credential.objects.filter(
        state__in=[CredentialState.ISSUING, CredentialState.ACTIVE], **of_it
    )
    assert not open_.exists()
