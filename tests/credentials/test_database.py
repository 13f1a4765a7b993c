"""Credentials of the kind `database`, at a PostgreSQL that can be taken down."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
from django.test import override_settings
from ulid import ULID

from accessrequests.models import Grant
from accessrequests.states import EndReason
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import InvalidInput, Unavailable
from credentials import vault
from credentials.actions import check_out, end_grant
from credentials.actions.checking_out import CheckedOut
from credentials.actions.reconciling import reconcile
from credentials.kinds import kind_of, leases
from credentials.kinds.base import Minted, TargetDown
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.models import AccessProfile, Endpoint
from tests.credentials.targets import MONITOR, ROLE, Target, example
from tests.faults.killing import until
from tests.faults.proxy import Proxy, before
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

Sweep = Callable[[], int]
CREDS = f"GET /v1/database/creds/{ROLE}".encode()


@pytest.fixture
def grant(world: World, target: Target) -> Grant:
    return world.grant(profile=target.profile(world))


def take(grant: Grant) -> CheckedOut:
    return check_out(by=grant.holder, grant_id=grant.pk)


def end(grant: Grant) -> None:
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)


def due_now() -> None:
    Credential.objects.filter(state=CredentialState.REVOKING).update(next_attempt_at=clock.now())


def swept(credential: Credential, sweep: Sweep) -> CredentialState:
    """Its state once all that is due was tried again."""
    due_now()
    sweep()
    credential.refresh_from_db()
    return CredentialState(credential.state)


def lease_of(servers: Servers, credential: Credential) -> dict[str, Any] | None:
    """What OpenBao itself says of its lease."""
    try:
        body = {"lease_id": credential.handles["lease"]}
        return dict(servers.vault("PUT", "sys/leases/lookup", body)["data"])
    except OSError:
        return None


def test_it_opens_the_database_to_the_end_of_the_grant_and_no_longer(
    grant: Grant, target: Target, servers: Servers, sweep: Sweep
) -> None:
    out = take(grant)
    user = out.parts["username"]
    assert user == f"{out.credential.name}-{ROLE}"
    assert out.secret == out.parts["password"]
    assert out.secret not in repr(out) + str(out.credential.handles)
    with target.superuser() as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO keyturn_reader")
    session = psycopg.connect(out.parts["url"], autocommit=True)
    session.execute("CREATE TABLE IF NOT EXISTS mine AS SELECT * FROM orders")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT keyturn.end_user(%s)", [user])

    latest = grant.ends_at + dt.timedelta(seconds=1)
    [(until_then,)] = target.rows("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", user)
    assert grant.ends_at - dt.timedelta(seconds=5) < until_then <= latest
    held = lease_of(servers, out.credential)
    assert held
    assert dt.datetime.fromisoformat(held["expire_time"]) <= latest
    owner = servers.vault(
        "POST", "auth/token/lookup-accessor", {"accessor": out.credential.accessor}
    )["data"]
    assert dt.datetime.fromisoformat(owner["expire_time"]) <= latest
    assert owner["policies"] == ["lease-owner"]
    assert owner["explicit_max_ttl"] <= 3600

    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    assert user not in target.users()
    assert target.rows("SELECT FROM pg_tables WHERE tablename = 'mine'") == []
    assert not target.opens(out.parts["url"])
    assert lease_of(servers, out.credential) is None
    assert "no user" in out.credential.proof
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


def test_checking_out_again_replaces(grant: Grant, target: Target, sweep: Sweep) -> None:
    first, second = take(grant), take(grant)
    assert swept(first.credential, sweep) == CredentialState.REVOKED
    assert not target.opens(first.parts["url"])
    assert target.opens(second.parts["url"])


def test_while_the_target_is_down_it_stays_revoking_and_says_why(
    grant: Grant, target: Target, sweep: Sweep
) -> None:
    out = take(grant)
    target.stop()
    try:
        end(grant)
        assert swept(out.credential, sweep) == CredentialState.REVOKING
        assert swept(out.credential, sweep) == CredentialState.REVOKING
        assert out.credential.last_error
        assert AuditEvent.objects.filter(
            event=Event.CREDENTIAL_STUCK, subject_id=out.credential.pk
        ).exists()
    finally:
        target.start()
    assert out.parts["username"] in target.users()
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    assert out.parts["username"] not in target.users()


@pytest.mark.slow
def test_a_target_that_hangs_is_not_taken_for_a_vault_that_is_down(
    grant: Grant, target: Target, role: Any
) -> None:
    out = take(grant)
    kind = kind_of("database")
    began = time.monotonic()
    with role("worker"), override_settings(VAULT_TIMEOUT=2):
        with target.hanging():
            for _ in range(2):
                out.credential.attempts += 1
                with pytest.raises(TargetDown) as down:
                    kind.revoke(out.credential)
                assert down.value.target == kind.target(out.credential)
                vault.ping()
            assert kind.gone([out.credential]) == {}
        assert time.monotonic() - began < 20
        kind.revoke(out.credential)
        assert kind.gone([out.credential])


def test_a_target_that_is_down_is_no_check_out(grant: Grant, target_down: Target) -> None:
    with pytest.raises(Unavailable):
        take(grant)
    credential = grant.credentials.get()
    assert credential.state == CredentialState.REVOKING
    assert credential.accessor
    vault.ping()


def test_a_target_that_goes_down_half_way_leaves_nothing_behind(
    grant: Grant, target: Target, role: Any, sweep: Sweep
) -> None:
    row = Credential.objects.create(
        grant=grant, kind="database", settings=grant.request.profile.kind_settings
    )
    kind, minted = kind_of("database"), Minted()
    kind.mint(row, 3600, minted)
    row.accessor, row.handles = minted.accessor, minted.handles
    target.stop()
    try:
        with pytest.raises(vault.LeaseStuck):
            kind.confirm(row, 3600)
        with role("worker"), pytest.raises(TargetDown) as down:
            list(kind.strays())
        assert down.value.target == kind.target(row)
    finally:
        target.start()
    with role("worker"):
        kind.revoke(row)
        assert kind.gone([row])


def test_where_vault_lost_its_access_the_worker_ends_the_user_itself(
    grant: Grant, target: Target, servers: Servers, sweep: Sweep
) -> None:
    out = take(grant)
    session = psycopg.connect(out.parts["url"], autocommit=True)
    with target.superuser() as connection:
        connection.execute("ALTER ROLE keyturn_engine NOLOGIN")
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
            " WHERE usename = 'keyturn_engine'"
        )
    try:
        end(grant)
        assert swept(out.credential, sweep) == CredentialState.REVOKING
        assert swept(out.credential, sweep) == CredentialState.REVOKING
        assert out.parts["username"] not in target.users()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert lease_of(servers, out.credential) is not None
    finally:
        with target.superuser() as connection:
            connection.execute("ALTER ROLE keyturn_engine LOGIN")
    assert swept(out.credential, sweep) == CredentialState.REVOKED


def test_who_left_something_elsewhere_is_locked_out_and_the_rest_is_reported(
    grant: Grant, target: Target, sweep: Sweep
) -> None:
    with target.superuser("postgres") as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO keyturn_reader")
    out = take(grant)
    elsewhere = out.parts["url"].replace("/orders?", "/postgres?")
    with psycopg.connect(elsewhere, autocommit=True) as session:
        session.execute("CREATE TABLE left_behind ()")
    session = psycopg.connect(out.parts["url"], autocommit=True)
    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKING
    assert not target.opens(out.parts["url"])
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert swept(out.credential, sweep) == CredentialState.REVOKING
    assert "in database postgres" in out.credential.last_error
    with target.superuser("postgres") as connection:
        connection.execute("DROP TABLE left_behind")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM keyturn_reader")
    assert swept(out.credential, sweep) == CredentialState.REVOKED


def test_two_users_cannot_keep_one_another(world: World, target: Target, sweep: Sweep) -> None:
    with target.superuser() as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO keyturn_reader")
    profile = target.profile(world)
    grants = [world.grant(profile=profile) for _ in range(2)]
    first, second = map(take, grants)
    with psycopg.connect(first.parts["url"]) as session:
        session.execute("CREATE TABLE base (id int)")
        session.execute("GRANT SELECT ON base TO PUBLIC")
    with psycopg.connect(second.parts["url"]) as session:
        session.execute("CREATE VIEW upon AS SELECT * FROM base")
    end(grants[0])
    assert swept(first.credential, sweep) == CredentialState.REVOKED
    assert target.opens(second.parts["url"])


def test_a_session_that_outlives_its_user_is_ended_before_anything_counts_as_gone(
    grant: Grant, target: Target, role: Any, sweep: Sweep
) -> None:
    out = take(grant)
    session = psycopg.connect(out.parts["url"], autocommit=True)
    user = out.parts["username"]
    with target.superuser() as connection:
        connection.execute(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"'.encode())
    session.execute("SELECT 1")
    with role("worker"):
        assert kind_of("database").gone([out.credential]) == {}
    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")


# Lost answers


@pytest.fixture
def vault_proxy(servers: Servers) -> Iterator[Proxy]:
    with before(servers.vault_addr) as proxy, override_settings(VAULT_ADDR=proxy.url):
        yield proxy


def test_what_a_lost_reply_left_is_found_by_name_and_nothing_else_is_taken(
    grant: Grant,
    world: World,
    target: Target,
    servers: Servers,
    vault_proxy: Proxy,
    sweep: Sweep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = take(world.grant(profile=target.profile(world)))
    vault_proxy.drop_reply(CREDS)
    with pytest.raises(Unavailable):
        take(grant)
    innocent = take(world.grant(profile=target.profile(world)))
    lost = grant.credentials.get()
    [there] = [name for name in target.users() if name.startswith(lost.name)]
    assert swept(lost, sweep) == CredentialState.REVOKING
    assert there in target.users(), "too early to tell its lease from one that's being made"
    monkeypatch.setattr(leases, "ON_RECORD_AFTER", dt.timedelta(seconds=-13))
    assert swept(lost, sweep) == CredentialState.REVOKED
    assert lost.accessor
    assert lost.handles["username"] == there
    assert lease_of(servers, lost) is None
    assert there not in target.users()
    for out in (other, innocent):
        assert target.opens(out.parts["url"])
        assert lease_of(servers, out.credential) is not None


@pytest.mark.slow
def test_what_nobody_confirmed_dies_by_itself_within_a_minute(grant: Grant, target: Target) -> None:
    row = Credential.objects.create(
        grant=grant, kind="database", settings=grant.request.profile.kind_settings
    )
    minted = Minted()
    kind_of("database").mint(row, 3600, minted)
    assert target.opens(minted.parts["url"])
    took = until(lambda: minted.handles["username"] not in target.users(), 75)
    assert took > 50


@pytest.mark.slow
def test_down_for_longer_than_vaults_own_tries(
    grant: Grant, target: Target, servers: Servers, sweep: Sweep
) -> None:
    out = take(grant)
    target.stop()
    try:
        end(grant)
        swept(out.credential, sweep)

        def given_up() -> bool:
            listed = servers.vault("GET", "sys/leases?type=irrevocable")["data"]["leases"]
            return any(each["lease_id"] == out.credential.handles["lease"] for each in listed)

        # Without our own tries: each of them begins Vault's anew.
        until(given_up, 15 * 60)
    finally:
        target.start()
    assert until(lambda: swept(out.credential, sweep) == CredentialState.REVOKED, 60) < 60
    assert out.parts["username"] not in target.users()


# Strays


def test_users_and_leases_that_nobody_owns_are_ended_and_others_are_not(
    grant: Grant, target: Target, servers: Servers, role: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = take(grant)
    forgotten = f"kt-{ULID()}-{ROLE}".lower()
    with target.superuser() as connection:
        connection.execute("CREATE ROLE kt_not_ours LOGIN")
        connection.execute("SET ROLE keyturn_engine")
        connection.execute(f'CREATE ROLE "{forgotten}" LOGIN'.encode())
    owner = vault.mint(
        name=f"kt-{ULID()}".lower(), meta={}, lifetime=600, policy=vault.OWNER_POLICY
    )
    stray = vault.take_lease(f"database/creds/{ROLE}", owner=owner.token).id
    monkeypatch.setattr(leases, "UNKNOWN_AFTER", dt.timedelta(seconds=-5))
    with role("worker"):
        row = reconcile()
    assert not row.left, row.left
    assert forgotten not in target.users()
    [(kept,)] = target.rows("SELECT count(*) FROM pg_roles WHERE rolname = 'kt_not_ours'")
    assert kept == 1
    assert target.opens(out.parts["url"])
    with pytest.raises(OSError, match="400"):
        servers.vault("PUT", "sys/leases/lookup", {"lease_id": stray})


# Abuse


def monitor_of(target: Target, servers: Servers) -> psycopg.Connection[Any]:
    login = servers.vault("GET", f"database/static-creds/{MONITOR}")["data"]
    host, _, port = target.address.partition(":")
    return psycopg.connect(
        host=host,
        port=port,
        dbname="orders",
        user=login["username"],
        password=login["password"],
        autocommit=True,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT keyturn.end_user('postgres')",
        "SELECT keyturn.end_user('keyturn_engine')",
        "SELECT keyturn.end_user('kt-01jx0000000000000000000000\"; DROP ROLE keyturn_reader; --')",
        "SELECT keyturn.end_user(E'kt-01jx0000000000000000000000\\npostgres')",
        "SELECT keyturn.end_user('kt-')",
        "SELECT keyturn.extend_user('keyturn_monitor', now())",
        "SELECT * FROM orders",
        "CREATE ROLE another",
        "CREATE TABLE keyturn.mine ()",
        "SET ROLE keyturn_engine",
        "SET ROLE keyturn_reader",
        "ALTER ROLE keyturn_reader LOGIN",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    ],
)
def test_the_monitor_may_look_and_end_our_users_and_nothing_else(
    target: Target, servers: Servers, statement: str
) -> None:
    with (
        target.superuser(),
        monitor_of(target, servers) as connection,
        pytest.raises(psycopg.Error) as refused,
    ):
        connection.execute(statement.encode())
    assert refused.value.sqlstate in {"42501", "P0001"}, refused.value


@pytest.mark.parametrize(
    "field", ["mount", "role", "monitor", "target", "sslmode", "kind_settings"]
)
@pytest.mark.parametrize(
    "hostile",
    [
        "../sys",
        "a/b",
        "a/../b",
        "a%2fb",
        "a b",
        "a\n",
        "",
        "a?list=true",
        "+",
        "*",
        "{{name}}",
        "ä",
        "x" * 70,
        None,
        ["a"],
    ],
    ids=repr,
)
def test_settings_with_anything_else_than_a_name_are_refused_by_field(
    target: Target, field: str, hostile: Any
) -> None:
    settings = target.settings()
    with pytest.raises(InvalidInput) as refused:
        kind_of("database").check({**settings, field: hostile})
    assert field in refused.value.errors


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:secret@db.internal:5432/orders",
        "postgresql://db.internal:5432/orders?host=/tmp",
        "postgresql:///orders?host=other",
        "postgresql://a,b/orders",
        "postgresql://db.internal:5432/orders\n",
        "postgresql://db.internal:543210/orders",
        "mysql://db.internal/orders",
        "postgresql://db.internal:99999/orders",
    ],
)
def test_a_target_is_a_host_a_port_and_a_database(target: Target, url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        kind_of("database").check(target.settings(target=url))
    assert set(refused.value.errors) == {"target"}


def test_hostile_names_reach_neither_vault_nor_the_target(
    world: World, target: Target, sweep: Sweep
) -> None:
    hostile = "'); DROP ROLE keyturn_reader; --\"{{name}}../../sys\u202e"
    profile = target.profile(world)
    AccessProfile.objects.filter(pk=profile.pk).update(name=hostile[:100])
    Endpoint.objects.filter(pk=profile.endpoint_id).update(name=hostile[:100])
    profile.refresh_from_db()
    holder = world.person(profile.requesters)
    User.objects.filter(pk=holder.pk).update(full_name=hostile)
    grant = world.grant(profile=profile, requester=holder)
    out = take(grant)
    assert target.opens(out.parts["url"])
    assert out.parts["username"] == f"{out.credential.name}-{ROLE}"
    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    assert target.rows("SELECT count(*) FROM pg_roles WHERE rolname = 'keyturn_reader'") == [(1,)]


@pytest.fixture
def odd(servers: Servers, target: Target) -> Iterator[Callable[..., dict[str, Any]]]:
    """Configures a role `odd` as operators shouldn't, and gives settings that name it."""
    known = servers.vault("GET", "database/config/orders")["data"]
    template = {"username_template": known["connection_details"]["username_template"]}

    def configure(config: dict[str, str], role: dict[str, str]) -> dict[str, Any]:
        allowed = {"allowed_roles": [*known["allowed_roles"], "odd"]}
        servers.vault("POST", "database/config/orders", allowed | config)
        servers.vault("POST", "database/roles/odd", example("role.json") | role)
        return target.settings(role="odd")

    yield configure
    servers.vault("POST", "database/config/orders", template)


