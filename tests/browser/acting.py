"""Agents that ask for a person, for pictures and journeys."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accounts.actions import allow_agent, create_service, join_group
from accounts.models import User
from audit import clock
from tests.world import PASSWORD, PROVED, World, unique

RUN = "https://ci.example.com/triage/runs/48213?attempt=2"
TASK = "Read the trace of ticket 4711, try its prompt again without the French glossary, answer."


@dataclass
class Acting:
    """Ana, for whom agents act, who reviews them, and what they asked for."""

    ana: User
    reviewer: User
    program: User
    pending: AccessRequest
    grant: Grant


def acting(world: World, zone: str) -> Acting:
    look: dict[str, Any] = {"time_zone": zone, "password": PASSWORD}
    profile = world.profile(endpoint=world.endpoint(name="Support assistant", with_key=True))
    ana = world.person(profile.requesters, full_name="Ana Castillo", **look)
    reviewer = world.person(profile.reviewers, full_name="Chidi Eze", **look)
    owner = world.person(full_name="Noor Haddad", time_zone=zone)
    programs = []
    for name, answers in (("Ticket triage", owner), ("Nightly evaluation", ana)):
        program = create_service(
            by=None,
            email=f"{name.split()[0].lower()}-{unique()}@service.example.com",
            full_name=name,
            owner=answers,
            ends_at=clock.now() + dt.timedelta(days=60),
        )
        join_group(by=None, user=program, group=profile.requesters)
        programs.append(program)
    allow_agent(by=ana, agent=programs[0].email, until=clock.now() + dt.timedelta(days=30))

    def ask(program: User, **said: str) -> AccessRequest:
        return file_request(
            by=program,
            profile_id=profile.pk,
            justification="Ticket 4711 was answered in French. The customer wrote in English.",
            on_behalf_of=ana.email,
            **said,  # type: ignore[arg-type]
        )

    granted = ask(programs[1], run="nightly-2026-11-23")
    review_request(
        by=reviewer, request_id=granted.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    pending = ask(programs[0], run=RUN, task=TASK)
    return Acting(ana, reviewer, programs[0], pending, Grant.objects.get(request=granted))
