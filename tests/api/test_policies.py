"""Policies and absences through the API."""

import datetime as dt
import json
from typing import Any

import pytest

from accessrequests.models import Absence, Policy, PolicyVersion
from accessrequests.policy.document import json_schema
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from endpoints.models import AccessProfile
from tests.api.callers import Caller, faults, problem
from tests.world import World, unique

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile()


@pytest.fixture
def administrator(world: World) -> Caller:
    return Caller(world.person(is_administrator=True))


@pytest.fixture
def document(profile: AccessProfile) -> dict[str, Any]:
    return {
        "slug": f"two-{unique()}",
        "name": "Two people",
        "applies_to": {"profiles": [f"{profile.endpoint.slug}/{profile.slug}"]},
        "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}, "approvals": 2}],
        "limits": {"max_duration": "PT4H"},
    }


def put(caller: Caller, slug: str, body: Any) -> Any:
    return caller.send("PUT", f"policies/{slug}/", json.dumps(body))


def test_what_was_put_is_what_one_gets(administrator: Caller, document: dict[str, Any]) -> None:
    slug = document["slug"]
    made = put(administrator, slug, {"document": document, "note": "As agreed."})
    assert made.status_code == 201, made.content
    told = administrator.get(f"policies/{slug}/").json()
    assert told == made.json()
    assert told["document"] == document
    assert (told["version"], told["name"], told["retired_at"]) == (1, "Two people", None)
    assert told["changed_by"] == str(administrator.user)
    again = put(administrator, slug, {"document": told["document"]})
    assert (again.status_code, again.json()["version"]) == (200, 1)
    changed = put(
        administrator, slug, {"document": document | {"name": "Both"}, "note": "Shorter."}
    )
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    versions = administrator.get(f"policies/{slug}/versions/").json()["results"]
    assert [(each["number"], each["note"]) for each in versions] == [
        (2, "Shorter."),
        (1, "As agreed."),
    ]
    assert versions[1]["document"] == document
    events = AuditEvent.objects.filter(subject_id=str(Policy.objects.get(slug=slug).pk))
    assert [row.event for row in events.order_by("id")] == [
        Event.POLICY_CREATED,
        Event.POLICY_CHANGED,
    ]


def test_a_retired_policy_is_kept_and_may_come_back(
    world: World, administrator: Caller, document: dict[str, Any]
) -> None:
    slug = document["slug"]
    put(administrator, slug, {"document": document})
    waits = administrator.send("DELETE", f"policies/{slug}/")
    assert (waits.status_code, waits.json()["label"]) == (202, f"Retire policy {slug}")
    assert administrator.get(f"policies/{slug}/").json()["retired_at"] is None
    assert administrator.user is not None
    world.agree(administrator.user)
    assert administrator.get(f"policies/{slug}/").json()["retired_at"] is not None

    def slugs(**query: str) -> set[str]:
        return {each["slug"] for each in administrator.get("policies/", **query).json()["results"]}

    assert slug in slugs()
    assert slug in slugs(retired="true")
    assert slug not in slugs(retired="false")
    assert administrator.send("DELETE", f"policies/{slug}/").status_code == 204
    back = put(administrator, slug, {"document": document}).json()
    assert (back["version"], back["retired_at"]) == (2, None)


