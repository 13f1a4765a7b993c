"""More for a grant that goes on: who may ask, what it comes to, and attacks on it."""

import datetime as dt
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from accessrequests.actions import (
    cancel_request,
    file_request,
    preview_request,
    review_request,
)
from accessrequests.dossier import dossier
from accessrequests.models import AccessRequest, Grant, GrantRaise, Review
from accessrequests.states import EndReason, RequestState
from accounts.actions import join_group
from accounts.models import User
from accounts.stepup import Action, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import AuthorityLost, InvalidInput, NotFound, SelfReview
from credentials.actions import check_out, end_grant
from credentials.live import Live, holding
from endpoints.actions import change
from endpoints.models import AccessProfile
from endpoints.scope import Scope
from tests.api.callers import Caller, faults
from tests.invariants.races import at_once
from tests.world import PROVED, World, move

CEILING = {
    "models": ["demo-large", "demo-small"],
    "tools": ["refund"],
    "concurrency": 8,
    "token_budget": 1_000_000,
    "cost_budget": "25",
}
DEFAULTS = {"models": ["demo-small"], "token_budget": 1000, "cost_budget": "5"}
HELD = CEILING | DEFAULTS
del HELD["tools"]
ASKED = HELD | {"token_budget": 4000}
APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY

database = pytest.mark.django_db


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile(scope=CEILING, defaults=DEFAULTS, with_key=True)


@pytest.fixture
def reviewer(world: World, profile: AccessProfile) -> User:
    return world.person(profile.reviewers)


@pytest.fixture
def grant(world: World, profile: AccessProfile, reviewer: User) -> Grant:
    return world.grant(profile=profile, reviewer=reviewer)


def ask(grant: Grant, by: User | None = None, **fields: Any) -> AccessRequest:
    usual: dict[str, Any] = {
        "by": by or grant.holder,
        "profile_id": grant.request.profile_id,
        "justification": "The replay is longer than I thought.",
        "scope": {"token_budget": 4000},
        "raises": grant.pk,
    }
    return file_request(**usual | fields)


def approve(request: AccessRequest, by: User, **less: Any) -> Review:
    return review_request(by=by, request_id=request.pk, verdict=APPROVE, **less, proofs=PROVED)


def held(grant: Grant) -> Scope:
    return Grant.objects.get(pk=grant.pk).allowed


@database
def test_the_grant_goes_on_with_more(grant: Grant, reviewer: User) -> None:
    before = Grant.objects.values().get(pk=grant.pk)
    request = ask(grant)
    assert (request.scope, request.state, request.raises) == (ASKED, "pending", grant)
    assert request.pending_until <= grant.ends_at
    found = dossier(request, clock.now())
    assert found.difference == ["4,000 tokens in all instead of 1,000"]
    assert found.would_end == grant.ends_at
    approve(request, reviewer)
    assert held(grant) == Scope.parse(ASKED)
    assert Grant.objects.values().get(pk=grant.pk) == before
    assert not Grant.objects.filter(request=request).exists()
    event = AuditEvent.objects.get(event=Event.GRANT_RAISED)
    assert (event.subject_id, event.data["budgets"]["token_budget"]) == (grant.pk, 4000)
    again = ask(grant, scope={"token_budget": 9000, "cost_budget": "6"})
    approve(again, reviewer)
    assert held(grant) == Scope.parse(HELD | {"token_budget": 9000, "cost_budget": "6"})
    assert dossier(request, clock.now()).difference == ["4,000 tokens in all instead of 1,000"]
    assert dossier(again, clock.now()).difference == [
        "9,000 tokens in all instead of 4,000",
        "$6.00 in all instead of $5.00",
    ]


@database
def test_the_gateway_is_told_and_the_credential_goes_on(grant: Grant, reviewer: User) -> None:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    pk = out.credential.pk
    before = holding([pk])[pk].facts
    assert Live.of(before).scope == Scope.parse(HELD)
    approve(ask(grant), reviewer)
    after = holding([pk])[pk].facts
    assert after != before
    assert Live.of(after).scope == Scope.parse(ASKED)
    assert check_out(by=grant.holder, grant_id=grant.pk).credential.grant_id == grant.pk


@database
def test_a_policy_may_decide_it(grant: Grant, profile: AccessProfile) -> None:
    world_policy = "request.raises && request.token_budget <= 4000"
    World("").policy(profile=profile, auto_approve_when=world_policy)
    asked = preview_request(
        by=grant.holder, profile_id=profile.pk, raises=grant.pk, scope={"token_budget": 4001}
    )
    assert not asked.automatic
    assert (asked.raises, asked.ends_at) == (grant, grant.ends_at)
    request = ask(grant)
    assert (request.automatic, request.state) == (True, "approved")
    assert held(grant).token_budget == 4000


