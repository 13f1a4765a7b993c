"""Scope and time can shrink on their way from profile to grant, and never grow: by no action and
by no hand in PostgreSQL."""

import datetime as dt
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import RequestState
from accounts.models import User
from audit import clock
from audit.ids import new_id
from broker.errors import InvalidInput
from credentials.actions import check_out
from tests.accessrequests.policies import govern, step
from tests.invariants.by_hand import by_hand
from tests.servers import Servers
from tests.world import PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

HOUR = dt.timedelta(hours=1)
ONE_STEP = {"steps": [{"name": "Review", "approvals": 1, "skipped": False, "reviewers": {}}]}


def ask(world: World, **fields: Any) -> AccessRequest:
    """Two hours at most, of two models; with `fields` something else is asked for."""
    profile = world.profile(
        models=["demo-large", "demo-small"], max_duration=2 * HOUR, default_duration=HOUR
    )
    world.person(profile.reviewers)
    return file_request(
        by=world.person(profile.requesters),
        profile_id=profile.pk,
        justification="Ticket 4711.",
        **fields,
    )


@pytest.mark.parametrize("duration", [dt.timedelta(minutes=1), HOUR, 2 * HOUR])
def test_up_to_the_ceiling_may_be_asked_for(duration: dt.timedelta, world: World) -> None:
    request = ask(world, duration=duration, models=["demo-large", "demo-small"])
    assert request.duration == duration


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"duration": 2 * HOUR + dt.timedelta(microseconds=1)}, "duration"),
        ({"duration": dt.timedelta(days=6)}, "duration"),
        ({"models": ["demo-small", "demo-slow"]}, "models"),
        ({"models": ["Demo-Small"]}, "models"),
        ({"models": ["demo-small "]}, "models"),
        ({"models": ["*"]}, "models"),
        ({"models": ["demo-"]}, "models"),
        ({"models": []}, "models"),
    ],
)
def test_beyond_the_ceiling_nothing_is_filed(
    fields: dict[str, Any], field: str, world: World
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(world, **fields)
    assert list(caught.value.errors) == [field]
    assert not AccessRequest.objects.filter(justification="Ticket 4711.").exists()


def test_a_grant_holds_what_was_asked_for_and_no_more(world: World) -> None:
    request = ask(world, duration=dt.timedelta(minutes=10), models=["demo-small"])
    reviewer = world.person(request.profile.reviewers)
    grant = review_request(
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    ).request.grant
    assert grant.scope == {"models": ["demo-small"]}
    assert grant.ends_at - grant.starts_at == dt.timedelta(minutes=10)


@pytest.mark.parametrize("field", ["duration", "models", "scope", "ends_at", "state", "reviewer"])
def test_a_reviewer_can_say_nothing_of_time_and_scope(field: str, world: World) -> None:
    request = ask(world)
    client = Client()
    client.force_login(world.person(request.profile.reviewers))
    answer = client.post(
        f"/api/v1/requests/{request.pk}/reviews/",
        {"verdict": "approve", field: "7 days"},
        content_type="application/json",
    )
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    request.refresh_from_db()
    assert request.state == RequestState.PENDING


# ── By hand in PostgreSQL ───────────────────────────────────────────────────────────────────────


def insert_request(world: World, **columns: Any) -> None:
    profile = world.profile(models=["demo-small"], max_duration=HOUR)
    now = clock.now()
    with transaction.atomic():
        AccessRequest.objects.create(
            **{
                "profile": profile,
                "requester": world.person(profile.requesters),
                "scope": {"models": ["demo-small"]},
                "duration": HOUR,
                "justification": "By hand.",
                "policy": ONE_STEP,
                "pending_until": now + HOUR,
                "decide_by": now + HOUR,
            }
            | columns
        )


def test_postgresql_takes_a_request_within_its_profile(world: World) -> None:
    insert_request(world)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"duration": HOUR + dt.timedelta(microseconds=1)}, "beyond its profile"),
        ({"scope": {"models": ["demo-small", "demo-large"]}}, "beyond its profile"),
        ({"scope": {"models": ["demo-small"], "tools": ["shell"]}}, "beyond its profile"),
        ({"scope": {}}, "beyond its profile"),
        ({"scope": {"models": []}}, "beyond its profile"),
        ({"scope": {"models": "demo-small"}}, "beyond its profile"),
        ({"scope": []}, "beyond its profile"),
        ({"duration": dt.timedelta(0)}, "request_duration_sound"),
        ({"duration": -HOUR}, "request_duration_sound"),
        ({"justification": ""}, "request_justification_given"),
        ({"state": "approved", "decided_by": "me"}, "does not begin pending"),
        ({"policy": {}}, "does not begin pending"),
        ({"policy": {"steps": []}}, "does not begin pending"),
        ({"policy": {"steps": None}}, "array length"),
        ({"policy": {"steps": {}}}, "array length"),
        ({"policy": []}, "does not begin pending"),
    ],
)
def test_postgresql_refuses_a_request_beyond_its_profile(
    columns: dict[str, Any], why: str, world: World
) -> None:
    if "state" in columns:
        columns = columns | {"decided_at": clock.now()}
    with pytest.raises(DatabaseError, match=why):
        insert_request(world, **columns)


