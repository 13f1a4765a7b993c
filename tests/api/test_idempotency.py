"""A call that is sent again is carried out once, and answered as it was; secrets are never kept."""

import asyncio
import contextlib
import datetime as dt
import json
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver

from accessrequests.models import AccessRequest, Comment
from accounts import idempotency
from accounts.actions import leave_group, set_roles
from accounts.api import ApiView
from accounts.models import ApiToken, IdempotencyKey, Totp, User
from accounts.stepup import HEADER as SECOND_FACTOR
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Conflict, Unavailable
from credentials.models import Credential
from endpoints.models import AccessProfile
from tests.accounts.authenticator import authenticator, code
from tests.api.callers import Caller, faults, problem
from tests.conftest import free_port, process_environment, running_web, wait_for
from tests.invariants.races import at_once
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


class Keyed(Caller):
    """Sends the same key with each call."""

    def __init__(self, user: User, how: str = "token", key: str | None = None) -> None:
        super().__init__(user, how)
        self.key(key or uuid.uuid4().hex)

    def key(self, key: str) -> "Keyed":
        self.headers["Idempotency-Key"] = key
        return self

    def anew(self) -> "Keyed":
        return self.key(uuid.uuid4().hex)


@pytest.fixture
def profile(world: World) -> AccessProfile:
    profile = world.profile()
    world.person(profile.reviewers)
    return profile


@pytest.fixture
def requester(world: World, profile: AccessProfile) -> User:
    return world.person(profile.requesters)


@pytest.fixture
def body(profile: AccessProfile) -> dict[str, Any]:
    return {"profile": str(profile.pk), "justification": "Ticket 4711.", "duration": "PT1H"}


def filed(requester: User) -> int:
    return AccessRequest.objects.filter(requester=requester).count()


@pytest.mark.parametrize("how", ["token", "session"])
def test_a_repeated_call_is_carried_out_once(
    how: str, requester: User, body: dict[str, Any]
) -> None:
    caller = Keyed(requester, how)
    first = caller.post("requests/", body)
    assert first.status_code == 201, first.content
    assert "Idempotency-Replayed" not in first
    # Another spelling of the same body, by another token of the same person.
    again = Keyed(requester, how, caller.headers["Idempotency-Key"])
    spelt = json.dumps(dict(reversed(body.items())), indent=2)
    second = again.post("requests/", spelt)
    assert second.status_code == 201, second.content
    assert second["Idempotency-Replayed"] == "true"
    assert second.content == first.content
    assert second["Content-Type"] == first["Content-Type"]
    assert filed(requester) == 1
    assert again.anew().post("requests/", body).json()["id"] != first.json()["id"]


def test_a_key_is_good_for_one_call(
    requester: User, body: dict[str, Any], world: World, profile: AccessProfile
) -> None:
    caller = Keyed(requester)
    made = caller.post("requests/", body).json()["id"]
    other = body | {"justification": "Ticket 4712."}
    problem(caller.post("requests/", other), 422, "idempotency-key-reused")
    problem(caller.post("requests/?limit=1", body), 422, "idempotency-key-reused")
    problem(caller.post(f"requests/{made}/cancel/"), 422, "idempotency-key-reused")
    assert filed(requester) == 1
    # Of another's keys nobody learns, whatever they send.
    somebody = Keyed(world.person(profile.requesters), key=caller.headers["Idempotency-Key"])
    assert somebody.post("requests/", other).status_code == 201
    assert caller.get("requests/").status_code == 200, "what reads takes no notice of it"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "sch\u00f6n", "\x7f"])
def test_a_key_that_is_none_is_named(key: str, requester: User, body: dict[str, Any]) -> None:
    assert list(faults(Keyed(requester).key(key).post("requests/", body))) == ["Idempotency-Key"]
    assert filed(requester) == 0


def test_what_is_refused_is_not_kept_but_on_record(
    requester: User, body: dict[str, Any], world: World
) -> None:
    caller = Keyed(requester)
    faults(caller.post("requests/", body | {"duration": "P9D"}))
    anothers = world.request()
    problem(caller.post(f"requests/{anothers.pk}/cancel/"), 404, "not-found")
    refused = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=requester.pk)
    assert refused.data["path"] == f"/api/v1/requests/{anothers.pk}/cancel/"
    assert not IdempotencyKey.objects.filter(caller=requester).exists()
    assert caller.post("requests/", body).status_code == 201


