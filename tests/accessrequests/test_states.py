"""The whole matrix of moves: by the actions in Python, and by hand in PostgreSQL."""

import datetime as dt
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from accessrequests.actions import cancel_request, expire_requests, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.queue import waiting_for
from accessrequests.states import (
    GRANT_MOVES,
    REQUEST_MOVES,
    EndReason,
    GrantState,
    RequestState,
    pairs,
)
from audit import clock
from broker.errors import AlreadyDecided
from credentials.actions import end_due_grants, end_grant
from tests.world import PROVED, World, move

pytestmark = pytest.mark.django_db


# ── Requests ────────────────────────────────────────────────────────────────────────────────────


def approve(request: AccessRequest, world: World) -> None:
    reviewer = world.person(request.profile.reviewers)
    review_request(
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )


def deny(request: AccessRequest, world: World) -> None:
    reviewer = world.person(request.profile.reviewers)
    review_request(
        by=reviewer, request_id=request.pk, verdict=Review.Verdict.DENY, reason="No.", proofs=PROVED
    )


def cancel(request: AccessRequest, world: World) -> None:
    cancel_request(by=request.requester, request_id=request.pk)


def expire(request: AccessRequest, world: World) -> None:
    move(request, pending_until=dt.timedelta(days=-9))
    expire_requests()


VERBS: dict[RequestState, Callable[[AccessRequest, World], None]] = {
    RequestState.APPROVED: approve,
    RequestState.DENIED: deny,
    RequestState.CANCELLED: cancel,
    RequestState.EXPIRED: expire,
}


@pytest.mark.parametrize(("source", "target"), list(product(RequestState, VERBS)))
def test_a_request_makes_the_moves_of_the_table_and_no_other(
    source: RequestState, target: RequestState, world: World
) -> None:
    request = world.request(source)
    before = (request.state, request.decided_at, request.decided_by)
    if (source, target) in pairs(REQUEST_MOVES):
        VERBS[target](request, world)
        request.refresh_from_db()
        assert request.state == target
        assert request.decided_at is not None
        assert request.decided_by
        return
    if target == RequestState.EXPIRED:
        expire(request, world)
    else:
        with pytest.raises(AlreadyDecided) as caught:
            VERBS[target](request, world)
        assert caught.value.extra["state"] == source
    request.refresh_from_db()
    assert (request.state, request.decided_at, request.decided_by) == before


@pytest.mark.parametrize(("source", "target"), list(product(RequestState, RequestState)))
def test_postgresql_lets_a_request_make_the_same_moves(
    source: RequestState, target: RequestState, world: World
) -> None:
    request = world.request(source)
    decided: dict[str, Any] = {
        "decided_at": clock.now(),
        "decided_by": "by hand",
        "remind_at": None,
        "escalate_at": None,
    }
    if target == RequestState.PENDING:
        decided = {"decided_at": None, "decided_by": ""}
    legal = source == target or (source, target) in pairs(REQUEST_MOVES)
    rows = AccessRequest.objects.filter(pk=request.pk)
    if legal:
        assert rows.update(state=target, **decided) == 1
    else:
        with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
            rows.update(state=target, **decided)


@pytest.mark.parametrize("state", [each for each in RequestState if each != "pending"])
def test_postgresql_refuses_a_decision_without_who_and_when(
    state: RequestState, world: World
) -> None:
    rows = AccessRequest.objects.filter(pk=world.request().pk)
    rows.update(remind_at=None)
    now = clock.now()
    for half in ({}, {"decided_at": now}, {"decided_by": "somebody"}):
        with (
            pytest.raises(DatabaseError, match="request_decision_complete"),
            transaction.atomic(),
        ):
            rows.update(state=state, **half)
    with pytest.raises(DatabaseError, match="request_decision_complete"), transaction.atomic():
        rows.update(decided_at=now, decided_by="somebody")


def test_postgresql_refuses_a_review_of_what_is_decided(world: World) -> None:
    request = world.request(RequestState.CANCELLED)
    with pytest.raises(DatabaseError, match="already cancelled"), transaction.atomic():
        Review.objects.create(
            request=request, reviewer=world.person(), verdict=Review.Verdict.APPROVE
        )


