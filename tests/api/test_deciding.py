"""Deciding through the API: less than asked, several at once, the queue, and talking about it."""

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accessrequests.actions import cancel_request, review_request
from accessrequests.models import AccessRequest, Review
from accessrequests.states import RequestState
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from endpoints.models import AccessProfile
from tests.api.callers import Caller, faults
from tests.world import PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile()


@pytest.fixture
def reviewer(world: World, profile: AccessProfile) -> Caller:
    return Caller(world.person(profile.reviewers))


@pytest.fixture
def pending(world: World, profile: AccessProfile) -> AccessRequest:
    return world.request(profile=profile)


def user_of(caller: Caller) -> User:
    assert caller.user is not None
    return caller.user


# Approving less


def test_less_is_approved_than_was_asked_for(reviewer: Caller, pending: AccessRequest) -> None:
    start = (clock.now() + dt.timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    body = {"verdict": "approve", "duration": "PT10M", "models": ["demo-small"], "starts_at": start}
    told = reviewer.post(f"requests/{pending.pk}/reviews/", body).json()
    assert told["scope"] == {"models": ["demo-small"]}
    assert (told["duration"], told["starts_at"]) == ("P0DT00H10M00S", start)
    grant = Caller(pending.requester).get("grants/").json()["results"][0]
    assert (grant["scope"], grant["starts_at"]) == ({"models": ["demo-small"]}, start)
    length = dt.datetime.fromisoformat(grant["ends_at"]) - dt.datetime.fromisoformat(start)
    assert length == dt.timedelta(minutes=10)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"duration": "PT2H"}, "duration"),
        ({"duration": "PT1S"}, "duration"),
        ({"duration": "long"}, "duration"),
        ({"models": ["another"]}, "models"),
        ({"models": []}, "models"),
        ({"models": "demo-small"}, "models"),
        ({"starts_at": "2020-01-01T00:00:00Z"}, "starts_at"),
        ({"starts_at": "9999-01-01T00:00:00Z"}, "starts_at"),
        ({"verdict": "deny", "reason": "No.", "duration": "PT10M"}, "verdict"),
        ({"step": 1}, "step"),
        ({"factor_at": "2026-01-01T00:00:00Z"}, "factor_at"),
    ],
)
def test_never_more_is_approved_than_was_asked_for(
    wrong: dict[str, Any], field: str, reviewer: Caller, pending: AccessRequest
) -> None:
    path = f"requests/{pending.pk}/reviews/"
    assert list(faults(reviewer.post(path, {"verdict": "approve"} | wrong))) == [field]
    assert not pending.reviews.exists()


# Several at once


def test_each_of_several_is_decided_or_refused_by_itself(
    world: World, profile: AccessProfile, reviewer: Caller
) -> None:
    me = user_of(reviewer)
    good, lost, gone = (world.request(profile=profile) for _ in range(3))
    profile.requesters.memberships.create(user=me)
    own = world.request(profile=profile, requester=me)
    review_request(
        by=world.person(profile.reviewers),
        request_id=lost.pk,
        verdict=Review.Verdict.DENY,
        reason="Too long.",
        proofs=PROVED,
    )
    cancel_request(by=gone.requester, request_id=gone.pk)
    two_needed = world.profile(reviewers=profile.reviewers)
    steps = [{"name": "Both", "reviewers": {"profile_reviewers": True}, "approvals": 2}]
    world.policy(profile=two_needed, steps=steps)
    half = world.request(profile=two_needed)
    strange, missing = world.request(), new_id()
    order = [good.pk, lost.pk, own.pk, gone.pk, half.pk, strange.pk, missing]
    body = {"requests": [str(pk) for pk in order], "verdict": "approve"}
    answer = reviewer.post("reviews/", body)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert [each["request"] for each in told] == body["requests"]
    assert [each["result"] for each in told] == [
        "approved",
        "refused",
        "refused",
        "refused",
        "waiting",
        "refused",
        "refused",
    ]
    problems = [each["problem"] and each["problem"]["code"] for each in told]
    assert problems == [
        None,
        "already-decided",
        "self-review",
        "already-decided",
        None,
        "not-found",
        "not-found",
    ]
    late = told[1]["problem"]
    assert (late["status"], late["state"], late["title"]) == (409, "denied", "Already decided")
    assert late["type"].endswith("/problems/already-decided/")
    assert "denied by" in late["detail"]
    # What is another's is told as what doesn't exist.
    assert told[5]["problem"] == told[6]["problem"]
    states = dict(AccessRequest.objects.values_list("pk", "state"))
    assert [states[pk] for pk in order[:6]] == [
        "approved",
        "denied",
        "pending",
        "cancelled",
        "pending",
        "pending",
    ]
    refused = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=me.pk)
    assert [row.data["path"].partition("#")[2] for row in refused.order_by("id")] == [
        str(own.pk),
        str(strange.pk),
        str(missing),
    ]


