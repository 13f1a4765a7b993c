"""Where two rules meet, the narrower one holds."""

import datetime as dt
from itertools import product
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Review
from accessrequests.policy.document import PolicyDocument, parse
from accessrequests.policy.effective import Effective, Source, effective
from accessrequests.policy.facts import Facts
from accessrequests.policy.narrowing import narrower
from accounts.actions import leave_group
from broker.errors import AlreadyDecided, AuthorityLost, InvalidInput
from credentials.actions import check_out
from endpoints.models import AccessProfile
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db

APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY


def test_a_denial_stands_against_any_number_of_approvals(world: World) -> None:
    request = world.request()
    people = [world.person(request.profile.reviewers) for _ in range(3)]
    review_request(by=people[0], request_id=request.pk, verdict=DENY, reason="No.", proofs=PROVED)
    for person in people:
        with pytest.raises(AlreadyDecided, match="denied"):
            review_request(by=person, request_id=request.pk, verdict=APPROVE, proofs=PROVED)


def test_a_profile_that_was_widened_gives_nobody_more_than_was_approved(world: World) -> None:
    profile = world.profile(models=["demo-small"], max_duration=dt.timedelta(hours=1))
    grant = world.grant(profile=profile)
    AccessProfile.objects.filter(pk=profile.pk).update(
        scope={"models": ["demo-small", "demo-large"]}, max_duration=dt.timedelta(days=7)
    )
    out = check_out(by=grant.holder, grant_id=grant.pk)
    out.credential.grant.refresh_from_db()
    assert out.credential.grant.scope == {"models": ["demo-small"]}
    assert out.credential.grant.ends_at == grant.ends_at


def test_of_what_was_filed_and_what_holds_now_the_narrower_counts(world: World) -> None:
    request = world.request(models=["demo-small", "demo-large"])
    AccessProfile.objects.filter(pk=request.profile_id).update(scope={"models": ["demo-small"]})
    with pytest.raises(AuthorityLost, match="narrowed"):
        review_request(
            by=world.person(request.profile.reviewers),
            request_id=request.pk,
            verdict=APPROVE,
            proofs=PROVED,
        )


def test_the_default_is_within_the_ceiling_whatever_it_says(world: World) -> None:
    profile = world.profile(models=["demo-small"], default_models=["demo-small", "demo-large"])
    assert profile.default_scope.models == {"demo-small"}
    profile.defaults = {"models": ["demo-large"]}
    assert profile.default_scope.models == {"demo-small"}


def test_every_fault_counts_and_every_field_is_named(world: World) -> None:
    profile = world.profile()
    with pytest.raises(InvalidInput) as caught:
        file_request(
            by=world.person(profile.requesters),
            profile_id=profile.pk,
            justification=" ",
            duration=dt.timedelta(days=300),
            models=["another"],
        )
    assert set(caught.value.errors) == {"justification", "duration", "models", "profile"}
    assert not AccessRequest.objects.filter(profile=profile).exists()


def test_being_in_both_groups_gives_neither_more(world: World) -> None:
    """A reviewer who leaves the requesters can't ask, whatever they may review."""
    profile = world.profile()
    both = world.person(profile.requesters, profile.reviewers)
    world.person(profile.reviewers)
    leave_group(by=None, user=both, group=profile.requesters)
    with pytest.raises(InvalidInput, match="no such profile"):
        file_request(by=both, profile_id=profile.pk, justification="Let me.")


# ── The endpoint's policy and the profile's ─────────────────────────────────────────────────────

CONDITIONS = [
    "true",
    "request.duration <= duration('1h')",
    "requester.on_call",
    "'sre' in requester.groups",
    "size(request.models) == 1",
    "endpoint.risk != 'critical'",
]
conditions = st.sampled_from(CONDITIONS)
minutes = st.sampled_from([1, 10, 60, 240]).map(lambda count: f"PT{count}M")
groups = st.lists(st.sampled_from(["sre", "security", "ops"]), unique=True)


def with_some(**parts: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=parts)


