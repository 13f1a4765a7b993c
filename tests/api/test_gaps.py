"""What the API does of what people do in the portal, by the same rules."""

import datetime as dt
import json
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import sessions
from accounts.models import Change, Group, User
from accounts.stepup import Action, Purpose
from audit import clock
from audit.models import AuditEvent
from credentials import vault
from credentials.actions import check_out, end_grant, rotate
from credentials.actions.upstream_keys import path_of
from credentials.models import Rotation
from credentials.states import RotationState
from tests.accounts.passkey import passkey_of
from tests.api.callers import Caller, faults, problem
from tests.world import UPSTREAM_KEY, World

pytestmark = pytest.mark.django_db

NEW_KEY = "sk-new-canary-51d84a067f3b9c2e"


@pytest.fixture
def administrator(world: World) -> Caller:
    return Caller(world.person(is_administrator=True))


def at(answer: Any) -> str:
    """What `Location` names, as a path below /api/v1/."""
    return str(answer["Location"]).removeprefix(f"{settings.KEYTURN_BASE_URL}/api/v1/")


def done(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.content[:500]
    return answer.json()


# ── People ──────────────────────────────────────────────────────────────────────────────────────


def test_each_change_of_people_and_keys_takes_a_proof_for_exactly_that(
    world: World, administrator: Caller
) -> None:
    endpoint, group = world.endpoint(), world.profile().requesters
    person, service = world.person(), world.person(owner=world.person())
    rotation = rotate(by=None, endpoint=endpoint)
    passkey_of(world, person)
    soon = (clock.now() + dt.timedelta(days=9)).isoformat()
    email = {"person": person.email, "reason": "As agreed."}
    tries: dict[str, tuple[str, dict[str, Any]]] = {
        "people/": ("people:", {"email": "n@example.com", "full_name": "Noor"}),
        f"people/{person.pk}/reactivate/": (f"people:{person.pk}", {}),
        f"people/{person.pk}/invite/": (f"people:{person.pk}", {}),
        f"people/{person.pk}/roles/": (f"people:{person.pk}", {"auditor": True, "reason": "x"}),
        f"people/{person.pk}/reset-factors/": (f"people:{person.pk}", {"reason": "Lost it."}),
        f"people/{service.pk}/extend/": (f"people:{service.pk}", {"ends_at": soon}),
        f"groups/{group.pk}/owners/": (f"people:{group.pk}", email),
        f"endpoints/{endpoint.pk}/keys/": (f"rotate:{endpoint.pk}", {"key": NEW_KEY}),
        f"rotations/{rotation.pk}/confirm/": (f"rotate:{endpoint.pk}", {}),
    }
    people = User.objects.count()
    administrator.prove(Purpose(Action.PEOPLE, str(world.person().pk)), Purpose(Action.ENDPOINT))
    for path, (purpose, body) in tries.items():
        told = problem(administrator.post(path, body), 403, "step-up-needed")
        assert told["purposes"] == [purpose], path
    assert not Change.objects.exists()
    assert User.objects.count() == people + 1
    assert vault.newest(path_of(endpoint.secrets.get())) == 1
    assert UPSTREAM_KEY not in json.dumps([list(AuditEvent.objects.values_list("data"))])


def test_a_person_is_added_and_let_in_once(administrator: Caller) -> None:
    administrator.prove(Purpose(Action.PEOPLE))
    body = {"email": "noor@example.com", "full_name": "Noor Aziz"}
    answer = administrator.post("people/", body)
    made = done(answer, 201)
    assert answer["Cache-Control"] == "no-store"
    assert done(administrator.get(at(answer)))["email"] == "noor@example.com"
    assert "welcome" not in administrator.get(at(answer)).content.decode()
    assert "email" in faults(administrator.post("people/", body))
    # Another link takes the place of that one.
    administrator.prove(Purpose(Action.PEOPLE, made["id"]))
    link = done(administrator.post(f"people/{made['id']}/invite/"))["link"]
    first, second = (
        Client().get(each.removeprefix(settings.KEYTURN_BASE_URL))
        for each in (made["invitation"]["link"], link)
    )
    assert first.status_code == 404
    assert second.status_code in {200, 302}


def test_a_service_account_is_somebodys_and_its_owner_extends_it(
    world: World, administrator: Caller
) -> None:
    owner = world.person()
    administrator.prove(Purpose(Action.PEOPLE))
    body = {"email": "eval@service.example.com", "full_name": "Nightly eval", "owner": owner.email}
    assert list(faults(administrator.post("people/", body))) == ["ends_at"]
    ends = {"ends_at": (clock.now() + dt.timedelta(days=30)).isoformat()}
    made = done(administrator.post("people/", body | ends), 201)
    assert (made["owner"], made["invitation"]) == (owner.email, None)
    asking = Caller(owner)
    asking.prove(Purpose(Action.PEOPLE, made["id"]))
    longer = {"ends_at": (clock.now() + dt.timedelta(days=367)).isoformat()}
    assert list(faults(asking.post(f"people/{made['id']}/extend/", longer))) == ["ends_at"]
    later = {"ends_at": (clock.now() + dt.timedelta(days=300)).isoformat()}
    shown = done(asking.post(f"people/{made['id']}/extend/", later))
    assert shown["ends_at"][:10] == later["ends_at"][:10]


def test_a_role_waits_for_a_second_administrator_and_is_taken_at_once(
    world: World, administrator: Caller
) -> None:
    person = world.person()
    administrator.prove(Purpose(Action.PEOPLE, str(person.pk)))
    path = f"people/{person.pk}/roles/"
    assert list(faults(administrator.post(path, {}))) == ["administrator"]
    assert "reason" in faults(administrator.post(path, {"auditor": True}))
    answer = administrator.post(path, {"auditor": True, "reason": "New duty."})
    change = done(answer, 202)
    assert (change["state"], done(administrator.get(at(answer)))) == ("pending", change)
    person.refresh_from_db()
    assert not person.is_auditor
    second = Caller(world.person(is_administrator=True))
    second.prove(Purpose(Action.CHANGE, change["id"]))
    done(second.post(f"changes/{change['id']}/approve/"))
    assert done(administrator.post(path, {"auditor": True}))["is_auditor"] is True
    assert done(administrator.post(path, {"auditor": False}))["is_auditor"] is False


def test_an_empty_group_is_filled_at_once_and_one_that_opens_something_is_not(
    world: World, administrator: Caller
) -> None:
    person = world.person()
    answer = administrator.post("groups/", {"slug": "night-shift", "name": "Night shift"})
    made = done(answer, 201)
    assert list(faults(administrator.post("groups/", {"slug": "a b", "name": "x"}))) == ["slug"]
    administrator.prove(Purpose(Action.PEOPLE, made["id"]))
    for path in ("owners", "members"):
        done(administrator.post(f"{at(answer)}{path}/", {"person": person.email}), 201)
    assert done(administrator.get(at(answer)))["owners"] == [person.email]
    dropped = administrator.post(f"{at(answer)}owners/remove/", {"person": person.email})
    assert dropped.status_code == 204
    group = Group.objects.get(slug="night-shift")
    world.profile(requesters=group)
    body = {"person": world.person().email, "reason": "Joins."}
    assert done(administrator.post(f"{at(answer)}members/", body), 202)["kind"] == "group_member"
    assert list(group.members.all()) == [person]


# ── Oneself ─────────────────────────────────────────────────────────────────────────────────────


def test_a_program_asks_first_who_it_is(world: World) -> None:
    group = world.group()
    user = world.person(group)
    by_token = done(Caller(user, "token", verbs=["check_out"]).get("me/"))
    assert (by_token["email"], by_token["groups"]) == (user.email, [group.slug])
    assert by_token["token"]["verbs"] == ["check_out"]
    me = Caller(user)
    shown = done(me.send("PATCH", "me/", json.dumps({"time_zone": "Europe/Berlin"})))
    assert (shown["time_zone"], shown["full_name"]) == ("Europe/Berlin", user.full_name)
    assert shown["token"] is None
    answer = me.send("PATCH", "me/", json.dumps({"time_zone": "Mars/Base", "email": "x@y.zz"}))
    assert list(faults(answer)) == ["email"]
    answer = me.send("PATCH", "me/", json.dumps({"time_zone": "Mars/Base"}))
    assert list(faults(answer)) == ["time_zone"]


def test_one_ends_ones_own_sessions(world: World) -> None:
    user = world.person()
    here, there, elsewhere = Caller(user), Caller(user), Caller(user)
    name = sessions.name_of(str(there.client.session.session_key))
    rows = done(here.get("me/sessions/"))
    assert len(rows) == 3
    assert [row["id"] for row in rows if row["is_this"]] == [
        sessions.name_of(str(here.client.session.session_key))
    ]
    assert str(here.client.session.session_key) not in json.dumps(rows)
    assert here.post(f"me/sessions/{name}/end/").status_code == 204
    problem(there.get("me/"), 401, "not-signed-in")
    assert done(here.post("me/sessions/end-others/")) == {"ended": 1}
    problem(elsewhere.get("me/"), 401, "not-signed-in")
    done(here.get("me/"))


# ── Keys ────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_stored_and_read_nowhere(world: World) -> None:
    endpoint = world.endpoint()
    owner = Caller(endpoint.owner)
    owner.prove(Purpose(Action.ROTATE, str(endpoint.pk)))
    path = f"endpoints/{endpoint.pk}/keys/"
    told = owner.post(path, {"key": f"{NEW_KEY}\nx"})
    assert list(faults(told)) == ["key"]
    stored = owner.post(path, {"key": NEW_KEY})
    assert done(stored, 201)["version"] == 2
    shown = owner.get(path)
    assert [row["version"] for row in done(shown)] == [2]
    assert done(Caller(world.person(is_auditor=True), "token").get(path)) == done(shown)
    rows = json.dumps(list(AuditEvent.objects.values_list("data", flat=True)))
    for text in (told, stored, shown):
        assert NEW_KEY not in text.content.decode()
    assert NEW_KEY not in rows


def test_a_rotation_by_hand_is_confirmed(world: World) -> None:
    endpoint = world.endpoint()
    owner = Caller(endpoint.owner)
    owner.prove(Purpose(Action.ROTATE, str(endpoint.pk)))
    answer = owner.post(f"endpoints/{endpoint.pk}/rotate/")
    rotation = done(answer, 201)
    assert done(owner.get(at(answer))) == rotation
    path = f"{at(answer)}confirm/"
    problem(owner.post(path), 409, "conflict")
    Rotation.objects.filter(pk=rotation["id"]).update(
        state=RotationState.CREATED, new_version=2, created_at=clock.now()
    )
    Rotation.objects.filter(pk=rotation["id"]).update(
        state=RotationState.PUBLISHED, published_at=clock.now()
    )
    assert done(owner.post(path))["confirmed_at"]
    assert done(owner.get("rotations/", endpoint=endpoint.slug))["results"][0]["confirmed_at"]


# ── The rest ────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_says_what_would_come_of_asking(world: World) -> None:
    automatic, reviewed = world.profile(), world.profile()
    world.policy(profile=automatic, auto_approve_when="request.duration <= duration('8h')")
    asker = world.person(automatic.requesters, reviewed.requesters)
    caller = Caller(asker, "token")
    found = {row["id"]: row for row in done(caller.get("profiles/"))["results"]}
    one, other = found[str(automatic.pk)], found[str(reviewed.pk)]
    assert (one["may_ask"], one["automatic"]) == (True, True)
    assert (other["may_ask"], other["automatic"]) == (True, False)
    assert other["decided_by"]
    assert done(caller.get(f"profiles/{automatic.pk}/")) == one
    auditor = Caller(world.person(is_auditor=True), "token")
    seen = done(auditor.get(f"profiles/{automatic.pk}/"))
    assert (seen["may_ask"], seen["automatic"]) == (False, False)


def test_profiles_take_as_many_queries_for_ten_as_for_two(world: World) -> None:
    requesters = world.group()
    caller = Caller(world.person(requesters), "token")

    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            done(caller.get("profiles/"))
        return len(found)

    for _ in range(2):
        world.profile(requesters=requesters)
    caller.get("profiles/")
    before = queries()
    for _ in range(8):
        world.profile(requesters=requesters)
    assert queries() == before


def test_a_policy_is_tried_out_and_nothing_is_written(world: World, administrator: Caller) -> None:
    profile = world.profile()
    policy = world.policy(profile=profile)
    request = world.request(profile=profile)
    assert policy.current is not None
    document = policy.current.document
    by_token = Caller(administrator.user, "token")
    asked = by_token.post("policies/check/", {"document": document})
    assert done(asked)["same"] is True
    twice = document | {"steps": [document["steps"][0] | {"approvals": 2}]}
    world.person(profile.reviewers)
    shown = done(by_token.post("policies/check/", {"document": twice}))
    assert (shown["same"], shown["waits"]) == (False, False)
    assert "approvals: 2" in shown["difference"][0]["after"]
    [otherwise] = shown["replay"]["otherwise"]
    assert otherwise["request"] == str(request.pk)
    assert "2 approvals" in otherwise["after"]
    wrong = document | {"steps": [{"name": "x", "reviewers": {"groups": ["no-such"]}}]}
    told = faults(by_token.post("policies/check/", {"document": wrong}))
    assert all(name.startswith("document.") for name in told)
    policy.refresh_from_db()
    assert policy.versions.count() == 1
    assert not Change.objects.exists()


def test_operators_see_what_is_owed_and_have_it_tried(world: World, administrator: Caller) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    check_out(by=grant.holder, grant_id=grant.pk)
    end_grant(by=grant.holder, grant_id=grant.pk)
    found = done(administrator.get("operations/"))
    assert found["count"] == 1
    [group] = found["groups"]
    target = {"kind": group["kind"], "target": group["target"]}
    assert done(administrator.post("operations/try/", target)).keys() == {"tried"}
    problem(administrator.post("operations/try/", target | {"target": "x"}), 409, "conflict")