@database
@pytest.mark.parametrize(
    ("fields", "name", "says"),
    [
        ({"scope": {"token_budget": 1_000_001}}, "scope.token_budget", "at most 1,000,000 tokens"),
        ({"scope": {"token_budget": 999}}, "scope.token_budget", "only grow"),
        ({"scope": {"token_budget": 1000}}, "scope", "larger"),
        ({"scope": {}}, "scope", "token_budget or cost_budget"),
        ({"scope": {"cost_budget": "25.01"}}, "scope.cost_budget", r"at most \$25.00"),
        ({"scope": {"token_budget": 4000, "tools": ["refund"]}}, "scope.tools", "Only budgets"),
        ({"scope": {"concurrency": 9}}, "scope.concurrency", "Only budgets"),
        ({"models": ["demo-large"]}, "models", "Only budgets"),
        ({"duration": dt.timedelta(hours=8)}, "raises", "nothing else"),
        ({"break_glass": True}, "raises", "nothing else"),
        ({"justification": " "}, "justification", "Say what you need it for"),
    ],
)
def test_what_is_refused_is_named(
    fields: dict[str, Any], name: str, says: str, grant: Grant
) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        ask(grant, **fields)
    assert name in refused.value.errors
    assert not grant.raises_asked.exists()


@database
def test_only_budgets_that_there_are(world: World) -> None:
    profile = world.profile(scope={"models": ["demo-small"], "token_budget": 100})
    at_most = world.grant(profile=profile)
    with pytest.raises(InvalidInput, match="cost_budget") as refused:
        ask(at_most, scope={"cost_budget": "1"})
    assert "no such budget" in refused.value.errors["scope.cost_budget"]
    with pytest.raises(InvalidInput, match="no budget that its profile could raise"):
        ask(at_most, scope={})
    without = world.grant(profile=world.profile())
    with pytest.raises(InvalidInput, match="no such budget"):
        ask(without)


@database
def test_one_at_a_time(grant: Grant, reviewer: User) -> None:
    first = ask(grant)
    with pytest.raises(InvalidInput, match="waits for a decision already"):
        ask(grant)
    cancel_request(by=grant.holder, request_id=first.pk)
    second = ask(grant)
    move(second, pending_until=dt.timedelta(days=-1))
    third = ask(grant)
    review_request(by=reviewer, request_id=third.pk, verdict=DENY, reason="No.", proofs=PROVED)
    assert ask(grant).state == RequestState.PENDING
    assert held(grant) == Scope.parse(HELD)


@database
def test_less_is_approved_but_more_than_there_was(grant: Grant, reviewer: User) -> None:
    request = ask(grant, scope={"token_budget": 4000, "cost_budget": "10"})
    for less, says in (
        ({"scope": {"token_budget": 4001}}, "at most 4,000"),
        ({"scope": {"token_budget": 999}}, "Leave more than the grant has"),
        ({"scope": {"token_budget": 1000, "cost_budget": "5"}}, "1,000 tokens and"),
        ({"scope": {"concurrency": 1}}, "Leave more"),
        ({"models": ["demo-large"]}, "Was not asked for"),
        ({"duration": dt.timedelta(minutes=5)}, "leaves the grant's time"),
    ):
        with pytest.raises(InvalidInput, match=says):
            approve(request, reviewer, **less)
    approve(request, reviewer, scope={"token_budget": 2000})
    assert held(grant) == Scope.parse(HELD | {"token_budget": 2000, "cost_budget": "10"})


@database
def test_nobody_approves_their_own(grant: Grant, profile: AccessProfile, world: World) -> None:
    join_group(by=None, user=grant.holder, group=profile.reviewers)
    request = ask(grant)
    with pytest.raises(SelfReview):
        approve(request, grant.holder)
    with pytest.raises(IntegrityError, match="own request"), transaction.atomic():
        Review.objects.create(request=request, reviewer=grant.holder, verdict=APPROVE)
    assert held(grant) == Scope.parse(HELD)


@database
def test_only_its_holder_asks(grant: Grant, profile: AccessProfile, world: World) -> None:
    teammate = world.person(profile.requesters)
    with pytest.raises(InvalidInput, match="You hold no such grant"):
        ask(grant, by=teammate)
    other = world.profile(requesters=profile.requesters, scope=CEILING)
    world.person(other.reviewers)
    with pytest.raises(InvalidInput, match="another profile"):
        ask(grant, profile_id=other.pk)


