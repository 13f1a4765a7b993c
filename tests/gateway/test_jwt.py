"""JWTs at the gateway: verified by the published keys, held to their audience, end and grant."""

import base64
import contextlib
import datetime as dt
import hmac
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.db import connection

from accessrequests.models import Grant
from accounts.models import User
from audit import clock
from credentials import signing, vault
from credentials.actions import check_out, end_grant, refresh, take_back
from credentials.kinds import jwt as kind
from credentials.models import Credential
from tests.conftest import RunningGateway
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def grant(world: World) -> Grant:
    profile = world.profile(with_key=True, credential_kind="jwt")
    return world.grant(profile=profile, models=["demo-small", "demo-slow"])


@pytest.fixture
def token(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


def call(gateway: RunningGateway, grant: Grant, token: str, **how: Any) -> httpx.Response:
    slug = how.pop("slug", None) or grant.request.profile.endpoint.slug
    return httpx.get(
        f"{gateway.base(slug)}/models", headers={"Authorization": f"Bearer {token}"}, **how
    )


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def lasting(grant: Grant, seconds: float) -> str:
    """A token of its credential that is good for so long."""
    credential = Credential.objects.select_related("grant").get(grant=grant)
    return kind._signed(credential, clock.now() + dt.timedelta(seconds=seconds), signing.signer())


def test_it_opens_the_gateway(gateway: RunningGateway, grant: Grant, token: str) -> None:
    again = refresh(by=grant.holder, grant_id=grant.pk).secret
    for each in (token, again, token):
        answer = call(gateway, grant, each)
        assert answer.status_code == 200
        assert "demo-small" in answer.text


def test_an_expired_one(gateway: RunningGateway, grant: Grant, token: str) -> None:
    """Seen before its end or not; the credential itself goes on."""
    short = lasting(grant, 3)
    assert call(gateway, grant, short).status_code == 200
    old = lasting(grant, -1)
    answer = call(gateway, grant, old)
    assert code(answer) == (401, "token_expired")
    assert f"/grants/{grant.pk}/" in answer.text
    deadline = time.monotonic() + 5
    while (answer := call(gateway, grant, short)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert code(answer) == (401, "token_expired")
    assert call(gateway, grant, token).status_code == 200


def test_for_whom_it_is(gateway: RunningGateway, world: World, grant: Grant, token: str) -> None:
    other = world.endpoint(with_key=True)
    assert code(call(gateway, grant, token, slug=other.slug)) == (403, "wrong_endpoint")
    profile = world.profile(
        endpoint=other, credential_kind="jwt", kind_settings={"audience": "urn:elsewhere"}
    )
    theirs = world.grant(profile=profile)
    elsewhere = check_out(by=theirs.holder, grant_id=theirs.pk).secret
    assert code(call(gateway, theirs, elsewhere)) == (403, "wrong_endpoint")


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(said: dict[str, Any]) -> str:
    return encoded(json.dumps(said).encode())


def forgeries(token: str) -> dict[str, str]:
    """What a stranger can make who has a token and the public keys."""
    head, body, signature = token.split(".")
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    own = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(own.public_key(), as_dict=True)
    longer = claims | {"exp": claims["exp"] + 60}
    # A verifier that lets the token choose takes the public key for a secret.
    secret = signing.signer().key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = f"{part(header | {'alg': 'HS512'})}.{body}"
    mac = encoded(hmac.digest(secret, confused.encode(), "sha512"))

    def by_own_key(**more: Any) -> str:
        return jwt.encode(claims, own, algorithm="ES256", headers=header | more)

    return {
        "another's body": f"{head}.{part(longer)}.{signature}",
        "no signature": f"{part(header | {'alg': 'none'})}.{body}.",
        "none, with one": f"{part(header | {'alg': 'none'})}.{body}.{signature}",
        "another algorithm": f"{part(header | {'alg': 'EdDSA'})}.{body}.{signature}",
        "the public key as a secret": f"{confused}.{mac}",
        "another key under our name": by_own_key(),
        "a foreign name": by_own_key(kid="x" * 43),
        "its own key along": by_own_key(jwk=public),
        "where to fetch the key": by_own_key(jku="https://evil.example.com/jwks.json"),
        "where to fetch a certificate": by_own_key(x5u="https://evil.example.com/x.pem"),
        "another type": by_own_key(typ="JWT"),
    }


def test_none_that_is_forged(gateway: RunningGateway, grant: Grant, token: str) -> None:
    for what, forged in forgeries(token).items():
        assert code(call(gateway, grant, forged)) == (401, "invalid_api_key"), what
    assert call(gateway, grant, token).status_code == 200


def test_not_all_that_our_key_signed(gateway: RunningGateway, grant: Grant, token: str) -> None:
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})

    def signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
        said = f"{part(header)}.{part(claims)}"
        return f"{said}.{vault.sign(said.encode(), version=signing.signer().number)}"

    assert call(gateway, grant, signed(header, claims)).status_code == 200
    for more in (
        {"typ": "JWT"},
        {"jku": "https://evil.example.com"},
        {"crit": ["b64"], "b64": True},
        {"x5u": "https://evil.example.com"},
    ):
        answer = call(gateway, grant, signed(header | more, claims))
        assert code(answer) == (401, "invalid_api_key"), more
    for changed in (
        {"iss": "https://evil.example.com"},
        {"credential": "x"},
        {"exp": claims["exp"] + 3600},
        {"aud": ["urn:a", claims["aud"]]},
    ):
        answer = call(gateway, grant, signed(header, claims | changed))
        assert code(answer) == (401, "invalid_api_key"), changed


