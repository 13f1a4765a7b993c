"""What lets anybody do more takes two administrators, neither of whom gains by it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accessrequests.actions import retire_policy, save_policy
from accessrequests.policy.document import parse
from accounts import actions, changes
from accounts.models import Change, User
from accounts.stepup import Action, Purpose
from accounts.workloads.actions import add_rule, change_issuer, change_rule, trust_issuer
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import SecondPerson
from endpoints.models import AccessProfile
from tests.world import PROVED, World, prove

pytestmark = pytest.mark.django_db

Verb = Callable[..., Any]


def join(world: World, profile: AccessProfile, administrator: User) -> Verb:
    return partial(actions.join_group, user=administrator, group=profile.reviewers)


def own(world: World, profile: AccessProfile, administrator: User) -> Verb:
    return partial(actions.name_owner, user=administrator, group=profile.requesters)


def role(world: World, profile: AccessProfile, administrator: User) -> Verb:
    return partial(actions.set_roles, user=world.person(), is_administrator=True)


def save(world: World, profile: AccessProfile, administrator: User) -> Verb:
    current = world.policy(profile=profile).current
    assert current is not None
    document = parse(current.document | {"auto_approve_when": "true"})
    return partial(save_policy, document=document)


def retire(world: World, profile: AccessProfile, administrator: User) -> Verb:
    policy = world.policy(
        profile=profile, steps=[{"name": "Owner", "reviewers": {"endpoint_owner": True}}]
    )
    return partial(retire_policy, slug=policy.slug)


def trust(world: World, profile: AccessProfile, administrator: User) -> Verb:
    said: dict[str, Any] = {"slug": "ci", "name": "CI", "audience": "keyturn"}
    return partial(trust_issuer, issuer="https://ci.example", **said)


def keys(world: World, profile: AccessProfile, administrator: User) -> Verb:
    where = "https://ci.example/keys"
    return partial(change_issuer, issuer=world.rule().issuer, jwks_uri=where)


def let_in(world: World, profile: AccessProfile, administrator: User) -> Verb:
    rule = world.rule()
    said: dict[str, Any] = {"name": "All", "claims": {"owner": "acme"}, "verbs": ["request"]}
    account = rule.service_account
    return partial(add_rule, issuer=rule.issuer, service_account=account, **said)


def wider(world: World, profile: AccessProfile, administrator: User) -> Verb:
    return partial(change_rule, rule=world.rule(), verbs=["read", "check_out"])


@pytest.mark.parametrize("widening", [join, own, role, save, retire, trust, keys, let_in, wider])
def test_no_verb_does_it_for_one_administrator_alone(
    widening: Callable[..., Verb], world: World
) -> None:
    """Whatever page or call comes to be made: the verbs themselves ask for a second person."""
    ada, ben = (world.person(is_administrator=True) for _ in range(2))
    robot, verb = world.person(owner=ada), widening(world, world.profile(), ada)
    before = AuditEvent.objects.count()
    for proposed_by in (None, ada, robot):
        with pytest.raises(SecondPerson):
            verb(by=ada, proposed_by=proposed_by)
    assert AuditEvent.objects.count() == before
    verb(by=ada, proposed_by=ben)
    assert AuditEvent.objects.count() > before


def by_action(user: User, change: Change) -> int:
    try:
        changes.approve(by=user, change_id=change.pk, proofs=PROVED)
    except SecondPerson as error:
        return error.status
    return 200


def _browser(user: User, change: Change) -> Client:
    client = Client()
    client.force_login(user)
    prove(client, Purpose(Action.CHANGE, str(change.pk)))
    return client


def by_api(user: User, change: Change) -> int:
    address = f"/api/v1/changes/{change.pk}/approve/"
    return _browser(user, change).post(address, "{}", content_type="application/json").status_code


def by_portal(user: User, change: Change) -> int:
    address = reverse("change-decide", args=[change.pk])
    answer = _browser(user, change).post(address, {"verdict": "approve"})
    return 200 if answer.status_code == 302 else answer.status_code


@pytest.mark.parametrize("approve", [by_action, by_api, by_portal])
def test_neither_who_proposed_it_nor_who_gains_by_it_agrees(
    approve: Callable[[User, Change], int], world: World
) -> None:
    ada, ben, cem = (world.person(is_administrator=True) for _ in range(3))
    group = world.profile().reviewers
    change = changes.propose(
        by=ada,
        kind="group_member",
        about=group,
        payload={"person": str(ben.pk)},
        reason="On the team.",
        proofs=PROVED,
    )
    assert change is not None
    for person in (ada, ben):
        assert approve(person, change) == 403
        assert not group.has(ben)
        if approve is not by_action:
            row = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=person.pk)
            assert row.get().data["code"] == "second-person"
    assert approve(cem, change) == 200
    assert group.has(ben)


def test_who_may_ask_for_what_a_policy_governs_does_not_agree_to_it(world: World) -> None:
    profile, ada = world.profile(), world.person(is_administrator=True)
    asks = world.person(profile.requesters, is_administrator=True)
    theirs = world.person(is_administrator=True)
    world.person(profile.requesters, owner=theirs)
    current = world.policy(profile=profile).current
    assert current is not None
    change = changes.propose(
        by=ada,
        kind="policy",
        about=current.policy,
        payload={
            "document": current.document | {"auto_approve_when": "true"},
            "note": "Routine.",
        },
        reason="Routine.",
        proofs=PROVED,
    )
    assert change is not None
    assert {by_action(asks, change), by_action(theirs, change)} == {403}
    assert by_action(world.person(is_administrator=True), change) == 200
