"""RFC 7662: who is told what about a credential, and that nobody else learns anything."""

import datetime as dt
import json
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from django.conf import settings

from accessrequests.models import Grant
from accounts.actions import create_user
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from endpoints.actions import retire_endpoint
from tests.api.callers import Caller, faults, problem
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(models=["demo-large", "demo-small"])


@pytest.fixture
def secret(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


@pytest.fixture
def owner(grant: Grant) -> User:
    return grant.request.profile.endpoint.owner


def ask(user: User | None, secret: str, how: str = "token", **more: str) -> Any:
    return Caller(user, how).send(
        "POST", "introspect/", urlencode({"token": secret, **more}), content_type=FORM
    )


def is_inactive(answer: Any) -> None:
    assert answer.status_code == 200
    assert answer.json() == {"active": False}
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("how", ["session", "token"])
def test_what_is_told(how: str, grant: Grant, secret: str, owner: User) -> None:
    answer = ask(owner, secret, how, token_type_hint="access_token")
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    credential = Credential.objects.get(grant=grant)
    assert credential.issued_at is not None
    assert answer.json() == {
        "active": True,
        "token_type": "Bearer",
        "scope": "demo-large demo-small",
        "authorization_details": [{"type": "keyturn", "models": ["demo-large", "demo-small"]}],
        "client_id": str(grant.pk),
        "sub": str(grant.holder_id),
        "username": grant.holder.email,
        "iss": settings.KEYTURN_BASE_URL,
        "aud": f"{settings.KEYTURN_GATEWAY_URL}/e/{grant.request.profile.endpoint.slug}",
        "jti": str(credential.pk),
        "iat": int(credential.issued_at.timestamp()),
        "nbf": int(grant.starts_at.timestamp()),
        "exp": int(grant.ends_at.timestamp()),
    }
    assert secret not in answer.content.decode()


def test_json_does_as_well(secret: str, owner: User) -> None:
    assert Caller(owner, "token").post("introspect/", {"token": secret}).json()["active"] is True


def test_a_service_account_that_owns_the_endpoint(world: World) -> None:
    person = world.person()
    service = create_user(
        by=None, email=f"s-{person.email}", full_name="Proxy", owner=person, password=None
    )
    grant = world.grant(profile=world.profile(endpoint=world.endpoint(owner=service)))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    assert ask(service, secret).json()["active"] is True
    is_inactive(ask(person, secret))


def test_who_is_told(world: World, grant: Grant, secret: str, owner: User) -> None:
    profile = grant.request.profile
    told = {
        "owner": owner,
        "auditor": world.person(is_auditor=True),
        "administrator": world.person(is_administrator=True),
    }
    for user in told.values():
        assert ask(user, secret).json()["active"] is True
    others = {
        "holder": grant.holder,
        "teammate": world.person(profile.requesters),
        "reviewer": world.person(profile.reviewers),
        "owner of another": world.endpoint(with_key=False).owner,
        "stranger": world.person(),
    }
    for user in others.values():
        is_inactive(ask(user, secret))
        refused = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=user.pk)
        assert refused.data["path"] == "/api/v1/introspect/"
        assert secret not in json.dumps(refused.data)
    problem(ask(None, secret), 401, "not-signed-in")


def test_what_is_over_is_not_active(grant: Grant, secret: str, owner: User) -> None:
    end_grant(grant_id=grant.pk, by=grant.holder)
    is_inactive(ask(owner, secret))


def test_a_jwt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = world.profile(credential_kind="jwt", kind_settings={"audience": "urn:llm"})
    grant = world.grant(profile=profile, models=["demo-small"])
    out = check_out(by=grant.holder, grant_id=grant.pk)
    said = jwt.decode(out.secret, options={"verify_signature": False})
    told = ask(profile.endpoint.owner, out.secret).json()
    shared = ("iss", "aud", "sub", "client_id", "jti", "iat", "exp", "scope")
    assert {name: told[name] for name in shared} == {name: said[name] for name in shared}
    assert told["authorization_details"] == said["authorization_details"]
    is_inactive(ask(world.person(), out.secret))
    head, _, signature = out.secret.rpartition(".")
    is_inactive(ask(profile.endpoint.owner, f"{head}.{signature[::-1]}"))
    later = clock.now() + dt.timedelta(minutes=6)
    monkeypatch.setattr("credentials.introspection.clock.now", lambda: later)
    is_inactive(ask(profile.endpoint.owner, out.secret))
    monkeypatch.undo()
    end_grant(grant_id=grant.pk, by=grant.holder)
    is_inactive(ask(profile.endpoint.owner, out.secret))


def test_a_retired_endpoint_has_no_active_credential(
    grant: Grant, secret: str, owner: User
) -> None:
    retire_endpoint(by=None, endpoint=grant.request.profile.endpoint)
    is_inactive(ask(owner, secret))


def test_one_that_was_replaced(grant: Grant, secret: str, owner: User) -> None:
    newer = check_out(by=grant.holder, grant_id=grant.pk).secret
    is_inactive(ask(owner, secret))
    assert ask(owner, newer).json()["active"] is True


def test_no_token_of_keyturn(world: World, servers: Servers) -> None:
    administrator = world.person(is_administrator=True)
    others = [servers.vault_token("web"), "s." + "x" * 24, "kt_pat_x", "x", "'\"\\é{}"]
    for token in others:
        is_inactive(ask(administrator, token))


def test_models_that_no_scope_can_name(world: World) -> None:
    profile = world.profile(models=['my "own" model', "llama3:8b"])
    grant = world.grant(profile=profile, models=['my "own" model', "llama3:8b"])
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    told = ask(profile.endpoint.owner, secret).json()
    assert told["scope"] == "llama3:8b"
    assert told["authorization_details"][0]["models"] == ["llama3:8b", 'my "own" model']


@pytest.mark.parametrize("body", ["", "token=", "token=a&token=b", "token=%ff", "a=1&" * 30])
def test_a_form_that_is_not_read(body: str, world: World) -> None:
    answer = Caller(world.person(), "token").send("POST", "introspect/", body, content_type=FORM)
    assert answer.status_code == 400


def test_a_field_that_is_not_known_or_a_token_that_is_too_long(owner: User) -> None:
    assert faults(ask(owner, "x", client_secret="s")).keys() == {"client_secret"}
    assert faults(ask(owner, "x" * 8001)).keys() == {"token"}


def test_a_token_in_the_url(secret: str, owner: User) -> None:
    answer = Caller(owner, "token").send(
        "POST", f"introspect/?token={secret}", f"token={secret}", content_type=FORM
    )
    assert "logs" in faults(answer)["token"]
    assert secret not in answer.content.decode()
    assert Caller(owner, "token").get("introspect/", token=secret).status_code == 405


def test_while_vault_is_sealed(secret: str, owner: User, settings: Any) -> None:
    settings.VAULT_ADDR = "http://127.0.0.1:9"
    answer = ask(owner, secret)
    problem(answer, 503, "unavailable")
    assert answer["Retry-After"]
    assert secret not in answer.content.decode()


def test_where_webs_policy_is_that_of_before(secret: str, owner: User, role: Any) -> None:
    with role("worker"):  # which may not look a token up either
        answer = ask(owner, secret)
    assert "docs/operations.md" in problem(answer, 503, "unavailable")["detail"]
