"""The whole matrix of a credential's moves, by hand in PostgreSQL and by the actions."""

from itertools import product
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from accessrequests.states import pairs
from audit import clock
from broker.errors import Conflict
from credentials.actions import check_out, checking_out, end_grant, revoking
from credentials.kinds.base import Minted
from credentials.models import Credential
from credentials.states import CREDENTIAL_MOVES, CredentialState
from tests.world import World

pytestmark = pytest.mark.django_db


def credential_at(state: CredentialState, world: World) -> Credential:
    grant = world.grant()
    if state == CredentialState.ISSUING:
        return checking_out._begin(by=grant.holder, grant_id=grant.pk)
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    if state in {CredentialState.REVOKING, CredentialState.REVOKED}:
        end_grant(grant_id=grant.pk, by=grant.holder)
    if state == CredentialState.REVOKED:
        revoking._close([credential], {str(credential.pk): "seen to be gone"})
    credential.refresh_from_db()
    assert credential.state == state
    return credential


def columns_of(state: CredentialState, credential: Credential) -> dict[str, Any]:
    """What else a row at this state has to hold."""
    now = clock.now()
    held: dict[str, Any] = {
        "revoking_since": None,
        "revoke_reason": "",
        "revoked_at": None,
        "proof": "",
        "next_attempt_at": None,
    }
    if state == CredentialState.ACTIVE:
        held |= {"issued_at": now, "accessor": credential.accessor or "an accessor"}
    if state in {CredentialState.REVOKING, CredentialState.REVOKED}:
        held |= {"revoking_since": now, "revoke_reason": "doubt", "next_attempt_at": now}
    if state == CredentialState.REVOKED:
        held |= {"revoked_at": now, "proof": "seen"}
    return held


@pytest.mark.parametrize(("source", "target"), list(product(CredentialState, CredentialState)))
def test_postgresql_lets_a_credential_make_the_moves_of_the_table_and_no_other(
    source: CredentialState, target: CredentialState, world: World
) -> None:
    credential = credential_at(source, world)
    rows = Credential.objects.filter(pk=credential.pk)
    legal = source == target or (source, target) in pairs(CREDENTIAL_MOVES)
    if legal:
        assert rows.update(state=target, **columns_of(target, credential)) == 1
    else:
        with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
            rows.update(state=target, **columns_of(target, credential))


@pytest.mark.parametrize(
    ("source", "target", "missing", "constraint"),
    [
        ("issuing", "active", {"accessor": ""}, "credential_active_is_known"),
        ("issuing", "active", {"issued_at": None}, "credential_active_is_known"),
        ("active", "revoking", {"revoking_since": None}, "credential_revoking_complete"),
        ("active", "revoking", {"revoke_reason": ""}, "credential_revoking_complete"),
        ("active", "revoking", {"next_attempt_at": None}, "credential_revoking_is_due"),
        ("revoking", "revoked", {"proof": ""}, "credential_gone_is_proven"),
        ("revoking", "revoked", {"revoked_at": None}, "credential_gone_is_proven"),
    ],
)
def test_postgresql_refuses_a_state_without_what_belongs_to_it(
    source: str, target: str, missing: dict[str, Any], constraint: str, world: World
) -> None:
    credential = credential_at(CredentialState(source), world)
    columns = columns_of(CredentialState(target), credential) | missing
    with pytest.raises(DatabaseError, match=constraint), transaction.atomic():
        Credential.objects.filter(pk=credential.pk).update(state=target, **columns)


@pytest.mark.parametrize("state", CredentialState)
def test_a_mint_is_confirmed_only_while_it_is_being_made(
    state: CredentialState, world: World
) -> None:
    credential = credential_at(state, world)
    holder = credential.grant.holder
    if state == CredentialState.ISSUING:
        checking_out._confirm(credential, Minted(accessor="an accessor"), holder)
        assert credential.state == CredentialState.ACTIVE
        return
    with pytest.raises(Conflict):
        checking_out._confirm(credential, Minted(accessor="an accessor"), holder)
    credential.refresh_from_db()
    assert credential.state == state


@pytest.mark.parametrize("state", CredentialState)
def test_doubt_leads_to_revoking_and_never_back(state: CredentialState, world: World) -> None:
    credential = credential_at(state, world)
    checking_out._doubt(credential, Minted())
    credential.refresh_from_db()
    gone = state == CredentialState.REVOKED
    assert credential.state == (CredentialState.REVOKED if gone else CredentialState.REVOKING)


@pytest.mark.parametrize("state", [each for each in CredentialState if each != "revoking"])
def test_only_what_is_being_revoked_is_ever_closed(state: CredentialState, world: World) -> None:
    credential = credential_at(state, world)
    revoking._close([credential], {str(credential.pk): "another proof"})
    credential.refresh_from_db()
    assert credential.state == state
    assert credential.proof != "another proof"


def test_no_move_leaves_the_last_state() -> None:
    assert not [target for source, target in pairs(CREDENTIAL_MOVES) if source == "revoked"]
