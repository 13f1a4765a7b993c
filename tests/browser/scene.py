"""A believable afternoon in the demo's company: every state that a page can show."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection

from accessrequests.actions import (
    cancel_request,
    comment,
    file_request,
    hand_over,
    review_request,
)
from accessrequests.models import AccessRequest, Comment, Grant, Review, Tally
from accounts.actions import create_user, join_group
from accounts.models import Group, User
from broker.demo import data
from credentials.actions import check_out, end_grant
from endpoints.actions import create_endpoint, create_profile
from endpoints.models import AccessProfile
from tests.world import PROVED

PASSWORD = data.PASSWORD


@dataclass(frozen=True)
class Scene:
    """Who and what there is to look at."""

    ana: User
    ben: User
    chidi: User
    newcomer: User
    fresh: Grant
    low: Grant
    ended: Grant
    pending: AccessRequest
    denied: AccessRequest
    queue: list[AccessRequest]
    owed: AccessRequest
    profile: AccessProfile


def _shift(table: str, key: str, pk: uuid.UUID, minutes: float, *columns: str) -> None:
    """Move times of rows into the past, past the triggers that keep them as they are."""
    sets = ", ".join(f"{column} = {column} - %s" for column in columns)
    values: list[Any] = [dt.timedelta(minutes=minutes) for _ in columns]
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(
            f"UPDATE {table} SET {sets} WHERE {key} = %s",  # noqa: S608
            [*values, pk],
        )
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def _back(request: AccessRequest, minutes: float) -> None:
    """Let a request have been filed a while ago."""
    _shift("accessrequests_accessrequest", "id", request.pk, minutes, "created_at")
    _shift("audit_auditevent", "subject_id", request.pk, minutes, "at")


def _began(grant: Grant, minutes: float) -> None:
    """Let a grant have begun a while ago."""
    _shift("accessrequests_grant", "id", grant.pk, minutes, "starts_at", "ends_at")
    _shift("audit_auditevent", "subject_id", grant.pk, minutes, "at")
    _back(grant.request, minutes + 4)
    _shift("accessrequests_accessrequest", "id", grant.request_id, minutes, "decided_at")


def _grant(by: User, reviewer: User, profile: AccessProfile, why: str, **asked: Any) -> Grant:
    request = file_request(by=by, profile_id=profile.pk, justification=why, **asked)
    review_request(
        by=reviewer,
        request_id=request.pk,
        verdict=Review.Verdict.APPROVE,
        reason="Go ahead; tell me what you find.",
        proofs=PROVED,
    )
    grant: Grant = Grant.objects.get(request=request)
    return grant


ZONES = (
    "Europe/Madrid",
    "America/New_York",
    "America/Los_Angeles",
    "Pacific/Auckland",
    "Asia/Tokyo",
    "Asia/Karachi",
)


def afternoon() -> str:
    """A zone where it is afternoon now, so that no picture is about midnight."""
    now = dt.datetime.now(dt.UTC)
    return min(ZONES, key=lambda zone: abs(now.astimezone(ZoneInfo(zone)).hour - 15))


def build() -> Scene:
    """Make it all, by the same actions as the people would."""
    data.create()
    ana, ben, dana, chidi = (
        User.objects.get(email=f"{name}@example.com") for name in ("ana", "ben", "dana", "chidi")
    )
    User.objects.update(time_zone=afternoon())
    groups = {group.slug: group for group in Group.objects.all()}

    def person(email: str, name: str, *slugs: str) -> User:
        user = create_user(by=None, email=email, full_name=name, password=PASSWORD)
        for slug in slugs:
            join_group(by=None, user=user, group=groups[slug])
        return user

    newcomer = person("noor@example.com", "Noor Haddad")
    mei = person("mei@example.com", "Mei Tanaka", "engineers", "data-science")
    long = person(
        "maximiliane@example.com",
        "Maximiliane Freifrau von Hohenstein-Wetterau",
        "engineers",
        "data-science",
    )
    tomas = person("tomas@example.com", "Tomás Ferreira", "engineers")
    profiles = {f"{p.endpoint.slug}/{p.slug}": p for p in AccessProfile.objects.all()}
    endpoint = create_endpoint(
        by=None,
        slug="claims-triage",
        name="Claims triage and payout recommendation for the northern region",
        description="Ranks claims and proposes a payout; its tools can write to the ledger.",
        environment="production",
        risk="critical",
        connected_systems=["Claims ledger", "Customer master data", "Payout queue"],
        dialects=["openai"],
        upstream_url="http://127.0.0.1:8090",
        owner=dana,
    )
    triage = create_profile(
        by=None,
        endpoint=endpoint,
        slug="investigate",
        name="Investigate a recommendation",
        description="Replay one claim with its tools switched off.",
        models=["claims-ranker-2026-09-instruct-long-context", "claims-embed"],
        defaults={"models": ["claims-embed"]},
        default_duration=dt.timedelta(minutes=30),
        max_duration=dt.timedelta(hours=2),
        requesters=groups["engineers"],
        reviewers=groups["platform-reviewers"],
    )
    support, experiment = (
        profiles["support-assistant/debug"],
        profiles["research-models/experiment"],
    )
    embeddings, contract = (
        profiles["research-models/embeddings"],
        profiles["contract-review/evaluate"],
    )

    ended = _grant(ana, ben, embeddings, "Index the new help articles for search.")
    check_out(by=ana, grant_id=ended.pk)
    end_grant(by=ana, grant_id=ended.pk)
    denied = file_request(
        by=ana,
        profile_id=triage.pk,
        justification="Look at why claim 20931 was ranked first.",
        models=["claims-ranker-2026-09-instruct-long-context"],
        duration=dt.timedelta(hours=2),
    )
    review_request(
        by=ben,
        request_id=denied.pk,
        verdict=Review.Verdict.DENY,
        reason="Replay it with the embed model first; 30 minutes should do.",
        proofs=PROVED,
    )
    fresh = _grant(
        ana,
        ben,
        support,
        "Ticket 4711: the assistant answered in French. Reproduce it with the live prompt.",
    )
    check_out(by=ana, grant_id=fresh.pk)
    check_out(by=ana, grant_id=fresh.pk)
    _began(fresh, 13)
    low = _grant(ana, ben, experiment, "Compare the two embedding models on our own queries.")
    _began(low, 112)
    pending = file_request(
        by=ana,
        profile_id=contract.pk,
        justification="Evaluate tomorrow’s release against the reference set.",
    )
    _back(pending, 6)

    asks: list[tuple[User, AccessProfile, str, dict[str, Any], int]] = [
        (
            mei,
            support,
            "Customer says the refund tool was called twice for order 88214. I want to replay "
            "the conversation and read the tool calls.",
            {
                "duration": dt.timedelta(hours=4),
                "models": ["demo-large", "demo-slow", "demo-small"],
            },
            42,
        ),
        (tomas, support, "Latency alarm since 13:50.", {}, 27),
        (
            long,
            triage,
            "Auditors ask how claim 20931 was ranked. Replay it and keep the output.\n\n"
            "Ticket: CLAIMS-1187",
            {"duration": dt.timedelta(hours=2)},
            19,
        ),
        (
            mei,
            experiment,
            "Nightly evaluation failed on one prompt; run it by hand.",
            {"duration": dt.timedelta(hours=1)},
            11,
        ),
        (tomas, embeddings, "Index the onboarding handbook.", {}, 3),
    ]
    queue = []
    for who, profile, why, asked, age in asks:
        row = file_request(by=who, profile_id=profile.pk, justification=why, **asked)
        _back(row, age)
        queue.append(row)
    mistaken = file_request(
        by=tomas, profile_id=contract.pk, justification="Wrong endpoint, sorry."
    )
    cancel_request(by=tomas, request_id=mistaken.pk)
    owed = _more_to_decide(queue, fresh, ben, dana, {"support": support, "embed": embeddings})
    _figures([support, triage, experiment], [ben, dana])
    return Scene(
        ana, ben, chidi, newcomer, fresh, low, ended, pending, denied, queue, owed, support
    )


def _more_to_decide(
    queue: list[AccessRequest],
    fresh: Grant,
    ben: User,
    dana: User,
    profiles: dict[str, AccessProfile],
) -> AccessRequest:
    """What else a queue can show: a review that is owed, an extension, a later start, talk."""
    farid = User.objects.get(email="farid@example.com")
    owed = file_request(
        by=farid,
        profile_id=profiles["support"].pk,
        justification="The assistant refunds every order it is asked about. Stopping the tool.",
        duration=dt.timedelta(minutes=30),
        break_glass=True,
        proofs=PROVED,
    )
    _back(owed, 4)
    file_request(
        by=fresh.holder,
        profile_id=profiles["support"].pk,
        justification="The French answer comes from a cached prompt; I need to try the fix.",
        duration=dt.timedelta(minutes=45),
        extends=fresh.pk,
    )
    file_request(
        by=queue[2].requester,
        profile_id=profiles["embed"].pk,
        justification="Re-index the catalogue once the nightly import is through.",
        starts_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=7),
    )
    mei, tomas = queue[0], queue[1]
    comment(
        by=ben,
        request_id=mei.pk,
        text="Is two hours enough? And do you need demo-slow for reading tool calls?",
        kind=Comment.Kind.QUESTION,
    )
    hand_over(by=dana, request_id=tomas.pk, to=ben.email, note="You were on the last one.")
    review_request(
        by=dana,
        request_id=queue.pop().pk,
        verdict=Review.Verdict.DENY,
        reason="The handbook has salaries in it; take the public one.",
        proofs=PROVED,
    )
    return owed


def _figures(profiles: list[AccessProfile], reviewers: list[User]) -> None:
    """A month of decisions, as the tallies count them."""
    today = dt.datetime.now(dt.UTC).date()
    waits = (34, 27, 19, 9, 4, 2)
    for at, number in enumerate(waits):
        for who, share in zip(reviewers, (3, 2), strict=True):
            for outcome, part in (("approved", 5), ("denied", 1)):
                Tally.objects.create(
                    day=today - dt.timedelta(days=1 + at),
                    profile=profiles[at % 3],
                    reviewer=who,
                    outcome=outcome,
                    wait=at,
                    count=max(1, number * share * part // 30),
                )
    for outcome, number in (("automatic", 41), ("break_glass", 2), ("expired", 5)):
        Tally.objects.create(
            day=today - dt.timedelta(days=2),
            profile=profiles[0],
            outcome=outcome,
            wait=0,
            count=number,
        )