def approve_by_hand(world: World) -> AccessRequest:
    request = ask(world, duration=HOUR, models=["demo-small"])
    now = clock.now()
    Review.objects.create(
        request=request,
        reviewer=world.person(request.profile.reviewers),
        verdict=Review.Verdict.APPROVE,
    )
    AccessRequest.objects.filter(pk=request.pk).update(
        state=RequestState.APPROVED, decided_at=now, decided_by="by hand", remind_at=None
    )
    return request


def insert_grant(request: AccessRequest, **columns: Any) -> Grant:
    now = clock.now()
    with transaction.atomic():
        return Grant.objects.create(
            **{
                "request": request,
                "holder": request.requester,
                "scope": request.scope,
                "starts_at": now,
                "ends_at": now + request.duration,
            }
            | columns
        )


def test_postgresql_takes_a_grant_within_its_request(world: World) -> None:
    assert insert_grant(approve_by_hand(world))


@pytest.mark.parametrize(
    "scope",
    [
        {"models": ["demo-small", "demo-large"]},
        {"models": ["demo-large"]},
        {"models": ["demo-small"], "tools": ["shell"]},
        {},
        {"models": []},
    ],
)
def test_postgresql_refuses_a_grant_of_another_scope(scope: dict[str, Any], world: World) -> None:
    request = approve_by_hand(world)
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request, scope=scope)


def test_postgresql_refuses_a_grant_that_lasts_longer(world: World) -> None:
    request = approve_by_hand(world)
    end = clock.now() + request.duration + dt.timedelta(seconds=1)
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request, ends_at=end)


def test_postgresql_refuses_a_grant_to_somebody_else(world: World) -> None:
    request = approve_by_hand(world)
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request, holder=world.person(request.profile.requesters))


@pytest.mark.parametrize("state", [RequestState.DENIED, RequestState.PENDING])
def test_postgresql_refuses_a_grant_of_what_was_not_approved(
    state: RequestState, world: World
) -> None:
    request = world.request(state)
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request)