def test_what_may_let_somebody_do_more_waits(
    world: World, administrator: Caller, document: dict[str, Any]
) -> None:
    slug = document["slug"]
    wider = document | {"auto_approve_when": "request.duration <= duration('1h')"}
    assert faults(put(administrator, slug, {"document": wider})).keys() == {"note"}
    answer = put(administrator, slug, {"document": wider, "note": "Routine."})
    assert answer.status_code == 202
    told = answer.json()
    assert (told["kind"], told["state"], told["reason"]) == ("policy", "pending", "Routine.")
    assert "auto_approve_when" in told["difference"][-1]["after"]
    problem(administrator.get(f"policies/{slug}/"), 404, "not-found")
    own = administrator.post(f"changes/{told['id']}/approve/")
    problem(own, 403, "second-person")
    second = Caller(world.person(is_administrator=True))
    assert second.post(f"changes/{told['id']}/approve/").json()["state"] == "applied"
    assert administrator.get(f"policies/{slug}/").json()["document"] == wider


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"steps": []}, "document.steps"),
        ({"name": ""}, "document.name"),
        ({"name": "\x00"}, "document.name"),
        ({"name": "\ud800"}, "document.name"),
        ({"description": "a\x00b"}, "document.description"),
        ({"steps": [{"name": "x", "reviewers": {}}]}, "document.steps.0.reviewers"),
        (
            {"steps": [{"name": "x", "reviewers": {"groups": ["none-such"]}}]},
            "document.steps.0.reviewers.groups",
        ),
        ({"limits": {"max_duration": "an hour"}}, "document.limits.max_duration"),
        ({"auto_approve_when": "1 +"}, "document.auto_approve_when"),
        ({"applies_to": {"endpoints": ["none-such"]}}, "document.applies_to.endpoints.0"),
        ({"approvals": 2}, "document.approvals"),
        ({"slug": "another"}, "document.slug"),
        ({"slug": 7}, "document.slug"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(
    wrong: dict[str, Any], field: str, administrator: Caller, document: dict[str, Any]
) -> None:
    found = faults(put(administrator, document["slug"], {"document": document | wrong}))
    assert field in found, found
    assert len(found) <= 2
    assert not Policy.objects.filter(slug=document["slug"]).exists()
    assert not PolicyVersion.objects.filter(document__slug=document["slug"]).exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "document"),
        ({"document": None}, "document"),
        ({"document": []}, "document"),
        ({"document": "slug: x"}, "document"),
        ({"document": 7}, "document"),
        ({"document": {}, "note": "x" * 301}, "note"),
        ({"document": {}, "note": "\x00"}, "note"),
        ({"document": {}, "version": 3}, "version"),
    ],
)
def test_a_body_that_is_refused(body: dict[str, Any], field: str, administrator: Caller) -> None:
    assert list(faults(put(administrator, "two-people", body))) == [field]


def test_who_may_not_change_policies(
    world: World, administrator: Caller, document: dict[str, Any]
) -> None:
    slug, body = document["slug"], {"document": document}
    auditor = world.person(is_auditor=True)
    problem(put(Caller(world.person()), slug, body), 404, "not-found")
    problem(put(Caller(auditor), slug, body), 403, "forbidden")
    token = Caller(administrator.user, "token")
    problem(put(token, slug, body), 403, "step-up-needed")
    assert not Policy.objects.filter(slug=slug).exists()
    put(administrator, slug, body)
    problem(token.send("DELETE", f"policies/{slug}/"), 403, "step-up-needed")
    assert token.get(f"policies/{slug}/").json()["retired_at"] is None
    assert Caller(world.person(), "token").get("policies/").json()["results"] == []


def test_the_schema_is_the_documents(world: World) -> None:
    answer = Caller(world.person(), "token").get("policies/schema/")
    assert answer.json() == json_schema()


# Absences


def test_being_away(world: World) -> None:
    caller, other = Caller(world.person(), "token"), world.person()
    end = (clock.now() + dt.timedelta(days=2)).isoformat()
    body = {"ends_at": end, "delegate": other.email, "note": "On leave."}
    made = caller.post("absences/", body)
    assert made.status_code == 201, made.content
    [row] = caller.get("absences/").json()["results"]
    assert row == made.json()
    assert (row["delegate"], row["note"]) == (other.email, "On leave.")
    assert Caller(other).get("absences/").json()["results"] == []
    assert list(faults(caller.post("absences/", body))) == ["starts_at"]
    assert caller.send("DELETE", f"absences/{row['id']}/").status_code == 204
    assert not Absence.objects.filter(pk=row["id"]).exists()
    problem(caller.send("DELETE", f"absences/{row['id']}/"), 404, "not-found")
    alone = caller.post("absences/", {"ends_at": end}).json()
    assert (alone["delegate"], alone["note"]) == (None, "")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"ends_at": "9999-12-31T23:59:59Z"}, "ends_at"),
        ({"ends_at": "soon"}, "ends_at"),
        ({"starts_at": "9999-12-31T23:59:59Z"}, "ends_at"),
        ({"delegate": "nobody@example.com"}, "delegate"),
        ({"delegate": "x"}, "delegate"),
        ({"delegate": "me"}, "delegate"),
        ({"note": "x" * 201}, "note"),
        ({"note": "\x00"}, "note"),
        ({"person": "x"}, "person"),
    ],
)
def test_an_absence_that_is_refused(wrong: dict[str, Any], field: str, world: World) -> None:
    caller = Caller(world.person())
    assert caller.user is not None
    if wrong.get("delegate") == "me":
        wrong = {"delegate": caller.user.email}
    body = {"ends_at": (clock.now() + dt.timedelta(days=2)).isoformat()} | wrong
    assert list(faults(caller.post("absences/", body))) == [field]
    assert not caller.user.absences.exists()