def test_what_would_live_for_an_hour_unconfirmed_is_refused_and_taken_back(
    world: World, target: Target, odd: Callable[..., dict[str, Any]], sweep: Sweep
) -> None:
    settings = odd({}, {"default_ttl": "1h"})
    grant = world.grant(profile=target.profile(world, kind_settings=settings))
    with pytest.raises(Unavailable):
        take(grant)
    credential = grant.credentials.get()
    assert credential.handles["username"] in target.users()
    assert swept(credential, sweep) == CredentialState.REVOKED
    assert credential.handles["username"] not in target.users()


def test_a_user_without_a_credentials_name_is_not_even_made(
    world: World, target: Target, odd: Callable[..., dict[str, Any]], sweep: Sweep
) -> None:
    settings = odd({"username_template": "{{ random 20 }}"}, {})
    grant = world.grant(profile=target.profile(world, kind_settings=settings))
    users = target.rows("SELECT rolname FROM pg_roles")
    with pytest.raises(Unavailable):
        take(grant)
    assert swept(grant.credentials.get(), sweep) == CredentialState.REVOKED
    assert target.rows("SELECT rolname FROM pg_roles") == users


def test_the_url_is_whole_whatever_the_password_is(target: Target, grant: Grant) -> None:
    row = Credential(grant=grant, kind="database", settings=target.settings(mount="database"))
    awkward = "p@ss/w:rd?#%[]& \"'"
    minted = Minted()
    data = {"username": f"{row.name}-x", "password": awkward}
    kind: Any = kind_of("database")
    kind.take(row, vault.Lease("l", 60, True, data), minted)
    parts = urlsplit(minted.parts["url"])
    assert unquote(parts.password or "") == awkward
    assert parts.path == "/orders"
    assert parts.hostname == "127.0.0.1"