@pytest.mark.parametrize("error", [Conflict(), Unavailable(), RuntimeError()])
def test_what_stays_of_a_call_that_fails(
    error: Exception, requester: User, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an action had committed before it refused stays; of what broke nothing does."""
    made = Keyed(requester).post("requests/", body).json()["id"]

    def fail(*, by: User, request_id: str, **_: Any) -> None:
        with transaction.atomic():
            request = AccessRequest.objects.get(pk=request_id)
            Comment.objects.create(request=request, author=by, text="Half.")
        raise error

    monkeypatch.setattr("accessrequests.api.requests.actions.cancel_request", fail)
    caller = Keyed(requester)
    for _ in range(2):
        answer = caller.post(f"requests/{made}/cancel/")
        assert answer.status_code == getattr(error, "status", 500)
    kept = Comment.objects.filter(request=made).count()
    assert kept == (2 if isinstance(error, Conflict) else 0)


def test_what_deletes_is_repeated_too(world: World) -> None:
    caller = Keyed(world.person())
    note = caller.post("absences/", {"ends_at": str(clock.now() + dt.timedelta(hours=1))})
    path = f"absences/{note.json()['id']}/"
    for times in range(2):
        answer = caller.key("gone").send("DELETE", path)
        assert answer.status_code == 204, answer.content
        assert ("Idempotency-Replayed" in answer) is bool(times)
        assert answer.content == b""
        assert "Content-Type" not in answer
    problem(caller.anew().send("DELETE", path), 404, "not-found")


def test_twenty_at_once_are_carried_out_once(requester: User, body: dict[str, Any]) -> None:
    callers = [Keyed(requester, key="race") for _ in range(20)]
    answers = at_once([partial(each.post, "requests/", body) for each in callers])
    assert Counter(each.status_code for each in answers) == {201: 20}
    assert len({each.content for each in answers}) == 1
    assert sum("Idempotency-Replayed" not in each for each in answers) == 1
    assert filed(requester) == 1


def test_who_waits_too_long_is_told_so(requester: User, body: dict[str, Any]) -> None:
    caller = Keyed(requester, key="slow")
    claimed, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            IdempotencyKey.objects.create(caller=requester, key="slow", fingerprint=b"x" * 32)
            claimed.set()
            done.wait(60)
            transaction.set_rollback(True)
        connection.close()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert claimed.wait(60)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        answer = caller.post("requests/", body)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'")
        done.set()
        thread.join(60)
    problem(answer, 409, "idempotency-in-progress")
    assert answer["Retry-After"] == "1"
    assert caller.post("requests/", body).status_code == 201


def twice(caller: Keyed, path: str, said: dict[str, Any], status: int) -> Any:
    """What the first of two same calls was told. The second is told where to look instead."""
    first = caller.anew().post(path, said)
    assert first.status_code == status, first.content
    told = problem(caller.post(path, said), 409, "idempotency-answer-not-kept")
    assert told["answered"] == status
    where = told["location"]
    assert where is None or caller.get(where.partition("/api/v1/")[2]).status_code == 200
    return first.json()


def kept(caller: Keyed) -> str:
    """All that the table has of this caller's calls."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(k::text || coalesce(encode(k.body, 'escape'), ''), ' ')"
            " FROM accounts_idempotencykey k WHERE caller_id = %s",
            [caller.user.pk if caller.user else None],
        )
        text: str = cursor.fetchone()[0]
        return text


def test_no_credential_is_kept(world: World) -> None:
    """Of calls that hand one over, and of those that take one."""
    grant = world.grant(profile=world.profile(credential_kind="jwt", with_key=True))
    caller = Keyed(grant.holder)
    base = f"grants/{grant.pk}/credentials/"
    first = twice(caller, base, {}, 201)
    refreshed = twice(caller, f"{base}refresh/", {}, 200)
    wrapped = twice(caller, base, {"wrap": True}, 201)
    unwrap = f"credentials/{wrapped['credential']['id']}/unwrap/"
    out = twice(caller, unwrap, {"token": wrapped["secret"]}, 200)
    assert Credential.objects.filter(grant=grant).count() == 2, "what was repeated minted none"
    twice(caller, "introspect/", {"token": out["secret"]}, 200)
    caller.anew()
    for _ in range(2):
        assert caller.post("revoke/", {"token": out["secret"]}).status_code == 200
    found = kept(caller)
    for told in (first, refreshed, wrapped, out):
        assert not [each for each in told["parts"].values() if each in found]
    rows = IdempotencyKey.objects.filter(caller=grant.holder)
    assert rows.count() == 6
    assert all(row.body in {None, b""} for row in rows)


