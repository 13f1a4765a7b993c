"""What is due by the clock, and who is told: in order, once each, until it's done."""

import datetime as dt
from typing import Any

import pytest

from accessrequests.actions import (
    chase,
    file_request,
    hand_over,
    note_absence,
    review_request,
)
from accessrequests.models import AccessRequest, Grant, Review, Route
from accessrequests.queue import waiting_for
from accessrequests.states import GrantState
from accounts.actions import join_group, leave_group
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import AlreadyDecided, Forbidden
from endpoints.actions import change
from notifications.kinds import Kind
from notifications.models import Notification
from tests.accessrequests.policies import govern, step
from tests.invariants.races import at_once
from tests.world import PROVED, World, move

APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY
MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)


@pytest.fixture
def rolled_back(db: None) -> None:
    """All but the race at the end."""


pytestmark = pytest.mark.usefixtures("rolled_back")


def later(row: AccessRequest | Grant, by: dt.timedelta) -> None:
    """Let so much time pass for this row."""
    move(
        row,
        **{
            field.name: -by
            for field in row._meta.fields
            if field.get_internal_type() == "DateTimeField"
        },
    )


def forget() -> None:
    """What was told so far: rows that move in time don't move the second that sets it apart."""
    Notification.objects.all().delete()


def told(person: User, kind: Kind, row: AccessRequest | Grant) -> int:
    return Notification.objects.filter(person=person, kind=kind, subject_id=row.pk).count()


def count(event: Event, row: AccessRequest | Grant) -> int:
    return AuditEvent.objects.filter(event=event, subject_id=row.pk).count()


def to(*groups: Any, **fields: Any) -> dict[str, Any]:
    return {"groups": [group.slug for group in groups]} | fields


def review(by: User, request: AccessRequest, verdict: Review.Verdict = APPROVE, **how: Any) -> Any:
    return review_request(
        by=by, request_id=request.pk, verdict=verdict, reason="Because.", **how, proofs=PROVED
    )


# ── Escalation ──────────────────────────────────────────────────────────────────────────────────


def test_escalation_goes_up_in_time_and_ends_at_the_fallback(world: World) -> None:
    profile, second, fallback = world.profile(), world.group(), world.group()
    first, two, last = world.person(profile.reviewers), world.person(second), world.person(fallback)
    chain = [{"after": "PT1H", "to": to(second)}, {"after": "PT3H", "to": to(fallback)}]
    govern(profile, step(escalation=chain))
    request = world.request(profile=profile, reviewer=first)
    assert told(first, Kind.REVIEW_WANTED, request) == 1
    with pytest.raises(Forbidden):
        review(world.person(fallback, is_auditor=True), request)
    reached = []
    for passed in (50 * MINUTE, 20 * MINUTE, HOUR, HOUR, 10 * HOUR):
        later(request, passed)
        chase()
        chase()
        request.refresh_from_db()
        reached.append((told(two, Kind.ESCALATED, request), told(last, Kind.ESCALATED, request)))
    # At 0:50 nobody, at 1:10 and 2:10 the second, at 3:10 the fallback, and then nobody else.
    assert [one for one, _ in reached] == [0, 1, 1, 2, 2]
    assert [one for _, one in reached] == [0, 0, 0, 1, 1]
    assert (request.escalations, request.escalate_at) == (2, None)
    assert count(Event.REQUEST_ESCALATED, request) == 2
    review(last, request)
    assert Grant.objects.filter(request=request).exists()


def test_too_few_in_the_first_place_escalates_at_once(world: World) -> None:
    profile, fallback = world.profile(), world.group()
    requester = world.person(profile.requesters, profile.reviewers)
    last = world.person(fallback)
    govern(profile, step(escalation=[{"after": "PT8H", "to": to(fallback)}]))
    # The only reviewer is who asks.
    leave_group(by=None, user=world.person(profile.reviewers), group=profile.reviewers)
    request = world.request(profile=profile, requester=requester, reviewer=requester)
    chase()
    assert told(last, Kind.ESCALATED, request) == 1
    assert told(requester, Kind.ESCALATED, request) == 0
    review(last, request)


