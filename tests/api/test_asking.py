"""Asking through the API: what may be said, what it comes to, and that a preview writes nothing."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Comment, Grant, HandOver, Review, Route
from accounts.stepup import Action, Purpose
from audit import clock
from audit.ids import new_id
from audit.models import AuditEvent
from endpoints.models import AccessProfile
from notifications.models import Notification
from tests.api.callers import Caller, faults, problem
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db

TABLES = (AccessRequest, Route, Review, Grant, Comment, HandOver, AuditEvent, Notification)


def counts() -> list[int]:
    return [table._default_manager.count() for table in TABLES]


@pytest.fixture
def profile(world: World) -> AccessProfile:
    profile = world.profile(models=["demo-large", "demo-small"])
    world.person(profile.reviewers)
    return profile


@pytest.fixture
def caller(world: World, profile: AccessProfile) -> Caller:
    return Caller(world.person(profile.requesters), "token")


@pytest.fixture
def body(profile: AccessProfile) -> dict[str, Any]:
    return {"profile": str(profile.pk), "justification": "Ticket 4711."}


@pytest.fixture
def nothing_written(body: dict[str, Any], caller: Caller, profile: AccessProfile) -> Iterator[None]:
    caller.get("endpoints/")
    before = counts()
    yield
    assert counts() == before


def soon(**of: float) -> str:
    return (clock.now() + dt.timedelta(**of)).isoformat()


# Filing


def test_a_request_tells_all_of_its_way(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    start = soon(hours=2)
    filed = caller.post("requests/", body | {"starts_at": start, "ticket": "INC-1"}).json()
    reviewer = profile.reviewers.members.get()
    assert filed["policy"] == [{"slug": "default", "name": "One reviewer", "version": 0}]
    assert filed["steps"] == [
        {
            "name": "Review",
            "needed": 1,
            "given": 0,
            "approved_by": [],
            "skipped": False,
            "state": "waiting",
        }
    ]
    assert filed["waits_for"] == [reviewer.email]
    assert dt.datetime.fromisoformat(filed["starts_at"]) == dt.datetime.fromisoformat(start)
    assert filed["decide_by"] == filed["starts_at"]
    assert filed["ticket"] == "INC-1"
    assert [filed["automatic"], filed["break_glass"]] == [False, False]
    assert [filed["extends"], filed["together"], filed["review_owed"]] == [None, None, None]
    review_request(
        by=reviewer, request_id=filed["id"], verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    shown = caller.get(f"requests/{filed['id']}/").json()
    assert (shown["state"], shown["waits_for"]) == ("approved", [])
    assert shown["steps"][0]["state"] == "approved"
    assert shown["steps"][0]["approved_by"] == [reviewer.email]
    grant = caller.get(f"grants/{shown['grant']}/").json()
    assert (grant["state"], grant["is_live"]) == ("scheduled", False)
    assert grant["starts_at"] == filed["starts_at"]


def test_whoever_has_approved_is_not_waited_for(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    steps = [{"name": "Both", "reviewers": {"profile_reviewers": True}, "approvals": 2}]
    world.policy(profile=profile, steps=steps)
    one, two = world.person(profile.reviewers), world.person(profile.reviewers)
    filed = caller.post("requests/", body).json()
    assert {one.email, two.email} < set(filed["waits_for"])
    review_request(by=one, request_id=filed["id"], verdict=Review.Verdict.APPROVE, proofs=PROVED)
    shown = caller.get(f"requests/{filed['id']}/").json()
    assert one.email not in shown["waits_for"]
    assert two.email in shown["waits_for"]
    assert [shown["steps"][0][name] for name in ("given", "state")] == [1, "waiting"]


def test_steps_tell_where_they_are(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    owner = profile.endpoint.owner
    world.policy(
        profile=profile,
        steps=[
            {"name": "Team", "reviewers": {"profile_reviewers": True}},
            {
                "name": "Long",
                "reviewers": {"people": [owner.email]},
                "skip_when": "request.duration <= duration('1h')",
            },
            {"name": "Owner", "reviewers": {"endpoint_owner": True}},
        ],
    )
    filed = caller.post("requests/", body).json()
    assert [step["state"] for step in filed["steps"]] == ["waiting", "skipped", "to_come"]
    review_request(
        by=profile.reviewers.members.get(),
        request_id=filed["id"],
        verdict=Review.Verdict.APPROVE,
        proofs=PROVED,
    )
    shown = caller.get(f"requests/{filed['id']}/").json()
    assert [step["state"] for step in shown["steps"]] == ["approved", "skipped", "waiting"]
    assert shown["waits_for"] == [owner.email]
    review_request(
        by=owner,
        request_id=filed["id"],
        verdict=Review.Verdict.DENY,
        reason="Not now.",
        proofs=PROVED,
    )
    shown = caller.get(f"requests/{filed['id']}/").json()
    assert [step["state"] for step in shown["steps"]] == ["approved", "skipped", "denied"]
    assert shown["waits_for"] == []


def test_what_policy_decides_by_itself_has_its_grant_at_once(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    world.policy(profile=profile, auto_approve_when="true")
    told = caller.post("requests/preview/", body).json()
    assert (told["automatic"], told["steps"], told["pending_until"]) == (True, [], None)
    filed = caller.post("requests/", body).json()
    assert (filed["state"], filed["automatic"], filed["waits_for"]) == ("approved", True, [])
    assert filed["steps"][0]["state"] == "not_needed"
    assert caller.get(f"grants/{filed['grant']}/").json()["is_live"]


@pytest.mark.parametrize("path", ["requests/", "requests/together/"])
def test_a_token_breaks_no_glass(
    path: str, caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    """A stolen one would be let in at once."""
    world.policy(profile=profile, break_glass={"groups": [profile.requesters.slug]})
    ask = body | {"break_glass": True}
    if "together" in path:
        ask["profiles"] = [ask.pop("profile")]
    answer = Caller(caller.user, "token").post(path, ask)
    assert (answer.status_code, answer.json()["code"]) == (403, "step-up-needed")
    assert not profile.requests.exists()
    herself = Caller(caller.user)
    herself.prove(Purpose(Action.ASK, str(profile.pk)))
    assert herself.post(path, ask).status_code == 201


def test_break_glass_owes_a_review(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    world.policy(profile=profile, break_glass={"groups": [profile.requesters.slug]})
    caller = Caller(caller.user)
    caller.prove(Purpose(Action.ASK, str(profile.pk)))
    told = caller.post("requests/preview/", body | {"break_glass": True}).json()
    assert (told["may"], told["may_break_glass"]) == (True, True)
    assert told["needs_factor_within"] == "P0DT00H05M00S"
    filed = caller.post("requests/", body | {"break_glass": True}).json()
    assert (filed["state"], filed["break_glass"]) == ("approved", True)
    assert filed["review_owed"] == {"until": filed["decide_by"], "done_at": None}
    assert filed["steps"][0]["state"] == "waiting"
    reviewer = Caller(profile.reviewers.members.get())
    assert filed["waits_for"] == [reviewer.user.email]  # type: ignore[union-attr]
    [waiting] = reviewer.get("approvals/").json()["results"]
    assert waiting["id"] == filed["id"]
    assert waiting["break_glass"]
    review = {"verdict": "approve"}
    reviewer.prove(Purpose(Action.REVIEW, filed["id"]))
    assert reviewer.post(f"requests/{filed['id']}/reviews/", review).status_code == 201
    shown = caller.get(f"requests/{filed['id']}/").json()
    assert shown["review_owed"]["done_at"] is not None
    assert (shown["steps"][0]["state"], shown["waits_for"]) == ("approved", [])


def test_an_extension_follows_its_grant(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    grant = world.grant(profile=profile, requester=caller.user)
    told = caller.post("requests/preview/", body | {"extends": str(grant.pk)}).json()
    ends = caller.get(f"grants/{grant.pk}/").json()["ends_at"]
    assert (told["starts_at"], told["pending_until"]) == (ends, ends)
    filed = caller.post("requests/", body | {"extends": str(grant.pk)}).json()
    assert filed["extends"] == str(grant.pk)
    review_request(
        by=world.person(profile.reviewers),
        request_id=filed["id"],
        verdict=Review.Verdict.APPROVE,
        proofs=PROVED,
    )
    [follows] = caller.get("grants/", extends=str(grant.pk)).json()["results"]
    assert (follows["extends"], follows["state"]) == (str(grant.pk), "scheduled")
    assert follows["starts_at"] == ends
    assert caller.get(f"grants/{grant.pk}/").json()["extended_by"] == follows["id"]
    assert follows["extended_by"] is None
    assert [e["id"] for e in caller.get("grants/", state="scheduled").json()["results"]] == [
        follows["id"]
    ]
    [asked] = caller.get("requests/", extends=str(grant.pk)).json()["results"]
    assert asked["id"] == filed["id"]


def test_a_second_factor_that_is_asked_for(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    """Only a session's counts: a token has proved nothing."""
    world.policy(profile=profile, limits={"requester_factor_age": "PT15M"})
    told = caller.post("requests/preview/", body).json()
    assert (told["may"], told["needs_factor_within"]) == (True, "P0DT00H15M00S")
    problem(caller.post("requests/", body), 403, "step-up-needed")
    there = Caller(caller.user)
    problem(there.post("requests/", body), 403, "step-up-needed")
    there.prove(Purpose(Action.ASK, str(profile.pk)))
    assert there.post("requests/", body).status_code == 201
    caller.client.cookies = there.client.cookies
    problem(caller.post("requests/", body), 403, "step-up-needed")


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"starts_at": "yesterday"}, "starts_at", "format"),
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, "starts_at", "future|range|overflow"),
        ({"starts_at": "2020-01-01T00:00:00Z"}, "starts_at", "future"),
        ({"starts_at": "9999-12-31T23:59:59Z"}, "starts_at", "within"),
        ({"starts_at": 7}, "starts_at", "format"),
        ({"starts_at": None}, "starts_at", "null"),
        ({"ticket": "x" * 101}, "ticket", "100"),
        ({"ticket": "\x00"}, "ticket", "Null"),
        ({"ticket": ["INC"]}, "ticket", "valid string"),
        ({"break_glass": "perhaps"}, "break_glass", "boolean"),
        ({"extends": "x"}, "extends", "UUID"),
        ({"extends": str(new_id())}, "extends", "hold no such grant"),
        ({"together": str(new_id())}, "together", "written"),
        ({"automatic": True}, "automatic", "written"),
        ({"factor_at": "2026-01-01T00:00:00Z"}, "factor_at", "written"),
    ],
)
def test_what_is_wrong_is_named(
    wrong: dict[str, Any], field: str, says: str, caller: Caller, body: dict[str, Any]
) -> None:
    found = faults(caller.post("requests/", body | wrong))
    assert list(found) == [field]
    assert any(each in found[field] for each in says.split("|")), found


