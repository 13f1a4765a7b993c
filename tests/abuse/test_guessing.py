"""A thousand guesses at once: the counts hold, nobody else notices, and no answer or its time
tells whether there is an account."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts import factors
from accounts.actions import TRIES_PER_ACCOUNT, TRIES_PER_ACCOUNT_AND_ADDRESS
from accounts.models import SignInTry, Totp, User
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import InvalidInput, TooManyTries
from tests.abuse.test_probing import attempt
from tests.accounts.authenticator import authenticator, code, wrong
from tests.world import PASSWORD, World

pytestmark = pytest.mark.usefixtures("committed")
THREADS = 12


def together(call: Callable[[int], Any], many: int) -> list[Any]:
    """What each of these calls returned or raised, twelve at a time."""

    def run(number: int) -> Any:
        try:
            return call(number)
        except (InvalidInput, TooManyTries) as error:
            return error
        finally:
            # Threads of a pool live on; their connections must not.
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(many)))


@pytest.mark.slow
def test_wrong_passwords(world: World) -> None:
    # Fewer of them in `make check`: tests/abuse/test_probing.py.
    many = 1000
    user, other = world.person(password=PASSWORD), world.person(password=PASSWORD)
    at_work, own_address = Client(), "198.51.100.7"
    sign_in = {"username": user.email, "password": PASSWORD}
    assert at_work.post(reverse("sign-in"), sign_in).status_code == 302
    addresses = [f"203.0.113.{number}" for number in range(8)]
    pages = []

    def guess(number: int) -> Any:
        if number % 20 == 7:
            pages.append(at_work.get(reverse("home")).status_code)
        return attempt(user.email, f"wrong guess {number}", addresses[number % len(addresses)])

    outcomes = Counter(type(each) for each in together(guess, many))
    assert outcomes == {
        type(None): TRIES_PER_ACCOUNT,
        TooManyTries: many - TRIES_PER_ACCOUNT,
    }
    refused = AuditEvent.objects.filter(event=Event.SIGN_IN_REFUSED, address__in=addresses)
    assert refused.count() == TRIES_PER_ACCOUNT
    by_address = Counter(refused.values_list("address", flat=True))
    assert max(by_address.values()) <= TRIES_PER_ACCOUNT_AND_ADDRESS
    assert SignInTry.objects.filter(address__in=addresses).count() == TRIES_PER_ACCOUNT
    assert set(pages) == {200}, "who is in stays in"
    assert at_work.get(reverse("home")).status_code == 200
    assert attempt(other.email, PASSWORD, own_address) == other, "others sign in as ever"
    with pytest.raises(TooManyTries):
        attempt(user.email, PASSWORD, own_address)


@pytest.mark.parametrize("many", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_wrong_codes(many: int, world: World) -> None:
    user = world.person()
    secret = authenticator(user)
    given = wrong(secret)
    at_work = Client()
    at_work.force_login(User.objects.get(pk=user.pk))
    outcomes = Counter(
        type(each) for each in together(lambda _: factors.prove(by=user, code=given), many)
    )
    assert outcomes == {
        InvalidInput: factors.FREE_FAILURES,
        TooManyTries: many - factors.FREE_FAILURES,
    }
    assert Totp.objects.get(person=user).failures == factors.FREE_FAILURES
    refused = AuditEvent.objects.filter(event=Event.STEP_UP_REFUSED, actor_id=user.pk)
    assert refused.count() == factors.FREE_FAILURES
    assert at_work.get(reverse("home")).status_code == 200
    with pytest.raises(TooManyTries):
        factors.prove(by=user, code=code(secret))


@pytest.mark.slow
def test_times_do_not_tell_whether_there_is_an_account(world: World) -> None:
    kinds = {
        "wrong password": world.person(password=PASSWORD).email,
        "deactivated": world.person(password=PASSWORD, is_active=False).email,
        "without a password": world.person().email,
        "unknown": "nobody-at-all@example.com",
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(3):
        # In turns, so that whatever else this machine does meets all of them alike.
        for kind, email in kinds.items():
            # The processor's time, for hashing is what takes it, and no other process adds to it.
            began = time.process_time()
            assert attempt(email, "a wrong guess", f"192.0.2.{turn}") is None
            seconds[kind].append(time.process_time() - began)
    typical = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    # Without the hash an answer comes in a twentieth of the time.
    assert max(typical.values()) < 3 * min(typical.values()), typical