@pytest.mark.usefixtures("proved")
@pytest.mark.parametrize(
    ("path", "said", "secret"),
    [
        ("tokens/", {"name": "ci", "days": 1, "verbs": ["read"]}, "token"),
        ("webhooks/", {"name": "ci", "url": "http://127.0.0.1:9/"}, "secret"),
        (
            "people/",
            {"email": f"p-{uuid.uuid4().hex}@example.com", "full_name": "New"},
            "invitation.link",
        ),
    ],
)
def test_no_other_secret_is_kept(
    path: str, said: dict[str, Any], secret: str, world: World
) -> None:
    caller = Keyed(world.person(is_administrator=True), "session")
    told = twice(caller, path, said, 201)
    for name in secret.split("."):
        told = told[name]
    assert len(told) > 20
    assert told.rstrip("/").rpartition("/")[2] not in kept(caller)


def test_what_only_looks_like_a_secret_is_not_kept_either(
    requester: User, body: dict[str, Any]
) -> None:
    caller = Keyed(requester)
    said = body | {"justification": "Is sk-proj-0123456789abcdef still in use?"}
    assert caller.post("requests/", said).status_code == 201
    problem(caller.post("requests/", said), 409, "idempotency-answer-not-kept")
    assert filed(requester) == 1


def test_whoever_died_over_a_call_does_not_keep_its_key(world: World) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    caller = Keyed(grant.holder)
    path = f"grants/{grant.pk}/credentials/"
    assert caller.post(path).status_code == 201
    rows = IdempotencyKey.objects.filter(caller=grant.holder)
    rows.update(status=None)
    answer = caller.post(path)
    problem(answer, 409, "idempotency-in-progress")
    assert answer["Retry-After"] == "1"
    rows.update(created_at=F("created_at") - idempotency.ABANDONED)
    assert caller.post(path).status_code == 201
    assert Credential.objects.filter(grant=grant).count() == 2


def test_a_check_out_that_fails_leaves_its_key(world: World) -> None:
    grant = world.grant(ended=True)
    caller = Keyed(grant.holder)
    for _ in range(2):
        problem(caller.post(f"grants/{grant.pk}/credentials/"), 409, "grant-not-live")
    assert not IdempotencyKey.objects.filter(caller=grant.holder).exists()


def test_an_answer_is_for_who_may_call_now(requester: User, body: dict[str, Any]) -> None:
    caller, session = Keyed(requester, key="kept"), Keyed(requester, "session", "kept")
    assert caller.post("requests/", body).status_code == 201
    # By it, one would see what the token isn't for.
    ApiToken.objects.filter(owner=requester).update(endpoints=[uuid.uuid4()])
    assert caller.post("requests/", body).status_code in {403, 404, 422}
    ApiToken.objects.filter(owner=requester).update(endpoints=[], revoked_at=F("created_at"))
    problem(caller.post("requests/", body), 401, "not-signed-in")
    assert session.post("requests/", body)["Idempotency-Replayed"] == "true"
    session.headers["X-CSRFToken"] = "d" * 32
    problem(session.post("requests/", body), 403, "forbidden")
    User.objects.filter(pk=requester.pk).update(is_active=False)
    session.headers["X-CSRFToken"] = "c" * 32
    problem(session.post("requests/", body), 401, "not-signed-in")


@pytest.mark.usefixtures("proved")
def test_of_what_one_sees_no_more_one_is_told_only_that_it_was_done(world: World) -> None:
    pending = world.request()
    reviewer = world.person(pending.profile.reviewers, is_administrator=True)
    calls = [
        (f"requests/{pending.pk}/comments/", {"text": "Why so long?"}),
        ("groups/", {"slug": f"g-{uuid.uuid4().hex}", "name": "Night shift"}),
    ]
    callers = [Keyed(reviewer, "session") for _ in calls]
    for caller, (path, said) in zip(callers, calls, strict=True):
        first = caller.post(path, said)
        assert first.status_code == 201, first.content
        assert caller.post(path, said).content == first.content
    set_roles(by=None, user=reviewer, is_administrator=False)
    leave_group(by=None, user=reviewer, group=pending.profile.reviewers)
    for caller, (path, said) in zip(callers, calls, strict=True):
        told = problem(caller.post(path, said), 409, "idempotency-answer-not-kept")
        assert (told["answered"], told["location"]) == (201, None)