steps = st.lists(
    st.fixed_dictionaries(
        {
            "reviewers": st.sampled_from(
                [{"groups": ["sre"]}, {"groups": ["security"]}, {"endpoint_owner": True}]
            ),
            "approvals": st.integers(1, 3),
        },
        optional={"skip_when": conditions},
    ),
    min_size=1,
    max_size=3,
).map(lambda found: [step | {"name": f"Step {at}"} for at, step in enumerate(found)])
documents = st.fixed_dictionaries(
    {"slug": st.just("p"), "name": st.just("P"), "steps": steps},
    optional={
        "constraints": st.lists(
            conditions.map(lambda text: {"expression": text, "message": "Not so."}), max_size=2
        ),
        "auto_approve_when": conditions,
        "auto_approve_critical": st.booleans(),
        "limits": with_some(
            max_duration=minutes,
            pending_timeout=minutes,
            latest_start=minutes,
            ticket=with_some(required=st.booleans(), pattern=st.just("[A-Z]+-[0-9]+")),
            justification_length=st.integers(1, 40),
            requester_factor_age=minutes,
            reviewer_factor_age=minutes,
        ),
        "break_glass": with_some(groups=groups, max_duration=minutes, review_within=minutes),
    },
).map(parse)
NOW = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)
asks = st.builds(
    Facts,
    email=st.just("ada@example.com"),
    groups=groups.map(frozenset),
    is_service=st.booleans(),
    on_call=st.booleans(),
    profile=st.just("debug"),
    duration=st.sampled_from([1, 5, 30, 60, 61, 300]).map(lambda m: dt.timedelta(minutes=m)),
    models=st.sampled_from([frozenset({"a"}), frozenset({"a", "b"})]),
    ticket=st.sampled_from(["", "OPS-1", "none"]),
    justification=st.sampled_from(["", "Why.", "Because the deployment of today failed."]),
    starts_at=st.sampled_from([None, NOW + dt.timedelta(minutes=5), NOW + dt.timedelta(hours=3)]),
    extension=st.booleans(),
    break_glass=st.booleans(),
    endpoint=st.just("chat"),
    kind=st.just("inference"),
    environment=st.just("production"),
    risk=st.sampled_from(["low", "critical"]),
    connected_systems=st.just(()),
    now=st.just(NOW),
)


def together(*policies: PolicyDocument) -> Effective:
    return effective(
        [Source(f"p{at}", 1, policy) for at, policy in enumerate(policies)],
        default_duration=dt.timedelta(minutes=30),
        max_duration=dt.timedelta(hours=4),
        pending_timeout=dt.timedelta(days=1),
    )


FOREVER = dt.timedelta.max


def assert_no_laxer(both: Effective, one: Effective, ask: Facts, *, steps: bool = True) -> None:
    """That whatever `both` allows, `one` did; with `steps`, that it asks for as many people."""
    said = both.decide(ask)
    assert both.max_duration <= one.max_duration
    assert both.pending_timeout <= one.pending_timeout
    assert both.justification_length >= one.justification_length
    # None of these means that no start may be chosen, and that no factor is needed.
    nothing = dt.timedelta(0)
    assert (both.latest_start or nothing) <= (one.latest_start or nothing)
    assert (both.requester_factor_age or FOREVER) <= (one.requester_factor_age or FOREVER)
    assert (both.reviewer_factor_age or FOREVER) <= (one.reviewer_factor_age or FOREVER)
    if both.break_glass is not None:
        assert one.break_glass is not None
        assert set(both.break_glass.groups) <= set(one.break_glass.groups)
        assert both.break_glass.max_duration <= one.break_glass.max_duration
        assert both.break_glass.review_within <= one.break_glass.review_within
    alone = one.decide(ask)
    # Who may not break the glass at all isn't told how long they could have.
    hidden = {"duration"} if "break_glass" in said.problems else set()
    assert alone.problems.keys() - hidden <= said.problems.keys()
    assert bool(alone.problems) <= bool(said.problems)
    assert alone.automatic or not said.automatic
    if not steps:
        return
    # Each of its steps is asked of the same people, at least as often.
    mine = [each for each in alone.steps if not each.skipped]
    theirs = [each for each in said.steps if not each.skipped]
    for needed in mine:
        assert any(
            each.step.reviewers == needed.step.reviewers
            and each.step.approvals >= needed.step.approvals
            for each in theirs
        )
    assert sum(each.step.approvals for each in theirs) >= sum(each.step.approvals for each in mine)


