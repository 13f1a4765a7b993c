"""What lets anybody do more takes two administrators: who may, when, and only once."""

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.models import F

from accounts import changes, factors
from accounts.actions import deactivate_user, join_group, leave_group, set_roles
from accounts.changes import deciders, propose
from accounts.models import Change, Group, Session, Totp, User
from accounts.stepup import NONE
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from broker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    SecondPerson,
    StaleChange,
    StepUpNeeded,
)
from notifications.kinds import Kind
from notifications.models import Notification
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(world: World) -> User:
    return world.person(is_administrator=True, full_name="Ada")


@pytest.fixture
def ben(world: World) -> User:
    return world.person(is_administrator=True, full_name="Ben")


@pytest.fixture
def group(world: World) -> Group:
    """Opens something: its members may ask for a profile."""
    return world.profile().requesters


@pytest.fixture
def newcomer(world: World) -> User:
    return world.person(full_name="Noor")


def add(by: User, group: Group, user: User, **more: Any) -> Change | None:
    return propose(
        by=by,
        kind="group_member",
        about=group,
        payload={"person": str(user.pk)} | more,
        reason="Joins the team.",
        proofs=PROVED,
    )


def waiting(change: Change | None) -> Change:
    assert change is not None
    return change


@pytest.fixture
def change(ada: User, group: Group, newcomer: User) -> Change:
    return waiting(add(ada, group, newcomer))


def approve(by: User, change: Change, **more: Any) -> Change:
    return changes.approve(by=by, change_id=change.pk, **({"proofs": PROVED} | more))


def reject(by: User, change: Change, **more: Any) -> Change:
    more |= {"note": "Not on this team."}
    return changes.reject(by=by, change_id=change.pk, **({"proofs": PROVED} | more))


def test_what_opens_something_waits_and_a_second_administrator_does_it(
    ada: User, ben: User, group: Group, newcomer: User, change: Change
) -> None:
    assert not group.has(newcomer)
    assert [line["what"] for line in change.difference] == ["Members", "By that they could"]
    assert "ask for" in change.difference[1]["after"]
    assert ben in deciders(change)
    assert ada not in deciders(change)
    told = Notification.objects.filter(subject_id=change.pk, kind=Kind.CHANGE_WAITING)
    assert ben.pk in told.values_list("person", flat=True)
    assert ada.pk not in told.values_list("person", flat=True)

    done = approve(ben, change, note="Seen.")
    assert group.has(newcomer)
    assert (done.state, done.decided_by, done.note) == (Change.State.APPLIED, ben, "Seen.")
    assert not told.unread().exists()
    events = AuditEvent.objects.about(change.pk).order_by("id")
    assert [row.event for row in events] == [Event.CHANGE_PROPOSED, Event.CHANGE_APPROVED]
    joined = AuditEvent.objects.about(newcomer.pk).get(event=Event.GROUP_JOINED)
    assert joined.actor_id == ben.pk
    decided = Notification.objects.filter(subject_id=change.pk, kind=Kind.CHANGE_DECIDED)
    assert {ada.pk, newcomer.pk} <= set(decided.values_list("person", flat=True))


def test_what_opens_nothing_is_done_at_once(world: World, ada: User, newcomer: User) -> None:
    group = world.group()
    assert add(ada, group, newcomer) is None
    assert group.has(newcomer)
    assert not Change.objects.filter(about=group.pk).exists()


def test_taking_a_role_is_done_at_once_and_giving_one_waits(
    world: World, ada: User, ben: User
) -> None:
    person = world.person(is_auditor=True)
    role = partial(propose, by=ada, kind="role", about=person, reason="New duty.", proofs=PROVED)
    assert role(payload={"auditor": False}) is None
    person.refresh_from_db()
    assert not person.is_auditor
    change = waiting(role(payload={"administrator": True}))
    person.refresh_from_db()
    assert not person.is_administrator
    approve(ben, change)
    person.refresh_from_db()
    assert person.is_administrator


def test_a_group_owner_proposes_and_administrators_decide(
    world: World, ada: User, group: Group, newcomer: User
) -> None:
    owner = world.person()
    with pytest.raises(Forbidden):
        add(owner, group, newcomer)
    group.owners.add(owner)
    change = waiting(add(owner, group, newcomer))
    other = world.person()
    group.owners.add(other)
    with pytest.raises(NotFound):
        approve(other, change)
    approve(ada, change)
    assert group.has(newcomer)


def test_owning_a_group_that_opens_something_waits_too(
    ada: User, ben: User, group: Group, newcomer: User
) -> None:
    change = waiting(add(ada, group, newcomer, **{"as": "owner"}))
    approve(ben, change)
    assert newcomer in group.owners.all()
    assert not group.has(newcomer)


# Who may decide