@database
def test_not_of_break_glass(world: World, profile: AccessProfile, reviewer: User) -> None:
    holder = world.person(profile.requesters)
    world.policy(profile=profile, break_glass={"groups": [profile.requesters.slug]})
    taken = file_request(
        by=holder, profile_id=profile.pk, justification="Down.", break_glass=True, proofs=PROVED
    ).grant
    with pytest.raises(InvalidInput, match="Break-glass"):
        ask(taken)


@database
def test_when_the_grant_ends_nothing_is_left_to_decide(grant: Grant, reviewer: User) -> None:
    request = ask(grant)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    request.refresh_from_db()
    assert (request.state, request.decided_by) == (RequestState.CANCELLED, "Keyturn")
    with pytest.raises(InvalidInput, match="It has ended"):
        ask(grant)


@database
def test_what_ended_by_the_clock_is_not_raised(grant: Grant, reviewer: User) -> None:
    request = ask(grant)
    move(request, pending_until=dt.timedelta(hours=9))
    move(grant, starts_at=dt.timedelta(hours=-9), ends_at=dt.timedelta(hours=-9))
    with pytest.raises(AuthorityLost, match="has ended"):
        approve(request, reviewer)
    with pytest.raises(InvalidInput, match="It has ended"):
        ask(grant)
    assert not GrantRaise.objects.exists()


@database
def test_a_profile_that_got_narrower(grant: Grant, reviewer: User, profile: AccessProfile) -> None:
    request = ask(grant)
    change(profile, by=None, scope=CEILING | {"token_budget": 3999})
    with pytest.raises(AuthorityLost, match="narrowed"):
        approve(request, reviewer)
    change(profile, by=None, scope=CEILING)
    approve(request, reviewer)
    change(profile, by=None, scope=CEILING | {"token_budget": 3999})
    with pytest.raises(AuthorityLost, match="narrowed"):
        check_out(by=grant.holder, grant_id=grant.pk)


@database
def test_a_reviewer_who_lost_their_place_gave_nothing(
    grant: Grant, reviewer: User, profile: AccessProfile, world: World
) -> None:
    other = world.person(profile.reviewers)
    approve(ask(grant), other)
    profile.reviewers.memberships.filter(user=other).delete()
    with pytest.raises(AuthorityLost, match="Nobody who approved it"):
        check_out(by=grant.holder, grant_id=grant.pk)


def write(request: AccessRequest, grant: Grant, scope: dict[str, Any], **fields: Any) -> None:
    """A request to raise it, past all code but the database's own."""
    like = ("profile", "requester", "duration", "justification", "policy", "decide_by")
    copied = {name: getattr(request, name) for name in (*like, "pending_until")}
    with transaction.atomic():
        AccessRequest.objects.create(**copied | {"raises": grant, "scope": scope} | fields)


@database
@pytest.mark.parametrize(
    "scope",
    [
        ASKED | {"token_budget": 999},
        ASKED | {"concurrency": 9},
        ASKED | {"concurrency": 7},
        ASKED | {"models": ["demo-large", "demo-small"]},
        ASKED | {"tools": ["refund"]},
        {key: part for key, part in ASKED.items() if key != "token_budget"},
        ASKED | {"token_budget": 1_000_001},
    ],
)
def test_past_the_code_only_budgets_may_be_asked_for(scope: dict[str, Any], grant: Grant) -> None:
    with pytest.raises(IntegrityError, match=r"raises no budget|beyond its profile"):
        write(grant.request, grant, scope)


@database
def test_past_the_code_one_asks_for_ones_own_and_once(grant: Grant, world: World) -> None:
    request = grant.request
    with pytest.raises(IntegrityError, match="raises no budget"):
        write(request, grant, ASKED, requester=world.person(request.profile.requesters))
    with pytest.raises(IntegrityError, match="request_raises_and_nothing_else"):
        write(request, grant, ASKED, extends=grant)
    ask(grant)
    with pytest.raises(IntegrityError, match="waits already"):
        write(request, grant, ASKED)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    with pytest.raises(IntegrityError, match="raises no budget"):
        write(request, grant, ASKED)


