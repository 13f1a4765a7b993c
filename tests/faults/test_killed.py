"""SIGKILL at every failpoint of minting and of revoking, in real processes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from accessrequests.models import Grant
from accessrequests.states import EndReason
from credentials.actions import check_out, end_grant
from credentials.failpoints import FAILPOINTS
from credentials.models import Credential
from credentials.states import CredentialState
from tests.faults.killing import Act, wrong
from tests.invariants.target import assert_proven_gone, token_of, tokens_of, wait_out
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def act(servers: Servers, tmp_path: Path) -> Act:
    return Act(servers, tmp_path)


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(profile=world.profile(with_key=True))


def test_a_mint_that_died_with_its_token_made_is_taken_back(
    act: Act, grant: Grant, servers: Servers, sweep: Callable[[], int]
) -> None:
    act.dies_at("mint:made", "check_out", grant.pk)
    credential = Credential.objects.get(grant=grant)
    assert credential.state == CredentialState.ISSUING
    assert len(tokens_of(servers, grant)) == 1, "and nobody has been told of it"
    wait_out(credential, 80)
    sweep()
    assert_proven_gone(credential)
    assert len(act.loot()) == 1
    assert wrong(servers, [grant], act.loot()) == []
    again = act.run("check_out", grant.pk)
    assert token_of(servers, again.stdout.strip()), again.stderr


def test_a_revocation_that_died_before_its_proof_is_ended_by_the_next_worker(
    act: Act, grant: Grant, servers: Servers, sweep: Callable[[], int]
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    credential = Credential.objects.get(grant=grant)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    act.dies_at("revoke:done", "sweep", role="worker")
    credential.refresh_from_db()
    assert credential.state == CredentialState.REVOKING
    wait_out(credential, 40)
    sweep()
    assert wrong(servers, [grant], [secret]) == []


def test_each_failpoint_stands_in_the_code() -> None:
    """That each is reached by some kind is for tests/faults/test_killed_everywhere.py."""
    code = "".join(path.read_text() for path in Path("credentials").rglob("*.py"))
    assert set(re.findall(r'reached\("([a-z:-]+)"\)', code)) == set(FAILPOINTS)