WHO: dict[str, tuple[Callable[[World, Change], User], type[KeyturnError] | None]] = {
    "another administrator": (lambda world, _: world.person(is_administrator=True), None),
    "who proposed it": (lambda _, change: change.proposed_by, SecondPerson),
    "an administrator whom it adds": (
        lambda _, change: _administrator(User.objects.get(pk=change.payload["person"])),
        SecondPerson,
    ),
    "an auditor": (lambda world, _: world.person(is_auditor=True), Forbidden),
    "a stranger": (lambda world, _: world.person(), NotFound),
    "an administrator who is deactivated": (
        lambda world, _: _closed(world.person(is_administrator=True)),
        Forbidden,
    ),
    "an administrator of a moment ago": (
        lambda world, _: _demoted(world.person(is_administrator=True)),
        Forbidden,
    ),
}


def _administrator(user: User) -> User:
    set_roles(by=None, user=user, is_administrator=True)
    return user


def _closed(user: User) -> User:
    deactivate_user(by=None, user=User.objects.get(pk=user.pk))
    return user


def _demoted(user: User) -> User:
    # The process has loaded an administrator; the row says otherwise by now.
    User.objects.filter(pk=user.pk).update(is_administrator=False)
    return user


@pytest.mark.parametrize("verb", [approve, reject], ids=["approve", "reject"])
@pytest.mark.parametrize("who", WHO)
def test_who_may_decide(
    who: str, verb: Callable[..., Change], world: World, change: Change, group: Group
) -> None:
    make, refused = WHO[who]
    person = make(world, change)
    if refused is None:
        verb(person, change)
        return
    with pytest.raises(refused):
        verb(person, change)
    change.refresh_from_db()
    assert change.state == Change.State.PENDING
    assert not group.has(User.objects.get(pk=change.payload["person"]))


def test_who_answers_for_the_service_account_gains_by_it_too(
    world: World, ada: User, ben: User, group: Group
) -> None:
    robot = world.person(owner=ben)
    change = waiting(add(ada, group, robot))
    with pytest.raises(SecondPerson):
        approve(ben, change)
    approve(world.person(is_administrator=True), change)


@pytest.mark.parametrize("verb", [approve, reject], ids=["approve", "reject"])
def test_a_session_alone_decides_nothing(
    verb: Callable[..., Change], ben: User, change: Change
) -> None:
    with pytest.raises(StepUpNeeded) as caught:
        verb(ben, change, proofs=NONE)
    assert caught.value.extra["purposes"] == [f"change:{change.pk}"]
    change.refresh_from_db()
    assert change.state == Change.State.PENDING


def test_proposing_takes_a_second_factor_and_a_reason(
    ada: User, group: Group, newcomer: User
) -> None:
    call = partial(
        propose, by=ada, kind="group_member", about=group, payload={"person": str(newcomer.pk)}
    )
    with pytest.raises(StepUpNeeded):
        call(reason="Joins.", proofs=NONE)
    with pytest.raises(InvalidInput) as caught:
        call(reason="  ", proofs=PROVED)
    assert list(caught.value.errors) == ["reason"]
    with pytest.raises(InvalidInput):
        add(ada, group, newcomer, is_administrator=True)
    assert not Change.objects.filter(about=group.pk).exists()


def test_withdrawing_is_the_proposers_alone(ada: User, ben: User, change: Change) -> None:
    with pytest.raises(Forbidden):
        changes.withdraw(by=ben, change_id=change.pk)
    assert changes.withdraw(by=ada, change_id=change.pk).state == Change.State.WITHDRAWN


# What the state of things allows

ENDS: dict[str, Callable[[User, User, Change], object]] = {
    "applied": lambda _, ben, change: approve(ben, change),
    "rejected": lambda _, ben, change: reject(ben, change),
    "withdrawn": lambda ada, _, change: changes.withdraw(by=ada, change_id=change.pk),
    "expired": lambda *given: _age(given[2]),
    "closed by the sweep": lambda *given: changes.expire() if _age(given[2]) else None,
}


def _age(change: Change) -> int:
    """Let it have been proposed so long ago that it's over."""
    return Change.objects.filter(pk=change.pk).update(expires_at=F("expires_at") - changes.VALID)


@pytest.mark.parametrize("end", ENDS)
def test_what_is_over_stays_over(end: str, ada: User, ben: User, change: Change) -> None:
    ENDS[end](ada, ben, change)
    rows = AuditEvent.objects.about(change.pk).count()
    for verb in (
        lambda: approve(ben, change),
        lambda: reject(ben, change),
        lambda: changes.withdraw(by=ada, change_id=change.pk),
    ):
        with pytest.raises(Conflict):
            verb()
    assert AuditEvent.objects.about(change.pk).count() == rows
    assert changes.expire() in (0, 1)


