"""Gateway tokens: service tokens that open the gateway, and nothing in Vault."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from credentials import vault
from credentials.kinds.base import Kind, Minted, Recognised, Stray
from credentials.models import Credential
from credentials.states import CredentialState

# What a service token looks like. Anything else is turned away before Vault is asked.
SHAPE = re.compile(r"(?:hvs|s)\.[A-Za-z0-9_\-.]{20,500}")

# Below this many it's cheaper to ask for each than for the list of all.
FEW = 20


class GatewayToken(Kind):
    slug = "gateway_token"
    label = "Gateway token"

    def describe(self, settings: Mapping[str, Any]) -> str:
        return (
            "A key for this endpoint at Keyturn's gateway, and for nothing else. It can be taken "
            "back at any moment, and the gateway refuses it within a second."
        )

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        token = vault.mint(name=credential.name, meta=meta_of(credential), lifetime=lifetime)
        minted.accessor = token.accessor
        minted.parts["secret"] = token.token

    def confirm(self, credential: Credential, lifetime: int) -> None:
        vault.raise_ttl(credential.accessor, lifetime)

    def recognise(self, secret: str) -> Recognised | None:
        credential = vault.whose(secret) if SHAPE.fullmatch(secret) is not None else None
        return None if credential is None else Recognised(credential)

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        # Tokens whose accessor was told are others': a call for each would take a minute.
        told = Credential.objects.filter(accessor__in=vault.accessors())
        found = vault.find(
            {str(credential.pk) for credential in credentials},
            but=set(told.values_list("accessor", flat=True)),
        )
        return {pk: {"accessor": accessor} for pk, accessor in found.items()}

    def revoke(self, credential: Credential) -> None:
        vault.revoke(credential.accessor)

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        return tokens_gone(credentials)

    def strays(self) -> Iterable[Stray]:
        """Every token that names a credential, those that leases hang on too."""
        there = vault.accessors()
        open_rows = Credential.objects.filter(accessor__in=there).exclude(
            state=CredentialState.REVOKED
        )
        # What a row accounts for needn't be looked up: a call for each would take a minute.
        ours = {row.accessor: row for row in open_rows.only("id", "accessor")}
        for accessor, row in ours.items():
            yield Stray("Vault", row.name, str(row.pk), accessor)
        for accessor, data in vault.tokens(but=ours):
            credential = (data.get("meta") or {}).get("credential")
            if credential is not None:
                name = str(data.get("display_name", "")).removeprefix("token-")
                yield Stray("Vault", name, credential, accessor)

    def end_stray(self, stray: Stray) -> None:
        vault.revoke(stray.key)


def meta_of(credential: Credential) -> dict[str, str]:
    """What a token says of itself in Vault and its audit log, and what it's found by."""
    grant = credential.grant
    return {
        "credential": str(credential.pk),
        "grant": str(grant.pk),
        "request": str(grant.request_id),
    }


def tokens_gone(credentials: list[Credential]) -> dict[str, str]:
    """By credential id, how those whose token Vault no longer has are known to be gone."""
    if len(credentials) > FEW:
        known = vault.accessors()
        # A token whose accessor is still listed may be a husk of one: only a lookup tells.
        rest = [each for each in credentials if each.accessor in known]
        found = {
            str(each.pk): "Vault no longer lists its accessor"
            for each in credentials
            if each.accessor not in known
        }
        if len(rest) > FEW:
            return found
    else:
        rest, found = credentials, {}
    for each in rest:
        if vault.lookup(each.accessor) is None:
            found[str(each.pk)] = "lookup-accessor finds nothing"
    return found


KIND = GatewayToken()
