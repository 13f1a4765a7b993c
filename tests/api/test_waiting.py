"""`?wait=`: an answer as soon as there is one, on few of the threads that answer everybody."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from accessrequests.actions import cancel_request, review_request
from accessrequests.models import AccessRequest, Review
from accounts import waiting
from accounts.actions import create_token, leave_group
from accounts.models import ApiToken, User
from audit import clock
from tests.api.callers import Caller, faults, problem
from tests.conftest import running_web
from tests.servers import Servers
from tests.world import PROVED, World


@pytest.fixture
def pending(world: World) -> AccessRequest:
    return world.request()


def approve(request: AccessRequest) -> None:
    reviewer = User.objects.get(memberships__group=request.profile.reviewers)
    review_request(
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What happens while the next call waits: its first pause does this instead."""

    def do(what: Any) -> list[float]:
        paused: list[float] = []

        def sleep(seconds: float) -> None:
            if not paused:
                what()
            paused.append(seconds)

        monkeypatch.setattr(waiting, "sleep", sleep)
        return paused

    return do


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["token", "session"])
def test_it_is_answered_once_decided(
    how: str, world: World, pending: AccessRequest, meanwhile: Any
) -> None:
    caller = Caller(pending.requester, how)
    paused = meanwhile(lambda: approve(pending))
    answer = caller.get(f"requests/{pending.pk}/", wait=30)
    assert answer.status_code == 200
    assert answer.json()["state"] == "approved"
    assert answer.json()["grant"]
    assert len(paused) == 1
    assert "Retry-After" not in answer
    assert not waiting._waiting


@pytest.mark.django_db
def test_what_is_decided_is_not_waited_for(world: World, meanwhile: Any) -> None:
    grant = world.grant()
    paused = meanwhile(lambda: None)
    caller = Caller(grant.holder, "token")
    for path in (f"requests/{grant.request_id}/", f"grants/{grant.pk}/"):
        assert caller.get(path, wait=60).status_code == 200
    assert not paused


@pytest.mark.django_db
def test_nobody_waits_for_longer_than_they_ask(pending: AccessRequest) -> None:
    began = time.monotonic()
    answer = Caller(pending.requester, "token").get(f"requests/{pending.pk}/", wait=1)
    assert answer.json()["state"] == "pending"
    assert time.monotonic() - began >= 1


@pytest.mark.django_db
@pytest.mark.parametrize("wait", ["", "0", "61", "-1", "1.5", "1e1", "³", "x", "9" * 5000])
def test_other_times_are_refused_by_name(wait: str, pending: AccessRequest) -> None:
    answer = Caller(pending.requester, "token").get(f"requests/{pending.pk}/", wait=wait)
    assert "from 1 to 60" in faults(answer)["wait"]


@pytest.mark.django_db
def test_a_stranger_does_not_wait(world: World, pending: AccessRequest, meanwhile: Any) -> None:
    paused = meanwhile(lambda: None)
    answer = Caller(world.person(), "token").get(f"requests/{pending.pk}/", wait=60)
    problem(answer, 404, "not-found")
    assert not paused


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["token", "session"])
def test_a_right_that_is_lost_meanwhile_is_lost_at_the_answer(
    how: str, world: World, pending: AccessRequest, meanwhile: Any
) -> None:
    """The reviewer who waits leaves the group; the request is decided after that."""
    reviewer = world.person(pending.profile.reviewers)

    def lose() -> None:
        leave_group(by=None, user=reviewer, group=pending.profile.reviewers)
        cancel_request(by=pending.requester, request_id=pending.pk)

    caller = Caller(reviewer, how)
    assert caller.get(f"requests/{pending.pk}/").status_code == 200
    meanwhile(lose)
    problem(caller.get(f"requests/{pending.pk}/", wait=30), 404, "not-found")