def test_of_each_thing_one_change_waits(
    world: World, ada: User, ben: User, group: Group, newcomer: User, change: Change
) -> None:
    with pytest.raises(Conflict) as caught:
        add(ben, group, newcomer)
    assert caught.value.extra["change"] == str(change.pk)
    add(ben, group, world.person())  # somebody else is another matter
    _age(change)
    again = waiting(add(ben, group, newcomer))
    change.refresh_from_db()
    assert (change.state, again.state) == (Change.State.EXPIRED, Change.State.PENDING)


@pytest.mark.parametrize("what", ["rights", "membership"])
def test_what_rests_on_something_else_by_now_is_refused(
    what: str, world: World, ben: User, group: Group, newcomer: User, change: Change
) -> None:
    if what == "rights":
        world.profile(requesters=group)
    else:
        join_group(by=None, user=newcomer, group=group)
    assert changes.stale(change)
    with pytest.raises(StaleChange):
        approve(ben, change)
    if what == "rights":
        assert not group.has(newcomer)
        again = waiting(add(ben, group, newcomer))
        change.refresh_from_db()
        assert change.state == Change.State.EXPIRED
        assert again.base != change.base
    else:
        leave_group(by=None, user=newcomer, group=group)
        approve(ben, change)


@pytest.mark.parametrize("lost", ["role", "account"])
def test_who_proposed_it_must_still_be_one_who_may(
    lost: str, ada: User, ben: User, group: Group, newcomer: User, change: Change
) -> None:
    if lost == "role":
        set_roles(by=None, user=ada, is_administrator=False)
    else:
        deactivate_user(by=None, user=ada)
    with pytest.raises(Conflict):
        approve(ben, change)
    assert not group.has(newcomer)
    reject(ben, change)


def test_a_person_who_is_gone_meanwhile_is_not_added(
    ben: User, group: Group, newcomer: User, change: Change
) -> None:
    deactivate_user(by=None, user=newcomer)
    with pytest.raises(Conflict):
        approve(ben, change)
    assert not group.memberships.filter(user=newcomer).exists()


def test_the_database_wants_a_second_person_too(ada: User, ben: User, change: Change) -> None:
    for decided in ({}, {"decided_by": ada, "decided_at": dt.datetime.now(dt.UTC)}):
        with pytest.raises(DatabaseError), transaction.atomic():
            Change.objects.filter(pk=change.pk).update(state=Change.State.APPLIED, **decided)


# A lost factor


def enrolled(person: User) -> None:
    Totp.objects.create(person=person, sealed="vault:v1:x", last_step=0)


def test_two_administrators_take_a_lost_factor_away(world: World, ada: User, ben: User) -> None:
    person = world.person()
    enrolled(person)
    epoch = User.objects.get(pk=person.pk).session_epoch
    change = waiting(
        propose(
            by=ada,
            kind="factor_reset",
            about=person,
            payload={},
            reason="Lost the phone; seen in person.",
            proofs=PROVED,
        )
    )
    assert factors.held_by(person)
    approve(ben, change)
    assert not factors.held_by(person)
    assert not Session.objects.filter(person=person).exists()
    assert User.objects.get(pk=person.pk).session_epoch > epoch
    told = set(
        Notification.objects.filter(
            kind__in=[Kind.FACTOR_CHANGED, Kind.CHANGE_DECIDED]
        ).values_list("person", flat=True)
    )
    assert {person.pk, ada.pk, ben.pk} <= told
    row = AuditEvent.objects.get(event=Event.FACTORS_RESET, subject_id=person.pk)
    assert {ada.pk, ben.pk} <= set(row.related)
    with pytest.raises(InvalidInput):
        propose(
            by=ada, kind="factor_reset", about=person, payload={}, reason="Again.", proofs=PROVED
        )


def test_nobody_has_a_hand_in_the_reset_of_their_own(ada: User, ben: User) -> None:
    enrolled(ada)
    reset = partial(
        propose, kind="factor_reset", about=ada, payload={}, reason="Lost it.", proofs=PROVED
    )
    with pytest.raises(KeyturnError):
        approve(ben, waiting(reset(by=ada)))
    assert factors.held_by(ada)
    Change.objects.filter(about=ada.pk).update(state=Change.State.WITHDRAWN)
    change = waiting(reset(by=ben))
    with pytest.raises(SecondPerson):
        approve(ada, change)


def test_unknown_things_are_named(ada: User, group: Group) -> None:
    for call, errors in (
        (partial(propose, kind="no-such", about=group, payload={}), {"kind"}),
        (partial(propose, kind="group_member", about=group, payload={"person": "x"}), {"person"}),
        (
            partial(propose, kind="group_member", about=group, payload={"person": str(new_id())}),
            {"person"},
        ),
        (partial(propose, kind="role", about=ada, payload={}), {"administrator"}),
    ):
        with pytest.raises(InvalidInput) as caught:
            call(by=ada, reason="x", proofs=PROVED)
        assert set(caught.value.errors) == errors
