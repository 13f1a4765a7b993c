"""How many calls anybody may make in a minute, and that a dead Redis keeps nobody out."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from accounts import rate_limits
from tests.api.callers import Caller, problem
from tests.conftest import free_port
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _few(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.KEYTURN_API_READS_PER_MINUTE = 4
    settings.KEYTURN_API_WRITES_PER_MINUTE = 2
    monkeypatch.setattr(rate_limits, "PATIENCE", 10.0)
    monkeypatch.setattr(rate_limits, "_redis", rate_limits._Redis())
    forget()
    yield
    forget()


CLIENT = (rate_limits._limiter, rate_limits._storage)


def forget() -> None:
    for each in CLIENT:
        each.cache_clear()


def left(answer: Any, policy: str) -> int:
    found = re.fullmatch(rf'"{policy}";r=(\d+);t=(\d+)', answer["RateLimit"])
    assert found is not None, answer["RateLimit"]
    assert 1 <= int(found[2]) <= 60
    return int(found[1])


def test_a_caller_has_a_quota_of_reads_and_one_of_writes(world: World) -> None:
    person = world.person()
    # All that one person calls with counts together.
    callers = [Caller(person), Caller(person, "token")] * 2
    answers = [each.get("grants/") for each in callers]
    assert [each.status_code for each in answers] == [200] * 4
    assert [left(each, "reads") for each in answers] == [3, 2, 1, 0]
    assert answers[0]["RateLimit-Policy"] == '"reads";q=4;w=60'
    refused = callers[0].get("grants/")
    told = problem(refused, 429, "too-many-requests")
    assert told["detail"] == "At most 4 reads a minute."
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert left(refused, "reads") == 0
    # What is refused or not found counts and is told too, apart from reads.
    written = [callers[0].post("requests/", {}) for _ in range(3)]
    assert [each.status_code for each in written] == [400, 400, 429]
    assert [left(each, "writes") for each in written] == [1, 0, 0]
    assert Caller(world.person()).get("grants/").status_code == 200, "others are served"


def test_nobody_in_particular_is_counted_by_address() -> None:
    here: Any = {"REMOTE_ADDR": "2001:db8:1:2::7"}
    there: Any = {"REMOTE_ADDR": "2001:db8:1:3::7"}
    neighbour: Any = {"REMOTE_ADDR": "2001:db8:1:2::8"}
    guess = Caller(None, **here)
    guess.headers = {"Authorization": "Bearer kt_pat_no"}
    assert [guess.get("grants/").status_code for _ in range(5)] == [401] * 4 + [429]
    assert Caller(None, **neighbour).get("grants/").status_code == 429, "of the same /64"
    assert Caller(None, **there).get("grants/").status_code == 401


def test_a_signed_in_caller_is_not_kept_out_by_their_address(world: World) -> None:
    address: Any = {"REMOTE_ADDR": "192.0.2.1"}
    assert [Caller(None, **address).get("grants/").status_code for _ in range(5)][-1] == 429
    assert Caller(world.person(), **address).get("grants/").status_code == 200


def test_without_a_limit_nothing_is_said(world: World, settings: Any) -> None:
    settings.KEYTURN_API_READS_PER_MINUTE = 0
    answer = Caller(world.person()).get("grants/")
    assert answer.status_code == 200
    assert "RateLimit" not in answer


@pytest.mark.parametrize("how", ["dead", "hanging"])
def test_redis_down_keeps_nobody_out(
    how: str,
    world: World,
    servers: Servers,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rate_limits, "PATIENCE", 0.1)
    asked, real = [], CLIENT[0]

    def limiter() -> Any:
        asked.append(1)
        return real()

    monkeypatch.setattr(rate_limits, "_limiter", limiter)
    if how == "dead":
        settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    caller = Caller(world.person())
    with caplog.at_level(logging.WARNING, "accounts.rate_limits"):
        if how == "hanging":
            servers.pause(servers.valkey)
        try:
            answers = [caller.get("grants/") for _ in range(10)]
        finally:
            servers.resume(servers.valkey)
    assert [each.status_code for each in answers] == [200] * 10
    assert not [each for each in answers if "RateLimit" in each]
    said = [each for each in caplog.records if each.name == "accounts.rate_limits"]
    assert len(said) == 1
    # Ten calls may take longer than the pause where the machine is slow; none of them asks twice.
    assert len(asked) < 10

    # It's back: whoever asks first after the pause finds out.
    settings.REDIS_URL = servers.redis_url
    monkeypatch.setattr(rate_limits, "PATIENCE", 10.0)
    monkeypatch.setattr(rate_limits._redis, "_alone_until", 0.001)
    forget()
    assert left(caller.get("grants/"), "reads") == 3
    assert rate_limits._redis._alone_until == 0
