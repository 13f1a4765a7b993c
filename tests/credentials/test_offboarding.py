"""Whoever goes, whatever closes: their access ends within 30 s, by the one path."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accessrequests.actions import file_request
from accessrequests.models import Grant
from accessrequests.states import EndReason, RequestState
from accounts.actions import (
    create_service,
    create_token,
    deactivate_user,
    join_group,
    leave_group,
    reactivate_user,
    token_owner,
)
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.celery import app
from broker.embedded.processes import wait_until
from credentials.actions import check_out, end_due_grants
from credentials.live import holding
from credentials.models import Credential
from credentials.states import CredentialState
from credentials.stopping import end_all, stop
from endpoints.actions import retire_endpoint
from tests.conftest import running_worker
from tests.invariants.target import token_of
from tests.servers import Servers
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("committed")

PROMISED = 30.0


def program_of(world: World) -> Grant:
    profile = world.profile()
    program = world.person(profile.requesters, owner=world.person())
    return world.grant(profile=profile, requester=program)


def deactivated(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = world.grant()
    return (
        grant,
        lambda: deactivate_user(by=None, user=grant.holder),
        EndReason.REQUESTER_DEACTIVATED,
    )


def programs_owner_deactivated(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = program_of(world)
    owner = grant.holder.owner
    assert owner is not None
    return grant, lambda: deactivate_user(by=None, user=owner), EndReason.REQUESTER_DEACTIVATED


def group_lost(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = world.grant()
    group = grant.request.profile.requesters
    return grant, lambda: leave_group(by=None, user=grant.holder, group=group), EndReason.GROUP_LOST


def endpoint_retired(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = world.grant()
    endpoint = grant.request.profile.endpoint
    return (
        grant,
        lambda: retire_endpoint(by=None, endpoint=endpoint),
        EndReason.ENDPOINT_RETIRED,
    )


def endpoint_stopped(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = world.grant()
    endpoint = grant.request.profile.endpoint
    owner = endpoint.owner
    return (
        grant,
        lambda: stop(by=owner, endpoint=endpoint, reason="It leaks.", proofs=PROVED),
        EndReason.EMERGENCY_STOP,
    )


def everything_ended(world: World) -> tuple[Grant, Callable[[], object], EndReason]:
    grant = world.grant()
    admin = world.person(is_administrator=True)
    return (
        grant,
        lambda: end_all(by=admin, endpoint=None, reason="All of it.", proofs=PROVED),
        EndReason.EMERGENCY_STOP,
    )


WAYS = [
    deactivated,
    programs_owner_deactivated,
    group_lost,
    endpoint_retired,
    endpoint_stopped,
    everything_ended,
]


@pytest.mark.slow
def test_all_of_them_at_once_by_a_worker_alone(world: World, servers: Servers) -> None:
    """No beat, nobody at the portal: one worker's own tick."""
    found = [way(world) for way in WAYS]
    outs = [check_out(by=grant.holder, grant_id=grant.pk) for grant, _, _ in found]
    with running_worker(servers):
        for _, go, _ in found:
            go()
        began = time.monotonic()
        ids = [out.credential.pk for out in outs]
        rows = Credential.objects.filter(pk__in=ids)
        while rows.exclude(state=CredentialState.REVOKED).exists():
            left = rows.exclude(state=CredentialState.REVOKED).values_list("state", "last_error")
            assert time.monotonic() - began < PROMISED, list(left)
            time.sleep(0.1)
    for (grant, _, reason), out in zip(found, outs, strict=True):
        grant.refresh_from_db()
        assert grant.end_reason in {reason, EndReason.EMERGENCY_STOP}
        assert token_of(servers, out.secret) is None
        events = AuditEvent.objects.about(grant.pk).values_list("event", flat=True)
        assert list(events).count(Event.GRANT_ENDED) == 1


