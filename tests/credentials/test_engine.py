"""Credentials of the kind `engine`: users of a Valkey, by OpenBao's plugin for it."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.test import override_settings

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit import clock
from broker.errors import InvalidInput, Unavailable
from credentials import vault
from credentials.actions import check_out, end_grant
from credentials.actions.checking_out import CheckedOut
from credentials.kinds import kind_of, leases
from credentials.kinds.base import Minted
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.kinds import Revocation
from endpoints.models import AccessProfile
from tests.faults.proxy import before
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

Sweep = Callable[[], int]
SETTINGS: dict[str, Any] = {"mount": "valkey", "path": "creds/reader", "revocation": "immediate"}


@pytest.fixture(scope="module")
def valkey(servers: Servers) -> Iterator[Servers]:
    """An engine whose credentials are users of the test run's Valkey."""
    parts = urlsplit(servers.redis_url)
    servers.vault("POST", "sys/mounts/valkey", {"type": "database"})
    servers.vault(
        "POST",
        "valkey/config/cache",
        {
            "plugin_name": "valkey-database-plugin",
            "host": "127.0.0.1",
            "port": parts.port,
            "username": "default",
            "password": parts.password,
            "tls": False,
            "allowed_roles": ["*"],
        },
    )
    servers.vault(
        "POST",
        "valkey/roles/reader",
        {
            "db_name": "cache",
            "creation_statements": '["~*", "+@read", "+@connection"]',
            "default_ttl": "60s",
            "max_ttl": "192h",
        },
    )
    yield servers
    servers.vault("DELETE", "sys/mounts/valkey")


@pytest.fixture
def grant(world: World, valkey: Servers) -> Grant:
    return world.grant(profile=profile(world))


def profile(world: World, **settings: Any) -> AccessProfile:
    return world.profile(credential_kind="engine", kind_settings=SETTINGS | settings)


def take(grant: Grant) -> CheckedOut:
    return check_out(by=grant.holder, grant_id=grant.pk)


def end(grant: Grant) -> None:
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)


def swept(credential: Credential, sweep: Sweep) -> CredentialState:
    """Its state once all that is due was tried again."""
    Credential.objects.filter(state=CredentialState.REVOKING).update(next_attempt_at=clock.now())
    sweep()
    credential.refresh_from_db()
    return CredentialState(credential.state)


def opens(servers: Servers, parts: dict[str, str]) -> bool:
    client = redis.Redis(
        port=urlsplit(servers.redis_url).port or 0,
        username=parts["username"],
        password=parts["password"],
    )
    try:
        client.get("anything")
    except redis.AuthenticationError:
        return False
    finally:
        client.close()
    return True


def test_it_opens_what_the_engine_serves_until_its_end(
    grant: Grant, valkey: Servers, sweep: Sweep
) -> None:
    out = take(grant)
    assert out.secret == out.parts["password"]
    assert opens(valkey, out.parts)
    body = {"lease_id": out.credential.handles["lease"]}
    held = valkey.vault("PUT", "sys/leases/lookup", body)["data"]
    expires = dt.datetime.fromisoformat(held["expire_time"])
    assert abs(expires - grant.ends_at) < dt.timedelta(seconds=5)
    assert expires <= grant.ends_at + dt.timedelta(seconds=1)
    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    assert not opens(valkey, out.parts)
    with pytest.raises(OSError, match="400"):
        valkey.vault("PUT", "sys/leases/lookup", body)


