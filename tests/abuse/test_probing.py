"""Guessing tokens and passwords: what is learnt from an answer, and how often one may guess."""

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts import tokens
from accounts.actions import (
    TRIES_PER_ACCOUNT,
    TRIES_PER_ACCOUNT_AND_ADDRESS,
    create_token,
    sign_in,
)
from accounts.models import ApiToken, User
from audit import clock
from audit.context import Origin, working_for
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import TooManyTries
from tests.invariants.races import at_once
from tests.world import PASSWORD, World

# ── API tokens ──────────────────────────────────────────────────────────────────────────────────


def ask(text: str) -> Any:
    return Client().get("/api/v1/requests/", headers={"Authorization": f"Bearer {text}"})


def altered(text: str, place: int) -> str:
    """The same with another character there and a checksum that fits."""
    body = text.rpartition("_")[0]
    place %= len(body)
    body = body[:place] + ("a" if body[place] != "a" else "b") + body[place + 1 :]
    return f"{body}_{tokens._checksum(body)}"


PROBES: dict[str, Callable[[str], str]] = {
    "empty": "".format,
    "no token": "x".format,
    "half": lambda text: text[:40],
    "with more": lambda text: text + "0",
    "wrong checksum": lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
    "wrong secret": lambda text: altered(text, -1),
    "wrong first character of the secret": lambda text: altered(text, -43),
    "unknown id": lambda text: altered(text, 7),
    "unknown kind": lambda text: text.replace("kt_pat_", "kt_svc_"),
    "upper case": lambda text: text.upper(),
    "the id alone": lambda text: text.split("_")[2],
    "very long": lambda text: text * 10_000,
    "not ASCII": lambda text: text[:-1] + "٣",
    "SQL": "kt_pat_' OR 1=1 --_x_0".format,
}


@pytest.mark.django_db
def test_the_token_itself_opens(world: World) -> None:
    user = world.person()
    _, text = create_token(by=user, owner=user, name="x")
    assert ask(text).status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("probe", PROBES)
def test_nothing_is_learnt_from_a_token_that_is_not_one(probe: str, world: World) -> None:
    user = world.person()
    _, text = create_token(by=user, owner=user, name="x")
    answer, unknown = ask(PROBES[probe](text)), ask(tokens.generate().text)
    assert answer.status_code == 401
    assert answer.json() == unknown.json()


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["revoked", "expired", "deactivated"])
def test_nothing_is_learnt_from_a_token_that_was_one(why: str, world: World) -> None:
    user = world.person()
    row, text = create_token(by=user, owner=user, name="x")
    assert ask(text).status_code == 200
    rows = ApiToken.objects.filter(pk=row.pk)
    match why:
        case "revoked":
            rows.update(revoked_at=clock.now())
        case "expired":
            rows.update(expires_at=clock.now())
        case "deactivated":
            User.objects.filter(pk=user.pk).update(is_active=False)
    answer = ask(text)
    assert answer.status_code == 401
    assert answer.json() == ask(tokens.generate().text).json()


# ── Passwords ───────────────────────────────────────────────────────────────────────────────────


def attempt(email: str, password: str, address: str) -> Any:
    with working_for(Origin(via="portal", address=address)):
        return sign_in(request=RequestFactory().post("/"), email=email, password=password)


@pytest.mark.usefixtures("committed")
def test_guesses_at_once_get_as_many_tries_as_guesses_in_a_row(world: World) -> None:
    user = world.person(password=PASSWORD)
    guess = partial(attempt, user.email, "a wrong guess", "192.0.2.1")
    outcomes = Counter(type(each) for each in at_once([guess] * 20))
    assert outcomes == {
        type(None): TRIES_PER_ACCOUNT_AND_ADDRESS,
        TooManyTries: 20 - TRIES_PER_ACCOUNT_AND_ADDRESS,
    }
    with pytest.raises(TooManyTries):
        attempt(user.email, PASSWORD, "192.0.2.1")
    assert attempt(user.email, PASSWORD, "192.0.2.2") == user, "elsewhere they still get in"


