"""Tags and preconditions (RFC 9110, section 13): what I looked at is still what I change."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from accessrequests.actions import comment, review_request, save_policy
from accessrequests.models import AccessRequest, Policy, Review
from accessrequests.policy.document import parse
from accessrequests.states import RequestState
from accounts.actions import leave_group
from accounts.changes import propose
from accounts.models import Change, Group, User
from credentials.actions import end_grant
from notifications.actions import change_settings
from tests.api.callers import Caller, faults, problem
from tests.api.test_actors import told
from tests.invariants.races import at_once
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("proved")


@dataclass
class Thing:
    """Something with a tag: where it is read, a verb on it, and what changes it before that."""

    by: Caller
    read: str
    verb: tuple[str, str, Any]
    change: Any
    untouched: Any  # whether the verb did nothing

    def send(self, tag: str | None) -> Any:
        method, path, body = self.verb
        if tag is not None:
            self.by.headers["If-Match"] = tag
        answer = self.by.send(method, path, json.dumps(body))
        self.by.headers.pop("If-Match", None)
        return answer


def request(world: World) -> Thing:
    profile = world.profile()
    world.policy(
        profile=profile,
        steps=[{"name": "Both", "approvals": 2, "reviewers": {"profile_reviewers": True}}],
    )
    first, second = world.person(profile.reviewers), world.person(profile.reviewers)
    row = world.request(profile=profile, reviewer=first)

    def change() -> None:
        review_request(by=first, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)

    return Thing(
        Caller(second),
        f"requests/{row.pk}/",
        ("POST", f"requests/{row.pk}/reviews/", {"verdict": "approve"}),
        change,
        lambda: not Review.objects.filter(request=row, reviewer=second).exists(),
    )


def grant(world: World) -> Thing:
    row = world.grant()

    def change() -> None:
        end_grant(by=row.holder, grant_id=row.pk)

    # It has ended by then, so that nothing shows what the verb did but its answer.
    return Thing(
        Caller(row.holder, "token"),
        f"grants/{row.pk}/",
        ("POST", f"grants/{row.pk}/end/", {}),
        change,
        lambda: True,
    )


def policy(world: World) -> Thing:
    profile = world.profile()
    row = world.policy(profile=profile)
    assert row.current is not None
    document = row.current.document
    # Stricter, so that it is done at once.
    wanted = document | {"limits": {"max_duration": "PT1H"}}

    def change() -> None:
        save_policy(by=None, document=parse(document | {"name": "Another"}))

    def untouched() -> bool:
        return "limits" not in Policy.objects.get(pk=row.pk).current.document  # type: ignore[union-attr]

    return Thing(
        Caller(world.person(is_administrator=True)),
        f"policies/{row.slug}/",
        ("PUT", f"policies/{row.slug}/", {"document": wanted, "note": "Less."}),
        change,
        untouched,
    )


def members(world: World) -> Thing:
    group, other = world.group(), world.person()
    somebody = world.person(group)

    def change() -> None:
        leave_group(by=None, user=somebody, group=group)

    return Thing(
        Caller(world.person(is_administrator=True)),
        f"groups/{group.pk}/members/",
        ("POST", f"groups/{group.pk}/members/", {"person": other.email, "reason": "Joins."}),
        change,
        lambda: not group.members.filter(pk=other.pk).exists(),
    )


def settings_of(world: World) -> Thing:
    person = world.person()

    def change() -> None:
        change_settings(by=person, digest_hour=3)

    return Thing(
        Caller(person, "token"),
        "notification-settings/",
        ("PUT", "notification-settings/", told()),
        change,
        lambda: change_settings(by=person).chat_handle == "",
    )


def proposed(world: World) -> tuple[Change, User]:
    author, profile = world.person(is_administrator=True), world.profile()
    row = propose(
        by=author,
        kind="group_member",
        about=profile.requesters,
        payload={"person": str(world.person().pk)},
        reason="Joins.",
        proofs=PROVED,
    )
    assert row is not None
    return row, author


THINGS = [request, grant, policy, members, settings_of]


@pytest.mark.django_db
@pytest.mark.parametrize("make", THINGS)
def test_what_changed_meanwhile_is_left_as_it_is(make: Any, world: World) -> None:
    thing = make(world)
    tag = thing.by.get(thing.read)["ETag"]
    thing.change()
    if make is grant:
        # Once more of what has ended already is no error; of what one didn't see end it is.
        assert thing.send(None).status_code == 200
    problem(thing.send(tag), 412, "precondition-failed")
    assert thing.untouched()
    again = thing.by.get(thing.read)["ETag"]
    assert again != tag
    assert thing.send(f'"x,y" , {again}').status_code in {200, 201, 202}


@pytest.mark.django_db
@pytest.mark.parametrize("make", THINGS)
def test_what_one_has_is_not_sent_again(make: Any, world: World) -> None:
    thing = make(world)
    first = thing.by.get(thing.read)
    tag = first["ETag"]
    assert tag.startswith('"')
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        thing.by.headers["If-None-Match"] = header
        same = thing.by.get(thing.read)
        assert (same.status_code, same.content, same["ETag"]) == (304, b"", tag)
        assert same["Cache-Control"] == first["Cache-Control"] == "private, no-cache"
    thing.change()
    new = thing.by.get(f"{thing.read}")
    thing.by.headers["If-None-Match"] = tag
    other = thing.by.get(thing.read)
    assert other.status_code == 200
    assert other.json() != first.json()
    assert new.status_code == 304  # by the star


@pytest.mark.django_db
def test_a_decided_change_is_not_decided_again(world: World) -> None:
    row, _ = proposed(world)
    second = Caller(world.person(is_administrator=True))
    path = f"changes/{row.pk}/"
    tag = second.get(path)["ETag"]
    second.headers["If-Match"] = '"another"'
    problem(second.post(f"{path}approve/"), 412, "precondition-failed")
    problem(second.post(f"{path}reject/", {"note": "No."}), 412, "precondition-failed")
    row.refresh_from_db()
    assert row.state == Change.State.PENDING
    second.headers["If-Match"] = tag
    assert second.post(f"{path}approve/").json()["state"] == "applied"


@pytest.mark.django_db
def test_a_new_policy_matches_nothing(world: World) -> None:
    profile = world.profile()
    caller = Caller(world.person(is_administrator=True))
    caller.headers["If-Match"] = "*"
    document = {
        "slug": "brand-new",
        "name": "New",
        "applies_to": {"profiles": [f"{profile.endpoint.slug}/{profile.slug}"]},
        "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}}],
    }
    answer = caller.send(
        "PUT", "policies/brand-new/", json.dumps({"document": document, "note": "New."})
    )
    problem(answer, 412, "precondition-failed")


@pytest.mark.django_db
def test_what_is_to_be_new_replaces_nothing(world: World) -> None:
    thing = settings_of(world)
    tag = thing.by.get(thing.read)["ETag"]
    for header in ("*", tag, f"W/{tag}"):
        thing.by.headers["If-None-Match"] = header
        problem(thing.send(None), 412, "precondition-failed")
    assert thing.untouched()
    thing.by.headers["If-None-Match"] = '"another"'
    assert thing.send(None).status_code < 300


@pytest.mark.django_db
@pytest.mark.parametrize("header", ["x", '"x', 'x"', "", '"a" "b"', '"a", b', "**", 'w/"a"'])
def test_what_is_no_tag_is_refused_by_name(header: str, world: World) -> None:
    thing = settings_of(world)
    assert "ETag" in faults(thing.send(header))["If-Match"]
    thing.by.headers["If-None-Match"] = header
    assert "ETag" in faults(thing.by.get(thing.read))["If-None-Match"]
    assert thing.untouched()


@pytest.mark.django_db
def test_a_weak_tag_is_good_for_reading_alone(world: World) -> None:
    thing = settings_of(world)
    tag = thing.by.get(thing.read)["ETag"]
    problem(thing.send(f"W/{tag}"), 412, "precondition-failed")
    assert thing.untouched()


@pytest.mark.django_db
def test_a_star_in_quotes_is_a_tag_and_nothings(world: World) -> None:
    thing = settings_of(world)
    problem(thing.send('"*"'), 412, "precondition-failed")
    thing.by.headers["If-None-Match"] = '"*"'
    assert thing.by.get(thing.read).status_code == 200
    thing.by.headers["If-None-Match"] = "*"
    assert thing.by.get(thing.read).status_code == 304
    assert thing.untouched()


@pytest.mark.django_db
def test_a_stranger_learns_nothing_by_tags(world: World) -> None:
    thing = request(world)
    tag = thing.by.get(thing.read)["ETag"]
    stranger = Caller(world.person())
    stranger.headers |= {"If-None-Match": tag, "If-Match": tag}
    problem(stranger.get(thing.read), 404, "not-found")
    problem(stranger.post(thing.verb[1], thing.verb[2]), 404, "not-found")


@pytest.mark.django_db
def test_what_is_said_of_a_request_leaves_its_tag(world: World) -> None:
    """A tag is of what is shown there: comments have a list of their own."""
    row = world.request()
    caller = Caller(row.requester, "token")
    tag = caller.get(f"requests/{row.pk}/")["ETag"]
    comment(by=row.requester, request_id=row.pk, text="Soon, please.")
    assert caller.get(f"requests/{row.pk}/")["ETag"] == tag


@pytest.mark.django_db
def test_a_tag_with_more_expanded_is_of_the_same_thing(world: World) -> None:
    thing = request(world)
    plain = thing.by.get(thing.read)["ETag"]
    more = thing.by.get(thing.read, expand="profile")["ETag"]
    assert more != plain
    assert thing.send(more).status_code == 201


@pytest.mark.usefixtures("committed")
def test_of_many_who_looked_at_the_same_one_is_first(world: World) -> None:
    """The tag is checked on the locked row: eight with the same tag are not all right."""
    group = world.group()
    people = [world.person(group) for _ in range(8)]
    callers = [Caller(world.person(is_administrator=True)) for _ in people]
    tag = callers[0].get(f"groups/{group.pk}/members/")["ETag"]
    for caller in callers:
        caller.headers["If-Match"] = tag

    def remove(caller: Caller, person: User) -> Any:
        return lambda: (
            caller.post(f"groups/{group.pk}/members/remove/", {"person": person.email}).status_code
        )

    pairs = zip(callers, people, strict=True)
    assert sorted(at_once([remove(*each) for each in pairs])) == [204] + [412] * 7
    assert Group.objects.get(pk=group.pk).members.count() == 7


@pytest.mark.usefixtures("committed")
def test_reviewers_who_looked_at_the_same_step(world: World) -> None:
    """The second of two approvals at once is refused: the request isn't what was looked at."""
    profile = world.profile()
    world.policy(
        profile=profile,
        steps=[{"name": "Both", "approvals": 2, "reviewers": {"profile_reviewers": True}}],
    )
    callers = [Caller(world.person(profile.reviewers)) for _ in range(3)]
    row = world.request(profile=profile)
    for caller in callers:
        caller.headers["If-Match"] = caller.get(f"requests/{row.pk}/")["ETag"]

    def approve(caller: Caller) -> Any:
        return lambda: (
            caller.post(f"requests/{row.pk}/reviews/", {"verdict": "approve"}).status_code
        )

    assert sorted(at_once([approve(each) for each in callers])) == [201, 412, 412]
    assert AccessRequest.objects.get(pk=row.pk).state == RequestState.PENDING
