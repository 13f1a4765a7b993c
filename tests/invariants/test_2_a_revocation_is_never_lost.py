"""A process that dies between two steps is shown by taking the real steps and stopping there."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from accessrequests.models import Grant
from accessrequests.states import EndReason
from accounts.actions import deactivate_user
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Unavailable
from credentials import actions, vault
from credentials.actions import check_out, checking_out, end_grant, revoking
from credentials.actions.revoking import DOUBT_AFTER
from credentials.kinds.base import Minted
from credentials.live import holding
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason
from tests.invariants.races import apart, at_once
from tests.invariants.target import assert_proven_gone, token_of, tokens_of, wait_out
from tests.servers import Servers
from tests.world import World, move

pytestmark = pytest.mark.usefixtures("committed")

Sweep = Callable[[], int]
DOUBT = DOUBT_AFTER.total_seconds() + 1


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


def begin(grant: Grant) -> Credential:
    return checking_out._begin(by=grant.holder, grant_id=grant.pk)


def mint(credential: Credential, lifetime: int = 3000) -> vault.Minted:
    grant = credential.grant
    return vault.mint(
        name=credential.name,
        meta={
            "credential": str(credential.pk),
            "grant": str(grant.pk),
            "request": str(grant.request_id),
        },
        lifetime=lifetime,
    )


def confirm(credential: Credential, minted: vault.Minted) -> None:
    checking_out._confirm(credential, Minted(accessor=minted.accessor), credential.grant.holder)


# ── A process dies ──────────────────────────────────────────────────────────────────────────────


def died_before_the_mint(grant: Grant) -> Credential:
    return begin(grant)


def died_after_the_mint(grant: Grant) -> Credential:
    credential = begin(grant)
    mint(credential)
    return credential


def died_after_confirming(grant: Grant) -> Credential:
    credential = begin(grant)
    confirm(credential, mint(credential))
    return credential


def died_before_answering(grant: Grant) -> Credential:
    return check_out(by=grant.holder, grant_id=grant.pk).credential


MINTS = [died_before_the_mint, died_after_the_mint, died_after_confirming, died_before_answering]


@pytest.mark.parametrize("mint_and_die", MINTS)
def test_whatever_step_the_mint_died_at_ending_the_grant_takes_it_back(
    mint_and_die: Callable[[Grant], Credential], grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    credential = mint_and_die(grant)
    end_grant(grant_id=grant.pk, by=grant.holder)
    assert holding([credential.pk]) == {}
    sweep()
    assert tokens_of(servers, grant) == []
    wait_out(credential, 80)  # what was never confirmed could still land for a while
    sweep()
    assert_proven_gone(credential)


@pytest.mark.parametrize("mint_and_die", MINTS[:2])
def test_a_mint_that_was_never_confirmed_is_taken_back_though_its_grant_lives(
    mint_and_die: Callable[[Grant], Credential], grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    credential = mint_and_die(grant)
    sweep()
    credential.refresh_from_db()
    assert credential.state == CredentialState.ISSUING, "it may still be on its way"
    wait_out(credential, DOUBT)
    sweep()
    credential.refresh_from_db()
    assert credential.revoke_reason == RevokeReason.DOUBT
    assert tokens_of(servers, grant) == []
    wait_out(credential, 80)
    sweep()
    assert_proven_gone(credential)
    assert token_of(servers, check_out(by=grant.holder, grant_id=grant.pk).secret), "unharmed"


def test_absence_proves_nothing_while_a_slow_mint_could_still_land(
    grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    credential = died_before_the_mint(grant)
    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()
    credential.refresh_from_db()
    assert credential.state == CredentialState.REVOKING
    mint(credential)  # the slow one
    assert len(tokens_of(servers, grant)) == 1
    wait_out(credential, 10)
    sweep()
    assert_proven_gone(credential)
    assert tokens_of(servers, grant) == []


def test_a_token_that_nobody_confirmed_lives_for_a_minute_at_most(
    grant: Grant, servers: Servers
) -> None:
    minted = mint(begin(grant))
    held = token_of(servers, minted.token)
    assert held is not None
    assert held["ttl"] <= vault.UNCONFIRMED_TTL


def test_a_check_out_that_lost_its_race_takes_back_what_it_minted(
    grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    credential = begin(grant)
    minted = mint(credential)
    end_grant(grant_id=grant.pk, by=grant.holder)
    checking_out._doubt(credential, Minted(accessor=minted.accessor))
    sweep()
    assert_proven_gone(credential)
    assert token_of(servers, minted.token) is None


def died_after_the_intent(credential: Credential) -> None:
    """`end_grant` has committed; the doorbell was never heard."""


def died_after_the_claim(credential: Credential) -> None:
    assert credential.pk in {row.pk for row in revoking._claim()}


def died_after_the_revoke(credential: Credential) -> None:
    died_after_the_claim(credential)
    vault.revoke(credential.accessor)


def died_after_the_lookup(credential: Credential) -> None:
    died_after_the_revoke(credential)
    assert vault.lookup(credential.accessor) is None


REVOKES = [
    died_after_the_intent,
    died_after_the_claim,
    died_after_the_revoke,
    died_after_the_lookup,
]


@pytest.mark.parametrize("revoke_and_die", REVOKES)
def test_whatever_step_the_revocation_died_at_another_worker_ends_it(
    revoke_and_die: Callable[[Credential], None],
    grant: Grant,
    servers: Servers,
    sweep: Sweep,
    role: Any,
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    with role("worker"):
        revoke_and_die(out.credential)
    out.credential.refresh_from_db()
    assert out.credential.state == CredentialState.REVOKING
    wait_out(out.credential, revoking.CLAIM.total_seconds() + 1)
    sweep()
    assert_proven_gone(out.credential)
    assert token_of(servers, out.secret) is None


def test_a_claimed_revocation_is_left_to_its_worker_for_a_while(
    grant: Grant, sweep: Sweep, role: Any
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    with role("worker"):
        died_after_the_claim(out.credential)
    sweep()
    out.credential.refresh_from_db()
    assert (out.credential.state, out.credential.attempts) == (CredentialState.REVOKING, 1)
    assert out.credential.next_attempt_at is not None
    assert out.credential.next_attempt_at <= clock.now() + dt.timedelta(seconds=60)


# ── Every way in which a grant ends takes its credential along ──────────────────────────────────


def expire(grant: Grant, world: World) -> EndReason:
    move(grant, starts_at=dt.timedelta(hours=-2), ends_at=dt.timedelta(hours=-2))
    return EndReason.EXPIRED


def deactivate(grant: Grant, world: World) -> EndReason:
    deactivate_user(by=None, user=grant.holder)
    return EndReason.REQUESTER_DEACTIVATED


def retire(grant: Grant, world: World) -> EndReason:
    from endpoints.actions import retire_endpoint

    retire_endpoint(by=None, endpoint=grant.request.profile.endpoint)
    return EndReason.ENDPOINT_RETIRED


def give_back(grant: Grant, world: World) -> EndReason:
    end_grant(grant_id=grant.pk, by=grant.holder)
    return EndReason.GIVEN_BACK


def take_away(grant: Grant, world: World) -> EndReason:
    end_grant(grant_id=grant.pk, by=world.person(grant.request.profile.reviewers))
    return EndReason.REVOKED


@pytest.mark.parametrize("end", [expire, deactivate, retire, give_back, take_away])
def test_however_a_grant_ends_its_credential_is_proven_gone(
    end: Callable[[Grant, World], EndReason],
    grant: Grant,
    world: World,
    servers: Servers,
    sweep: Sweep,
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    reason = end(grant, world)
    assert holding([out.credential.pk]) == {}, "refused before any worker runs"
    sweep()
    grant.refresh_from_db()
    assert (grant.state, grant.end_reason) == ("ended", reason)
    assert_proven_gone(out.credential)
    assert token_of(servers, out.secret) is None
    assert AuditEvent.objects.about(out.credential.pk).filter(event=Event.CREDENTIAL_REVOKED)


def test_a_grant_ended_behind_the_brokers_back_is_found(
    grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    """By hand in PostgreSQL, or by a bug: the credential is left active under an ended grant."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    Grant.objects.filter(pk=grant.pk).update(
        state="ended", ended_at=clock.now(), ended_by="an operator", end_reason="revoked"
    )
    sweep()
    assert_proven_gone(out.credential)
    assert token_of(servers, out.secret) is None


