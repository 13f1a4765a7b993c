"""JWTs: what they say, how long they last, and that nothing of theirs is taken for gone early."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings as deployment
from django.core.management import call_command
from django.db.models import F
from django.test import Client

from accessrequests.models import Grant
from accounts.actions import deactivate_user, leave_group
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotLive,
    Unavailable,
)
from credentials import signing, vault
from credentials.actions import check_out, end_grant, refresh, revoke_due, sweep, take_back
from credentials.kinds import kind_of
from credentials.kinds.base import Minted
from credentials.live import holding
from credentials.models import Credential
from credentials.standing import standing
from credentials.states import CredentialState, RevokeReason
from credentials.stopping import stop
from endpoints.kinds import Revocation
from tests.invariants.races import at_once
from tests.servers import Servers
from tests.world import PROVED, World, move

MINUTES = dt.timedelta(minutes=1)


@pytest.fixture
def grant(world: World, db: None) -> Grant:
    return a_grant(world)


def a_grant(world: World, **settings: Any) -> Grant:
    profile = world.profile(credential_kind="jwt", kind_settings=settings)
    return world.grant(profile=profile, models=["demo-large", "demo-small"])


def jwks() -> dict[str, jwt.PyJWK]:
    """The keys as they are published."""
    answer = Client().get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert not answer.cookies
    return {each.key_id: each for each in jwt.PyJWKSet.from_dict(answer.json()).keys if each.key_id}


def claims(token: str, audience: str) -> dict[str, Any]:
    """What anybody reads who verifies by the published keys."""
    key = jwks()[jwt.get_unverified_header(token)["kid"]]
    found: dict[str, Any] = jwt.decode(
        token, key, algorithms=["ES256"], audience=audience, issuer=deployment.KEYTURN_BASE_URL,
    )  # fmt: skip
    return found


def aud(grant: Grant) -> str:
    return f"{deployment.KEYTURN_GATEWAY_URL}/e/{grant.request.profile.endpoint.slug}"


def fresh(credential: Credential) -> Credential:
    return Credential.objects.select_related("grant").get(pk=credential.pk)


def pass_by(credential: Credential, by: dt.timedelta = 6 * MINUTES) -> None:
    """As if this much time had gone by since it was signed."""
    Credential.objects.filter(pk=credential.pk).update(
        expires_at=F("expires_at") - by, next_attempt_at=clock.now()
    )


def test_what_it_says(grant: Grant) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    header = jwt.get_unverified_header(out.secret)
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": out.credential.handles["kid"]}
    said = claims(out.secret, aud(grant))
    credential = fresh(out.credential)
    assert credential.expires_at is not None
    assert said == {
        "iss": deployment.KEYTURN_BASE_URL,
        "aud": aud(grant),
        "sub": str(grant.holder_id),
        "client_id": str(grant.pk),
        "grant": str(grant.pk),
        "credential": str(credential.pk),
        "scope": "demo-large demo-small",
        "authorization_details": [{"type": "keyturn", "models": ["demo-large", "demo-small"]}],
        "jti": said["jti"],
        "iat": said["iat"],
        "nbf": said["iat"],
        "exp": int(credential.expires_at.timestamp()),
    }
    assert 295 <= said["exp"] - said["iat"] <= 300
    assert grant.holder.email not in str(said)
    assert grant.request.profile.revocation == Revocation.BY_EXPIRY


def test_never_past_its_grant(grant: Grant) -> None:
    move(grant, starts_at=-57 * MINUTES, ends_at=-57.5 * MINUTES)
    token = check_out(by=grant.holder, grant_id=grant.pk).secret
    again = refresh(by=grant.holder, grant_id=grant.pk).secret
    for each in (token, again):
        assert claims(each, aud(grant))["exp"] == int(grant.ends_at.timestamp())


def test_for_another_audience(world: World, db: None) -> None:
    grant = a_grant(world, audience="https://llm.example.com")
    token = check_out(by=grant.holder, grant_id=grant.pk).secret
    assert claims(token, "https://llm.example.com")["aud"] == "https://llm.example.com"
    with pytest.raises(jwt.InvalidAudienceError):
        claims(token, aud(grant))


@pytest.mark.parametrize(
    "audience", ["two words", "x" * 301, "é", deployment.KEYTURN_GATEWAY_URL + "/e/another"]
)
def test_no_audience_that_could_be_another(audience: str) -> None:
    with pytest.raises(InvalidInput, match="audience"):
        kind_of("jwt").check({"audience": audience})


def test_through_a_rotation_of_the_key(
    grant: Grant, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = check_out(by=grant.holder, grant_id=grant.pk).secret
    servers.vault("POST", "transit/keys/credentials/rotate", {})
    signing.ask_again()
    during = refresh(by=grant.holder, grant_id=grant.pk).secret
    kids = [jwt.get_unverified_header(each)["kid"] for each in (before, during)]
    assert kids[0] == kids[1], "the new one is published first"
    monkeypatch.setattr(signing, "lead", dt.timedelta)
    after = refresh(by=grant.holder, grant_id=grant.pk).secret
    assert jwt.get_unverified_header(after)["kid"] not in kids
    for token in (before, during, after):
        assert claims(token, aud(grant))["credential"] == claims(before, aud(grant))["credential"]


def test_a_version_that_was_withdrawn(grant: Grant, servers: Servers) -> None:
    """It's refused as soon as that is known, and the newest signs without waiting."""
    before = check_out(by=grant.holder, grant_id=grant.pk).secret
    old = jwt.get_unverified_header(before)["kid"]
    answer = servers.vault("POST", "transit/keys/credentials/rotate", {})
    newest, config = answer["data"]["latest_version"], "transit/keys/credentials/config"
    servers.vault("POST", config, {"min_decryption_version": newest})
    try:
        # This process still holds the old one for good: the first try finds out.
        with pytest.raises(Unavailable):
            refresh(by=grant.holder, grant_id=grant.pk)
        after = refresh(by=grant.holder, grant_id=grant.pk).secret
        assert jwt.get_unverified_header(after)["kid"] != old
        assert old not in jwks()
        assert take_back(by=None, secret=before) is False
        assert take_back(by=None, secret=after) is True
    finally:
        servers.vault("POST", config, {"min_decryption_version": 1})
        signing.ask_again()


