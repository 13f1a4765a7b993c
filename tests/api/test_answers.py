"""What answers look like: lists, pages, filters, errors, the document, and the one secret."""

import base64
import datetime as dt
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import override_settings

from accessrequests.actions import review_request
from accessrequests.models import Grant, Review
from accessrequests.policy.document import parse
from accessrequests.states import RequestState
from accounts.actions import create_token
from accounts.models import ApiToken, User
from audit.events import Event
from broker.reference import resources
from credentials.actions import check_out
from tests.api.callers import Caller, document, faults, problem
from tests.servers import Servers
from tests.world import PROVED, World, move

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

LISTS = ["endpoints", "profiles", "requests", "grants", "credentials", "audit/events"]


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


@pytest.fixture
def caller(grant: Grant) -> Caller:
    return Caller(grant.holder, "token")


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────


def test_pages_are_followed_to_the_end_newest_first(world: World) -> None:
    profile = world.profile()
    requester = world.person(profile.requesters)
    filed = [str(world.request(profile=profile, requester=requester).pk) for _ in range(5)]
    caller = Caller(requester, "token")
    found: list[str] = []
    answer = caller.get("requests/", limit=2).json()
    while True:
        found += [each["id"] for each in answer["results"]]
        assert len(answer["results"]) <= 2
        if answer["next"] is None:
            break
        answer = caller.client.get(answer["next"], headers=caller.headers).json()
    assert found == sorted(filed, reverse=True)


def test_a_page_stays_what_it_was_while_rows_are_added(world: World) -> None:
    profile = world.profile()
    requester = world.person(profile.requesters)
    for _ in range(3):
        world.request(profile=profile, requester=requester)
    caller = Caller(requester, "token")
    first = caller.get("requests/", limit=2).json()
    world.request(profile=profile, requester=requester)
    second = caller.client.get(first["next"], headers=caller.headers).json()
    assert len(second["results"]) == 1
    assert not {e["id"] for e in first["results"]} & {e["id"] for e in second["results"]}


@pytest.mark.parametrize("limit", ["0", "-1", "201", "1000000", "9" * 100])
@pytest.mark.parametrize("name", ["requests", "audit/events"])
def test_a_limit_out_of_bounds_gives_a_page_in_bounds(
    name: str, limit: str, caller: Caller
) -> None:
    answer = caller.get(f"{name}/", limit=limit)
    assert answer.status_code == 200
    assert len(answer.json()["results"]) <= 200


@pytest.mark.parametrize("limit", ["x", "", "1.5", "null"])
def test_a_limit_that_is_no_number(limit: str, caller: Caller) -> None:
    assert faults(caller.get("requests/", limit=limit)) == {"limit": "Must be a whole number."}


def cursor(**parts: str) -> str:
    return base64.b64encode(urlencode(parts).encode()).decode()


@pytest.mark.parametrize(
    "text",
    ["x", "%%%", "AAAA", "é", cursor(p="not an id"), cursor(p="9" * 30), cursor(p="\x00"),
     cursor(p="-1"), cursor(o="x", p="1"), cursor(o="9" * 30), cursor(r="x", p="é"), "=" * 5000],
    ids=ascii,
)  # fmt: skip
def test_a_cursor_that_is_made_up(text: str, caller: Caller) -> None:
    """Never a fault of the server's; and it opens nothing that the list doesn't hold."""
    for name in LISTS:
        answer = caller.get(f"{name}/", cursor=text)
        assert answer.status_code in {200, 404}, (name, answer.content[:300])
        if answer.status_code == 404:
            problem(answer, 404, "not-found")


# ── Filters ─────────────────────────────────────────────────────────────────────────────────────


