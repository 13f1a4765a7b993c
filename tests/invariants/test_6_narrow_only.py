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
from audit import clock
from broker.errors import InvalidInput
from credentials.actions import check_out
from tests.invariants.by_hand import by_hand
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.django_db

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
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE
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