@settings(max_examples=150, deadline=None)
@given(documents, documents, asks)
def test_two_policies_are_in_no_item_laxer_than_either(
    first: PolicyDocument, second: PolicyDocument, ask: Facts
) -> None:
    both = together(first, second)
    for one in (together(first), together(second)):
        assert both.default_duration <= both.max_duration
        always_asks = not all(each.skip_when for each in one.steps)
        assert_no_laxer(both, one, ask, steps=always_asks)
    said = both.decide(ask)
    assert any(not each.skipped for each in said.steps), "somebody is asked"


@st.composite
def edits(draw: st.DrawFn) -> tuple[PolicyDocument, PolicyDocument]:
    """A policy and another text of it, in which little differs."""
    before = draw(documents)
    data, other = before.model_dump(mode="json"), draw(documents).model_dump(mode="json")
    for part in draw(st.sets(st.sampled_from(["auto_approve_when", "auto_approve_critical"]))):
        data[part] = other[part]
    data["constraints"] += draw(st.sampled_from([[], other["constraints"]]))
    if draw(st.booleans()):
        data["break_glass"] = other["break_glass"]
    for limit in draw(st.sets(st.sampled_from(sorted(data["limits"])), max_size=3)):
        data["limits"][limit] = other["limits"][limit]
    for step in data["steps"]:
        step["approvals"] = draw(st.integers(1, 3))
    for step in draw(st.sampled_from([[], other["steps"]])):
        at = draw(st.integers(0, len(data["steps"])))
        data["steps"].insert(at, step | {"name": f"New {step['name']}"})
    return before, parse(data)


@settings(max_examples=100, deadline=None)
@given(edits(), st.lists(documents, max_size=1), asks, st.booleans())
def test_what_is_taken_for_narrower_allows_nothing_more(
    edit: tuple[PolicyDocument, PolicyDocument],
    beside: list[PolicyDocument],
    ask: Facts,
    first: bool,
) -> None:
    """One administrator may save it alone; whatever policy governs the same beside it."""
    before, after = edit
    event(f"narrower: {narrower(before, after)}")
    if narrower(before, after):
        was, will_be = (
            together(each, *beside) if first else together(*beside, each) for each in edit
        )
        assert_no_laxer(will_be, was, ask)


@settings(max_examples=50, deadline=None)
@given(documents, asks)
def test_a_policy_twice_is_that_policy(policy: PolicyDocument, ask: Facts) -> None:
    once, twice = together(policy), together(policy, policy)
    assert twice.steps == once.steps
    assert twice.decide(ask).automatic == once.decide(ask).automatic
    assert twice.decide(ask).problems.keys() == once.decide(ask).problems.keys()


@settings(max_examples=50, deadline=None)
@given(documents, documents, asks)
def test_which_of_them_is_the_endpoint_s_changes_no_ruling(
    first: PolicyDocument, second: PolicyDocument, ask: Facts
) -> None:
    one, other = together(first, second).decide(ask), together(second, first).decide(ask)
    assert one.problems.keys() == other.problems.keys()
    assert one.automatic == other.automatic


def test_nothing_is_automatic_on_a_critical_endpoint_but_in_words() -> None:
    step = {"name": "Review", "reviewers": {"groups": ["sre"]}}
    text = {"slug": "p", "name": "P", "steps": [step], "auto_approve_when": "true"}
    blank: dict[str, Any] = {
        **dict.fromkeys(("email", "profile", "ticket", "endpoint", "kind", "environment"), ""),
        **dict.fromkeys(("is_service", "on_call", "extension", "break_glass"), False),
    }
    ask = Facts(
        **blank,
        groups=frozenset(),
        duration=dt.timedelta(minutes=5),
        models=frozenset({"a"}),
        justification="Why.",
        starts_at=None,
        risk="critical",
        connected_systems=(),
        now=NOW,
    )
    for words in product([False, True], repeat=2):
        each = [parse(text | {"auto_approve_critical": word}) for word in words]
        assert together(*each).decide(ask).automatic == all(words)