def ids(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.content
    return {str(each["id"]) for each in answer.json()["results"]}


def test_requests_by_state_profile_requester_and_endpoint(world: World) -> None:
    profile = world.profile()
    pending = world.request(profile=profile)
    denied = world.request(RequestState.DENIED, profile=profile)
    caller = Caller(world.person(profile.reviewers), "token")
    both = {str(pending.pk), str(denied.pk)}
    assert ids(caller.get("requests/")) == both
    assert ids(caller.get("requests/", state="denied")) == {str(denied.pk)}
    assert ids(caller.get("requests/", profile=str(profile.pk))) == both
    mine = {"requester": pending.requester.email}
    assert ids(caller.get("requests/", **mine)) == {str(pending.pk)}
    assert ids(caller.get("requests/", endpoint=profile.endpoint.slug)) == both
    assert ids(caller.get("requests/", endpoint="another")) == set()


def test_the_record_by_event_object_and_time(grant: Grant, caller: Caller) -> None:
    filed = caller.get("audit/events/", event=Event.REQUEST_FILED.value).json()["results"]
    assert [each["subject_id"] for each in filed] == [str(grant.request_id)]
    about = caller.get("audit/events/", about=str(grant.pk)).json()["results"]
    assert {each["event"] for each in about} == {Event.GRANT_STARTED}
    at = dt.datetime.fromisoformat(filed[0]["at"])
    later = {"since": (at + dt.timedelta(hours=1)).isoformat()}
    assert ids(caller.get("audit/events/", **later)) == set()
    assert str(filed[0]["id"]) in ids(caller.get("audit/events/", since=at.isoformat()))


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("requests", {"state": "another"}),
        ("requests", {"profile": "x"}),
        ("requests", {"profile": ""}),
        ("requests", {"break_glass": "1"}),
        ("notifications", {"unread": "null"}),
        ("grants", {"request": "x"}),
        ("grants", {"state": "\x00"}),
        ("credentials", {"grant": "x"}),
        ("audit/events", {"about": "x"}),
        ("audit/events", {"event": "x"}),
        ("audit/events", {"since": "yesterday"}),
        ("audit/events", {"actor_id": "x"}),
        ("endpoints", {"slug": "\x00"}),
    ],
)
def test_a_filter_that_cannot_be_is_named(name: str, query: dict[str, str], caller: Caller) -> None:
    assert list(faults(caller.get(f"{name}/", **query))) == list(query)


# ── Errors ──────────────────────────────────────────────────────────────────────────────────────