@database
def test_past_the_code_a_raise_needs_its_approval(
    grant: Grant, reviewer: User, world: World, profile: AccessProfile
) -> None:
    def give(request: AccessRequest, scope: dict[str, Any], of: Grant = grant) -> None:
        with transaction.atomic():
            GrantRaise.objects.create(grant=of, request=request, scope=scope)

    request = ask(grant)
    beyond = pytest.raises(IntegrityError, match="beyond what was approved")
    with beyond:
        give(grant.request, ASKED)
    with beyond:
        give(request, ASKED)
    unreviewed = AccessRequest.objects.filter(pk=request.pk)
    with beyond, transaction.atomic():
        unreviewed.update(state="approved", decided_at=clock.now(), decided_by="me", remind_at=None)
        give(AccessRequest.objects.get(pk=request.pk), ASKED)
    with transaction.atomic():
        Review.objects.create(
            request=request, reviewer=reviewer, verdict=APPROVE, scope=HELD | {"token_budget": 3000}
        )
        unreviewed.update(state="approved", decided_at=clock.now(), decided_by="me", remind_at=None)
    request.refresh_from_db()
    for scope in (
        ASKED,
        HELD | {"token_budget": 3000, "concurrency": 9},
        HELD | {"cost_budget": "6"},
    ):
        with beyond:
            give(request, scope)
    with beyond:
        give(request, HELD | {"token_budget": 3000}, of=world.grant(profile=profile))
    with pytest.raises(IntegrityError, match="beyond what was approved"), transaction.atomic():
        Grant.objects.create(
            request=request,
            holder=grant.holder,
            scope=HELD,
            starts_at=grant.starts_at,
            ends_at=grant.ends_at,
        )
    change(profile, by=None, scope=CEILING | {"token_budget": 2999})
    with beyond:
        give(request, HELD | {"token_budget": 3000})
    change(profile, by=None, scope=CEILING)
    give(request, HELD | {"token_budget": 3000})
    assert held(grant).token_budget == 3000


@database
def test_a_raise_is_kept_as_it_is(grant: Grant, reviewer: User) -> None:
    approve(ask(grant), reviewer)
    for statement in (
        "UPDATE accessrequests_grantraise SET at = clock_timestamp()",
        "DELETE FROM accessrequests_grantraise",
        "TRUNCATE accessrequests_grantraise CASCADE",
    ):
        with (
            pytest.raises(Exception, match=r"Cannot|cannot|refuse"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


@pytest.mark.usefixtures("committed")
def test_two_raises_at_once_are_one(world: World) -> None:
    profile = world.profile(scope=CEILING, defaults=DEFAULTS)
    grant = world.grant(profile=profile)
    found = at_once([lambda: ask(grant)] * 4)
    filed = [each for each in found if isinstance(each, AccessRequest)]
    assert len(filed) == 1, found
    assert all(isinstance(each, InvalidInput) for each in found if each not in filed)


@pytest.mark.usefixtures("committed")
def test_an_approval_races_with_the_end(world: World) -> None:
    profile = world.profile(scope=CEILING, defaults=DEFAULTS)
    reviewer = world.person(profile.reviewers)
    for _ in range(4):
        grant = world.grant(profile=profile, reviewer=reviewer)
        request = ask(grant)
        verbs: list[Any] = [
            lambda request=request: approve(request, reviewer),
            lambda grant=grant: end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED),
        ]
        found = at_once(verbs)
        grant.refresh_from_db()
        request.refresh_from_db()
        assert grant.ended_at is not None
        raised = GrantRaise.objects.filter(grant=grant).first()
        if raised is None:
            assert request.state in (RequestState.CANCELLED, RequestState.PENDING), found
        else:
            assert (request.state, raised.at < grant.ended_at) == ("approved", True)


@database
def test_by_the_api(grant: Grant, reviewer: User) -> None:
    caller = Caller(grant.holder, "token")
    body = {
        "profile": str(grant.request.profile_id),
        "raises": str(grant.pk),
        "justification": "More.",
        "scope": {"token_budget": 4000},
    }
    seen = caller.post("requests/preview/", body).json()
    assert seen["may"], seen
    assert seen["reviewer_sees"] == {"differences": ["4,000 tokens in all instead of 1,000"]}
    assert dt.datetime.fromisoformat(seen["ends_at"]) == grant.ends_at
    filed = caller.post("requests/", body).json()
    assert (filed["raises"], filed["state"]) == (str(grant.pk), "pending")
    assert "waits" in faults(caller.post("requests/", body))["raises"]
    of_reviewer = Caller(reviewer)
    of_reviewer.prove(Purpose(Action.REVIEW, filed["id"]))
    answer = of_reviewer.post(f"requests/{filed['id']}/reviews/", {"verdict": "approve"})
    assert answer.status_code == 201
    assert caller.get(f"grants/{grant.pk}/").json()["scope"]["token_budget"] == 4000
    assert caller.get(f"requests/?raises={grant.pk}").json()["results"][0]["id"] == filed["id"]


@database
def test_of_no_grant_that_one_may_not_see(grant: Grant, world: World) -> None:
    with pytest.raises(NotFound):
        review_request(by=world.person(), request_id=ask(grant).pk, verdict=APPROVE, proofs=PROVED)
