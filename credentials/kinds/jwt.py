"""JWTs: signed by Vault, verified by whoever has the published keys, without asking anybody.

The form is that of RFC 9068 (`typ` at+jwt, its required claims), with the scope in
`authorization_details` (RFC 9396) too. One credential is a row of tokens, each of a few minutes:
`credentials.actions.refresh` gives the next one. Nothing can take a signed token back from those
who only verify it; the gateway and introspection ask for its credential, which every one names.
"""

import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from django.conf import settings as deployment
from pydantic import Field, field_validator

from audit import clock
from audit.ids import new_id
from broker.errors import Conflict
from credentials import signing, vault
from credentials.failpoints import reached
from credentials.kinds import base
from credentials.kinds.base import Kind, Minted, Recognised
from credentials.models import Credential
from credentials.scopes import space_separated
from credentials.states import CredentialState
from endpoints.kinds import Revocation

TYPE = "at+jwt"
LONGEST_TOKEN = 7_000  # characters: many servers take no more than 8,000 bytes of a header
# Exactly what is made here. Whatever else a header could say (jku, x5u, jwk, crit) isn't in it.
HEADER = frozenset({"alg", "kid", "typ"})
CLAIMS = ("iss", "aud", "sub", "client_id", "grant", "credential", "jti", "iat", "nbf", "exp")
SHAPE = re.compile(r"eyJ[A-Za-z0-9_-]{20,300}\.[A-Za-z0-9_-]{100,7000}\.[A-Za-z0-9_-]{86}")


class Settings(base.Settings):
    """`audience` is who verifies: an URL or another name of theirs; else the gateway."""

    audience: str = Field("", max_length=300, pattern="^[!-~]*$")

    @field_validator("audience")
    @classmethod
    def _not_ours(cls, audience: str) -> str:
        ours = (deployment.KEYTURN_GATEWAY_URL, deployment.KEYTURN_BASE_URL)
        if audience.startswith(ours):
            raise ValueError("leave it empty for the gateway: it would open other endpoints there")
        return audience


class Jwt(Kind):
    slug = "jwt"
    label = "JWT"
    Settings = Settings
    short = signing.LONGEST

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        return Revocation.BY_EXPIRY

    def describe(self, settings: Mapping[str, Any]) -> str:
        whom = settings.get("audience") or "the gateway"
        return (
            f"A signed token (JWT) for {whom}, good for 5 minutes and refreshed for as long as the "
            "grant lasts. Keyturn’s gateway and introspection refuse it at once; whoever verifies "
            "it by themselves takes it until its 5 minutes are over."
        )

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        until = ends_at(credential, clock.now())
        # On record before it's signed, so that whatever becomes of this mint it's known when the
        # token is over. One that was given up meanwhile isn't signed any more.
        changed = Credential.objects.filter(pk=credential.pk, state=CredentialState.ISSUING).update(
            expires_at=until
        )
        if not changed:
            raise Conflict("Another check-out replaced this one while it was being made.")
        version = signing.signer()
        minted.expires_at = until
        minted.handles = {"kid": version.kid}
        minted.parts["secret"] = _signed(credential, until, version)
        reached("mint:token-made")

    def confirm(self, credential: Credential, lifetime: int) -> None:
        """Nothing more is to be done: it has its end within itself."""

    def refresh(self, credential: Credential) -> dict[str, str]:
        until = credential.expires_at or ends_at(credential, clock.now())
        return {"secret": _signed(credential, until, signing.signer())}

    def recognise(self, secret: str) -> Recognised | None:
        return read(secret)

    def patience(self) -> dt.timedelta:
        return dt.timedelta(0)

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        # Without an end on record nothing was signed, nor will it be: see `mint`.
        return {str(each.pk): {"kid": ""} for each in credentials if each.expires_at is not None}

    def not_before(self, credential: Credential) -> dt.datetime | None:
        return credential.expires_at

    def revoke(self, credential: Credential) -> None:
        """Nobody can: those who verify ask nobody."""

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        moment = clock.now()
        return {
            str(each.pk): f"its last token expired at {each.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            for each in credentials
            if each.expires_at is not None and each.expires_at <= moment
        }


def ends_at(credential: Credential, moment: dt.datetime) -> dt.datetime:
    """When a token of it ends that is made now: never past its grant. To the second, as JWTs
    count."""
    return min(moment + signing.LONGEST, credential.grant.ends_at).replace(microsecond=0)


def audience_of(credential: Credential) -> str:
    """Who is to verify its tokens."""
    own = gateway_audience(credential.grant.request.profile.endpoint.slug)
    return str(credential.settings.get("audience") or own)


def gateway_audience(endpoint: str) -> str:
    """What tokens say that are for this endpoint at the gateway."""
    return f"{deployment.KEYTURN_GATEWAY_URL}/e/{endpoint}"


def _signed(credential: Credential, until: dt.datetime, version: signing.Version) -> str:
    grant = credential.grant
    begun = int(clock.now().timestamp())
    scope = grant.allowed
    claims = {
        "iss": deployment.KEYTURN_BASE_URL,
        "aud": audience_of(credential),
        "sub": str(grant.holder_id),
        "client_id": str(grant.pk),
        "grant": str(grant.pk),
        "credential": str(credential.pk),
        "scope": space_separated(scope),
        "authorization_details": [{"type": "keyturn", **scope.as_json()}],
        "jti": str(new_id()),
        "iat": begun,
        "nbf": begun,
        "exp": int(until.timestamp()),
    }
    header = {"alg": version.alg, "kid": version.kid, "typ": TYPE}
    said = f"{_part(header)}.{_part(claims)}"
    if len(said) + 87 > LONGEST_TOKEN:
        raise Conflict("This grant names more than fits into a JWT. Ask for less at once.")
    try:
        return f"{said}.{vault.sign(said.encode(), version=version.number)}"
    except vault.VaultError:
        # The version may have been withdrawn, which OpenBao answers with 500.
        signing.ask_again()
        raise


def _part(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read(token: str) -> Recognised | None:
    """What a JWT of ours says, expired or not; None for anything else.

    Its end, audience and credential are left to the caller. Raises VaultError where no key was
    ever known.
    """
    if SHAPE.fullmatch(token) is None:
        return None
    try:
        header = jwt.get_unverified_header(token)
        if header.keys() != HEADER or header["typ"] != TYPE:
            return None
        version = signing.version_of(header["kid"])
        if version is None:
            return None
        claims = jwt.decode(
            token,
            version.key,
            algorithms=[version.alg],
            issuer=deployment.KEYTURN_BASE_URL,
            options={
                "require": list(CLAIMS),
                # By PostgreSQL's clock, and by whom it's shown to: not here.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
            },
        )
        if not isinstance(claims["aud"], str):
            return None
        return Recognised(
            uuid.UUID(claims["credential"]),
            dt.datetime.fromtimestamp(claims["exp"], dt.UTC),
            audience=claims["aud"],
            token=claims["jti"],
            issued_at=dt.datetime.fromtimestamp(claims["iat"], dt.UTC),
        )
    except (jwt.InvalidTokenError, ValueError):
        return None


def read_now(token: str) -> tuple[Recognised, float] | None:
    """As `read`, and for how many seconds it's still good by PostgreSQL's clock."""
    found = read(token)
    if found is None or found.expires_at is None:
        return None
    remaining = found.expires_at - clock.now()
    # None is made that lasts longer.
    return None if remaining > signing.LONGEST else (found, remaining.total_seconds())


KIND = Jwt()
