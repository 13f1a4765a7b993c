"""Text, times and ids that no form sends, at the actions of approval: refused in words."""

import datetime as dt
from typing import Any

import pytest

from accessrequests.actions import (
    comment,
    file_request,
    hand_over,
    note_absence,
    review_many,
    review_request,
)
from accessrequests.models import AccessRequest, Review
from accessrequests.policy.document import parse
from audit import clock
from broker.errors import InvalidInput, KeyturnError
from tests.accessrequests.policies import govern, step
from tests.api.callers import Caller
from tests.world import PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

HOSTILE = ["\x00", "a\x00@example.com", "x" * 100_000, "' OR 1=1 --", "‮reviewer"]


@pytest.fixture
def request_(world: World) -> AccessRequest:
    return world.request()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_refused_or_kept_and_never_breaks(
    text: str, request_: AccessRequest, world: World
) -> None:
    reviewer = world.person(request_.profile.reviewers)
    world.person(request_.profile.reviewers)
    soon = clock.now() + dt.timedelta(hours=1)
    ask = {"by": request_.requester, "profile_id": request_.profile_id}
    tries: list[tuple[Any, dict[str, Any]]] = [
        (file_request, ask | {"justification": text}),
        (file_request, ask | {"justification": "Why.", "ticket": text}),
        (file_request, ask | {"justification": "Why.", "models": [text]}),
        (file_request, ask | {"justification": "Why.", "extends": text}),
        (file_request, ask | {"justification": "Why.", "profile_id": text}),
        (hand_over, {"by": reviewer, "request_id": request_.pk, "to": text}),
        (
            hand_over,
            {
                "by": reviewer,
                "request_id": request_.pk,
                "to": world.person(request_.profile.reviewers).email,
                "note": text,
            },
        ),
        (comment, {"by": reviewer, "request_id": request_.pk, "text": text}),
        (note_absence, {"by": reviewer, "ends_at": soon, "delegate": text}),
        (note_absence, {"by": world.person(), "ends_at": soon, "note": text}),
        (
            review_request,
            {
                "by": reviewer,
                "request_id": request_.pk,
                "verdict": Review.Verdict.APPROVE,
                "models": [text],
                "proofs": PROVED,
            },
        ),
        (
            review_request,
            {
                "by": reviewer,
                "request_id": request_.pk,
                "verdict": Review.Verdict.DENY,
                "reason": text,
                "proofs": PROVED,
            },
        ),
        (
            review_many,
            {
                "by": reviewer,
                "request_ids": [text],
                "verdict": Review.Verdict.APPROVE,
                "proofs": PROVED,
            },
        ),
    ]
    for verb, given in tries:
        try:
            verb(**given)
        except KeyturnError:
            continue


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("requests/", {"justification": "\ud800"}),
        ("requests/", {"justification": "Why.", "ticket": "\ud800"}),
        ("requests/", {"justification": "Why.", "models": ["\ud800"]}),
        ("requests/{}/reviews/", {"verdict": "deny", "reason": "\ud800"}),
        ("requests/{}/reviews/", {"verdict": "approve", "models": ["\ud800"]}),
        ("requests/{}/comments/", {"text": "\ud800"}),
        ("requests/{}/hand-over/", {"to": "\ud800@example.com"}),
        ("absences/", {"ends_at": "2040-01-01T00:00:00Z", "note": "\ud800"}),
    ],
    ids=str,
)
def test_half_of_a_character_gets_no_further_than_the_api(
    path: str, body: dict[str, Any], request_: AccessRequest, world: World
) -> None:
    by = world.person(request_.profile.reviewers, request_.profile.requesters)
    body = body | ({"profile": str(request_.profile_id)} if path == "requests/" else {})
    answer = Caller(by).post(path.format(request_.pk), body)
    assert 400 <= answer.status_code < 500, answer.content


@pytest.mark.parametrize(
    "duration", [dt.timedelta.max, dt.timedelta.min, dt.timedelta(0), -dt.timedelta.resolution]
)
def test_durations_beyond_time_are_refused(duration: dt.timedelta, request_: AccessRequest) -> None:
    with pytest.raises(InvalidInput, match="duration"):
        file_request(
            by=request_.requester,
            profile_id=request_.profile_id,
            justification="Why.",
            duration=duration,
        )


@pytest.mark.parametrize(
    "moment", [dt.datetime.max.replace(tzinfo=dt.UTC), dt.datetime.min.replace(tzinfo=dt.UTC)]
)
def test_moments_beyond_time_are_refused(
    moment: dt.datetime, request_: AccessRequest, world: World
) -> None:
    with pytest.raises(InvalidInput, match="starts_at"):
        file_request(
            by=request_.requester,
            profile_id=request_.profile_id,
            justification="Why.",
            starts_at=moment,
        )
    with pytest.raises(InvalidInput, match="starts_at"):
        review_request(
            by=world.person(request_.profile.reviewers),
            request_id=request_.pk,
            verdict=Review.Verdict.APPROVE,
            starts_at=moment,
            proofs=PROVED,
        )
    with pytest.raises(InvalidInput):
        note_absence(by=world.person(), starts_at=moment, ends_at=moment)


LONG = "P2999999D"


@pytest.mark.parametrize(
    "fields",
    [
        {"limits": {"latest_start": LONG}},
        {"limits": {"max_duration": LONG}},
        {"limits": {"pending_timeout": LONG}},
        {"limits": {"requester_factor_age": LONG}},
        {"limits": {"reviewer_factor_age": LONG}},
        {"break_glass": {"groups": ["g"], "review_within": LONG}},
        {"break_glass": {"groups": ["g"], "max_duration": LONG}},
        {"steps": [step(escalation=[{"after": LONG, "to": {"groups": ["g"]}}])]},
    ],
    ids=str,
)
def test_a_policy_of_times_beyond_time_is_refused_when_it_is_read(fields: dict[str, Any]) -> None:
    """Else each ask under it would fail by an overflow, and nobody could get in at all."""
    with pytest.raises(InvalidInput, match=r"at most|such as P"):
        parse({"slug": "p", "name": "P", "steps": [step()]} | fields)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"], ids=ascii)
def test_a_policy_of_text_that_cannot_be_kept_is_refused(text: str, world: World) -> None:
    profile = world.profile()
    world.person(profile.reviewers)
    hostile: list[dict[str, Any]] = [
        {"name": text},
        {"description": text},
        {"constraints": [{"expression": "true", "message": text}]},
        {"limits": {"ticket": {"pattern": text}}},
        {"steps": [step(name=text)]},
        {"steps": [{"name": "Review", "reviewers": {"people": [f"{text}@example.com"]}}]},
    ]
    for fields in hostile:
        with pytest.raises(InvalidInput):
            govern(profile, *fields.pop("steps", [step()]), **fields)
