"""What lies between the broker and its servers goes wrong: replies are lost, requests come late."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from django.db import Error as DatabaseError
from django.db import connection
from django.test import override_settings

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Unavailable
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from credentials.states import CredentialState
from tests.credentials.targets import ROLE, Target
from tests.faults.killing import Act, until, wrong
from tests.faults.proxy import Fault, Proxy, before, status
from tests.invariants.races import apart
from tests.invariants.target import assert_proven_gone, tokens_of, wait_out
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

slow = pytest.mark.slow
Sweep = Callable[[], int]
MINT = b"POST /v1/auth/token/create-orphan"
CONFIRM = b"POST /v1/auth/token/renew-accessor"
REVOKE = b"POST /v1/auth/token/revoke-accessor"
LOOKUP = b"POST /v1/auth/token/lookup-accessor"
COMMIT = b"COMMIT\0"


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


@pytest.fixture
def vault_proxy(servers: Servers) -> Iterator[Proxy]:
    """Vault is behind it for the whole test."""
    with before(servers.vault_addr) as proxy, override_settings(VAULT_ADDR=proxy.url):
        yield proxy


@contextlib.contextmanager
def database_proxy(servers: Servers) -> Iterator[Proxy]:
    """PostgreSQL is behind it within the block."""
    known = connection.settings_dict
    port = known["PORT"]
    with before(servers.database_url) as proxy:
        connection.close()
        known["PORT"] = proxy.port
        try:
            yield proxy
        finally:
            known["PORT"] = port
            connection.close()


def converge(grant: Grant, sweep: Sweep) -> None:
    """What a worker does within the next two minutes, at once."""
    for _ in range(3):
        for credential in Credential.objects.filter(grant=grant):
            wait_out(credential, 80)
        sweep()


# ── Vault ───────────────────────────────────────────────────────────────────────────────────────

TELLING = "did it, its reply was lost"
FAULTS: dict[str, Callable[[Proxy, bytes], Fault]] = {
    TELLING: lambda proxy, call: proxy.drop_reply(call),
    "did it, and never replied": lambda proxy, call: proxy.lose_reply(call),
    "never heard of it": lambda proxy, call: proxy.reset(call),
    "429": lambda proxy, call: proxy.answer(
        call, status(429, "Too Many Requests", "Retry-After: 1")
    ),
    "500": lambda proxy, call: proxy.answer(call, status(500, "Internal Server Error")),
    "503": lambda proxy, call: proxy.answer(call, status(503, "Service Unavailable")),
}

TELLING = "did it, its reply was lost"
each_fault = pytest.mark.parametrize(
    "fault", [TELLING, *(pytest.param(each, marks=slow) for each in FAULTS if each != TELLING)]
)


@each_fault
@pytest.mark.parametrize("call", [MINT, CONFIRM], ids=["mint", "confirm"])
def test_a_check_out_whose_call_went_wrong_leaves_nothing(
    call: bytes, fault: str, vault_proxy: Proxy, grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    with override_settings(VAULT_TIMEOUT=1):
        struck = FAULTS[fault](vault_proxy, call)
        with pytest.raises(Unavailable, match="unharmed"):
            apart(lambda: check_out(by=grant.holder, grant_id=grant.pk))
    assert struck.struck == 1, "a mint isn't tried again"
    done = call == CONFIRM or "did it" in fault
    assert len(tokens_of(servers, grant)) == int(done)
    sweep()
    assert tokens_of(servers, grant) == [], "with the first sweep"
    converge(grant, sweep)
    assert wrong(servers, [grant]) == []
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


@each_fault
@pytest.mark.parametrize("call", [REVOKE, LOOKUP], ids=["revoke", "lookup"])
def test_a_revocation_whose_call_went_wrong_is_tried_again_until_it_is_proven(
    call: bytes, fault: str, vault_proxy: Proxy, grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    with override_settings(VAULT_TIMEOUT=1):
        struck = FAULTS[fault](vault_proxy, call)
        apart(sweep)
    assert struck.struck == 1
    credential = Credential.objects.get(grant=grant)
    assert credential.state == CredentialState.REVOKING
    assert credential.last_error
    assert wrong(servers, [grant], [secret]) != []
    converge(grant, sweep)
    assert wrong(servers, [grant], [secret]) == []
    ends = AuditEvent.objects.about(grant.pk).filter(event=Event.CREDENTIAL_REVOKED)
    assert ends.count() == 1


def test_a_mint_that_lands_after_its_time_out_is_found_and_taken_back(
    vault_proxy: Proxy, grant: Grant, servers: Servers, sweep: Sweep
) -> None:
    vault_proxy.deliver_late(MINT, 2)
    with override_settings(VAULT_TIMEOUT=1), pytest.raises(Unavailable):
        apart(lambda: check_out(by=grant.holder, grant_id=grant.pk))
    sweep()
    credential = Credential.objects.get(grant=grant)
    assert credential.state == CredentialState.REVOKING, "absence proves nothing yet"
    until(lambda: tokens_of(servers, grant), 5)
    wait_out(credential, 10)
    sweep()
    assert wrong(servers, [grant]) == []


def test_a_user_of_whom_openbao_itself_knows_nothing_is_ended_by_name(
    vault_proxy: Proxy, world: World, servers: Servers, target: Target, sweep: Sweep
) -> None:
    """As a crash of OpenBao leaves one: made, and all that was found of it is the token that its
    lease was to hang on."""
    grant = world.grant(profile=target.profile(world))
    vault_proxy.drop_reply(b"GET /v1/database/creds/")
    with pytest.raises(Unavailable):
        check_out(by=grant.holder, grant_id=grant.pk)
    credential = Credential.objects.get(grant=grant)
    [token] = tokens_of(servers, grant)
    Credential.objects.filter(pk=credential.pk).update(accessor=token["accessor"])
    target.stop()
    servers.vault("PUT", f"sys/leases/revoke-force/database/creds/{ROLE}", {})
    target.start()
    there = [user for user in target.users() if user.startswith(credential.name)]
    assert len(there) == 1
    sweep()
    wait_out(credential, 10)
    sweep()
    assert_proven_gone(credential)
    assert there[0] not in target.users()


# ── PostgreSQL ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("action", "did_it"),
    [
        ("check_out", True),
        pytest.param("end_grant", True, marks=slow),
        pytest.param("sweep", True, marks=slow),
        pytest.param("check_out", False, marks=slow),
        pytest.param("end_grant", False, marks=slow),
        pytest.param("sweep", False, marks=slow),
    ],
)
def test_a_commit_whose_outcome_is_unknown_is_no_leak(
    action: str, did_it: bool, world: World, servers: Servers, sweep: Sweep
) -> None:
    """Each COMMIT of each action in turn: its reply is lost, or it's lost itself."""
    profile = world.profile()
    for nth in range(1, 40):
        grant = world.grant(profile=profile)
        holder = grant.holder
        secrets = []
        if action != "check_out":
            secrets.append(check_out(by=holder, grant_id=grant.pk).secret)
        if action == "sweep":
            end_grant(grant_id=grant.pk, by=holder)
        with database_proxy(servers) as proxy:
            hit = (proxy.drop_reply if did_it else proxy.reset)(COMMIT, nth=nth)
            with contextlib.suppress(DatabaseError):
                match action:
                    case "check_out":
                        secrets.append(check_out(by=holder, grant_id=grant.pk).secret)
                    case "end_grant":
                        end_grant(grant_id=grant.pk, by=holder)
                    case _:
                        sweep()
        if not hit.struck:
            break
        assert len(tokens_of(servers, grant)) <= 1
        converge(grant, sweep)
        assert wrong(servers, [grant], secrets) == [], f"COMMIT {nth}"
        end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
        converge(grant, sweep)
        assert wrong(servers, [grant], secrets) == [], f"COMMIT {nth}, ended"
    assert nth > 1, "no COMMIT came by"


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_redis_that_never_replies_holds_up_no_end(
    servers: Servers, grant: Grant, sweep: Sweep, tmp_path
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    act = Act(servers, tmp_path)
    with before(servers.redis_url) as proxy:
        hit = proxy.lose_reply(b"PUBLISH", times=99)
        began = time.monotonic()
        done = act.run("end_grant", grant.pk, REDIS_URL=proxy.url)
        took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert hit.struck == 1, "given up after one, so that nobody waits"
    assert took < 10, "most of it is the start of a process"
    sweep()
    assert wrong(servers, [grant], [secret]) == []
