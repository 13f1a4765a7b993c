"""Hypothesis strategies for policies."""

import datetime as dt

from hypothesis import strategies as st

from accessrequests.policy.document import (
    AppliesTo,
    BreakGlass,
    Constraint,
    Escalation,
    Limits,
    PolicyDocument,
    Reviewers,
    Step,
    Ticket,
)

SLUGS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
EMAILS = st.from_regex(r"[a-z0-9+.]{1,9}@[a-z0-9.]{1,9}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
SENTENCES = TEXT.filter(lambda text: text.strip())
DURATIONS = st.integers(60, 365 * 86_400).map(lambda seconds: dt.timedelta(seconds=seconds))
EXPRESSIONS = st.sampled_from(
    [
        "true",
        "request.duration <= duration('1h')",
        "'a: b #' in requester.groups &&\n  endpoint.risk != 'critical'",
        r"request.ticket.matches(r'^\d+$')",
        'request.justification.contains("\\"é\\n")',
    ]
)


def some(strategy):
    return st.lists(strategy, max_size=3, unique=True).map(tuple)


GROUPS = some(SLUGS)


def reviewers(groups=GROUPS):
    return st.builds(
        Reviewers,
        groups=groups,
        people=some(EMAILS),
        endpoint_owner=st.booleans(),
        requester_manager=st.booleans(),
        profile_reviewers=st.just(True),
    )


@st.composite
def steps(draw):
    waits = sorted(draw(some(DURATIONS)))
    named = st.lists(SLUGS, min_size=1, max_size=2).map(tuple)
    return Step(
        name=draw(SENTENCES),
        reviewers=draw(reviewers()),
        approvals=draw(st.integers(1, 10)),
        skip_when=draw(st.none() | EXPRESSIONS),
        escalation=tuple(Escalation(after=after, to=draw(reviewers(named))) for after in waits),
    )


@st.composite
def limits(draw):
    default, longest = sorted(draw(st.tuples(DURATIONS, DURATIONS)))
    return Limits(
        default_duration=draw(st.sampled_from([None, default])),
        max_duration=draw(st.sampled_from([None, longest])),
        latest_start=draw(st.none() | DURATIONS),
        ticket=draw(
            st.none() | st.builds(Ticket, pattern=st.sampled_from([None, "[A-Z]+-[0-9]+", "#: '"]))
        ),
        justification_length=draw(st.integers(1, 2000)),
        reviewer_factor_age=draw(st.none() | DURATIONS),
    )


POLICIES = st.builds(
    PolicyDocument,
    slug=SLUGS,
    name=SENTENCES,
    description=st.just("") | TEXT,
    applies_to=st.builds(
        AppliesTo,
        profiles=some(st.tuples(SLUGS, SLUGS).map("/".join)),
        endpoints=some(SLUGS),
    ),
    steps=st.lists(steps(), min_size=1, max_size=3, unique_by=lambda step: step.name).map(tuple),
    constraints=some(st.builds(Constraint, expression=EXPRESSIONS, message=SENTENCES)),
    auto_approve_when=st.none() | EXPRESSIONS,
    auto_approve_critical=st.booleans(),
    limits=limits(),
    break_glass=st.none()
    | st.builds(BreakGlass, groups=some(SLUGS), max_duration=DURATIONS, review_within=DURATIONS),
)