def test_several_are_denied_with_one_reason(
    world: World, profile: AccessProfile, reviewer: Caller
) -> None:
    ids = [str(world.request(profile=profile).pk) for _ in range(2)]
    body: dict[str, Any] = {"requests": ids, "verdict": "deny"}
    told = reviewer.post("reviews/", body).json()
    assert [each["result"] for each in told] == ["refused", "refused"]
    assert told[0]["problem"]["errors"][0]["field"] == "reason"
    told = reviewer.post("reviews/", body | {"reason": "Use staging."}).json()
    assert [each["result"] for each in told] == ["denied", "denied"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"requests": []}, "requests"),
        ({"requests": [str(new_id()) for _ in range(101)]}, "requests"),
        ({"requests": "x"}, "requests"),
        ({"requests": ["x"]}, "requests.0"),
        ({"verdict": "maybe"}, "verdict"),
        ({"reason": "x" * 1001}, "reason"),
        ({"duration": "PT10M"}, "duration"),
    ],
)
def test_several_that_are_refused_as_a_whole(
    wrong: dict[str, Any], field: str, reviewer: Caller, pending: AccessRequest
) -> None:
    body = {"requests": [str(pending.pk)], "verdict": "approve"} | wrong
    assert list(faults(reviewer.post("reviews/", body))) == [field]


# Talking


def test_a_question_and_its_answer(reviewer: Caller, pending: AccessRequest) -> None:
    path = f"requests/{pending.pk}/comments/"
    asked = reviewer.post(path, {"text": "Which prompt?", "kind": "question"})
    assert asked.status_code == 201
    asker = Caller(pending.requester, "token")
    assert asker.post(path, {"text": "The French one."}).json()["kind"] == "comment"
    said = [(each["author"], each["kind"], each["text"]) for each in asker.get(path).json()]
    assert said == [
        (user_of(reviewer).email, "question", "Which prompt?"),
        (pending.requester.email, "comment", "The French one."),
    ]
    assert list(faults(asker.post(path, {"text": "Why?", "kind": "question"}))) == ["kind"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": " "}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"text": "\x00"}, "text"),
        ({"text": ["x"]}, "text"),
        ({"text": "x", "kind": "remark"}, "kind"),
        ({"text": "x", "author": "y"}, "author"),
    ],
)
def test_a_comment_that_is_refused(
    body: dict[str, Any], field: str, reviewer: Caller, pending: AccessRequest
) -> None:
    assert list(faults(reviewer.post(f"requests/{pending.pk}/comments/", body))) == [field]
    assert not pending.comments.exists()


def test_handing_a_request_over(
    world: World, profile: AccessProfile, reviewer: Caller, pending: AccessRequest
) -> None:
    path, other = f"requests/{pending.pk}/hand-over/", world.person(profile.reviewers)
    told = reviewer.post(path, {"to": other.email.upper(), "note": "You know it better."})
    assert told.status_code == 201, told.content
    [row] = reviewer.get(path).json()
    assert (row["by"], row["to"]) == (user_of(reviewer).email, other.email)
    assert row["note"] == "You know it better."
    stranger = world.person()
    for who in (stranger.email, user_of(reviewer).email, pending.requester.email, "x", ""):
        assert list(faults(reviewer.post(path, {"to": who}))) == ["to"]
    assert list(faults(reviewer.post(path, {"to": other.email, "note": "x" * 301}))) == ["note"]
    assert list(faults(reviewer.post(path, {"to": other.email, "verdict": "x"}))) == ["verdict"]


# The queue


def test_the_queue_is_paged_by_urgency(world: World) -> None:
    reviewers = world.group()
    filed = {}
    for risk in ("low", "critical", "elevated"):
        profile = world.profile(
            endpoint=world.endpoint(risk=risk, with_key=False), reviewers=reviewers
        )
        filed[risk] = [world.request(profile=profile) for _ in range(2)]
    caller = Caller(world.person(reviewers), "token")
    found: list[dict[str, Any]] = []
    answer = caller.get("approvals/", limit=2).json()
    while True:
        found += answer["results"]
        if answer["next"] is None:
            break
        answer = caller.client.get(answer["next"], headers=caller.headers).json()
    assert [each["id"] for each in found] == [
        str(request.pk) for risk in ("critical", "elevated", "low") for request in filed[risk]
    ]
    assert [each["sort_at"] for each in found] == sorted(each["sort_at"] for each in found)
    back = caller.client.get(answer["previous"], headers=caller.headers).json()
    assert [each["risk"] for each in back["results"]] == ["elevated", "elevated"]
    only = caller.get("approvals/", risk="low").json()["results"]
    assert {each["id"] for each in only} == {str(request.pk) for request in filed["low"]}
    one = filed["critical"][0]
    for query in ({"profile": str(one.profile_id)}, {"endpoint": one.profile.endpoint.slug}):
        assert len(caller.get("approvals/", **query).json()["results"]) == 2
    query = {"requester": one.requester.email}
    assert len(caller.get("approvals/", **query).json()["results"]) == 1
    assert caller.get("approvals/", break_glass="true").json()["results"] == []