# ── A server fails ──────────────────────────────────────────────────────────────────────────────


@contextmanager
def sealed(servers: Servers) -> Iterator[None]:
    servers.seal()
    try:
        yield
    finally:
        servers.unseal()


@contextmanager
def stopped(servers: Servers) -> Iterator[None]:
    servers.openbao.stop()
    try:
        yield
    finally:
        servers.openbao.start()


@contextmanager
def killed(servers: Servers) -> Iterator[None]:
    servers.openbao.kill()
    try:
        yield
    finally:
        servers.openbao.start()


@contextmanager
def hanging(servers: Servers) -> Iterator[None]:
    servers.pause(servers.openbao)
    try:
        yield
    finally:
        servers.resume(servers.openbao)


FAULTS = [sealed, stopped, killed, hanging]


@pytest.mark.parametrize("fault", FAULTS)
def test_openbao_failing_while_it_is_to_revoke(
    fault: Callable[[Servers], Any], grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    with override_settings(VAULT_TIMEOUT=1):
        with fault(servers):
            end_grant(grant_id=grant.pk, by=grant.holder)
            assert holding([out.credential.pk]) == {}
            apart(sweep)
            out.credential.refresh_from_db()
            assert out.credential.state == CredentialState.REVOKING
            assert out.credential.last_error
        wait_out(out.credential, 60)
        apart(sweep)
    assert_proven_gone(out.credential)
    assert token_of(servers, out.secret) is None
    told = AuditEvent.objects.about(grant.pk).filter(event=Event.CREDENTIAL_STUCK)
    assert told.count() == 1, "the first failure is an event of the grant's"


@pytest.mark.parametrize("fault", FAULTS)
def test_openbao_failing_while_it_is_to_mint(
    fault: Callable[[Servers], Any], grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    """With `hanging` the call has reached it: it may mint once it wakes, for nobody."""
    with override_settings(VAULT_TIMEOUT=1):
        with fault(servers), pytest.raises(Unavailable, match="unharmed"):
            apart(lambda: check_out(by=grant.holder, grant_id=grant.pk))
        credential = Credential.objects.get(grant=grant)
        assert credential.state == CredentialState.REVOKING
        assert credential.revoke_reason == RevokeReason.DOUBT
        wait_out(credential, 80)
        apart(sweep)
    assert_proven_gone(credential)
    assert tokens_of(servers, grant) == []
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_the_answer_to_a_mint_is_lost(grant: Grant, servers: Servers, sweep: Sweep) -> None:
    """OpenBao did it, nobody heard: found by its name and taken back."""
    credential = died_after_the_mint(grant)
    checking_out._doubt(credential, Minted())
    assert len(tokens_of(servers, grant)) == 1
    sweep()
    assert_proven_gone(credential)
    assert tokens_of(servers, grant) == []


@pytest.mark.parametrize("attempts", [0, 1, 5, 50, 10_000])
def test_it_is_tried_again_within_a_minute_for_ever(
    attempts: int, grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    Credential.objects.filter(pk=out.credential.pk).update(attempts=attempts)
    with override_settings(VAULT_ADDR="http://127.0.0.1:9"):  # nothing listens there
        sweep()
    out.credential.refresh_from_db()
    assert out.credential.attempts == attempts + 1
    assert out.credential.next_attempt_at is not None
    pause = (out.credential.next_attempt_at - clock.now()).total_seconds()
    assert pause <= 60
    wait_out(out.credential, 60)
    sweep()
    assert_proven_gone(out.credential)


def test_a_refusal_by_policy_is_no_proof(
    grant: Grant, servers: Servers, sweep: Sweep, role: Any
) -> None:
    """A 403 can mean that the broker lost its rights, not that the token is gone."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    with role("gateway"):  # may neither revoke nor look an accessor up
        actions.sweep()
    out.credential.refresh_from_db()
    assert out.credential.state == CredentialState.REVOKING
    assert "refused" in out.credential.last_error
    assert token_of(servers, out.secret) is not None
    wait_out(out.credential, 60)
    sweep()
    assert_proven_gone(out.credential)


@contextmanager
def without_the_right_to_list(servers: Servers) -> Iterator[None]:
    policy: str = servers.vault("GET", "sys/policies/acl/worker")["data"]["policy"]
    lesser = policy.replace('path "auth/token/accessors/"', 'path "nothing"')
    assert lesser != policy
    servers.vault("PUT", "sys/policies/acl/worker", {"policy": lesser})
    try:
        yield
    finally:
        servers.vault("PUT", "sys/policies/acl/worker", {"policy": policy})


def test_a_mint_in_doubt_that_cannot_be_searched_for_holds_up_no_other(
    grant: Grant, world: World, servers: Servers, sweep: Sweep
) -> None:
    doubtful = died_after_the_mint(grant)
    checking_out._doubt(doubtful, Minted())
    other = world.grant()
    out = check_out(by=other.holder, grant_id=other.pk)
    end_grant(grant_id=other.pk, by=other.holder)
    with without_the_right_to_list(servers):
        sweep()
        assert_proven_gone(out.credential)
        assert token_of(servers, out.secret) is None
        doubtful.refresh_from_db()
        assert doubtful.state == CredentialState.REVOKING
        assert "refused" in doubtful.last_error
    wait_out(doubtful, 60)
    sweep()
    assert_proven_gone(doubtful)
    assert tokens_of(servers, grant) == []


def test_an_accessor_that_a_cut_off_mint_left_behind_stops_nothing(
    grant: Grant, world: World, servers: Servers, sweep: Sweep
) -> None:
    """OpenBao lists it for ever and answers 403 to looking it up."""
    with override_settings(VAULT_TIMEOUT=1), hanging(servers), pytest.raises(Unavailable):
        apart(lambda: check_out(by=grant.holder, grant_id=grant.pk))
    doubtful = died_after_the_mint(world.grant())
    checking_out._doubt(doubtful, Minted())
    sweep()
    assert_proven_gone(doubtful)


def test_a_mint_in_doubt_is_on_record_as_stuck_once_openbao_fails_too(
    grant: Grant, sweep: Sweep
) -> None:
    credential = died_before_the_mint(grant)
    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()  # not found so far: asked about again, which is no failure
    wait_out(credential, 10)
    with override_settings(VAULT_ADDR="http://127.0.0.1:9"):
        sweep()
    told = AuditEvent.objects.about(grant.pk).filter(event=Event.CREDENTIAL_STUCK)
    assert told.count() == 1


@pytest.mark.parametrize("fault", ["stopped", "hanging", "flushed"])
def test_valkey_failing_loses_nothing(
    fault: str, grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    """No doorbell is heard and no gateway is told; the rows that are due are the queue."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    match fault:
        case "stopped":
            servers.valkey.stop()
        case "hanging":
            servers.pause(servers.valkey)
        case "flushed":
            servers.flush_redis()
    try:
        end_grant(grant_id=grant.pk, by=grant.holder)
        sweep()
    finally:
        match fault:
            case "stopped":
                servers.valkey.start()
            case "hanging":
                servers.resume(servers.valkey)
    assert_proven_gone(out.credential)
    assert token_of(servers, out.secret) is None


def test_two_sweeps_at_once_end_each_thing_once(
    world: World, servers: Servers, sweep: Sweep, role: Any
) -> None:
    profile = world.profile()
    grants = [world.grant(profile=profile) for _ in range(8)]
    secrets = [check_out(by=grant.holder, grant_id=grant.pk).secret for grant in grants]
    for grant in grants:
        expire(grant, world)
    with role("worker"):
        outcomes = at_once([actions.sweep] * 4)
    assert not [each for each in outcomes if isinstance(each, Exception)], outcomes
    sweep()  # what one had locked while another looked
    for grant, secret in zip(grants, secrets, strict=True):
        credential = Credential.objects.get(grant=grant)
        assert_proven_gone(credential)
        assert token_of(servers, secret) is None
        events = AuditEvent.objects.about(grant.pk).values_list("event", flat=True)
        assert list(events).count(Event.GRANT_ENDED) == 1
        assert list(events).count(Event.CREDENTIAL_REVOKED) == 1


def test_revoked_without_a_proof_is_refused_by_postgresql(grant: Grant) -> None:
    from django.db import IntegrityError

    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=grant.holder)
    with pytest.raises(IntegrityError, match="credential_gone_is_proven"):
        Credential.objects.filter(pk=out.credential.pk).update(
            state="revoked", revoked_at=clock.now(), proof=""
        )
    with pytest.raises(Exception, match="Cannot delete"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM credentials_credential WHERE id = %s", [out.credential.pk])
