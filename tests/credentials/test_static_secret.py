"""Static keys: the same for everybody, and gone once they are rotated."""

import io
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import call_command

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Unavailable
from credentials import vault
from credentials.actions import check_out, confirm_retired, end_grant, rotate_due
from credentials.models import Credential, Rotation, UpstreamSecret, Use
from credentials.states import CredentialState, RotationReason
from endpoints.kinds import Revocation
from endpoints.models import AccessProfile
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("committed")

KEY = "sk-handed-out-canary-51b7"


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile(
        endpoint=world.endpoint(with_key=False, dialects=["direct"]),
        models=None,
        scope={"operations": ["CONNECT /"]},
        credential_kind="static_secret",
    )


def store(servers: Servers, profile: AccessProfile, key: str = KEY, version: int = 0) -> None:
    path = f"kv/data/handed-out/{profile.endpoint.slug}"
    servers.vault("POST", path, {"data": {"key": key}, "options": {"cas": version}})


def rotated(profile: AccessProfile, version: int) -> None:
    """What a rotation of this version leaves on record."""
    secret = UpstreamSecret.objects.get(endpoint=profile.endpoint, use=Use.HANDED_OUT)
    secret.rotations.open().update(state="created", new_version=2, created_at=clock.now())
    secret.rotations.open().update(state="published", published_at=clock.now())
    secret.rotations.open().update(
        state="retired", old_version=version, retired_at=clock.now(), proof="it is refused"
    )


def look_again(grants: list[Grant], sweep: Callable[[], int]) -> dict[object, Credential]:
    """As after the pause between two looks."""
    rows = Credential.objects.filter(grant__in=grants)
    rows.filter(state=CredentialState.REVOKING).update(next_attempt_at="2026-01-01T00:00:00Z")
    sweep()
    return {row.grant_id: row for row in rows}


def test_it_is_handed_out_and_counts_as_exposed(
    world: World, servers: Servers, profile: AccessProfile
) -> None:
    store(servers, profile)
    grant = world.grant(profile=profile)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert out.parts == {"secret": KEY}
    assert out.credential.handles == {"version": 1}
    event = AuditEvent.objects.get(event=Event.SECRET_EXPOSED, subject_id=profile.endpoint_id)
    assert (event.actor_id, event.data["version"]) == (grant.holder_id, 1)
    assert profile.revocation == Revocation.BY_ROTATION


def test_two_who_hold_the_same_version_are_both_gone_at_one_rotation(
    world: World, servers: Servers, profile: AccessProfile, sweep: Callable[[], int]
) -> None:
    store(servers, profile)
    grants = [world.grant(profile=profile) for _ in range(2)]
    for grant in grants:
        check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(grant_id=grants[0].pk, by=grants[0].holder)
    sweep()
    end_grant(grant_id=grants[1].pk, by=None, reason=EndReason.REVOKED)
    for row in look_again(grants, sweep).values():
        assert row.state == CredentialState.REVOKING
        assert row.last_error == "handed out as version 1; gone once that is rotated"
    # A new version alone retires nothing, nor does destroying the old one in Vault.
    store(servers, profile, "sk-next", version=1)
    path = f"kv/destroy/handed-out/{profile.endpoint.slug}"
    servers.vault("POST", path, {"versions": [1]})
    assert {row.state for row in look_again(grants, sweep).values()} == {CredentialState.REVOKING}

    secret = UpstreamSecret.objects.create(endpoint=profile.endpoint, use=Use.HANDED_OUT, version=1)
    Rotation.objects.create(secret=secret, why=RotationReason.EXPOSURE, old_version=1)
    rotated(profile, 1)
    for row in look_again(grants, sweep).values():
        assert row.state == CredentialState.REVOKED
        assert row.proof == "version 1 is rotated: it is refused"


