"""The key that signs JWTs: which of its versions signs, and which are published.

It never leaves Vault. A version is published before it signs, for as long as those who verify may
keep what they fetched, and after it has signed, until the last token by it has expired. Both
follow from the versions' ages, so that processes agree without asking each other.
"""

import base64
import datetime as dt
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.conf import settings
from django.db import Error as DatabaseError
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from audit import clock
from credentials import vault

logger = logging.getLogger(__name__)

LONGEST = dt.timedelta(minutes=5)  # that a token lives
REFRESH = 30.0  # seconds after which a process asks Vault again, at most
RETRY = 5.0  # seconds between two questions, whoever asks for a version that isn't known
SKEW = dt.timedelta(seconds=30)  # between Vault's clock and PostgreSQL's
THUMBPRINT = ("crv", "kty", "x", "y")  # the members that RFC 7638 counts, of both types


@dataclass(frozen=True)
class Version:
    """One version of the key, as those who verify know it."""

    number: int
    created_at: dt.datetime
    jwk: dict[str, str]
    key: PyJWK

    @classmethod
    def of(cls, version: vault.KeyVersion) -> "Version":
        """What Vault tells of a version, in the terms of RFC 7517. Raises VaultInvalid."""
        if version.type == "ecdsa-p256":
            pem = cast(EllipticCurvePublicKey, load_pem_public_key(version.public.encode()))
            jwk, alg = ECAlgorithm.to_jwk(pem, as_dict=True), "ES256"
        elif version.type == "ed25519":
            raw = Ed25519PublicKey.from_public_bytes(base64.b64decode(version.public))
            jwk, alg = OKPAlgorithm.to_jwk(raw, as_dict=True), "EdDSA"
        else:
            raise vault.VaultInvalid(f"the signing key is of the type {version.type}")
        named = jwk | {"use": "sig", "alg": alg, "kid": thumbprint(jwk)}
        named.pop("key_ops", None)
        return cls(version.number, version.created_at, named, PyJWK(named))

    @property
    def alg(self) -> str:
        """The one algorithm by which it signs."""
        return self.jwk["alg"]

    @property
    def kid(self) -> str:
        """Its thumbprint, by which a token names it."""
        return self.jwk["kid"]


def thumbprint(jwk: dict[str, Any]) -> str:
    """The thumbprint of a public key (RFC 7638)."""
    members = {name: jwk[name] for name in THUMBPRINT if name in jwk}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def lead() -> dt.timedelta:
    """For how long a version is published before it signs: a process may be late by half of
    KEYTURN_JWKS_MAX_AGE in reading it, and then what it said before may be kept for all of it."""
    return dt.timedelta(seconds=2 * settings.KEYTURN_JWKS_MAX_AGE)


@dataclass(frozen=True)
class Keys:
    """The versions that Vault has, oldest first, as they were when it was asked."""

    versions: tuple[Version, ...]

    def signer(self, moment: dt.datetime) -> Version:
        """The version that signs at this moment: the newest that everybody knows by now."""
        known = [each for each in self.versions if each.created_at + lead() <= moment]
        return known[-1] if known else self.versions[0]

    def published(self, moment: dt.datetime) -> tuple[Version, ...]:
        """What to verify by: those to come, the one that signs, and those before it until their
        last token has expired."""
        late = lead() + LONGEST + SKEW + dt.timedelta(seconds=REFRESH)
        first = 0
        for at, version in enumerate(self.versions):
            if version.created_at + late <= moment:
                first = at
        return self.versions[first:]

    def of(self, kid: str) -> Version | None:
        """The version that a token names."""
        return next((each for each in self.versions if each.kid == kid), None)


@dataclass(frozen=True)
class _Read:
    keys: Keys
    at: dt.datetime
    ticked: float

    @property
    def moment(self) -> dt.datetime:
        """By PostgreSQL's clock, which needn't be there to be asked."""
        return self.at + dt.timedelta(seconds=time.monotonic() - self.ticked)


_read: _Read | None = None
_asked = float("-inf")


def _known(*, within: float) -> _Read:
    """What Vault was asked for within so many seconds, or what it last said while it's away.

    Raises VaultError and DatabaseError where it never said anything.
    """
    global _read, _asked
    ticked = time.monotonic()
    if _read is not None and ticked - _asked < within:
        return _read
    _asked = ticked
    try:
        versions = tuple(Version.of(each) for each in vault.signing_key())
        _read = _Read(Keys(versions), clock.now(), time.monotonic())
    except (vault.VaultError, DatabaseError) as error:
        if _read is None:
            raise
        logger.warning("the signing key's versions are those of before: %s", error)
    return _read


def _age() -> float:
    return min(REFRESH, settings.KEYTURN_JWKS_MAX_AGE / 2)


def signer() -> Version:
    """The version that signs now. Raises VaultError."""
    read = _known(within=_age())
    return read.keys.signer(read.moment)


def published() -> tuple[Version, ...]:
    """What is published now. Raises VaultError where it was never known."""
    read = _known(within=_age())
    return read.keys.published(read.moment)


def version_of(kid: str) -> Version | None:
    """The version that a token names. Raises VaultError where none was ever known.

    One that isn't known is asked for anew, but seldom: anybody can write any `kid`.
    """
    found = _known(within=_age()).keys.of(kid)
    return found or _known(within=RETRY).keys.of(kid)


def all_versions() -> tuple[Keys, dt.datetime]:
    """What Vault has at this moment, and PostgreSQL's time. Raises VaultError."""
    return Keys(tuple(Version.of(each) for each in vault.signing_key())), clock.now()


def ask_again() -> None:
    """Next time, ask Vault: a version was withdrawn there."""
    global _asked
    _asked = float("-inf")
