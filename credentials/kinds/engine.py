"""Whatever an engine mounted in Vault makes on a lease: cloud keys, provider keys, queue users."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from audit import clock
from credentials import vault
from credentials.kinds import base, leases
from credentials.kinds.base import Minted
from credentials.models import Credential
from endpoints.kinds import Revocation

# Mounts that are Vault's own or keep what people must not be handed.
NO_ENGINES = {"auth", "cubbyhole", "identity", "kv", "pki", "sys", "transit"}


def _is_engine(mount: str) -> str:
    if mount in NO_ENGINES:
        raise ValueError("gives nothing on a lease")
    return mount


class Settings(base.Settings):
    """What a profile says of its engine. docs/credential-kinds.md explains each."""

    mount: Annotated[leases.Mount, AfterValidator(_is_engine)]
    path: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z-]{0,30}(/[A-Za-z0-9][A-Za-z0-9_-]{0,62}){1,3}$"),
    ]
    revocation: Literal["immediate", "by_expiry"]
    secret_field: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")] = "password"  # noqa: S105


class Engine(leases.Leases):
    slug = "engine"
    label = "Engine credential"
    Settings = Settings

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        return Revocation(settings["revocation"])

    def describe(self, settings: Mapping[str, Any]) -> str:
        what = f"What Vault's engine {settings['mount']} makes at {settings['path']}. "
        if settings["revocation"] == Revocation.IMMEDIATE:
            return what + "It can be taken back at any moment."
        return what + "It can't be taken back and ends by itself."

    def path(self, settings: Mapping[str, Any]) -> str:
        return f"{settings['mount']}/{settings['path']}"

    def target(self, credential: Credential) -> str:
        return f"engine {credential.settings['mount']}"

    def take(self, credential: Credential, lease: vault.Lease, minted: Minted) -> None:
        if not lease.id:
            raise vault.VaultInvalid("the engine gave something without a lease")
        parts = {
            key: str(value) for key, value in lease.data.items() if isinstance(value, str | int)
        }
        field = credential.settings["secret_field"]
        if not parts.get(field):
            raise vault.VaultInvalid(f"the engine's answer has no {field}")
        minted.parts |= parts | {"secret": parts[field]}

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        """By Vault's word, and where nothing can be taken back only once its time is up too."""
        found = {}
        for row in self.gone_from_vault(credentials):
            proof = "neither lease nor token"
            if row.settings["revocation"] == Revocation.BY_EXPIRY and row.expires_at is not None:
                if clock.now() < row.expires_at:
                    continue
                proof += f", and it ended by itself at {row.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            found[str(row.pk)] = proof
        return found


KIND = Engine()