@pytest.mark.usefixtures("committed")
def test_guesses_from_many_addresses_have_a_limit_too(world: World) -> None:
    user = world.person(password=PASSWORD)
    guesses = [partial(attempt, user.email, "wrong", f"192.0.2.{n}") for n in range(34)]
    outcomes = Counter(type(each) for each in at_once(guesses))
    assert outcomes == {type(None): TRIES_PER_ACCOUNT, TooManyTries: 34 - TRIES_PER_ACCOUNT}


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("spelling", [str.upper, lambda email: f"  {email} ", str.title])
def test_another_spelling_of_the_account_is_the_same_account(spelling: Any, world: World) -> None:
    user = world.person(password=PASSWORD)
    for _ in range(TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert attempt(user.email, "wrong", "192.0.2.1") is None
    with pytest.raises(TooManyTries):
        attempt(spelling(user.email), PASSWORD, "192.0.2.1")


@pytest.mark.django_db
def test_a_lock_out_keeps_nobody_out_of_their_session(world: World) -> None:
    user = world.person(password=PASSWORD)
    client = Client()
    assert post_sign_in(client, user.email, PASSWORD).status_code == 302
    guesses = [
        post_sign_in(Client(), user.email, "wrong").status_code
        for _ in range(TRIES_PER_ACCOUNT_AND_ADDRESS + 1)
    ]
    assert guesses == [400] * TRIES_PER_ACCOUNT_AND_ADDRESS + [429]
    assert client.get(reverse("home")).status_code == 200


def post_sign_in(client: Client, email: str, password: str) -> Any:
    return client.post(reverse("sign-in"), {"username": email, "password": password})


def plain(answer: Any, email: str) -> str:
    text = answer.content.decode().replace(email, "<email>")
    return re.sub(r'(csrfmiddlewaretoken" value=")\w+', r"\1", text)


@pytest.mark.django_db
@pytest.mark.parametrize("account", ["deactivated", "without a password", "unknown"])
def test_an_answer_does_not_tell_whether_there_is_an_account(account: str, world: World) -> None:
    known = world.person(password=PASSWORD)
    match account:
        case "deactivated":
            other = world.person(password=PASSWORD, is_active=False).email
        case "without a password":
            other = world.person().email
        case _:
            other = "nobody@example.com"
    wrong = post_sign_in(Client(), known.email, "a wrong guess")
    there = post_sign_in(Client(), other, PASSWORD)
    assert wrong.status_code == there.status_code == 400
    assert plain(wrong, known.email) == plain(there, other)


@pytest.mark.django_db
def test_what_was_typed_is_not_on_record(world: World) -> None:
    """People type their password where their name belongs."""
    before = AuditEvent.objects.count()
    post_sign_in(Client(), "my secret password", "my secret password")
    row = AuditEvent.objects.get(event=Event.SIGN_IN_REFUSED)
    assert AuditEvent.objects.count() == before + 1
    assert "my secret" not in str(AuditEvent.objects.filter(pk=row.pk).values())


@pytest.mark.django_db
def test_a_session_ends_with_its_person_and_its_time(world: World) -> None:
    from django.conf import settings

    user = world.person(password=PASSWORD)
    client = Client()
    post_sign_in(client, user.email, PASSWORD)
    assert client.get(reverse("home")).status_code == 200
    session = client.session
    session["began"] -= settings.KEYTURN_SESSION_MAX + 1
    session.save()
    assert client.get(reverse("home")).status_code == 302
    post_sign_in(client, user.email, PASSWORD)
    assert client.get(reverse("home")).status_code == 200
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert client.get(reverse("home")).status_code == 302


def test_old_failures_are_forgotten(db: None, world: World) -> None:
    from accounts.actions import TRY_WINDOW, forget_old_tries
    from accounts.models import SignInTry

    user = world.person(password=PASSWORD)
    for _ in range(TRIES_PER_ACCOUNT_AND_ADDRESS):
        attempt(user.email, "wrong", "192.0.2.1")
    SignInTry.objects.update(at=clock.now() - TRY_WINDOW - dt.timedelta(seconds=1))
    assert attempt(user.email, PASSWORD, "192.0.2.1") == user
    forget_old_tries()
    assert not SignInTry.objects.exists()
