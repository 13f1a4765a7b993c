"""What can be a password, by whichever way it's set."""

from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.test import Client
from django.urls import reverse

from accounts.actions import TRIES_PER_ACCOUNT_AND_ADDRESS, set_password
from accounts.models import User
from broker.errors import InvalidInput
from notifications.kinds import Kind
from notifications.models import Notification
from tests.accounts.authenticator import authenticator
from tests.world import PASSWORD, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(world: World) -> User:
    return world.person(full_name="Anastasia Lindqvist")


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("eleven char", "too short"),
        ("qwerty123456", "published list"),
        ("QWERTY123456", "published list"),
        ("iloveyou1234", "published list"),
        ("Keyturn-Keyturn", "guessed first"),
        ("password keyturn 1", "guessed first"),
        ("AcmeRockets2026!", "guessed first"),
        ("anastasialindqvist", "too similar"),
    ],
)
def test_what_is_guessed_first_is_refused(
    password: str, why: str, user: User, settings: Any
) -> None:
    settings.KEYTURN_PASSWORD_WORDS = ["Acme", "Rockets"]
    with pytest.raises(InvalidInput) as refused:
        set_password(by=None, user=user, password=password)
    assert why in refused.value.errors["password"]
    user.refresh_from_db()
    assert not user.has_usable_password()


@pytest.mark.parametrize(
    "password",
    [
        "nothing but lower case",
        " ключ от всех дверей 🔑 ",
        "x1 " * 300,
    ],
)
def test_anything_else_is_taken_as_it_is(password: str, user: User) -> None:
    set_password(by=None, user=user, password=password)
    assert authenticate(username=user.email, password=password) == user
    assert authenticate(username=user.email, password=password[:-1]) is None


# Changing one's own

NEW = "another one, of a few words"


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def changed(browser: Client, current: str, password: str = NEW, again: str = "") -> int:
    given = {"current": current, "password": password, "again": again or password}
    return browser.post(reverse("password"), given).status_code


def test_one_changes_ones_own(world: World) -> None:
    user = world.person(password=PASSWORD)
    here, there = signed_in(user), signed_in(user)
    assert changed(here, "not this one") == 400
    assert changed(here, PASSWORD, again=NEW + ".") == 400
    assert changed(here, PASSWORD, password="short") == 400
    assert User.objects.get(pk=user.pk).check_password(PASSWORD)
    key = here.session.session_key
    assert changed(here, PASSWORD) == 302
    assert User.objects.get(pk=user.pk).check_password(NEW)
    assert here.get(reverse("profile")).status_code == 200
    assert here.session.session_key != key
    assert there.get(reverse("profile")).status_code == 302, "it has ended"
    told = Notification.objects.get(person=user, kind=Kind.PASSWORD_CHANGED)
    assert told.sentence == "Your password was changed"


def test_a_change_takes_all_that_a_sign_in_does(world: World) -> None:
    user = world.person(password=PASSWORD)
    browser = signed_in(user)
    for _ in range(TRIES_PER_ACCOUNT_AND_ADDRESS):
        assert changed(browser, "not this one") == 400
    assert changed(browser, PASSWORD) == 429
    authenticator(user)
    browser = signed_in(User.objects.get(pk=user.pk))
    given = {"current": PASSWORD, "password": NEW, "again": NEW}
    for asked in (browser.get(reverse("password")), browser.post(reverse("password"), given)):
        assert asked["Location"].startswith(reverse("step-up"))
    assert User.objects.get(pk=user.pk).check_password(PASSWORD)
    without = signed_in(world.person())
    assert without.get(reverse("password")).status_code == 409
