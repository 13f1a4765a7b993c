"""Verbs on whom one lets act on one's behalf."""

import datetime as dt
import uuid

from django.db import transaction
from django.db.models import Q

from accounts import factors
from accounts.door import fetch
from accounts.models import AgentConsent, User
from accounts.stepup import NONE, Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Forbidden, InvalidInput

# What is proved to let an agent act: it's the same whichever it is, which is typed in a form.
ALLOW = Purpose(Action.AGENT)


def check_proved(by: User, proofs: Proofs) -> None:
    """Raise StepUpNeeded where this person has a second factor and hasn't proved it just now."""
    if factors.has_factor(by):
        proofs.check(ALLOW)


@transaction.atomic
def allow_agent(
    *, by: User, agent: str, until: dt.datetime | None = None, proofs: Proofs = NONE
) -> AgentConsent:
    """Let this service account, by e-mail address, ask for access on one's behalf; without
    `until`, until that is taken back. Doing so again changes until when.

    Raises Forbidden for a program, StepUpNeeded where one has a second factor, and InvalidInput.
    """
    if by.is_service:
        raise Forbidden("Only a person lets an agent act on their behalf.")
    check_proved(by, proofs)
    email = User.objects.normalize_email(agent)
    row = None
    if email.isprintable():  # PostgreSQL refuses to look for what it can't hold
        row = User.objects.active().filter(email=email, owner__isnull=False).first()
    errors = {}
    if row is None:
        errors["agent"] = "No active service account has this e-mail address."
    elif row.owner_id == by.pk:
        errors["agent"] = "It is yours: what you answer for acts for you anyway."
    if until is not None and until <= clock.now():
        errors["until"] = "Must be in the future; leave it out to take it back yourself."
    if errors or row is None:
        raise InvalidInput(errors)
    # Two at once must not both find none.
    User.objects.select_for_update().get(pk=by.pk)
    AgentConsent.objects.filter(person=by, agent=row, taken_back_at=None).update(
        taken_back_at=clock.now()
    )
    consent = AgentConsent.objects.create(person=by, agent=row, until=until)
    record(
        Event.AGENT_ALLOWED,
        by=by,
        about=row,
        related=(by, *filter(None, [row.owner])),
        consent=str(consent.pk),
        until=until.isoformat() if until else None,
    )
    return consent


@transaction.atomic
def take_back_agent(*, by: User, consent_id: uuid.UUID | str) -> AgentConsent:
    """No longer let an agent act on one's behalf: what it asked for is withdrawn and what it
    holds ends, within seconds. Doing so twice changes nothing.

    By the person, whoever answers for the agent, or an administrator. Raises NotFound, Forbidden.
    """
    visible = AgentConsent.objects.visible_to(by).select_related("person", "agent__owner")
    consent = fetch(visible, consent_id, lock=True)
    if not (by.pk in (consent.person_id, consent.agent.owner_id) or by.is_administrator):
        raise Forbidden("Only the person for whom it acts, its owner and administrators do this.")
    _take_back(by, [consent])
    return consent


def forget_consents(*, by: User | None, user: User) -> int:
    """Take back all that this account gave or was given, in the caller's transaction; how many.
    For accounts that are closed: nothing of before comes back with them."""
    rows = AgentConsent.objects.select_for_update(of=("self",)).select_related(
        "person", "agent__owner"
    )
    return _take_back(by, list(rows.filter(Q(person=user) | Q(agent=user), taken_back_at=None)))


def _take_back(by: User | None, consents: list[AgentConsent]) -> int:
    taken = 0
    for consent in consents:
        if consent.taken_back_at is not None:
            continue
        consent.taken_back_at = clock.now()
        consent.save(update_fields=["taken_back_at"])
        record(
            Event.AGENT_DISALLOWED,
            by=by,
            about=consent.agent,
            related=(consent.person, *filter(None, [consent.agent.owner])),
            consent=str(consent.pk),
            person=consent.person.email,
        )
        taken += 1
    return taken