def test_what_one_decided_and_what_others_did(
    world: World, profile: AccessProfile, reviewer: Caller
) -> None:
    mine, theirs, waiting = (world.request(profile=profile) for _ in range(3))
    approve = Review.Verdict.APPROVE
    review_request(by=user_of(reviewer), request_id=mine.pk, verdict=approve, proofs=PROVED)
    review_request(
        by=world.person(profile.reviewers), request_id=theirs.pk, verdict=approve, proofs=PROVED
    )

    def ids(**query: str) -> list[str]:
        answer = reviewer.get("approvals/decided/", **query)
        assert answer.status_code == 200, answer.content
        return [each["id"] for each in answer.json()["results"]]

    assert ids() == [str(theirs.pk), str(mine.pk)]
    assert ids(by="me") == [str(mine.pk)]
    assert ids(by="others") == [str(theirs.pk)]
    assert ids(state="denied") == []
    assert list(faults(reviewer.get("approvals/decided/", by="nobody"))) == ["by"]
    [left] = reviewer.get("approvals/").json()["results"]
    assert left["id"] == str(waiting.pk)


def test_figures_of_what_was_decided(
    world: World, profile: AccessProfile, reviewer: Caller
) -> None:
    for state in (RequestState.APPROVED, RequestState.APPROVED, RequestState.DENIED):
        world.request(state, profile=profile, reviewer=user_of(reviewer))
    world.request(RequestState.APPROVED)
    told = reviewer.get("approvals/figures/").json()
    assert (told["days"], told["total"], told["denied_percent"]) == (30, 3, 33)
    assert told["outcomes"] == {
        "approved": 2,
        "denied": 1,
        "automatic": 0,
        "break_glass": 0,
        "expired": 0,
    }
    assert told["waits"][0] == {"up_to": "P0DT00H05M00S", "count": 3}
    assert told["waits"][-1] == {"up_to": None, "count": 0}
    assert told["deciders"] == [{"name": str(reviewer.user), "approved": 2, "denied": 1}]
    assert Caller(world.person()).get("approvals/figures/", days="90").json()["total"] == 0
    for days in ("0", "367", "x", "9" * 30):
        assert list(faults(reviewer.get("approvals/figures/", days=days))) == ["days"]


def test_a_longer_page_takes_no_more_queries(
    world: World, profile: AccessProfile, reviewer: Caller
) -> None:
    requester, colleague = world.person(profile.requesters), world.person(profile.reviewers)

    def file(count: int) -> None:
        for state in [RequestState.PENDING, RequestState.APPROVED] * count:
            world.request(state, profile=profile, requester=requester, reviewer=colleague)

    def measured() -> dict[str, tuple[int, int]]:
        found = {}
        for path in ("requests/", "approvals/", "approvals/decided/", "grants/"):
            with CaptureQueriesContext(connection) as queries:
                answer = reviewer.get(path, limit=100)
            found[path] = (len(answer.json()["results"]), len(queries))
        return found

    file(3)
    before = measured()
    assert [rows for rows, _ in before.values()] == [6, 3, 3, 3]
    file(7)
    after = measured()
    assert [rows for rows, _ in after.values()] == [20, 10, 10, 10]
    assert [count for _, count in after.values()] == [count for _, count in before.values()]


@pytest.mark.parametrize("name", ["approvals", "approvals/decided", "policies", "absences"])
@pytest.mark.parametrize(
    "text",
    [
        *("x", "AAAA", "cD0yMDI2LTAxLTAx", "cD0lMDA=", "cD05OTk5OS0wMQ=="),
        # times 23:59 hours from UTC: in the year 2026, and in the year 1
        *("cD0yMDI2LTAxLTAxVDAwOjAwOjAwJTJCMjM6NTk=", "cD0wMDAxLTAxLTAxVDAwOjAwOjAwJTJCMjM6NTk="),
    ],
)
def test_a_cursor_that_is_made_up(name: str, text: str, world: World) -> None:
    caller = Caller(world.person(is_administrator=True))
    answer = caller.get(f"{name}/", cursor=text)
    assert answer.status_code in {200, 404}, answer.content[:300]