def test_too_few_for_a_later_step_escalates_at_once_too(world: World) -> None:
    profile, second, fallback = world.profile(), world.group(), world.group()
    one, last = world.person(profile.reviewers), world.person(fallback)
    later_step = step(second, name="Security", escalation=[{"after": "PT8H", "to": to(fallback)}])
    govern(profile, step(), later_step)
    request = world.request(profile=profile, reviewer=one)
    review(one, request)
    chase()
    assert told(last, Kind.ESCALATED, request) == 1


def test_each_step_waits_for_itself(world: World) -> None:
    profile, second, fallback = world.profile(), world.group(), world.group()
    one, two, last = world.person(profile.reviewers), world.person(second), world.person(fallback)
    escalation = [{"after": "PT2H", "to": to(fallback)}]
    govern(profile, step(), step(second, name="Security", escalation=escalation))
    request = world.request(profile=profile, reviewer=one)
    assert told(two, Kind.REVIEW_WANTED, request) == 0
    later(request, 5 * HOUR)
    chase()
    review(one, request)
    assert told(two, Kind.REVIEW_WANTED, request) == 1
    chase()
    assert told(last, Kind.ESCALATED, request) == 0
    request.refresh_from_db()
    later(request, 2 * HOUR)
    chase()
    assert told(last, Kind.ESCALATED, request) == 1


# ── Reminders ───────────────────────────────────────────────────────────────────────────────────