def test_what_was_read_and_never_handed_out_is_gone_at_once(
    world: World,
    servers: Servers,
    profile: AccessProfile,
    sweep: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store(servers, profile)
    grant = world.grant(profile=profile)
    read = vault.handed_out_key

    def end_meanwhile(endpoint: str, *, version: int = 0) -> object:
        end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
        return read(endpoint, version=version)

    monkeypatch.setattr(vault, "handed_out_key", end_meanwhile)
    with pytest.raises(Exception, match="This grant ended"):
        check_out(by=grant.holder, grant_id=grant.pk)
    row = look_again([grant], sweep)[grant.pk]
    assert (row.state, row.proof) == (CredentialState.REVOKED, "it was never handed out")
    assert not AuditEvent.objects.filter(
        event=Event.SECRET_EXPOSED, subject_id=profile.endpoint_id
    ).exists()


def test_without_one_nothing_is_handed_out(world: World, profile: AccessProfile) -> None:
    grant = world.grant(profile=profile)
    with pytest.raises(Unavailable):
        check_out(by=grant.holder, grant_id=grant.pk)


def test_it_is_not_the_key_that_gateways_use(world: World, servers: Servers) -> None:
    endpoint = world.endpoint(with_key=True)
    profile = world.profile(endpoint=endpoint, credential_kind="static_secret")
    store(servers, profile)
    grant = world.grant(profile=profile)
    assert check_out(by=grant.holder, grant_id=grant.pk).secret == KEY


def test_from_the_command_that_stores_it_to_the_rotation_that_ends_it(
    world: World, upstream: Upstream, sweep: Callable[[], int], role: Any
) -> None:
    profile = world.profile(
        endpoint=world.endpoint(with_key=False, dialects=["openai"]),
        credential_kind="static_secret",
    )
    endpoint, owner = profile.endpoint, profile.endpoint.owner

    def enter(key: str) -> None:
        upstream.keys.add(key)
        with patch("sys.stdin", io.StringIO(f"{key}\n")):
            call_command("upstream_key", endpoint.slug, "--handed-out", stdout=io.StringIO())

    def rotate() -> Rotation | None:
        Rotation.objects.open().filter(secret__endpoint=endpoint).update(
            next_attempt_at=clock.now()
        )
        with role("worker"):
            rotate_due()
        return Rotation.objects.filter(secret__endpoint=endpoint).first()

    enter("sk-static-old")
    grant = world.grant(profile=profile)
    for _ in range(2):
        assert check_out(by=grant.holder, grant_id=grant.pk).secret == "sk-static-old"
    sweep()
    assert rotate() is None, "its holder got it twice, and still may have it"
    end_grant(grant_id=grant.pk, by=grant.holder)
    rotation = rotate()
    assert rotation is not None
    assert (rotation.why, rotation.old_version) == (RotationReason.EXPOSURE, 1)

    enter("sk-static-new")
    rotate()
    confirm_retired(by=owner, rotation_id=rotation.pk, proofs=PROVED)
    rotate()
    assert {row.state for row in look_all(grant, sweep)} == {CredentialState.REVOKING}
    upstream.keys.discard("sk-static-old")
    confirm_retired(by=owner, rotation_id=rotation.pk, proofs=PROVED)
    rotate()
    rows = look_all(grant, sweep)
    assert [row.state for row in rows] == [CredentialState.REVOKED] * 2
    assert {row.handles["version"] for row in rows} == {1}

    again = world.grant(profile=profile)
    assert check_out(by=again.holder, grant_id=again.pk).secret == "sk-static-new"
    # A key that somebody holds isn't merely replaced, were its grant to run on.
    enter("sk-static-newest")
    replaced = rotate()
    assert replaced is not None
    assert (replaced.old_version, replaced.new_version) == (2, 3)
    assert replaced.waits_for.startswith("the owner to delete the old key")


def look_all(grant: Grant, sweep: Callable[[], int]) -> list[Credential]:
    look_again([grant], sweep)
    return list(grant.credentials.all())
