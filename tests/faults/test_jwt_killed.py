"""SIGKILL at every failpoint that a JWT passes, in real processes.

Apart from the other kinds: nothing can end a JWT sooner than its own end.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db.models import F

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit import clock
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from credentials.states import CredentialState
from tests.faults.killing import Act
from tests.servers import Servers
from tests.world import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]


@pytest.fixture
def act(servers: Servers, tmp_path: Path) -> Act:
    return Act(servers, tmp_path)


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(profile=world.profile(credential_kind="jwt"))


def signatures(act: Act) -> int:
    """How many times Vault signed for these processes."""
    file = act._loot
    return file.read_text().count('"path": "/v1/transit/sign/') if file.exists() else 0


def pass_by(grant: Grant) -> None:
    Credential.objects.filter(grant=grant).update(
        expires_at=F("expires_at") - dt.timedelta(minutes=6), next_attempt_at=clock.now()
    )


@pytest.mark.parametrize(
    ("failpoint", "signed"),
    [
        ("mint:before-intent", False),
        ("mint:after-intent", False),
        ("mint:token-made", True),
        ("mint:made", True),
        ("mint:recorded", True),
        ("mint:confirmed", True),
    ],
)
def test_a_mint(
    failpoint: str, signed: bool, act: Act, grant: Grant, sweep: Callable[[], int]
) -> None:
    act.dies_at(failpoint, "check_out", grant.pk)
    assert signatures(act) == signed
    row = Credential.objects.filter(grant=grant).first()
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    sweep()
    if row is None:
        assert failpoint == "mint:before-intent"
        return
    row.refresh_from_db()
    assert (row.expires_at is not None) is signed, "what was signed is on record with its end"
    assert row.state == (CredentialState.REVOKING if signed else CredentialState.REVOKED)
    pass_by(grant)
    sweep()
    row.refresh_from_db()
    assert row.state == CredentialState.REVOKED


@pytest.mark.parametrize(
    "failpoint", ["revoke:claimed", "revoke:done", "revoke:proven", "revoke:closed"]
)
def test_its_end(failpoint: str, act: Act, grant: Grant, sweep: Callable[[], int]) -> None:
    check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    pass_by(grant)
    act.dies_at(failpoint, "sweep", role="worker")
    Credential.objects.filter(grant=grant, state=CredentialState.REVOKING).update(
        next_attempt_at=clock.now()
    )
    sweep()
    row = Credential.objects.get(grant=grant)
    assert row.state == CredentialState.REVOKED
    assert row.proof.startswith("its last token expired at ")