def test_a_repetition_takes_the_code_that_was_used_up_by_the_first(world: World) -> None:
    pending = world.request()
    reviewer = world.person(pending.profile.reviewers)
    caller = Keyed(reviewer)
    caller.headers[SECOND_FACTOR] = code(authenticator(reviewer))
    path = f"requests/{pending.pk}/reviews/"
    first = caller.post(path, {"verdict": "approve"})
    assert first.status_code == 201, first.content
    for given in (caller.headers[SECOND_FACTOR], "000000"):
        caller.headers[SECOND_FACTOR] = given
        again = caller.post(path, {"verdict": "approve"})
        assert again.content == first.content
        assert again["Idempotency-Replayed"] == "true"
    # Nor does one that comes while the first is carried out count as a wrong one.
    IdempotencyKey.objects.filter(caller=reviewer).update(status=None)
    problem(caller.post(path, {"verdict": "approve"}), 409, "idempotency-in-progress")
    assert Totp.objects.get(person=reviewer).failures == 0
    # What wasn't carried out before takes one.
    faults(caller.anew().post(path, {"verdict": "approve"}))
    assert pending.reviews.count() == 1


def test_after_a_day_a_key_is_new_and_its_row_goes(requester: User, body: dict[str, Any]) -> None:
    caller = Keyed(requester)
    first = caller.post("requests/", body).json()["id"]
    rows = IdempotencyKey.objects.filter(caller=requester)
    day = idempotency.KEPT + dt.timedelta(seconds=1)
    rows.update(created_at=F("created_at") - day)
    assert caller.post("requests/", body).json()["id"] != first
    assert idempotency.forget_old_keys() == 0
    rows.update(created_at=F("created_at") - day)
    assert idempotency.forget_old_keys() == 1


def test_without_the_header_it_costs_nothing(requester: User, body: dict[str, Any]) -> None:
    caller = Caller(requester, "token")
    with CaptureQueriesContext(connection) as asked:
        assert caller.post("requests/", body).status_code == 201
    assert not [each for each in asked.captured_queries if "idempotency" in each["sql"]]


def views(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and path.startswith("api/v1/"):
            yield path, getattr(pattern.callback, "cls", None)


def test_every_route_goes_through_it() -> None:
    documents = {"api/v1/schema/", "api/v1/docs/"}
    found = dict(views(get_resolver().url_patterns))
    assert documents <= found.keys()
    wrong = {path for path, view in found.items() if not (view and issubclass(view, ApiView))}
    assert wrong <= documents, f"make these views ApiViews: {wrong - documents}"


# With the web process as it runs in production


@pytest.mark.slow
def test_five_hundred_at_once(servers: Servers, requester: User, body: dict[str, Any]) -> None:
    caller = Keyed(requester)

    async def all_at_once(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None), timeout=180, headers=caller.headers
        ) as client:
            calls = [client.post(f"{url}/api/v1/requests/", json=body) for _ in range(500)]
            return await asyncio.gather(*calls)

    with running_web(servers) as web:
        answers = asyncio.run(all_at_once(web.url))
    assert Counter(each.status_code for each in answers) == {201: 500}
    assert len({each.content for each in answers}) == 1
    assert sum("Idempotency-Replayed" not in each.headers for each in answers) == 1
    assert filed(requester) == 1


@contextlib.contextmanager
def dying_web(servers: Servers) -> Iterator[str]:
    """A web process that dies of its first call that writes, between commit and answer."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface=wsgi", "--no-ws", "--log-level=warning",
         "--port", str(port), "tests.api.dying:application"],
        env=process_environment(servers, "web"),
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_killed_between_commit_and_answer(
    servers: Servers, requester: User, body: dict[str, Any]
) -> None:
    caller = Keyed(requester)
    with (
        dying_web(servers) as url,
        pytest.raises(httpx.HTTPError),
    ):
        httpx.post(f"{url}/api/v1/requests/", json=body, headers=caller.headers, timeout=30)
    made = AccessRequest.objects.get(requester=requester)
    answer = caller.post("requests/", body)
    assert answer.status_code == 201, answer.content
    assert answer["Idempotency-Replayed"] == "true"
    assert answer.json()["id"] == str(made.pk)
    assert filed(requester) == 1