def test_anothers_grant_is_not_extended(
    caller: Caller, body: dict[str, Any], profile: AccessProfile, world: World
) -> None:
    other = world.grant(profile=profile)
    found = faults(caller.post("requests/", body | {"extends": str(other.pk)}))
    assert found == {"extends": "You hold no such grant."}


# Preview


@pytest.mark.usefixtures("nothing_written")
def test_a_preview_answers_without_writing(
    caller: Caller, body: dict[str, Any], profile: AccessProfile
) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = caller.post("requests/preview/", body | {"duration": "PT2H"})
    assert answer.status_code == 200, answer.content
    written = [q["sql"] for q in queries if q["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    # A token notes when it was last used.
    assert [sql for sql in written if "apitoken" not in sql] == []
    told = answer.json()
    assert (told["may"], told["errors"], told["missing"]) == (True, [], [])
    reviewer = profile.reviewers.members.get()
    assert told["steps"] == [
        {"name": "Review", "approvals": 1, "reviewers": [reviewer.email], "skipped": False}
    ]
    begins, ends = (dt.datetime.fromisoformat(told[name]) for name in ("starts_at", "ends_at"))
    assert ends - begins == dt.timedelta(hours=2)
    assert told["reviewer_sees"]["differences"] == ["1 hour longer than the default of 1 hour"]
    assert told["revocation"] == "immediate"
    assert (told["may_break_glass"], told["needs_factor_within"]) == (False, None)
    assert told["max_duration"] == "P0DT08H00M00S"


@pytest.mark.usefixtures("nothing_written")
def test_a_preview_names_what_is_still_missing(caller: Caller, body: dict[str, Any]) -> None:
    told = caller.post("requests/preview/", {"profile": body["profile"]}).json()
    assert told["may"] is False
    assert [each["field"] for each in told["missing"]] == ["justification"]
    assert told["errors"] == []
    assert told["steps"]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"duration": "P3D", "models": ["another"]}, {"duration", "models"}),
        ({"starts_at": "2020-01-01T00:00:00Z"}, {"starts_at"}),
        ({"break_glass": True}, {"break_glass"}),
        ({"extends": str(new_id())}, {"extends"}),
        ({"profile": str(new_id())}, {"profile"}),
        ({"models": []}, {"models"}),
    ],
)
def test_a_preview_tells_what_policy_refuses(
    wrong: dict[str, Any], fields: set[str], caller: Caller, body: dict[str, Any]
) -> None:
    answer = caller.post("requests/preview/", body | wrong)
    assert answer.status_code == 200
    told = answer.json()
    assert told["may"] is False
    assert {each["field"] for each in told["errors"]} == fields
    assert all(each["message"] for each in told["errors"])
    assert told["steps"] == []
    # The same as filing it would answer.
    filed = faults(Caller(caller.user).post("requests/", body | wrong))
    assert {each["field"]: each["message"] for each in told["errors"]} == filed


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"profile": "x"}, "profile"),
        ({"duration": "an hour"}, "duration"),
        ({"models": "demo-small"}, "models"),
        ({"reviewer": "x"}, "reviewer"),
        ({"justification": "x" * 2001}, "justification"),
    ],
)
def test_a_preview_refuses_what_it_cannot_read(
    wrong: dict[str, Any], field: str, caller: Caller, body: dict[str, Any]
) -> None:
    assert list(faults(caller.post("requests/preview/", body | wrong))) == [field]


