"""RFC 7009: whoever holds a secret takes it back, and learns nothing by trying."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from accessrequests.models import Grant
from audit.events import Event
from audit.models import AuditEvent
from credentials.actions import check_out
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason
from tests.api.callers import Caller, faults, problem
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(params=["gateway_token", "jwt"])
def grant(request: pytest.FixtureRequest, world: World) -> Grant:
    return world.grant(profile=world.profile(credential_kind=request.param))


@pytest.fixture
def secret(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


def revoke(caller: Caller, secret: str, **more: str) -> Any:
    return caller.send("POST", "revoke/", urlencode({"token": secret, **more}), content_type=FORM)


def is_answered(answer: Any) -> None:
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Cache-Control"] == "no-store"


def test_by_nobody_in_particular(grant: Grant, secret: str) -> None:
    is_answered(revoke(Caller(None), secret, token_type_hint="access_token"))
    row = Credential.objects.get(grant=grant)
    assert (row.state, row.revoke_reason) == (CredentialState.REVOKING, RevokeReason.TAKEN_BACK)
    grant.refresh_from_db()
    assert grant.ended_at is None
    event = AuditEvent.objects.get(event=Event.CREDENTIAL_REVOKING)
    assert (event.actor_id, event.via, event.address) == (None, "api", "127.0.0.1")
    assert event.data == {"reason": "taken_back"}
    is_answered(revoke(Caller(None), secret))
    assert AuditEvent.objects.filter(event=Event.CREDENTIAL_REVOKING).count() == 1


def test_by_somebody(world: World, grant: Grant, secret: str) -> None:
    finder = world.person()
    is_answered(Caller(finder, "token").post("revoke/", {"token": secret}))
    event = AuditEvent.objects.get(event=Event.CREDENTIAL_REVOKING)
    assert event.actor_id == finder.pk


def test_what_is_no_secret_is_answered_alike(servers: Servers, secret: str) -> None:
    """A stranger can't tell by it what there is."""
    login = servers.vault_token("web")
    others = [login, "s." + "x" * 24, "kt_pat_x", "x", "'\"\\é{}"]
    if secret.startswith("eyJ"):
        head, _, signature = secret.rpartition(".")
        others += [f"{head}.{signature[::-1]}", f"{head}.", f"{head}.{'A' * 86}"]
    for other in others:
        is_answered(revoke(Caller(None), other))
    servers.vault("GET", "auth/token/lookup-self", token=login)
    assert Credential.objects.get().state == CredentialState.ACTIVE


def test_what_is_not_read(world: World, secret: str) -> None:
    nobody = Caller(None)
    answer = nobody.send("POST", f"revoke/?token={secret}", f"token={secret}", content_type=FORM)
    assert "logs" in faults(answer)["token"]
    assert secret not in answer.content.decode()
    assert faults(nobody.post("revoke/", {"token": "x", "grant": "y"})).keys() == {"grant"}
    assert nobody.send("POST", "revoke/", "", content_type=FORM).status_code == 400
    problem(nobody.get("revoke/", token=secret), 405, "method-not-allowed")
    session = Caller(world.person())
    session.headers = {}
    problem(session.send("POST", "revoke/", json.dumps({"token": secret})), 403, "forbidden")
    assert Credential.objects.get().state == CredentialState.ACTIVE


def test_while_vault_is_away(secret: str, settings: Any) -> None:
    settings.VAULT_ADDR = "http://127.0.0.1:12"
    answer = revoke(Caller(None), secret)
    if secret.startswith("eyJ"):  # known without asking
        is_answered(answer)
    else:
        problem(answer, 503, "unavailable")
        assert answer["Retry-After"]
        assert secret not in answer.content.decode()