def test_reminders_come_at_half_of_what_is_left_and_stop(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    request = world.request(profile=profile, reviewer=reviewer)
    left = []
    while request.remind_at is not None:
        later(request, request.remind_at - clock.now())
        left.append(request.decide_by - clock.now())
        chase()
        chase()
        request.refresh_from_db()
        assert told(reviewer, Kind.REVIEW_REMINDER, request) == 1
        forget()
    whole = dt.timedelta(days=1)
    for number, each in enumerate(left):
        assert abs(each - whole / 2 ** (number + 1)) < MINUTE
    assert 7 <= len(left) <= 10
    assert request.state == "pending"


def test_what_is_decided_reminds_nobody(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    request = world.request(profile=profile, reviewer=reviewer)
    review(reviewer, request)
    request.refresh_from_db()
    later(request, 23 * HOUR)
    chase()
    assert request.remind_at is None
    assert told(reviewer, Kind.REVIEW_REMINDER, request) == 0
    wanted = Notification.objects.get(
        person=reviewer, kind=Kind.REVIEW_WANTED, subject_id=request.pk
    )
    assert wanted.read_at is not None, "taken back"


def broken(world: World) -> tuple[AccessRequest, User]:
    """Break-glass access, and who owes its review."""
    profile, called = world.profile(), world.group()
    reviewer = world.person(profile.reviewers)
    within = {"groups": [called.slug], "review_within": "PT4H"}
    govern(profile, break_glass=within)
    request = file_request(
        by=world.person(profile.requesters, called),
        profile_id=profile.pk,
        justification="It burns.",
        break_glass=True,
        proofs=PROVED,
    )
    return request, reviewer


def test_a_review_afterwards_is_chased_until_it_is_done(world: World) -> None:
    request, reviewer = broken(world)
    owner = request.profile.endpoint.owner
    assert told(reviewer, Kind.BREAK_GLASS, request) == 1
    assert told(owner, Kind.BREAK_GLASS, request) == 1
    owners = 0
    for _ in range(12):
        forget()
        assert request.remind_at is not None, "it is owed"
        later(request, request.remind_at - clock.now())
        chase()
        chase()
        request.refresh_from_db()
        assert told(reviewer, Kind.REVIEW_OWED, request) == 1
        assert told(request.requester, Kind.REVIEW_OWED, request) == 0
        owners += told(owner, Kind.REVIEW_OWED, request)
    assert request.decide_by < clock.now()
    assert 1 <= owners < 12, "only once it was overdue"
    review(reviewer, request)
    request.refresh_from_db()
    later(request, 30 * HOUR)
    chase()
    assert told(reviewer, Kind.REVIEW_OWED, request) == 1
    assert not Notification.objects.filter(
        kind=Kind.REVIEW_OWED, subject_id=request.pk, read_at=None
    ).exists()
    with pytest.raises(AlreadyDecided):
        review(world.person(request.profile.reviewers), request, DENY)


# ── Grants ──────────────────────────────────────────────────────────────────────────────────────


def test_a_scheduled_grant_begins_when_its_time_has_come(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    request = file_request(
        by=world.person(profile.requesters),
        profile_id=profile.pk,
        justification="For tonight.",
        starts_at=clock.now() + 3 * HOUR,
    )
    review(reviewer, request)
    grant = Grant.objects.get(request=request)
    assert (grant.state, grant.starts_at) == (GrantState.SCHEDULED, request.starts_at)
    chase()
    assert told(grant.holder, Kind.GRANT_STARTED, grant) == 0
    later(grant, 3 * HOUR)
    assert grant.is_live(clock.now()), "by the clock, before any sweep"
    chase()
    chase()
    grant.refresh_from_db()
    assert grant.state == GrantState.ACTIVE
    assert told(grant.holder, Kind.GRANT_STARTED, grant) == 1
    assert count(Event.GRANT_STARTED, grant) == 1


@pytest.mark.parametrize(
    ("duration", "before"),
    [(2 * HOUR, 12 * MINUTE), (HOUR, 10 * MINUTE), (8 * HOUR, 48 * MINUTE), (MINUTE, MINUTE / 2)],
)
def test_the_end_is_told_once_before_it_comes(
    duration: dt.timedelta, before: dt.timedelta, world: World
) -> None:
    grant = world.grant(duration=duration)
    assert grant.warn_at == grant.ends_at - before
    chase()
    assert told(grant.holder, Kind.GRANT_ENDING, grant) == 0
    later(grant, duration - before)
    chase()
    chase()
    assert told(grant.holder, Kind.GRANT_ENDING, grant) == 1


# ── Others in their places ──────────────────────────────────────────────────────────────────────


def change_owner(request: AccessRequest, new: User) -> None:
    change(request.profile.endpoint, by=None, owner=new)


def change_manager(request: AccessRequest, new: User) -> None:
    User.objects.filter(pk=request.requester_id).update(manager=new)


def change_reviewers(request: AccessRequest, new: User) -> None:
    group = World("").group()
    join_group(by=None, user=new, group=group)
    change(request.profile, by=None, reviewers=group)


@pytest.mark.parametrize(
    ("named", "swap"),
    [
        ({"endpoint_owner": True}, change_owner),
        ({"requester_manager": True}, change_manager),
        ({"profile_reviewers": True}, change_reviewers),
    ],
)
@pytest.mark.parametrize("escalated", [False, True])
def test_whoever_is_in_their_place_by_now_is_asked(
    escalated: bool, named: dict[str, Any], swap: Any, world: World
) -> None:
    """Also where it came to them by an escalation, which the step itself doesn't name."""
    profile, first, fallback = world.profile(), world.group(), world.group()
    world.person(first)
    world.person(fallback)
    world.person(profile.reviewers)
    requester = world.person(profile.requesters, manager=world.person())
    if escalated:
        chain = [{"after": "PT1H", "to": named}, {"after": "PT9H", "to": to(fallback)}]
        govern(profile, step(first, escalation=chain))
    else:
        govern(profile, {"name": "Review", "reviewers": named})
    request = world.request(
        profile=profile, requester=requester, reviewer=world.person(profile.reviewers)
    )
    if escalated:
        later(request, HOUR)
        chase()
    new = world.person()
    request = AccessRequest.objects.get(pk=request.pk)
    swap(request, new)
    chase()
    chase()
    assert told(new, Kind.REVIEW_WANTED, request) == 1
    assert waiting_for(new).filter(request=request).exists()
    assert count(Event.REQUEST_ROUTED, request) == 1
    review(new, request)
    assert Grant.objects.filter(request=request).exists()


def test_a_requester_without_a_manager_any_more_leads_to_nobody(world: World) -> None:
    profile = world.profile()
    manager = world.person()
    requester = world.person(profile.requesters, manager=manager)
    govern(profile, {"name": "Review", "reviewers": {"requester_manager": True}})
    request = world.request(profile=profile, requester=requester, reviewer=manager)
    User.objects.filter(pk=requester.pk).update(manager=None)
    chase()
    assert not Route.objects.filter(request=request, waiting=True).exists()
    assert not waiting_for(manager).exists()


# ── Who is told ─────────────────────────────────────────────────────────────────────────────────


def test_nobody_is_told_twice_for_being_named_twice(world: World) -> None:
    profile, other = world.profile(), world.group()
    person = world.person(profile.reviewers, other)
    govern(profile, step(other, name="Review"))
    named = {"groups": [other.slug], "people": [person.email], "profile_reviewers": True}
    govern(profile, {"name": "Review", "reviewers": named})
    request = world.request(profile=profile, reviewer=person)
    assert told(person, Kind.REVIEW_WANTED, request) == 1


def away(person: User, delegate: User) -> None:
    note_absence(by=person, ends_at=clock.now() + 24 * HOUR, delegate=delegate.email)


def test_an_eligible_delegate_is_told_in_place_of_who_is_away(world: World) -> None:
    profile, deputies = world.profile(), world.group()
    person, delegate = world.person(profile.reviewers), world.person(deputies)
    away(person, delegate)
    govern(
        profile,
        {"name": "Review", "reviewers": {"people": [person.email], "groups": [deputies.slug]}},
    )
    request = world.request(profile=profile, reviewer=person)
    assert told(person, Kind.REVIEW_WANTED, request) == 0
    assert told(delegate, Kind.REVIEW_WANTED, request) == 1
    review(person, request)  # who is away may still decide


def test_a_delegate_without_the_right_is_not_told(world: World) -> None:
    profile = world.profile()
    person, delegate = world.person(profile.reviewers), world.person()
    away(person, delegate)
    request = world.request(profile=profile, reviewer=person)
    assert told(delegate, Kind.REVIEW_WANTED, request) == 0
    assert told(person, Kind.REVIEW_WANTED, request) == 1, "better told while away than not at all"


def test_the_requester_is_not_told_in_place_of_a_reviewer(world: World) -> None:
    """They are in the group, and still nobody who may decide this one."""
    profile = world.profile()
    person = world.person(profile.reviewers)
    requester = world.person(profile.requesters, profile.reviewers)
    away(person, requester)
    request = world.request(profile=profile, requester=requester, reviewer=person)
    assert told(requester, Kind.REVIEW_WANTED, request) == 0
    assert told(person, Kind.REVIEW_WANTED, request) == 1


def test_the_owner_of_a_service_account_is_not_told_of_its_requests(world: World) -> None:
    profile = world.profile()
    person, owner = world.person(profile.reviewers), world.person(profile.reviewers)
    service = world.person(profile.requesters, owner=owner)
    away(person, owner)
    request = world.request(profile=profile, requester=service, reviewer=person)
    assert told(owner, Kind.REVIEW_WANTED, request) == 0
    assert told(person, Kind.REVIEW_WANTED, request) == 1
    assert not waiting_for(owner).exists()


def test_a_delegate_who_has_decided_is_not_asked_again(world: World) -> None:
    profile = world.profile()
    person, delegate = world.person(profile.reviewers), world.person(profile.reviewers)
    govern(profile, step(approvals=2))
    request = world.request(profile=profile, reviewer=person)
    review(delegate, request)
    away(person, delegate)
    request.refresh_from_db()
    later(request, 13 * HOUR)
    chase()
    assert told(delegate, Kind.REVIEW_REMINDER, request) == 0
    assert told(person, Kind.REVIEW_REMINDER, request) == 1


def test_who_is_handed_a_request_is_told_or_their_delegate(world: World) -> None:
    profile = world.profile()
    one, two = world.person(profile.reviewers), world.person(profile.reviewers)
    request = world.request(profile=profile, reviewer=one)
    hand_over(by=one, request_id=request.pk, to=two.email)
    assert (told(two, Kind.HANDED_OVER, request), told(one, Kind.HANDED_OVER, request)) == (1, 0)


# ── Two sweeps at once ──────────────────────────────────────────────────────────────────────────


class TestAtOnce:
    @pytest.fixture
    def rolled_back(self, committed: None) -> None:
        """Threads see only what is committed."""

    def test_each_is_chased_once_by_many_sweeps(self, world: World) -> None:
        chase()
        profile, fallback = world.profile(), world.group()
        reviewer, last, owner = world.person(profile.reviewers), world.person(fallback), None
        govern(profile, step(escalation=[{"after": "PT1H", "to": to(fallback)}]))
        escalates = world.request(profile=profile, reviewer=reviewer)
        move(escalates, escalate_at=-HOUR)
        reminds = world.request(profile=profile, reviewer=reviewer)
        move(reminds, remind_at=-13 * HOUR)
        expires = world.request(profile=profile, reviewer=reviewer)
        move(expires, pending_until=-25 * HOUR)
        warns = world.grant(profile=profile, reviewer=reviewer)
        move(warns, warn_at=-HOUR)
        starts = file_request(
            by=world.person(profile.requesters),
            profile_id=world.profile(requesters=profile.requesters, reviewers=profile.reviewers).pk,
            justification="For tonight.",
            starts_at=clock.now() + HOUR,
        )
        review(reviewer, starts)
        later(starts.grant, HOUR)
        owned = world.profile()
        govern(owned, {"name": "Review", "reviewers": {"endpoint_owner": True}})
        moves = world.request(profile=owned, reviewer=owned.endpoint.owner)
        owner = world.person()
        change(owned.endpoint, by=None, owner=owner)
        outcomes = at_once([chase] * 8)
        chase()
        assert all(isinstance(each, int) for each in outcomes), outcomes
        assert count(Event.REQUEST_ESCALATED, escalates) == 1
        assert told(last, Kind.ESCALATED, escalates) == 1
        assert told(reviewer, Kind.REVIEW_REMINDER, reminds) == 1
        assert count(Event.REQUEST_EXPIRED, expires) == 1
        assert told(expires.requester, Kind.EXPIRED, expires) == 1
        assert told(warns.holder, Kind.GRANT_ENDING, warns) == 1
        assert count(Event.GRANT_STARTED, starts.grant) == 1
        assert count(Event.REQUEST_ROUTED, moves) == 1
        assert told(owner, Kind.REVIEW_WANTED, moves) == 1


def test_escalation_goes_as_far_as_it_takes_to_reach_enough(world: World) -> None:
    profile, empty, fallback = world.profile(), world.group(), world.group()
    last = world.person(fallback)
    govern(
        profile,
        step(
            approvals=1,
            escalation=[
                {"after": "PT1H", "to": to(empty)},
                {"after": "PT2H", "to": to(fallback)},
            ],
        ),
    )
    requester = world.person(profile.requesters)
    request = file_request(by=requester, profile_id=profile.pk, justification="Ticket 4711.")
    for _ in range(2):
        chase()
    assert told(last, Kind.ESCALATED, request) == 1
    review(last, request)
    assert Grant.objects.get(request=request).is_live(clock.now())


def test_what_somebody_has_decided_waits_for_them_no_longer(world: World) -> None:
    profile, security = world.profile(), world.group()
    one, two = (world.person(profile.reviewers) for _ in range(2))
    three = world.person(security)
    govern(profile, step(approvals=2), step(security, name="Security"))
    requester = world.person(profile.requesters)
    request = file_request(by=requester, profile_id=profile.pk, justification="Ticket 4711.")

    def unread(person: User) -> int:
        return person.notifications.filter(subject_id=request.pk, read_at=None).count()

    assert (unread(one), unread(two), unread(three)) == (1, 1, 0)
    review(one, request)
    assert (unread(one), unread(two), unread(three)) == (0, 1, 0)
    review(two, request)
    assert (unread(one), unread(two), unread(three)) == (0, 0, 1)


def test_who_has_more_time_already_is_not_warned_of_the_end(world: World) -> None:
    grant = world.grant()
    extension = file_request(
        by=grant.holder,
        profile_id=grant.request.profile_id,
        justification="Another hour.",
        extends=grant.pk,
    )
    review(world.person(grant.request.profile.reviewers), extension)
    later(grant, 55 * MINUTE)
    chase()
    assert told(grant.holder, Kind.GRANT_ENDING, grant) == 0