def test_a_decided_request_says_who_and_when(world: World) -> None:
    request = world.request()
    one, two = (world.person(request.profile.reviewers) for _ in range(2))
    review_request(by=one, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    body = {"verdict": "deny", "reason": "Too late."}
    told = problem(
        Caller(two).post(f"requests/{request.pk}/reviews/", body), 409, "already-decided"
    )
    request.refresh_from_db()
    assert request.decided_at is not None
    assert (told["state"], told["decided_by"]) == ("approved", str(one))
    assert told["decided_at"] == request.decided_at.isoformat()
    assert str(one) in told["detail"]


def test_an_ended_grant_says_why(grant: Grant, caller: Caller) -> None:
    caller.post(f"grants/{grant.pk}/end/")
    told = problem(caller.post(f"grants/{grant.pk}/credentials/"), 409, "grant-not-live")
    assert "given back early" in told["detail"]


def test_a_grant_past_its_end_is_not_live_before_any_sweep(grant: Grant, caller: Caller) -> None:
    move(grant, starts_at=dt.timedelta(hours=-2), ends_at=dt.timedelta(hours=-2))
    assert caller.get(f"grants/{grant.pk}/").json()["is_live"] is False
    told = problem(caller.post(f"grants/{grant.pk}/credentials/"), 409, "grant-not-live")
    assert "its time was up" in told["detail"]


def test_a_vault_that_cannot_be_reached_says_when_to_try_again(
    grant: Grant, caller: Caller
) -> None:
    with override_settings(VAULT_ADDR="http://127.0.0.1:9"):
        answer = caller.post(f"grants/{grant.pk}/credentials/")
    problem(answer, 503, "unavailable")
    assert int(answer["Retry-After"]) > 0
    assert "127.0.0.1" not in answer.content.decode()


@pytest.mark.parametrize("path", ["requests/x/", "requests/../grants/", "nothing/", "requests"])
def test_an_address_with_nothing_behind_it(path: str, caller: Caller) -> None:
    assert caller.get(path).status_code in {301, 404}


def test_a_404_says_nothing_of_what_kind_it_was(world: World, caller: Caller) -> None:
    told = problem(caller.get(f"grants/{world.grant().pk}/"), 404, "not-found")
    assert set(told) == {"type", "title", "status", "detail", "instance", "code"}


# ── The secret ──────────────────────────────────────────────────────────────────────────────────


def test_a_check_out_is_stored_nowhere_on_its_way(
    grant: Grant, caller: Caller, servers: Servers
) -> None:
    answer = caller.post(f"grants/{grant.pk}/credentials/")
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    told = answer.json()
    assert servers.vault("POST", "auth/token/lookup", {"token": told["secret"]})["data"]
    assert told["base_url"].endswith(f"/e/{grant.request.profile.endpoint.slug}")
    assert dt.datetime.fromisoformat(told["expires_at"]) == grant.ends_at


def test_the_secret_and_its_accessor_are_in_no_other_answer(grant: Grant, world: World) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    accessor = out.credential.accessor
    people: list[User] = [grant.holder, world.person(is_auditor=True)]
    for caller in (Caller(person, "token") for person in people):
        pages = [caller.get(f"{name}/", limit=200) for name in LISTS]
        pages += [
            caller.get(f"grants/{grant.pk}/"),
            caller.get(f"credentials/{out.credential.pk}/"),
            caller.get(f"requests/{grant.request_id}/"),
            caller.post(f"grants/{grant.pk}/end/") if caller.user == grant.holder else pages[0],
        ]
        for page in pages:
            assert page.status_code == 200
            assert out.secret not in page.content.decode()
        assert accessor not in pages[4].content.decode()


# ── API tokens ──────────────────────────────────────────────────────────────────────────────────


def test_a_token_tells_when_it_was_last_used(grant: Grant, caller: Caller) -> None:
    token = ApiToken.objects.get(owner=grant.holder)
    assert token.last_used_at is None
    caller.get("grants/")
    token.refresh_from_db()
    assert token.last_used_at is not None


def test_a_token_needs_no_csrf_and_a_cookie_beside_it_changes_nothing(
    grant: Grant, world: World
) -> None:
    """The token speaks: whose session came along is of no matter."""
    other = Caller(world.person())
    _, text = create_token(by=grant.holder, owner=grant.holder, name="x")
    other.headers = {"Authorization": f"Bearer {text}"}
    assert ids(other.get("grants/")) == {str(grant.pk)}


# ── The document ────────────────────────────────────────────────────────────────────────────────


def test_every_operation_documents_its_refusals_as_problems() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            if path.endswith(("/schema/", "/docs/")):
                continue
            assert {"401", "403"} <= operation["responses"].keys(), (method, path)
            assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
            assert operation.get("summary") or operation.get("description"), (method, path)


def test_the_reference_page_shows_each_operation_with_a_good_example() -> None:
    shown = {(call.method.lower(), call.path): call for r in resources() for call in r.calls}
    operations = {
        (method, path): operation
        for path, each in document()["paths"].items()
        for method, operation in each.items()
        if path not in {"/api/v1/schema/", "/api/v1/docs/"}
    }
    assert shown.keys() == operations.keys()
    for key, call in shown.items():
        # `text` is what the page falls back to.
        assert '"text"' not in call.curl.replace('{"text":', ""), key
        ways = operations[key]["security"]
        by_token = any("apiToken" in way for way in ways) and {} not in ways
        assert ("KEYTURN_TOKEN" in call.curl) == by_token, key
        assert ("KEYTURN_TOKEN" in call.python) == by_token, key
        with_factor = any("secondFactor" in way for way in ways)
        assert ("Keyturn-Second-Factor" in call.curl) == with_factor, key
        assert ("Keyturn-Second-Factor" in call.python) == with_factor, key
    body = re.search("-d '(.*)'", shown["put", "/api/v1/policies/{slug}/"].curl)
    assert body is not None
    assert parse(json.loads(body[1])["document"]).slug == "two-people"


def test_the_reference_page_is_served(caller: Caller) -> None:
    answer = caller.client.get("/api/v1/docs/")
    assert answer.status_code == 200
    assert "/api/v1/requests/preview/" in answer.content.decode()


def test_the_document_is_served(caller: Caller) -> None:
    answer = caller.client.get("/api/v1/schema/", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert "Person " not in answer.content.decode()
