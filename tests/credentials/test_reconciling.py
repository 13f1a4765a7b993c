"""What is out there against what is on record, both ways, with a real OpenBao."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from accessrequests.models import Grant
from audit import clock
from audit.context import Origin, working_for
from audit.events import Event
from audit.models import AuditEvent
from credentials import vault
from credentials.actions import check_out, end_grant
from credentials.actions.reconciling import EVERY, reconcile, reconcile_if_due
from credentials.models import Credential, Reconciliation
from credentials.states import CredentialState, RevokeReason
from notifications.kinds import Kind as News
from notifications.models import Notification
from tests.invariants.races import at_once
from tests.invariants.target import assert_proven_gone, token_of
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def look(role: Any) -> Callable[[], Reconciliation]:
    """One look around, as a worker takes it; nothing that others left is counted."""

    def once() -> Reconciliation:
        with role("worker"), working_for(Origin(via="worker")):
            return reconcile()

    once()
    return once


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


def mint_past_the_broker(grant: Grant, credential: str) -> vault.Minted:
    return vault.mint(
        name="kt-nobodys", meta={"credential": credential, "grant": str(grant.pk)}, lifetime=600
    )


@pytest.mark.parametrize("bears", ["an unknown id", "no id at all"])
def test_what_nobody_accounts_for_is_ended_and_reported(
    bears: str,
    grant: Grant,
    world: World,
    servers: Servers,
    look: Callable[[], Reconciliation],
) -> None:
    admin = world.person(is_administrator=True)
    stray = mint_past_the_broker(grant, str(uuid.uuid4()) if "unknown" in bears else "x' OR 1=1")
    out = check_out(by=grant.holder, grant_id=grant.pk)
    began = clock.now()
    row = look()
    assert token_of(servers, stray.token) is None
    assert token_of(servers, out.secret) is not None, "what is on record lives on"
    assert (row.found, row.ended, row.left) == (1, 1, [])
    events = AuditEvent.objects.filter(at__gte=began).values_list("event", flat=True)
    assert {Event.ORPHAN_FOUND, Event.ORPHAN_ENDED} <= set(events)
    told = Notification.objects.get(person=admin, kind=News.ORPHANS_FOUND)
    assert told.sentence == "1 unknown credential found and ended"
    assert look().found == 0


def test_what_came_back_by_an_older_snapshot_is_ended(
    grant: Grant, servers: Servers, sweep: Callable[[], int], look: Callable[[], Reconciliation]
) -> None:
    """OpenBao has again what PostgreSQL knows as gone: a token of the same credential."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()
    assert_proven_gone(out.credential)
    again = mint_past_the_broker(grant, str(out.credential.pk))
    assert look().ended == 1
    assert token_of(servers, again.token) is None


def test_what_vanished_is_closed_and_reported(
    grant: Grant, servers: Servers, sweep: Callable[[], int], look: Callable[[], Reconciliation]
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    servers.vault("POST", "auth/token/revoke-accessor", {"accessor": out.credential.accessor})
    assert look().vanished == 1
    credential = Credential.objects.get(pk=out.credential.pk)
    assert credential.state == CredentialState.REVOKING
    assert credential.revoke_reason == RevokeReason.VANISHED
    sweep()
    assert_proven_gone(credential)
    assert check_out(by=grant.holder, grant_id=grant.pk).secret, "its grant is unharmed"


def test_what_is_being_minted_or_revoked_is_no_orphan(
    world: World, look: Callable[[], Reconciliation], sweep: Callable[[], int]
) -> None:
    """Looks and check-outs and ends at once: none is taken for another's."""
    profile = world.profile()
    grants = [world.grant(profile=profile) for _ in range(12)]

    def go(grant: Grant) -> Callable[[], object]:
        def once() -> object:
            out = check_out(by=grant.holder, grant_id=grant.pk)
            end_grant(grant_id=grant.pk, by=grant.holder)
            return out

        return once

    outcomes = at_once([*map(go, grants)])
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    rows = [look() for _ in range(2)]
    sweep()
    rows.append(look())
    assert [(row.found, row.vanished) for row in rows] == [(0, 0)] * 3


def test_vault_being_away_is_said_and_changes_nothing(
    grant: Grant, look: Callable[[], Reconciliation], settings: Any
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    settings.VAULT_ADDR = "http://127.0.0.1:9"
    row = look()
    assert set(row.failures) >= {"gateway_token", "leases"}
    assert (row.found, row.vanished) == (0, 0)
    out.credential.refresh_from_db()
    assert out.credential.state == CredentialState.ACTIVE


def test_it_is_done_each_five_minutes_however_many_workers(
    look: Callable[[], Reconciliation], role: Any
) -> None:
    last = look()
    with role("worker"), working_for(Origin(via="worker")):
        assert [reconcile_if_due() for _ in range(3)] == [None] * 3
        Reconciliation.objects.update(at=last.at - EVERY - dt.timedelta(seconds=1))
        assert reconcile_if_due() is not None
        assert reconcile_if_due() is None
