"""What can be a password, by whichever way it's set."""

from typing import Any

import pytest
from django.contrib.auth import authenticate

from accounts.actions import set_password
from accounts.models import User
from broker.errors import InvalidInput
from tests.world import World

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
