"""What those who verify JWTs read: the public keys, and where they and the rest are found."""

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from broker.errors import Unavailable
from credentials import signing, vault
from credentials.kinds.jwt import CLAIMS


def _versions() -> tuple[signing.Version, ...]:
    try:
        return signing.published()
    except (vault.VaultError, DatabaseError) as error:
        raise Unavailable("Keyturn can't ask its Vault for the public keys yet.") from error


def _answer(body: dict[str, Any]) -> JsonResponse:
    max_age = settings.KEYTURN_JWKS_MAX_AGE
    return JsonResponse(body, headers={"Cache-Control": f"public, max-age={max_age}"})


@login_not_required
@require_safe
def jwks(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    """The public keys (RFC 7517). While Vault is away, those that it had last."""
    return _answer({"keys": [version.jwk for version in _versions()]})


@login_not_required
@require_safe
def openid_configuration(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    """What OpenID discovery asks for, as far as there is something: nobody signs in here."""
    base = settings.KEYTURN_BASE_URL
    return _answer(
        {
            "issuer": base,
            "jwks_uri": base + reverse("jwks"),
            "introspection_endpoint": base + reverse("api-introspect"),
            "revocation_endpoint": base + reverse("api-revoke"),
            "revocation_endpoint_auth_methods_supported": ["none"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({each.alg for each in _versions()}),
            "claims_supported": [*CLAIMS, "scope", "authorization_details"],
            "service_documentation": base + reverse("api-docs"),
        }
    )