@pytest.mark.parametrize("way", WAYS[:4])
def test_why_it_ended_is_said(way: Callable[[World], Any], world: World) -> None:
    grant, go, reason = way(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    go()
    end_due_grants()
    grant.refresh_from_db()
    assert grant.end_reason == reason
    assert holding([out.credential.pk]) == {}


def test_who_is_still_in_keeps_theirs(world: World) -> None:
    """A colleague who leaves the same group, and a holder who leaves another one."""
    grant = world.grant()
    group, other = grant.request.profile.requesters, world.group()
    colleague = world.person(group)
    join_group(by=None, user=grant.holder, group=other)
    leave_group(by=None, user=colleague, group=group)
    leave_group(by=None, user=grant.holder, group=other)
    end_due_grants()
    grant.refresh_from_db()
    assert grant.ended_at is None


def test_a_person_with_three_grants_a_program_and_two_sessions_is_gone(
    world: World, servers: Servers
) -> None:
    """By a worker alone, from an administrator's click on; and one page says so."""
    profile = world.profile(with_key=True)
    person = world.person(profile.requesters)
    until = clock.now() + dt.timedelta(days=30)
    program = create_service(
        by=None, email=f"s-{person.email}", full_name="Nightly", owner=person, ends_at=until
    )
    join_group(by=None, user=program, group=profile.requesters)
    groups: dict[str, Any] = {"requesters": profile.requesters, "reviewers": profile.reviewers}
    profiles = [profile, *(world.profile(endpoint=profile.endpoint, **groups) for _ in range(2))]
    grants = [world.grant(profile=each, requester=person) for each in profiles]
    grants.append(world.grant(profile=profile, requester=program))
    outs = [check_out(by=grant.holder, grant_id=grant.pk) for grant in grants]
    asked = file_request(
        by=person,
        profile_id=world.profile(endpoint=profile.endpoint, **groups).pk,
        justification="Ticket 4711.",
        duration=dt.timedelta(hours=1),
    )
    browsers = [Client(), Client()]
    for browser in browsers:
        browser.force_login(person)
        assert browser.get("/").status_code == 200
    _, token = create_token(by=person, owner=person, name="x")
    administrator = world.person(is_administrator=True)
    desk = Client()
    desk.force_login(administrator)
    address = f"/people/{person.pk}/access/"
    before = desk.get(address).context["held"]
    assert (before.grants_left, before.sessions, before.tokens) == (4, 2, 1)
    assert (before.services_left, before.pending, before.groups) == (1, 1, 2)
    assert f"What {person} holds" in desk.get(address).content.decode()
    proofs = Proofs({str(Purpose(Action.PEOPLE, str(person.pk))): clock.now()})
    with running_worker(servers):
        # The promise is of a worker that runs: how long one takes to start is no part of it.
        assert wait_until(lambda: bool(app.control.ping(timeout=1)), 60)
        began = time.monotonic()
        deactivate_user(by=administrator, user=person, proofs=proofs)
        page = desk.get(address).content.decode()
        assert "is gone</h1>" not in page or all_revoked(outs)
        while "is gone</h1>" not in page:
            assert time.monotonic() - began < PROMISED, desk.get(address).context["held"]
            time.sleep(0.5)
            page = desk.get(address).content.decode()
    assert f"Everything of {person} is gone" in page
    assert "hx-trigger" not in page.split('id="held"')[1][:200]
    assert all_revoked(outs)
    for out in outs:
        assert token_of(servers, out.secret) is None
    for browser in browsers:
        assert browser.get("/").status_code == 302
    assert token_owner(token) is None
    asked.refresh_from_db()
    assert asked.state == RequestState.CANCELLED
    for grant in grants:
        grant.refresh_from_db()
        assert grant.end_reason == EndReason.REQUESTER_DEACTIVATED
    reactivate_user(by=None, user=person)
    assert not Grant.objects.live().filter(holder__in=[person, program]).exists()


def all_revoked(outs: list[Any]) -> bool:
    rows = Credential.objects.filter(pk__in=[out.credential.pk for out in outs])
    return not rows.exclude(state=CredentialState.REVOKED).exists()
