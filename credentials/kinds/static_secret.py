"""Static secrets: a key that many may hold at once, for endpoints that know no other kind."""

from collections.abc import Iterable, Mapping
from typing import Any

from credentials import vault
from credentials.kinds.base import Kind, Minted
from credentials.models import Credential, Rotation, UpstreamSecret, Use
from credentials.states import RotationState
from endpoints.kinds import Revocation


class StaticSecret(Kind):
    slug = "static_secret"
    label = "Static key"
    pace = 60.0

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        return Revocation.BY_ROTATION

    def describe(self, settings: Mapping[str, Any]) -> str:
        return (
            "The endpoint’s own key, the same for everybody who gets it. It works outside of "
            "Keyturn and beyond the grant, until it is rotated: the end of the grant makes that "
            "due."
        )

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        """Nothing is made: who reads it holds what others hold. Hence what a lost answer leaves
        behind is nothing either."""
        endpoint = credential.grant.request.profile.endpoint
        slug = endpoint.slug
        # Not simply the newest: that may be one that a rotation is still trying.
        secret = UpstreamSecret.objects.filter(endpoint=endpoint, use=Use.HANDED_OUT).first()
        kept = vault.handed_out_key(slug, version=secret.version if secret is not None else 0)
        if kept is None:
            raise vault.VaultInvalid(
                f"read a static key: {slug} has none yet. Store one by "
                f"`manage.py upstream_key --handed-out {slug}`"
            )
        key, version = kept
        minted.handles = {"version": version}
        minted.parts["secret"] = key

    def confirm(self, credential: Credential, lifetime: int) -> None:
        pass

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        return {}

    def revoke(self, credential: Credential) -> None:
        """Only a rotation can, and the end of the grant makes that due."""

    def waits_for(self, credential: Credential) -> str:
        return f"handed out as version {credential.handles['version']}; gone once that is rotated"

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        """By the rotation that replaced this very version and saw the old one refused. That a
        version is destroyed in Vault alone says nothing of the provider."""
        found = {}
        handed = [each for each in credentials if each.issued_at is not None]
        proofs = {
            (endpoint, version): proof
            for endpoint, version, proof in Rotation.objects.filter(
                secret__endpoint__in={each.grant.request.profile.endpoint_id for each in handed},
                secret__use=Use.HANDED_OUT,
                state=RotationState.RETIRED,
            ).values_list("secret__endpoint_id", "old_version", "proof")
        }
        for each in credentials:
            if each.issued_at is None:
                found[str(each.pk)] = "it was never handed out"
                continue
            version = each.handles["version"]
            proof = proofs.get((each.grant.request.profile.endpoint_id, version))
            if proof is not None:
                found[str(each.pk)] = f"version {version} is rotated: {proof}"
        return found


KIND = StaticSecret()