def version(number: int, created_at: dt.datetime) -> signing.Version:
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    public = vault._base64(raw)
    return signing.Version.of(vault.KeyVersion(number, "ed25519", public, created_at))


def test_which_version_signs_and_which_are_published() -> None:
    begun = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    one, two = version(1, begun), version(2, begun + dt.timedelta(days=90))
    keys, lead = signing.Keys((one, two)), signing.lead()
    assert keys.signer(begun) == one, "there was none before"
    told = {
        two.created_at: (one, (one, two)),
        two.created_at + lead - MINUTES: (one, (one, two)),
        two.created_at + lead: (two, (one, two)),
        two.created_at + lead + signing.LONGEST: (two, (one, two)),
        two.created_at + lead + signing.LONGEST + MINUTES: (two, (two,)),
    }
    for moment, (signer, published) in told.items():
        assert (keys.signer(moment), keys.published(moment)) == (signer, published)
    assert one.alg == "EdDSA"


def test_the_thumbprint_of_rfc_8037() -> None:
    """Its appendix A.3."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
    assert signing.thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_what_is_published_stays_while_vault_is_away(db: None, settings: Any) -> None:
    known = jwks()
    signing.ask_again()
    settings.VAULT_ADDR = "http://127.0.0.1:9"
    assert jwks().keys() == known.keys()
    answer = Client().get("/.well-known/openid-configuration")
    assert answer["Cache-Control"] == "public, max-age=300"
    told = answer.json()
    assert told["issuer"] == deployment.KEYTURN_BASE_URL
    assert told["jwks_uri"] == f"{deployment.KEYTURN_BASE_URL}/.well-known/jwks.json"
    assert told["id_token_signing_alg_values_supported"] == ["ES256"]


def test_what_was_never_known_is_not_there(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "_read", None)
    settings.VAULT_ADDR = "http://127.0.0.1:10"
    answer = Client().get("/.well-known/jwks.json")
    assert (answer.status_code, bool(answer["Retry-After"])) == (503, True)


def test_an_operator_sees_the_versions(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("signing_key")
    assert "signs" in capsys.readouterr().out


def test_refreshed_it_is_the_same_credential(grant: Grant) -> None:
    first = check_out(by=grant.holder, grant_id=grant.pk)
    pass_by(first.credential, by=4 * MINUTES)
    second = refresh(by=grant.holder, grant_id=grant.pk)
    assert second.credential == first.credential
    row = fresh(first.credential)
    assert row.state == CredentialState.ACTIVE
    assert row.expires_at is not None
    assert claims(second.secret, aud(grant))["exp"] == int(row.expires_at.timestamp())
    assert claims(first.secret, aud(grant))["jti"] != claims(second.secret, aud(grant))["jti"]
    event = AuditEvent.objects.get(event=Event.CREDENTIAL_REFRESHED)
    assert (event.subject_id, event.actor_id) == (row.pk, grant.holder_id)
    assert second.secret not in str(event.data)


def test_what_cannot_be_refreshed(world: World, grant: Grant) -> None:
    with pytest.raises(Conflict, match="Nothing is checked out"):
        refresh(by=grant.holder, grant_id=grant.pk)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    with pytest.raises(Forbidden):
        refresh(by=grant.request.profile.endpoint.owner, grant_id=grant.pk)
    pass_by(out.credential)
    with pytest.raises(Conflict, match="not refreshed in time"):
        refresh(by=grant.holder, grant_id=grant.pk)
    lasting = world.grant()
    check_out(by=lasting.holder, grant_id=lasting.pk)
    with pytest.raises(Conflict, match="needs no refreshing"):
        refresh(by=lasting.holder, grant_id=lasting.pk)
    end_grant(by=grant.holder, grant_id=grant.pk)
    with pytest.raises(NotLive):
        refresh(by=grant.holder, grant_id=grant.pk)


def test_vault_away_leaves_what_is_out(grant: Grant, settings: Any) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    settings.VAULT_ADDR = "http://127.0.0.1:11"
    with pytest.raises(Unavailable):
        refresh(by=grant.holder, grant_id=grant.pk)
    assert fresh(out.credential).state == CredentialState.ACTIVE


def test_ended_it_is_not_gone_until_its_last_token_is(
    grant: Grant, sweep: Callable[[], int]
) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(by=grant.holder, grant_id=grant.pk)
    sweep()
    row = fresh(out.credential)
    assert row.state == CredentialState.REVOKING
    assert row.next_attempt_at == row.expires_at, "nothing is asked before"
    assert "is good until" in row.last_error
    assert row.expires_at is not None
    assert standing(row, row.expires_at + MINUTES / 2).stuck is None, "it isn't late"
    assert standing(row, row.expires_at + 2 * MINUTES).stuck == row.expires_at
    pass_by(row)
    sweep()
    row = fresh(out.credential)
    assert row.state == CredentialState.REVOKED
    assert row.proof.startswith("its last token expired at ")
    assert row.attempts == 2


def test_left_alone_it_ends_by_itself(grant: Grant, sweep: Callable[[], int]) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    sweep()
    assert fresh(out.credential).state == CredentialState.ACTIVE
    pass_by(out.credential)
    sweep()
    row = fresh(out.credential)
    assert (row.state, row.revoke_reason) == (CredentialState.REVOKED, RevokeReason.EXPIRED)
    assert Grant.objects.get(pk=grant.pk).ended_at is None
    check_out(by=grant.holder, grant_id=grant.pk)


def test_left_alone_it_opens_nothing_without_a_worker(grant: Grant) -> None:
    """Nobody sweeps here. The few seconds are for a refresh that may be committing."""
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    for over, holds in ((-1, True), (1, True), (7, False)):
        Credential.objects.filter(pk=credential.pk).update(
            expires_at=clock.now() - dt.timedelta(seconds=over)
        )
        assert (credential.pk in holding([credential.pk])) is holds


@pytest.mark.parametrize("how", ["a stop", "a lost group", "a deactivated holder"])
def test_what_a_check_out_needs_a_refresh_needs_too(how: str, grant: Grant) -> None:
    endpoint = grant.request.profile.endpoint
    out = check_out(by=grant.holder, grant_id=grant.pk)
    match how:
        case "a stop":
            stop(by=endpoint.owner, endpoint=endpoint, reason="!", proofs=PROVED)
        case "a lost group":
            group = grant.request.profile.requesters
            leave_group(by=None, user=grant.holder, group=group)
        case "a deactivated holder":
            deactivate_user(by=None, user=grant.holder)
    before = fresh(out.credential).expires_at
    with pytest.raises(KeyturnError) as refused:
        refresh(by=User.objects.get(pk=grant.holder_id), grant_id=grant.pk)
    assert refused.value.status in {403, 409}
    assert fresh(out.credential).expires_at == before


@pytest.mark.parametrize("signed", [True, False])
def test_a_mint_that_was_cut_off(
    signed: bool, grant: Grant, sweep: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> str:
        raise Killed

    where = vault if signed else signing
    monkeypatch.setattr(where, "sign" if signed else "signer", dies)
    if not signed:  # before its end was on record
        monkeypatch.setattr("credentials.kinds.jwt.ends_at", dies)
    with pytest.raises(Killed):
        check_out(by=grant.holder, grant_id=grant.pk)
    monkeypatch.undo()
    row = Credential.objects.get(grant=grant)
    assert (row.state, row.is_known) == (CredentialState.ISSUING, False)
    end_grant(by=grant.holder, grant_id=grant.pk)
    sweep()
    row.refresh_from_db()
    if signed:
        assert row.state == CredentialState.REVOKING
        pass_by(row)
        sweep()
        row.refresh_from_db()
    assert row.state == CredentialState.REVOKED
    assert ("its last token" in row.proof) is signed


def test_one_that_was_given_up_is_not_signed(grant: Grant) -> None:
    """However late a mint goes on that everybody took for dead."""
    from credentials.actions import checking_out

    credential = checking_out._begin(by=grant.holder, grant_id=grant.pk)
    end_grant(by=grant.holder, grant_id=grant.pk)
    minted = Minted()
    with pytest.raises(Conflict):
        kind_of("jwt").mint(credential, 60, minted)
    assert minted.parts == {}


def test_a_grant_that_ends_while_it_is_signed(grant: Grant, monkeypatch: Any) -> None:
    check_out(by=grant.holder, grant_id=grant.pk)
    sign = vault.sign

    def slowly(*args: Any, **options: Any) -> str:
        end_grant(by=grant.holder, grant_id=grant.pk)
        return sign(*args, **options)

    monkeypatch.setattr(vault, "sign", slowly)
    with pytest.raises(NotLive):
        refresh(by=grant.holder, grant_id=grant.pk)
    assert Credential.objects.get(grant=grant).state == CredentialState.REVOKING


@pytest.mark.usefixtures("committed")
def test_refreshing_races_the_sweep(world: World) -> None:
    """One of them comes first, and the row says which. A token that was handed out is in it."""
    grant = a_grant(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    Credential.objects.filter(pk=out.credential.pk).update(
        expires_at=clock.now() + dt.timedelta(seconds=0.02)
    )
    refreshed, *_ = at_once(
        [lambda: refresh(by=grant.holder, grant_id=grant.pk), sweep, sweep, sweep]
    )
    row = fresh(out.credential)
    if isinstance(refreshed, Conflict):
        revoke_due()
        sweep()
        row = fresh(out.credential)
        assert (row.state, row.revoke_reason) == (CredentialState.REVOKED, RevokeReason.EXPIRED)
    else:
        assert row.state == CredentialState.ACTIVE
        assert row.expires_at is not None
        exp = claims(refreshed.secret, aud(grant))["exp"]
        assert exp <= row.expires_at.timestamp()


@pytest.mark.usefixtures("committed")
def test_refreshing_races_the_end(world: World) -> None:
    grant = a_grant(world)
    check_out(by=grant.holder, grant_id=grant.pk)
    calls: list[Callable[[], Any]] = [
        lambda: refresh(by=grant.holder, grant_id=grant.pk) for _ in range(3)
    ]
    outcomes = at_once([*calls, lambda: end_grant(by=grant.holder, grant_id=grant.pk)])
    row = Credential.objects.get(grant=grant)
    assert row.state == CredentialState.REVOKING
    assert row.expires_at is not None
    for each in outcomes[:3]:
        if not isinstance(each, NotLive | Conflict):
            assert claims(each.secret, aud(grant))["exp"] <= row.expires_at.timestamp()


def test_whoever_holds_it_takes_it_back(grant: Grant) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert take_back(by=None, secret=out.secret) is True
    row = fresh(out.credential)
    assert (row.state, row.revoke_reason) == (CredentialState.REVOKING, RevokeReason.TAKEN_BACK)
    assert take_back(by=None, secret=out.secret) is False
    again = check_out(by=grant.holder, grant_id=grant.pk)
    assert fresh(again.credential).state == CredentialState.ACTIVE


def test_an_old_token_ends_nothing(grant: Grant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in a log of yesterday it must not end what is used today."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    later = clock.now() + 6 * MINUTES
    monkeypatch.setattr("credentials.actions.taking_back.clock.now", lambda: later)
    assert take_back(by=None, secret=out.secret) is False
    monkeypatch.undo()
    assert fresh(out.credential).state == CredentialState.ACTIVE