def test_a_preview_of_anothers_profile_is_as_of_none(world: World, caller: Caller) -> None:
    other = world.profile()
    told = [
        caller.post("requests/preview/", {"profile": str(pk)}).json() for pk in (other.pk, new_id())
    ]
    assert told[0] == told[1]


# Together


def test_several_are_asked_for_at_once(caller: Caller, world: World) -> None:
    assert caller.user is not None
    profiles = [world.profile() for _ in range(2)]
    for profile in profiles:
        world.person(profile.reviewers)
        profile.requesters.memberships.create(user=caller.user)
    ids = [str(profile.pk) for profile in profiles]
    body = {"profiles": ids, "justification": "Ticket 4711.", "duration": "PT30M"}
    answer = caller.post("requests/together/", body)
    assert answer.status_code == 201, answer.content
    filed = answer.json()
    assert [each["profile"] for each in filed] == ids
    assert filed[0]["together"] == filed[1]["together"] is not None
    assert all(each["waits_for"] for each in filed)
    found = caller.get("requests/", together=filed[0]["together"]).json()["results"]
    assert {each["id"] for each in found} == {each["id"] for each in filed}


def test_all_are_filed_or_none(caller: Caller, profile: AccessProfile, world: World) -> None:
    other = world.profile()
    ids = [str(profile.pk), str(other.pk)]
    before = counts()
    body = {"profiles": ids, "justification": "Ticket 4711.", "duration": "PT9H"}
    found = faults(caller.post("requests/together/", body))
    assert set(found) == {f"{profile.pk}.duration", f"{other.pk}.profile"}
    assert counts()[:-2] == before[:-2]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"profiles": []}, "profiles"),
        ({"profiles": ["x"]}, "profiles.0"),
        ({"profiles": [str(new_id()) for _ in range(21)]}, "profiles"),
        ({"profiles": "x"}, "profiles"),
        ({"extends": str(new_id())}, "extends"),
        ({"profile": str(new_id())}, "profile"),
        ({"justification": None}, "justification"),
    ],
)
def test_a_bundle_that_is_refused(wrong: dict[str, Any], field: str, caller: Caller) -> None:
    body = {"profiles": [str(new_id())], "justification": "Ticket 4711."} | wrong
    assert list(faults(caller.post("requests/together/", body))) == [field]


# Times


def test_times_are_utc_for_everybody(world: World, profile: AccessProfile) -> None:
    person = world.person(profile.requesters, time_zone="Asia/Tokyo")
    request = file_request(by=person, profile_id=profile.pk, justification="Ticket 4711.")
    for how in ("session", "token"):
        shown = Caller(person, how).get(f"requests/{request.pk}/").json()
        assert shown["created_at"].endswith("Z")
    start = (clock.now() + dt.timedelta(hours=2)).replace(microsecond=0, tzinfo=None)
    body = {"profile": str(profile.pk), "justification": "x", "starts_at": start.isoformat()}
    filed = Caller(person).post("requests/", body).json()
    assert filed["starts_at"] == f"{start.isoformat()}Z"