CHANGES = [
    ("accessrequests_grant", "ends_at = ends_at + interval '1 second'"),
    ("accessrequests_grant", "ends_at = ends_at - interval '1 second'"),
    ("accessrequests_grant", "starts_at = starts_at - interval '1 second'"),
    ("accessrequests_grant", "scope = '{\"models\": [\"demo-large\"]}'"),
    ("accessrequests_grant", "holder_id = (SELECT id FROM accounts_user WHERE id <> holder_id"
     " LIMIT 1)"),
    ("accessrequests_accessrequest", "duration = duration + interval '1 second'"),
    ("accessrequests_accessrequest", "scope = '{\"models\": [\"demo-large\"]}'"),
    ("accessrequests_accessrequest", "justification = 'Another.'"),
    ("accessrequests_accessrequest", "policy = '{}'"),
    ("accessrequests_accessrequest", "pending_until = pending_until + interval '1 day'"),
    ("accessrequests_review", "verdict = 'deny', reason = 'Changed my mind.'"),
    ("credentials_credential", "created_at = now()"),
    ("credentials_credential", "kind = 'static_secret'"),
    ("credentials_credential", "accessor = 'another'"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change"), CHANGES)
def test_postgresql_refuses_to_change_what_was_approved(
    table: str, change: str, world: World, servers: Servers
) -> None:
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    column, value = {
        "accessrequests_accessrequest": ("id", grant.request_id),
        "accessrequests_review": ("request_id", grant.request_id),
        "accessrequests_grant": ("id", grant.pk),
        "credentials_credential": ("grant_id", grant.pk),
    }[table]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE {column} = %s", [value])  # noqa: S608
        assert cursor.fetchone() == (1,)
        with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
            cursor.execute(f"UPDATE {table} SET {change} WHERE {column} = %s", [value])  # noqa: S608


@pytest.mark.parametrize(
    "table",
    [
        "accessrequests_grant",
        "accessrequests_review",
        "accessrequests_accessrequest",
        "credentials_credential",
    ],
)
@pytest.mark.parametrize("how", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_postgresql_refuses_to_forget(how: str, table: str, world: World) -> None:
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    with pytest.raises(DatabaseError, match="pgtrigger: Cannot"):
        by_hand(how.format(table))


# ── Approving less, and extending ───────────────────────────────────────────────────────────────


def approve(request: AccessRequest, **less: Any) -> Review:
    reviewer = User.objects.filter(
        memberships__group=request.profile.reviewers_id, reviews=None
    ).first()
    return review_request(
        by=reviewer or World("").person(request.profile.reviewers),
        request_id=request.pk,
        verdict=Review.Verdict.APPROVE,
        **less,
        proofs=PROVED,
    )


def test_less_is_what_is_granted(world: World) -> None:
    request = ask(world, duration=2 * HOUR)
    begin = clock.now() + HOUR
    approve(request, duration=HOUR / 2, models=["demo-small"], starts_at=begin)
    grant = Grant.objects.get(request=request)
    assert (grant.scope, grant.starts_at) == ({"models": ["demo-small"]}, begin)
    assert grant.ends_at == begin + HOUR / 2


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"duration": HOUR + dt.timedelta(microseconds=1)}, "duration"),
        ({"duration": dt.timedelta(seconds=59)}, "duration"),
        ({"duration": -HOUR}, "duration"),
        ({"models": ["demo-small", "demo-large"]}, "models"),
        ({"models": ["demo-slow"]}, "models"),
        ({"models": []}, "models"),
        ({"models": [""]}, "models"),
        ({"starts_at": dt.timedelta(minutes=-1)}, "starts_at"),
        ({"starts_at": dt.timedelta(days=31)}, "starts_at"),
    ],
)
def test_a_review_widens_nothing(more: dict[str, Any], field: str, world: World) -> None:
    request = ask(world, duration=HOUR, models=["demo-small"])
    if "starts_at" in more:
        more = {"starts_at": clock.now() + more["starts_at"]}
    with pytest.raises(InvalidInput) as caught:
        approve(request, **more)
    assert list(caught.value.errors) == [field]
    assert not request.reviews.exists()


def test_an_earlier_start_than_was_asked_for_is_more(world: World) -> None:
    request = ask(world, starts_at=clock.now() + 3 * HOUR)
    with pytest.raises(InvalidInput, match="later"):
        approve(request, starts_at=clock.now() + 2 * HOUR)


def test_several_approvals_narrow_together_and_none_takes_it_back(world: World) -> None:
    profile = world.profile(models=["demo-large", "demo-small"], max_duration=2 * HOUR)
    world.person(profile.reviewers)
    world.person(profile.reviewers)
    govern(profile, step(approvals=2))
    request = file_request(
        by=world.person(profile.requesters),
        profile_id=profile.pk,
        justification="Ticket 4711.",
        duration=2 * HOUR,
    )
    approve(request, models=["demo-small"])
    for more in ({"models": ["demo-large"]}, {"models": ["demo-large", "demo-small"]}):
        with pytest.raises(InvalidInput, match="models"):
            approve(request, **more)
    approve(request, duration=HOUR)
    grant = Grant.objects.get(request=request)
    assert grant.scope == {"models": ["demo-small"]}
    assert grant.ends_at - grant.starts_at == HOUR


def test_a_denial_gives_nothing_less(world: World) -> None:
    request = ask(world)
    with pytest.raises(InvalidInput):
        review_request(
            by=world.person(request.profile.reviewers),
            request_id=request.pk,
            verdict=Review.Verdict.DENY,
            reason="No.",
            duration=HOUR / 2,
            proofs=PROVED,
        )


def extend(grant: Grant, **fields: Any) -> AccessRequest:
    return file_request(
        by=grant.holder,
        profile_id=grant.request.profile_id,
        justification="It takes longer.",
        extends=grant.pk,
        **fields,
    )


def narrowed(world: World) -> Grant:
    """A grant of one model, of a profile with two."""
    request = ask(world, duration=HOUR, models=["demo-small"])
    approve(request)
    return Grant.objects.get(request=request)


