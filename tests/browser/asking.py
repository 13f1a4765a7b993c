"""What Ana meets when she asks: a policy with everything in it, and each thing that she holds."""

import datetime as dt
from dataclasses import dataclass

from django.utils import timezone

from accessrequests.actions import file_request, note_absence, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accounts.models import User
from endpoints.models import AccessProfile
from tests.world import PASSWORD, PROVED, World

HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Stage:
    """Ana, who asks; Ben and Chidi, who decide; what may be asked for, and what she has."""

    ana: User
    ben: User
    strict: AccessProfile
    easy: AccessProfile
    plain: AccessProfile


@dataclass(frozen=True)
class Holdings:
    """One of each that Ana can hold or wait for."""

    extending: Grant
    extended: Grant
    scheduled: Grant
    glass: Grant
    second_step: AccessRequest


def stage(world: World, zone: str = "Europe/Madrid") -> Stage:
    team, reviewers, security, rota = (world.group() for _ in range(4))
    for group, name in (
        (team, "Engineers"),
        (reviewers, "Platform reviewers"),
        (security, "Security"),
        (rota, "On call"),
    ):
        group.name = name
        group.save(update_fields=["name"])
    ana = world.person(team, rota, password=PASSWORD, full_name="Ana Castillo", time_zone=zone)
    ben = world.person(reviewers, password=PASSWORD, full_name="Ben Okafor", time_zone=zone)
    world.person(reviewers, full_name="Dana Levi")
    world.person(security, full_name="Chidi Eze")
    owner = world.person(full_name="Priya Nair")
    both = {"requesters": team, "reviewers": reviewers}
    support = world.endpoint(
        name="Support assistant",
        description="Answers customers; its tools can refund.",
        risk="critical",
        connected_systems=["Orders", "Refunds"],
        owner=owner,
    )
    strict = world.profile(
        endpoint=support,
        description="The live prompt and its tools.",
        default_models=["demo-small"],
        max_duration=4 * HOUR,
        **both,  # type: ignore[arg-type]
    )
    world.policy(
        profile=strict,
        name="Production",
        steps=[
            {
                "name": "Team",
                "reviewers": {"profile_reviewers": True},
                "escalation": [{"after": "PT1H", "to": {"groups": [security.slug]}}],
            },
            {
                "name": "Security",
                "reviewers": {"groups": [security.slug]},
                "skip_when": "request.duration <= duration('1h')",
            },
        ],
        limits={
            "latest_start": "P2D",
            "ticket": {"pattern": "OPS-[0-9]+"},
            "justification_length": 12,
        },
        break_glass={"groups": [rota.slug], "max_duration": "PT30M", "review_within": "PT4H"},
    )
    lab = world.endpoint(name="Research models", environment="staging", risk="low", owner=owner)
    easy = world.profile(endpoint=lab, models=["demo-embed", "demo-small"], **both)  # type: ignore[arg-type]
    world.policy(
        profile=easy,
        name="Staging",
        auto_approve_when="request.duration <= duration('1h')",
        limits={"latest_start": "P7D"},
    )
    plain = world.profile(
        endpoint=world.endpoint(name="Contract review", owner=owner),
        models=["contract-reader"],
        **both,  # type: ignore[arg-type]
    )
    return Stage(ana, ben, strict, easy, plain)


def holdings(at: Stage) -> Holdings:
    def ask(profile: AccessProfile, why: str, **more: object) -> AccessRequest:
        return file_request(
            by=at.ana,
            profile_id=profile.pk,
            justification=why,
            **more,  # type: ignore[arg-type]
        )

    extending = ask(at.plain, "Evaluate the release against the reference set.")
    review_request(
        by=at.ben, request_id=extending.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    ask(
        at.plain,
        "Two cases are left.",
        extends=extending.grant.pk,
        duration=dt.timedelta(minutes=30),
    )
    extended = ask(at.easy, "Compare the two embedding models.").grant
    ask(at.easy, "One query is left.", extends=extended.pk)
    later = (timezone.now() + dt.timedelta(days=1)).replace(second=0, microsecond=0)
    scheduled = ask(at.easy, "The nightly run, by hand.", starts_at=later).grant
    glass = ask(
        at.strict,
        "The assistant refunds twice.",
        ticket="OPS-88214",
        break_glass=True,
        proofs=PROVED,
        duration=dt.timedelta(minutes=30),
    ).grant
    second = ask(
        at.strict,
        "Replay the conversation and read the tool calls.",
        ticket="OPS-88214",
        duration=2 * HOUR,
    )
    review_request(by=at.ben, request_id=second.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    note_absence(by=at.ana, ends_at=later, delegate=at.ben.email, note="The sea.")
    return Holdings(Grant.objects.get(request=extending), extended, scheduled, glass, second)


def paths(at: Stage, held: Holdings) -> dict[str, str]:
    """Every page of hers, by name."""
    several = "&".join(f"profile={p.pk}" for p in (at.strict, at.easy, at.plain))
    return {
        "ask-home": "/",
        "ask-requests": "/requests/",
        "ask-catalogue": "/catalogue/",
        "ask-catalogue-chosen": f"/catalogue/?profile={at.easy.pk}&profile={at.strict.pk}",
        "ask-strict": f"/request/{at.strict.pk}/",
        "ask-glass": f"/request/{at.strict.pk}/?way=break-glass",
        "ask-automatic": f"/request/{at.easy.pk}/",
        "ask-together": f"/request/?{several}",
        "ask-extend": f"/grants/{Grant.objects.get(request__extends=held.extended).pk}/extend/",
        "ask-grant-extending": f"/grants/{held.extending.pk}/",
        "ask-grant-extended": f"/grants/{held.extended.pk}/",
        "ask-grant-scheduled": f"/grants/{held.scheduled.pk}/",
        "ask-grant-glass": f"/grants/{held.glass.pk}/",
        "ask-absence": "/settings/absence/",
    }