def test_a_lost_reply_is_found_by_elimination_and_nobody_elses_is_taken(
    grant: Grant,
    world: World,
    valkey: Servers,
    sweep: Sweep,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = grant.request.profile
    others = [take(world.grant(profile=same))]
    known = vault_leases(valkey)
    with before(valkey.vault_addr) as proxy, override_settings(VAULT_ADDR=proxy.url):
        proxy.drop_reply(b"GET /v1/valkey/creds/reader")
        with pytest.raises(Unavailable):
            take(grant)
    [left] = vault_leases(valkey) - known
    others.append(take(world.grant(profile=same)))
    lost = grant.credentials.get()
    monkeypatch.setattr(leases, "ON_RECORD_AFTER", dt.timedelta(seconds=-13))
    assert swept(lost, sweep) == CredentialState.REVOKED
    assert lost.handles["lease"] == left
    assert vault_leases(valkey) == known | {others[1].credential.handles["lease"]}
    assert all(opens(valkey, out.parts) for out in others)


def vault_leases(servers: Servers) -> set[str]:
    prefix = "valkey/creds/reader/"
    try:
        listed = servers.vault("LIST", f"sys/leases/lookup/{prefix}")["data"]["keys"]
    except OSError:
        return set()
    return {prefix + key for key in listed}


def test_what_cannot_be_taken_back_counts_as_gone_only_once_it_is_over(
    world: World, valkey: Servers, role: Any, sweep: Sweep
) -> None:
    valkey.vault(
        "POST",
        "valkey/roles/brief",
        {
            "db_name": "cache",
            "creation_statements": '["~*", "+@read"]',
            "default_ttl": "3s",
            "max_ttl": "3s",
        },
    )
    brief = profile(world, path="creds/brief", revocation="by_expiry")
    assert brief.revocation == Revocation.BY_EXPIRY
    grant = world.grant(profile=brief)
    out = take(grant)
    out.credential.refresh_from_db()
    assert out.credential.expires_at
    assert out.credential.expires_at < grant.ends_at
    end(grant)
    assert swept(out.credential, sweep) == CredentialState.REVOKING
    Credential.objects.filter(pk=out.credential.pk).update(expires_at=clock.now())
    assert swept(out.credential, sweep) == CredentialState.REVOKED
    assert "ended by itself" in out.credential.proof


def test_an_answer_without_the_field_to_paste_is_no_credential(
    world: World, valkey: Servers, sweep: Sweep
) -> None:
    grant = world.grant(profile=profile(world, secret_field="api_key"))
    known = vault_leases(valkey)
    with pytest.raises(Unavailable):
        take(grant)
    credential = grant.credentials.get()
    assert credential.handles["lease"]
    assert swept(credential, sweep) == CredentialState.REVOKED
    assert vault_leases(valkey) == known


def test_all_texts_of_an_answer_are_handed_over_and_nothing_else(grant: Grant) -> None:
    row = Credential(grant=grant, kind="engine", settings=SETTINGS | {"secret_field": "secret_key"})
    minted = Minted()
    data = {"access_key": "AK", "secret_key": "SK", "port": 5672, "security_token": None, "l": [1]}
    kind: Any = kind_of("engine")
    kind.take(row, vault.Lease("l", 60, False, data), minted)
    assert minted.parts == {
        "access_key": "AK",
        "secret_key": "SK",
        "port": "5672",
        "secret": "SK",
    }


@pytest.mark.parametrize(
    ("field", "hostile"),
    [
        ("mount", "../sys"),
        ("mount", "sys"),
        ("mount", "auth"),
        ("mount", "kv"),
        ("mount", "valkey/creds"),
        ("mount", "+"),
        ("path", "creds/../config/cache"),
        ("path", "creds/.."),
        ("path", "creds/%2e%2e/x"),
        ("path", "/creds/reader"),
        ("path", "creds/reader?list=true"),
        ("path", "creds//reader"),
        ("path", "creds/reader/"),
        ("path", "creds/reader\n"),
        ("path", "creds"),
        ("revocation", "by_rotation"),
        ("revocation", "never"),
        ("secret_field", "../x"),
        ("unheard", "of"),
    ],
)
def test_hostile_settings_are_refused_by_field(world: World, field: str, hostile: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        profile(world, **{field: hostile})
    assert set(refused.value.errors) == {f"kind_settings.{field}"}


@pytest.mark.parametrize("path", ["config/cache", "static-creds/x", "roles/reader"])
def test_what_the_policies_do_not_name_is_refused_by_vault(
    world: World, valkey: Servers, path: str
) -> None:
    grant = world.grant(profile=profile(world, path=path))
    with pytest.raises(Unavailable):
        take(grant)
