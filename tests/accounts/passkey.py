"""Somebody's passkey, as tests need one: an authenticator in Python (WebAuthn level 3, §6)."""

import hashlib
import json
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django_otp_webauthn.models import WebAuthnCredential
from webauthn.helpers import bytes_to_base64url

from accounts import passkeys
from accounts.models import User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from tests.world import World

PRESENT, VERIFIED, ATTESTED = 1, 4, 64


@dataclass
class Passkey:
    """One key pair. `verifies` is whether it asks who holds it; `count` goes up by each use."""

    origin: str = settings.KEYTURN_BASE_URL
    rp_id: str = "localhost"
    verifies: bool = True
    count: int = 0
    counts: bool = True
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    handle: str | None = None

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def made(self, options: dict[str, Any]) -> str:
        """What the browser hands over for options of `begin_adding`."""
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert options["authenticatorSelection"]["residentKey"] == "required"
        assert options["attestation"] == "none"
        self.handle = options["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cbor2.dumps(public)
        data = self._data(ATTESTED) + attested
        statement = {"fmt": "none", "attStmt": {}, "authData": data}
        return self._credential(
            clientDataJSON=self._client("webauthn.create", options),
            attestationObject=cbor2.dumps(statement),
        )

    def used(self, options: dict[str, Any]) -> str:
        """What the browser hands over for options of `begin`."""
        assert options["userVerification"] == "required"
        self.count += self.counts
        data, client = self._data(0), self._client("webauthn.get", options)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._credential(clientDataJSON=client, authenticatorData=data, signature=signature)

    def _data(self, flags: int) -> bytes:
        flags |= PRESENT | (VERIFIED if self.verifies else 0)
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, self.count)

    def _client(self, kind: str, options: dict[str, Any]) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin}
        return json.dumps(said | {"crossOrigin": False}).encode()

    def _credential(self, **response: bytes) -> str:
        name = bytes_to_base64url(self.id)
        said: dict[str, Any] = {k: bytes_to_base64url(v) for k, v in response.items()}
        if "signature" in response:
            said["userHandle"] = self.handle
        return json.dumps(
            {
                "id": name,
                "rawId": name,
                "type": "public-key",
                "response": said,
                "clientExtensionResults": {},
            }
        )


def proved_for_factors(user: User) -> Proofs:
    """That this person proved a factor just now, to change their factors."""
    return Proofs({str(Purpose(Action.FACTOR, str(user.pk))): clock.now()})


def passkey_of(
    world: World, user: User | None = None, **fields: Any
) -> tuple[User, WebAuthnCredential, Passkey]:
    """Somebody who has set up a passkey, its row, and the passkey."""
    user, key, session = user or world.person(), Passkey(**fields), SessionBase()
    proofs = proved_for_factors(user)
    made = key.made(passkeys.begin_adding(session, by=user, proofs=proofs))
    begun = passkeys.taken(session, passkeys.Ceremony.ADD, str(user.pk))
    row = passkeys.add(by=user, begun=begun, credential=made, name="Key", proofs=proofs)
    return user, row, key
