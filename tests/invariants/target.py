"""What the target itself says, asked past the broker and its own module for Vault."""

import datetime as dt
import urllib.error
from typing import Any

import pgtrigger
from django.db.models import F

from accessrequests.models import Grant
from credentials.models import Credential
from credentials.states import CredentialState
from tests.servers import Servers


def token_of(servers: Servers, secret: str) -> dict[str, Any] | None:
    """What OpenBao holds for this secret, None where it says that there is nothing."""
    return ask(servers, "lookup", {"token": secret})


def tokens_of(servers: Servers, grant: Grant) -> list[dict[str, Any]]:
    """Every live token in OpenBao that was minted under this grant, whoever knows of it."""
    accessors = servers.vault("LIST", "auth/token/accessors/")["data"]["keys"]
    found = (ask(servers, "lookup-accessor", {"accessor": each}) for each in accessors)
    return [each for each in found if each and (each["meta"] or {}).get("grant") == str(grant.pk)]


def ask(servers: Servers, how: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """What OpenBao says of a token (`how`: lookup or lookup-accessor); None if there is none."""
    try:
        data: dict[str, Any] = servers.vault("POST", f"auth/token/{how}", body)["data"]
    except urllib.error.HTTPError as error:
        said = error.read().decode()
        # To the operator, who may do anything, a refusal can only be about the token.
        if any(words in said for words in ("bad token", "invalid accessor", "permission denied")):
            return None
        raise
    return data


def wait_out(credential: Credential, seconds: float) -> None:
    """Let this much time pass for a credential, by moving it into the past."""
    by = dt.timedelta(seconds=-seconds)
    with pgtrigger.ignore("credentials.Credential:credential_fixed"):
        Credential.objects.filter(pk=credential.pk).update(created_at=F("created_at") + by)
        Credential.objects.filter(pk=credential.pk).exclude(next_attempt_at=None).update(
            next_attempt_at=F("next_attempt_at") + by
        )
    credential.refresh_from_db()


def assert_proven_gone(credential: Credential) -> None:
    credential.refresh_from_db()
    assert credential.state == CredentialState.REVOKED, (credential.state, credential.last_error)
    assert credential.revoked_at is not None
    assert credential.proof