@pytest.mark.parametrize("how", ["ended", "replaced", "taken back"])
def test_refused_at_once(how: str, gateway: RunningGateway, grant: Grant, token: str) -> None:
    assert call(gateway, grant, token).status_code == 200
    match how:
        case "ended":
            end_grant(grant_id=grant.pk, by=User.objects.get(pk=grant.holder_id))
        case "replaced":
            check_out(by=grant.holder, grant_id=grant.pk)
        case "taken back":
            take_back(by=None, secret=token)
    deadline = time.monotonic() + 2
    while (answer := call(gateway, grant, token)).status_code == 200:
        assert time.monotonic() < deadline
    assert code(answer) == (401, "grant_ended")


def test_a_browser_session_on_one(gateway: RunningGateway, world: World) -> None:
    """However long its form: the session is on the credential, which ends unless refreshed."""
    endpoint = world.endpoint(dialects=["http"], kind="dashboard")
    scope = {"operations": [f"GET /{'x' * 90}{n}/" for n in range(15)] + ["GET /"]}
    profile = world.profile(endpoint=endpoint, models=None, scope=scope, credential_kind="jwt")
    grant = world.grant(profile=profile)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert len(out.secret) > 2_000
    base = f"{gateway.url}/e/{endpoint.slug}"
    session = httpx.post(
        f"{base}/.keyturn/session",
        data={"credential": out.secret},
        headers={"Origin": settings.KEYTURN_BASE_URL},
    )
    assert session.status_code == 303, session.text
    cookie = {"Cookie": f"keyturn-gateway={session.cookies['keyturn-gateway']}"}
    first = httpx.get(f"{base}/", headers=cookie)
    assert first.status_code != 401, first.text
    Credential.objects.filter(pk=out.credential.pk).update(
        expires_at=clock.now() - dt.timedelta(seconds=10)
    )
    deadline = time.monotonic() + 3
    while httpx.get(f"{base}/", headers=cookie).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextlib.contextmanager
def streaming(gateway: RunningGateway, grant: Grant, token: str) -> Iterator[Iterator[bytes]]:
    slug = grant.request.profile.endpoint.slug
    with httpx.stream(
        "POST",
        f"{gateway.base(slug)}/chat/completions",
        headers={"Authorization": f"Bearer {token}"},
        json={"model": "demo-slow", "stream": True, "messages": [{"role": "user", "content": "?"}]},
        timeout=30,
    ) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer.iter_bytes()


def test_a_call_outlives_its_token_and_not_its_grant(
    gateway: RunningGateway, grant: Grant, token: str, django_db_blocker: Any
) -> None:
    ended_at = 0.0

    def give_back() -> None:
        nonlocal ended_at
        with django_db_blocker.unblock():
            time.sleep(3)
            end_grant(grant_id=grant.pk, by=User.objects.get(pk=grant.holder_id))
            ended_at = time.monotonic()
            connection.close()

    with streaming(gateway, grant, lasting(grant, 3)) as chunks:
        ending = threading.Thread(target=give_back)
        ending.start()
        told = b"".join(chunks)
        cut = time.monotonic()
        ending.join()
    assert b"grant_ended" in told
    assert -0.5 < cut - ended_at < 1.5, "not at the token's own end, and at the grant's at once"


def test_the_gateway_learns_of_a_new_version(
    gateway: RunningGateway, grant: Grant, token: str, servers: Servers, monkeypatch: Any
) -> None:
    assert call(gateway, grant, token).status_code == 200
    servers.vault("POST", "transit/keys/credentials/rotate", {})
    signing.ask_again()
    monkeypatch.setattr(signing, "lead", dt.timedelta)
    newer = refresh(by=grant.holder, grant_id=grant.pk).secret
    kids = {jwt.get_unverified_header(each)["kid"] for each in (token, newer)}
    assert len(kids) == 2
    # It never signs that early but here: an unknown one is asked for, at most every 5 s.
    deadline = time.monotonic() + 12
    while call(gateway, grant, newer).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert call(gateway, grant, token).status_code == 200


def test_known_tokens_are_not_verified_anew(
    gateway: RunningGateway, grant: Grant, token: str, servers: Servers
) -> None:
    """A verified one costs no question, and no signature: with Vault sealed it goes on."""
    other = refresh(by=grant.holder, grant_id=grant.pk).secret
    assert call(gateway, grant, token).status_code == 200
    servers.seal()
    try:
        assert call(gateway, grant, token).status_code == 200
        # Nor does a new one need it: the keys are known.
        assert call(gateway, grant, other).status_code == 200
    finally:
        servers.unseal()
    assert settings.KEYTURN_GATEWAY_URL in kind.audience_of(Credential.objects.get(grant=grant))