def test_what_lapsed_can_neither_be_approved_nor_cancelled_before_a_sweep(world: World) -> None:
    """Whether it still waits is a matter of the clock, not of a worker having run."""
    request = world.request()
    move(request, pending_until=dt.timedelta(days=-2))
    for verb in (approve, deny, cancel):
        with pytest.raises(AlreadyDecided, match="expired") as caught:
            verb(request, world)
        assert caught.value.extra["decided_by"] == "Keyturn"
    assert not waiting_for(world.person(request.profile.reviewers)).exists()


# ── Grants ──────────────────────────────────────────────────────────────────────────────────────


def grant_at(state: GrantState, world: World) -> Grant:
    if state != GrantState.SCHEDULED:
        return world.grant(ended=state == GrantState.ENDED)
    request = world.request()
    Review.objects.create(
        request=request,
        reviewer=world.person(request.profile.reviewers),
        verdict=Review.Verdict.APPROVE,
    )
    now = clock.now()
    AccessRequest.objects.filter(pk=request.pk).update(
        state=RequestState.APPROVED, decided_at=now, decided_by="by hand", remind_at=None
    )
    begin = now + dt.timedelta(hours=1)
    return Grant.objects.create(
        request=request,
        holder=request.requester,
        state=GrantState.SCHEDULED,
        scope=request.scope,
        starts_at=begin,
        ends_at=begin + request.duration,
    )


@pytest.mark.parametrize("source", GrantState)
def test_a_grant_is_ended_from_every_state_once(source: GrantState, world: World) -> None:
    grant = grant_at(source, world)
    before = (grant.ended_at, grant.ended_by, grant.end_reason)
    end_grant(grant_id=grant.pk, by=grant.holder)
    grant.refresh_from_db()
    assert grant.state == GrantState.ENDED
    after = (grant.ended_at, grant.ended_by, grant.end_reason)
    if source == GrantState.ENDED:
        assert after == before, "ending what has ended changes nothing"
    else:
        assert after[1:] == (str(grant.holder), EndReason.GIVEN_BACK)


@pytest.mark.parametrize(("source", "target"), list(product(GrantState, GrantState)))
def test_postgresql_lets_a_grant_make_the_moves_of_the_table_and_no_other(
    source: GrantState, target: GrantState, world: World
) -> None:
    grant = grant_at(source, world)
    ended: dict[str, Any] = {"ended_at": None, "ended_by": "", "end_reason": ""}
    if target == GrantState.ENDED:
        ended = {"ended_at": clock.now(), "ended_by": "by hand", "end_reason": "revoked"}
    legal = source == target or (source, target) in pairs(GRANT_MOVES)
    rows = Grant.objects.filter(pk=grant.pk)
    if legal:
        assert rows.update(state=target, **ended) == 1
    else:
        with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
            rows.update(state=target, **ended)


@pytest.mark.parametrize("missing", ["ended_at", "ended_by", "end_reason", "state"])
def test_postgresql_refuses_half_an_end(missing: str, world: World) -> None:
    whole: dict[str, Any] = {
        "state": "ended",
        "ended_at": clock.now(),
        "ended_by": "by hand",
        "end_reason": "revoked",
    }
    del whole[missing]
    rows = Grant.objects.filter(pk=world.grant().pk)
    with pytest.raises(DatabaseError, match="grant_end_complete"), transaction.atomic():
        rows.update(**whole)


@pytest.mark.parametrize(
    ("by_minutes", "is_live"),
    [((-30, -30), True), ((5, 5), False), ((-61, -61), False), ((-59, -59), True)],
)
def test_a_grant_is_live_by_the_clock_alone(
    by_minutes: tuple[int, int], is_live: bool, world: World
) -> None:
    grant = world.grant()
    move(
        grant,
        starts_at=dt.timedelta(minutes=by_minutes[0]),
        ends_at=dt.timedelta(minutes=by_minutes[1]),
    )
    assert grant.is_live(clock.now()) is is_live
    assert Grant.objects.live().filter(pk=grant.pk).exists() is is_live
    end_due_grants()
    grant.refresh_from_db()
    assert (grant.state == GrantState.ENDED) is (by_minutes[1] < -60)