@pytest.mark.django_db
@pytest.mark.parametrize("how", ["token", "session"])
def test_who_is_nobody_meanwhile_learns_nothing(
    how: str, pending: AccessRequest, meanwhile: Any
) -> None:
    def lose() -> None:
        if how == "token":
            ApiToken.objects.filter(owner=pending.requester).update(revoked_at=clock.now())
        else:
            User.objects.filter(pk=pending.requester_id).update(is_active=False)
        AccessRequest.objects.filter(pk=pending.pk).update(
            state="cancelled", decided_at=clock.now(), decided_by="x", remind_at=None
        )

    caller = Caller(pending.requester, how)
    meanwhile(lose)
    problem(caller.get(f"requests/{pending.pk}/", wait=30), 401, "not-signed-in")


@pytest.mark.django_db
def test_what_a_session_gained_meanwhile_it_keeps(pending: AccessRequest, meanwhile: Any) -> None:
    """Each answer saves its session: a call that waited must not undo what others did to it."""
    caller = Caller(pending.requester)

    def gain() -> None:
        session = caller.client.session
        session["proved"] = "just now"
        session.save()
        approve(pending)

    meanwhile(gain)
    assert caller.get(f"requests/{pending.pk}/", wait=30).status_code == 200
    assert caller.client.session["proved"] == "just now"


def test_the_places_are_few_and_no_caller_takes_all(settings: Any) -> None:
    settings.KEYTURN_WAITING = 4
    ana, ben = object(), object()
    with waiting.place(ana) as first, waiting.place(ana) as second, waiting.place(ana) as third:  # type: ignore[arg-type]
        assert (first, second, third) == (True, True, False)
        with waiting.place(ben) as his, waiting.place(ben) as also, waiting.place(3) as none:  # type: ignore[arg-type]
            assert (his, also, none) == (True, True, False)
    with pytest.raises(ValueError, match="lost"), waiting.place(ana):  # type: ignore[arg-type]
        raise ValueError("lost")
    assert not waiting._waiting
    settings.KEYTURN_WAITING = 0
    with waiting.place(ana) as free:  # type: ignore[arg-type]
        assert not free


@pytest.mark.django_db
def test_who_finds_no_place_is_told_when_to_come_back(
    settings: Any, pending: AccessRequest, meanwhile: Any
) -> None:
    settings.KEYTURN_WAITING = 0
    paused = meanwhile(lambda: None)
    answer = Caller(pending.requester, "token").get(f"requests/{pending.pk}/", wait=60)
    assert answer.json()["state"] == "pending"
    assert answer["Retry-After"] in {"1", "2", "3"}
    assert not paused


@pytest.mark.usefixtures("committed")
def test_a_crowd_that_waits_leaves_room(world: World, servers: Servers) -> None:
    """Thirty programs wait on a process of four threads, one of which has gone away; others are
    answered, and so are those who wait, soon after the decision."""
    pending = world.request()
    with running_web(servers) as web, ThreadPoolExecutor(32) as pool:
        tokens = [
            create_token(by=pending.requester, owner=pending.requester, name="script")[1]
            for _ in range(2)
        ]
        url = f"{web.url}/api/v1/requests/{pending.pk}/"

        def ask(wait: int = 0, timeout: float = 60) -> httpx.Response:
            return httpx.get(
                url,
                params={"wait": wait} if wait else {},
                headers={"Authorization": f"Bearer {tokens[wait % 2]}"},
                timeout=timeout,
            )

        with pytest.raises(httpx.ReadTimeout):
            ask(20, timeout=0.5)
        crowd = [pool.submit(ask, 60) for _ in range(30)]
        told = time.monotonic() + 30
        while sum(each.done() for each in crowd) < 28 and time.monotonic() < told:
            time.sleep(0.05)
        sent_away = [each.result() for each in crowd if each.done()]
        assert len(sent_away) >= 28
        assert all(each.json()["state"] == "pending" for each in sent_away)
        assert all(1 <= int(each.headers["Retry-After"]) <= 3 for each in sent_away)
        assert ask().json()["state"] == "pending"
        approve(pending)
        decided = time.monotonic()
        answers = [each.result() for each in crowd]
        late = time.monotonic() - decided
        waited = [each for each in answers if "Retry-After" not in each.headers]
        assert all(each.json()["state"] == "approved" for each in waited)
        assert late < 20
        assert ask(30).json()["state"] == "approved"
