"""RFC 7662: what a credential is for, told to those who answer for its endpoint."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db.models import Q

from accounts.models import User
from audit import clock
from broker.errors import NotFound, Unavailable
from credentials import vault
from credentials.kinds import recognise
from credentials.live import holding
from credentials.models import Credential
from credentials.scopes import space_separated

INACTIVE: dict[str, Any] = {"active": False}


def introspect(*, by: User, secret: str, of: Sequence[uuid.UUID] = ()) -> dict[str, Any]:
    """The members of the answer for this secret; INACTIVE unless it holds at this moment.

    Raises NotFound for a credential of an endpoint that isn't theirs, or none `of` these, and
    Unavailable when Vault can't be asked.
    """
    try:
        known = recognise(secret)
    except vault.VaultDenied as error:
        raise Unavailable(
            "Web may not look tokens up in Vault. An operator has to give it the policy that came "
            "with this version: see docs/operations.md."
        ) from error
    except vault.VaultError as error:
        raise Unavailable("Vault can't be asked about this token at the moment.") from error
    if known is None:
        return INACTIVE
    among = Q(grant__request__profile__endpoint__in=of) if of else Q()
    credential = (
        Credential.objects.filter(_theirs(by) & among, pk=known.credential)
        .select_related("grant__holder", "grant__request__profile__endpoint")
        .first()
    )
    if credential is None:
        raise NotFound(kind="credential", id=str(known.credential))
    if known.credential not in holding([known.credential]):
        return INACTIVE
    if known.expires_at is not None and known.expires_at <= clock.now():
        return INACTIVE
    grant = credential.grant
    issued_at = known.issued_at or credential.issued_at or credential.created_at
    own = f"{settings.KEYTURN_GATEWAY_URL}/e/{grant.request.profile.endpoint.slug}"
    return {
        "active": True,
        "token_type": "Bearer",
        "scope": space_separated(grant.allowed),
        "authorization_details": [{"type": "keyturn", **grant.allowed.as_json()}],
        "client_id": str(grant.pk),
        "sub": str(grant.holder_id),
        "username": grant.holder.email,
        "iss": settings.KEYTURN_BASE_URL,
        "aud": known.audience or own,
        "jti": known.token or str(credential.pk),
        "iat": int(issued_at.timestamp()),
        "nbf": int(grant.starts_at.timestamp()),
        "exp": int((known.expires_at or grant.ends_at).timestamp()),
    }


def _theirs(user: User) -> Q:
    """Who answers for the endpoint, and who sees everything. Neither holder nor reviewer needs it,
    and each more who may ask is one more who can tell a token that they found from a dead one."""
    if user.sees_everything:
        return Q()
    return Q(grant__request__profile__endpoint__owner=user)