def test_an_extension_is_of_the_grant_and_follows_it(world: World) -> None:
    grant = narrowed(world)
    request = extend(grant, duration=HOUR)
    assert request.scope == {"models": ["demo-small"]}
    approve(request)
    following = Grant.objects.get(request=request)
    assert following.starts_at == grant.ends_at
    assert following.ends_at == grant.ends_at + HOUR
    assert (following.state, following.scope) == ("scheduled", grant.scope)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"models": ["demo-small", "demo-large"]}, "models"),
        ({"models": ["demo-large"]}, "models"),
        ({"duration": 3 * HOUR}, "duration"),
        ({"break_glass": True}, "break_glass"),
        ({"starts_at": HOUR}, "starts_at"),
    ],
)
def test_an_extension_widens_nothing(fields: dict[str, Any], field: str, world: World) -> None:
    """The profile would give the other model; the grant doesn't have it."""
    grant = narrowed(world)
    if "starts_at" in fields:
        fields = {"starts_at": clock.now() + HOUR}
    with pytest.raises(InvalidInput) as caught:
        extend(grant, **fields)
    assert field in caught.value.errors
    assert not grant.extensions.exists()


def test_nobody_extends_another_s_grant(world: World) -> None:
    grant = narrowed(world)
    with pytest.raises(InvalidInput, match="You hold no such grant"):
        file_request(
            by=world.person(grant.request.profile.requesters),
            profile_id=grant.request.profile_id,
            justification="Me too.",
            extends=grant.pk,
        )


def test_a_reviewer_moves_no_extension(world: World) -> None:
    request = extend(narrowed(world))
    with pytest.raises(InvalidInput, match="begins when its grant ends"):
        approve(request, starts_at=clock.now() + 2 * HOUR)


def by_sql(sql: str, *values: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, values)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("scope", '{"models": ["demo-small", "demo-large"]}'),
        ("scope", '{"models": ["demo-small"], "tools": ["shell"]}'),
        ("duration", "2 hours"),
    ],
)
def test_postgresql_refuses_a_review_that_widens(column: str, value: str, world: World) -> None:
    request = ask(world, duration=HOUR, models=["demo-small"])
    with pytest.raises(DatabaseError, match="a review only narrows"):
        by_sql(
            f"INSERT INTO accessrequests_review (id, request_id, reviewer_id, step, verdict,"  # noqa: S608
            f" reason, {column}) VALUES (%s, %s, %s, 0, 'approve', '', %s)",
            new_id(),
            request.pk,
            world.person(request.profile.reviewers).pk,
            value,
        )


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"duration": HOUR / 2}, {}),
        ({"scope": {"models": ["demo-small"]}}, {"scope": {"models": ["demo-large"]}}),
        ({"starts_at": HOUR}, {}),
    ],
)
def test_postgresql_refuses_a_grant_beyond_what_a_review_left(
    less: dict[str, Any], more: dict[str, Any], world: World
) -> None:
    request = ask(world, duration=HOUR)
    if "starts_at" in less:
        less = {"starts_at": clock.now() + HOUR}
    reviewer = world.person(request.profile.reviewers)
    Review.objects.create(request=request, reviewer=reviewer, verdict="approve", **less)
    AccessRequest.objects.filter(pk=request.pk).update(
        state=RequestState.APPROVED, decided_at=clock.now(), decided_by="me", remind_at=None
    )
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request, **more)


@pytest.mark.parametrize("off", [-dt.timedelta(seconds=1), dt.timedelta(seconds=1)])
def test_postgresql_refuses_an_extension_with_a_gap_or_an_overlap(
    off: dt.timedelta, world: World
) -> None:
    grant = narrowed(world)
    request = extend(grant, duration=HOUR)
    reviewer = world.person(request.profile.reviewers)
    Review.objects.create(request=request, reviewer=reviewer, verdict="approve")
    AccessRequest.objects.filter(pk=request.pk).update(
        state=RequestState.APPROVED, decided_at=clock.now(), decided_by="me", remind_at=None
    )
    begin = grant.ends_at + off
    with pytest.raises(DatabaseError, match="beyond what was approved"):
        insert_grant(request, starts_at=begin, ends_at=begin + HOUR / 2)
    insert_grant(request, starts_at=grant.ends_at, ends_at=grant.ends_at + HOUR)
