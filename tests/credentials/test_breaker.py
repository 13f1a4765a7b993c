"""Little is asked of what is down, and it's noticed soon that it's back."""

import threading
import time
from typing import Any

import pytest

from credentials import vault
from credentials.breaker import FAILURES, LONGEST, SHORTEST, Breaker


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("credentials.breaker.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def broken() -> Breaker:
    found = Breaker()
    for _ in range(FAILURES):
        assert found.allows()
        found.failed()
    return found


def test_a_failure_now_and_then_opens_nothing(clock: Clock) -> None:
    found = Breaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            found.failed()
        found.worked()
        assert found.allows()


def test_one_at_a_time_tries_whether_it_is_back(clock: Clock) -> None:
    found = broken()
    assert not found.allows()
    clock.now += SHORTEST
    assert [found.allows() for _ in range(5)] == [True, False, False, False, False]
    found.worked()
    assert all(found.allows() for _ in range(5))


def test_the_pause_grows_to_its_longest_and_no_further(clock: Clock) -> None:
    found = broken()
    tries = 0
    began = clock.now
    while clock.now < began + 60:
        clock.now += 0.05
        if found.allows():
            tries += 1
            found.failed()
    assert 60 / LONGEST <= tries < 3 * 60 / LONGEST


def test_a_thousand_calls_to_a_dead_vault_take_no_time(settings: Any) -> None:
    settings.VAULT_ADDR = "http://127.0.0.1:9"
    refused = []

    def call() -> None:
        for _ in range(125):
            try:
                vault.ping()
            except vault.VaultDown as error:
                refused.append("isn't asked" in str(error))

    threads = [threading.Thread(target=call) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1000
    assert sum(refused) > 900
    assert time.monotonic() - began < 10
