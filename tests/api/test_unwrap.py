"""Wrapped delivery: a token instead of the secret, and exactly one reader."""

import json
from collections.abc import Callable
from typing import Any

import hvac
import pytest

from accessrequests.models import Grant
from audit.events import Event
from audit.models import AuditEvent
from credentials import vault
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from notifications.kinds import Kind
from notifications.models import Notification
from tests.api.callers import Caller, problem
from tests.invariants.races import at_once
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


def wrapped(grant: Grant) -> tuple[Caller, str, str]:
    """Its holder, the credential's path and the wrapping token."""
    holder = Caller(grant.holder)
    answer = holder.post(f"grants/{grant.pk}/credentials/", {"wrap": True})
    assert answer.status_code == 201, answer.content
    told = answer.json()
    assert told["wrapped"] is True
    assert told["parts"] == {"secret": told["secret"]}
    assert answer["Cache-Control"] == "no-store"
    return holder, f"credentials/{told['credential']['id']}/unwrap/", told["secret"]


def told(grant: Grant) -> int:
    return Notification.objects.filter(kind=Kind.WRAP_TAKEN, person=grant.holder).count()


def test_the_first_reader_gets_it_and_the_second_is_told_that_it_is_gone(
    grant: Grant, servers: Servers
) -> None:
    holder, path, token = wrapped(grant)
    answer = holder.post(path, {"token": token})
    assert answer.status_code == 200, answer.content
    assert answer["Cache-Control"] == "no-store"
    secret = answer.json()["secret"]
    held = servers.vault("POST", "auth/token/lookup", {"token": secret})["data"]
    assert held["meta"]["grant"] == str(grant.pk)
    assert answer.json()["wrapped"] is False
    assert told(grant) == 0

    for _ in range(2):
        problem(holder.post(path, {"token": token}), 410, "wrap-taken")
    assert told(grant) == 1, "once, however often it's tried"
    events = list(
        AuditEvent.objects.filter(event__startswith="credential:unwrap")
        .filter(subject_id=grant.credentials.get().pk)
        .order_by("pk")
        .values_list("event", flat=True)
    )
    assert events == [Event.CREDENTIAL_UNWRAPPED, *[Event.CREDENTIAL_UNWRAP_REFUSED] * 2]


def test_of_fifty_at_once_exactly_one_reads_it(grant: Grant, settings: Any) -> None:
    settings.VAULT_TIMEOUT = 60  # fifty threads of one interpreter are slow, not Vault
    holder, path, token = wrapped(grant)
    answers = at_once([lambda: holder.post(path, {"token": token}).status_code] * 50)
    assert sorted(answers) == [200, *[410] * 49]


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("error decrementing wrapping token's use-count: token not found or fully used", None),
        ("error decrementing wrapping token's use-count: invalid token entry provided", None),
        ("local node not active", vault.VaultDown),
    ],
)
def test_what_openbao_says_to_those_who_come_while_it_is_read(
    said: str, means: type[Exception] | None, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen of OpenBao 2.7: 3 times of 4,500 unwraps of 150 tokens, 30 at once."""
    _, _, token = wrapped(grant)

    def refuse(*_: object, **__: object) -> None:
        raise hvac.exceptions.InternalServerError(said)

    monkeypatch.setattr(hvac.adapters.JSONAdapter, "post", refuse)
    if means is None:
        assert vault.unwrap(token) is None
    else:
        with pytest.raises(means):
            vault.unwrap(token)


def test_who_reads_it_at_vault_is_the_one_reader(grant: Grant, servers: Servers) -> None:
    holder, path, token = wrapped(grant)
    taken = servers.vault("POST", "sys/wrapping/unwrap", {}, token=token)["data"]
    assert taken["secret"].startswith("s.")
    problem(holder.post(path, {"token": token}), 410, "wrap-taken")
    assert told(grant) == 1


def test_a_token_that_somebody_else_wrapped_is_refused_unread(grant: Grant, world: World) -> None:
    """Whoever read the first may wrap something of their own and pass that on."""
    holder, path, _ = wrapped(grant)
    for other in (
        vault.wrap({"secret": "s.evil"}, seconds=60).token,
        check_out(by=(theirs := world.grant()).holder, grant_id=theirs.pk).secret,
        check_out(by=theirs.holder, grant_id=theirs.pk, wrap=True).secret,
    ):
        refused = problem(holder.post(path, {"token": other}), 400, "invalid-input")
        assert refused["errors"][0]["field"] == "token"
    assert vault.unwrap(other) is not None, "it's still there for whom it's for"


def test_ending_the_grant_ends_an_unread_wrap_and_what_is_in_it(
    grant: Grant, sweep: Callable[[], int], servers: Servers
) -> None:
    holder, path, token = wrapped(grant)
    end_grant(grant_id=grant.pk, by=grant.holder)
    problem(holder.post(path, {"token": token}), 409, "grant-not-live")
    accessor = grant.credentials.get().accessor
    sweep()
    assert vault.wrapping(token) is None
    assert grant.credentials.get().state == "revoked"
    assert accessor not in servers.vault("LIST", "auth/token/accessors")["data"]["keys"]


def test_a_replaced_one_is_not_unwrapped(grant: Grant, sweep: Callable[[], int]) -> None:
    holder, path, token = wrapped(grant)
    wrapped(grant)
    problem(holder.post(path, {"token": token}), 409, "grant-not-live")
    sweep()
    assert vault.wrapping(token) is None


def test_what_was_not_wrapped_is_not_unwrapped(grant: Grant) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    path = f"credentials/{out.credential.pk}/unwrap/"
    problem(Caller(grant.holder).post(path, {"token": out.secret}), 409, "conflict")


@pytest.mark.parametrize(
    "body", [{"wrap": "please"}, {"wrap": None}, {"wrapped": True}, {"wrap": True, "ttl": 9}, [1]]
)
def test_check_out_takes_wrap_and_nothing_else(grant: Grant, body: Any) -> None:
    problem(
        Caller(grant.holder).post(f"grants/{grant.pk}/credentials/", body), 400, "invalid-input"
    )
    assert not grant.credentials.exists()


def test_the_secret_comes_with_its_parts(grant: Grant) -> None:
    answer = Caller(grant.holder).post(f"grants/{grant.pk}/credentials/").json()
    assert answer["parts"] == {"secret": answer["secret"]}
    assert answer["wrapped"] is False
    assert "wrapped_accessor" not in json.dumps(answer)
    assert Credential.objects.get(grant=grant).wrapped_accessor == ""
