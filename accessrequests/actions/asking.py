"""Asking: what it would come to, and the ask itself."""

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from accessrequests import notices
from accessrequests.actions.choosing import chosen_scope, raised_scope
from accessrequests.actions.deciding import decide
from accessrequests.actions.granting import fulfil
from accessrequests.actions.pending import check_pending
from accessrequests.facts import effective_for, facts_about
from accessrequests.models import AccessRequest, Grant
from accessrequests.permissions import check_cancel
from accessrequests.policy.effective import Effective, Ruling
from accessrequests.routing import (
    RoutedStep,
    escalate_at,
    in_words,
    lay_routes,
    people,
    unreachable,
    wait_at,
)
from accessrequests.states import RequestState
from accounts import stepup
from accounts.behalf import person_behind
from accounts.door import fetch
from accounts.models import User
from accounts.preconditions import ANYTHING, Expected
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.record import record
from audit.templatetags.keyturn import duration as duration_words
from broker.errors import InvalidInput, NotFound, StepUpNeeded
from endpoints.models import SHORTEST, AccessProfile, EmergencyStop
from endpoints.scope import Scope

JUSTIFICATION_LENGTH = 2000
TICKET_LENGTH = 100
RUN_LENGTH = 200
TASK_LENGTH = 1000
MOST_TOGETHER = 20


@dataclass(frozen=True)
class Preview:
    """What would happen to an ask, and what is still missing from it.

    `steps` are those of its policy with the people whom each would reach; `missing` names the
    fields that must still be filled in.
    """

    profile: AccessProfile
    scope: Scope
    duration: dt.timedelta
    starts_at: dt.datetime
    ends_at: dt.datetime
    pending_timeout: dt.timedelta
    automatic: bool
    break_glass: bool
    extends: Grant | None
    raises: Grant | None
    effective: Effective
    ruling: Ruling
    steps: list[RoutedStep]
    may_break_glass: bool
    on_behalf_of: User | None = None
    run: str = ""
    task: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def needed(self) -> list[RoutedStep]:
        """The steps that this ask has to take; none when nobody is asked."""
        return [] if self.automatic else [step for step in self.steps if not step.skipped]

    @property
    def reviewers(self) -> list[User]:
        """Those who would be asked first."""
        return self.needed[0].people if self.needed else []


def _extended(by: User, profile: AccessProfile, pk: uuid.UUID | str, now: dt.datetime) -> Grant:
    """The grant to be extended. Raises InvalidInput where it can't be."""
    try:
        grant = fetch(Grant.objects.filter(holder=by).select_related("request"), pk)
    except NotFound:
        raise InvalidInput({"extends": "You hold no such grant."}) from None
    why = ""
    if grant.request.profile_id != profile.pk:
        why = f"It is a grant of another profile: {grant.request.profile}."
    elif grant.ended_at is not None or grant.ends_at <= now:
        why = "It has ended; ask anew."
    elif grant.request.break_glass:
        why = "Break-glass access can't be extended: ask for access in the usual way."
    elif grant.extensions.filter(state=RequestState.PENDING, pending_until__gt=now).exists():
        why = "An extension of it waits for a decision already."
    elif Grant.objects.filter(request__extends=grant, ended_at=None).exists():
        why = "It is extended already: extend the grant that follows it."
    if why:
        raise InvalidInput({"extends": why})
    return grant


def _raised(by: User, profile: AccessProfile, pk: uuid.UUID | str, now: dt.datetime) -> Grant:
    """The grant whose budgets are to be raised. Raises InvalidInput where they can't be."""
    try:
        grant = fetch(Grant.objects.filter(holder=by).select_related("request"), pk)
    except NotFound:
        raise InvalidInput({"raises": "You hold no such grant."}) from None
    why = ""
    if grant.request.profile_id != profile.pk:
        why = f"It is a grant of another profile: {grant.request.profile}."
    elif grant.ended_at is not None or grant.ends_at <= now:
        why = "It has ended; ask anew."
    elif grant.starts_at > now:
        why = "It hasn’t begun yet."
    elif grant.ends_at - now < SHORTEST:
        why = "It ends within a minute; ask anew."
    elif grant.request.break_glass:
        why = "Break-glass access can't be given more: ask for access in the usual way."
    elif grant.raises_asked.filter(state=RequestState.PENDING, pending_until__gt=now).exists():
        why = "A larger budget for it waits for a decision already."
    if why:
        raise InvalidInput({"raises": why})
    return grant


@dataclass(frozen=True)
class _Agent:
    """What a service account says of itself: for whom, in which run, to do what."""

    person: User | None
    run: str
    task: str


def _agent(
    by: User,
    profile: AccessProfile,
    on_behalf_of: str,
    run: str,
    task: str,
    builds_on: Grant | None,
    errors: dict[str, str],
) -> _Agent:
    """The same, checked. `builds_on` is the grant that is extended or raised, which stays with
    the person whose it is."""
    run, task = run.strip(), _plain_text("task", task, TASK_LENGTH, errors)
    if len(run) > RUN_LENGTH or not run.isprintable():
        errors["run"] = f"Must be one line of at most {RUN_LENGTH} plain characters."
    if not by.is_service:
        given = {"on_behalf_of": on_behalf_of, "run": run, "task": task}
        errors |= {
            name: "Only service accounts say this: a person asks for themself."
            for name, text in given.items()
            if text
        }
        return _Agent(None, "", "")
    whose = builds_on.request.on_behalf_of if builds_on is not None else None
    email = on_behalf_of or (whose.email if whose is not None else "")
    person = person_behind(by, email) if email else None
    if email and person is None:
        # In the same words for who doesn't exist: agents don't learn who does.
        errors["on_behalf_of"] = f"{email} has not let this agent act for them."
    elif builds_on is not None and person != whose:
        errors["on_behalf_of"] = (
            f"That grant is held on behalf of {whose.email}: so is what builds on it."
            if whose is not None
            else "That grant is held on nobody’s behalf: so is what builds on it."
        )
    elif person is not None and not profile.requesters.has(person):
        errors["on_behalf_of"] = f"{email} may not ask for this profile, so nobody may for them."
    return _Agent(person, run, task)


def preview_request(
    *,
    by: User,
    profile_id: uuid.UUID | str,
    duration: dt.timedelta | None = None,
    models: list[str] | None = None,
    scope: Mapping[str, Any] | None = None,
    starts_at: dt.datetime | None = None,
    ticket: str = "",
    justification: str = "",
    break_glass: bool = False,
    extends: uuid.UUID | str | None = None,
    raises: uuid.UUID | str | None = None,
    on_behalf_of: str = "",
    run: str = "",
    task: str = "",
) -> Preview:
    """What filing this request would lead to, without filing it.

    Duration and what `models` and `scope` don't name default to the policy's and the profile's, or
    to the extended grant's. `raises` asks for larger budgets of a grant that goes on as it is, and
    for nothing else. A service account may name the person `on_behalf_of` whom it asks, by e-mail
    address, its `run`, and its `task`; the ask is judged as its own and as that person's.
    Raises InvalidInput for a profile that this person may not ask for and for all that is beyond
    a limit; a ticket or justification that isn't there yet is only named as missing.
    """
    try:
        profile = fetch(AccessProfile.objects.open_to(by), profile_id)
    except NotFound as error:
        raise InvalidInput({"profile": "There is no such profile that you may ask for."}) from error
    now = clock.now()
    errors: dict[str, str] = {}
    extended: Grant | None = None
    if extends is not None:
        try:
            extended = _extended(by, profile, extends, now)
        except InvalidInput as error:
            errors |= error.errors
        if break_glass:
            errors["break_glass"] = "Break-glass access can't extend a grant."
        if starts_at is not None:
            errors["starts_at"] = "An extension begins when its grant ends: leave it out."
    held: Grant | None = None
    if raises is not None:
        held = _raised(by, profile, raises, now)
        if duration or starts_at or break_glass or extends:
            raise InvalidInput({"raises": "It changes the budgets of a grant, and nothing else."})
        # To the second: it's kept, and said.
        duration = dt.timedelta(seconds=(held.ends_at - now) // dt.timedelta(seconds=1))
    agent = _agent(by, profile, on_behalf_of, run, task, extended or held, errors)
    holds = effective_for(profile)
    if duration is None:
        allowed = holds.break_glass if break_glass else None
        duration = min(
            holds.default_duration, allowed.max_duration if allowed else dt.timedelta.max
        )
    # A profile may have been narrowed since; what the grant holds never grows by extending it.
    ceiling = extended.allowed & profile.ceiling if extended else profile.ceiling
    usual = chosen = ceiling if extended else profile.default_scope
    try:
        if held is not None:
            chosen = raised_scope(held.allowed, models, scope, ceiling=profile.ceiling)
        else:
            chosen = chosen_scope(
                models, scope, ceiling=ceiling, usual=usual, of="grant" if extended else "profile"
            )
    except InvalidInput as error:
        errors |= error.errors
    facts = facts_about(
        by,
        profile,
        scope=chosen,
        duration=duration,
        now=now,
        ticket=ticket,
        justification=justification,
        starts_at=None if extended else starts_at,
        extension=extends is not None,
        raises=held is not None,
        break_glass=break_glass,
        on_behalf_of=agent.person,
        run=agent.run,
        task=agent.task,
    )
    ruling = holds.decide(facts)
    missing = {
        name: ruling.problems[name]
        for name, given in (("ticket", ticket), ("justification", justification))
        if not given and name in ruling.problems
    }
    errors = {k: v for k, v in ruling.problems.items() if k not in missing} | errors
    if duration < SHORTEST:
        errors["duration"] = (
            f"Must be at least 1 minute and at most {duration_words(holds.max_duration)}."
        )
    steps = [
        RoutedStep(
            needed.step,
            needed.skipped,
            people(needed.step.reviewers, profile, by, agent.person),
            [
                person
                for entry in needed.step.escalation
                for person in people(entry.to, profile, by, agent.person)
            ],
        )
        for needed in ruling.steps
    ]
    dead_end = None if ruling.automatic else unreachable(steps)
    if dead_end is not None:
        errors["profile"] = _dead_end(dead_end, profile)
    stop = (
        EmergencyStop.objects.against(profile.endpoint_id, None)
        .select_related("endpoint", "stopped_by")
        .first()
    )
    if stop is not None:
        errors["profile"] = f"{stop.in_words} Ask once the stop is lifted."
    if errors:
        raise InvalidInput(errors)
    begins = extended.ends_at if extended else max(now, starts_at or now)
    return Preview(
        profile=profile,
        scope=chosen,
        duration=duration,
        starts_at=begins,
        ends_at=held.ends_at if held else begins + duration,
        pending_timeout=holds.pending_timeout,
        automatic=ruling.automatic,
        break_glass=break_glass,
        extends=extended,
        raises=held,
        effective=holds,
        ruling=ruling,
        steps=steps,
        may_break_glass=holds.may_break_glass(facts.groups)
        and holds.may_break_glass(facts.as_person().groups),
        on_behalf_of=agent.person,
        run=agent.run,
        task=agent.task,
        missing=missing,
    )


def _dead_end(routed: RoutedStep, profile: AccessProfile) -> str:
    named = in_words(routed.step.reviewers, profile)
    count = routed.step.approvals
    if count == 1 and not routed.people:
        lack = f"{named} has no active member other than yourself"
    else:
        lack = (
            f"“{routed.step.name}” needs {count} {'person' if count == 1 else 'people'} of {named} "
            "who approve nothing else of it and aren’t you, and there are fewer"
        )
    return (
        f"Nobody could approve this: {lack}. Ask the owner of the endpoint, "
        f"{profile.endpoint.owner}, to add a reviewer."
    )


def _plain_text(name: str, text: str, most: int, errors: dict[str, str]) -> str:
    text = text.replace("\r\n", "\n").strip()
    if len(text) > most:
        errors[name] = f"Must be at most {most} characters."
    elif "\x00" in text:
        errors[name] = "Must not contain NUL characters."
    return text


def ask_age(holds: Effective, *, break_glass: bool) -> dt.timedelta | None:
    """How fresh the asking person's second factor must be; None where it takes none. Access
    before a review takes one always."""
    asked = holds.requester_factor_age
    return stepup.shortest(asked) if break_glass else asked


@transaction.atomic
def file_request(
    *,
    by: User,
    profile_id: uuid.UUID | str,
    justification: str,
    duration: dt.timedelta | None = None,
    models: list[str] | None = None,
    scope: Mapping[str, Any] | None = None,
    starts_at: dt.datetime | None = None,
    ticket: str = "",
    break_glass: bool = False,
    extends: uuid.UUID | str | None = None,
    raises: uuid.UUID | str | None = None,
    on_behalf_of: str = "",
    run: str = "",
    task: str = "",
    proofs: Proofs = stepup.NONE,
    together: uuid.UUID | None = None,
) -> AccessRequest:
    """Ask for access.

    Where policy decides by itself, or for break-glass, the grant begins in the same transaction.
    `proofs` are the asking person's; for whom an agent asks is as in preview_request. Raises
    InvalidInput, naming each field at fault, and StepUpNeeded; nothing is written then.
    """
    errors: dict[str, str] = {}
    justification = _plain_text("justification", justification, JUSTIFICATION_LENGTH, errors)
    ticket = _plain_text("ticket", ticket, TICKET_LENGTH, errors)
    for pk in (each for each in (extends, raises) if each is not None):
        # Two extensions or raises at once must not both find none.
        with contextlib.suppress(NotFound):
            fetch(Grant.objects.filter(holder=by), pk, lock=True)
    try:
        asked = preview_request(
            by=by,
            profile_id=profile_id,
            duration=duration,
            models=models,
            scope=scope,
            starts_at=starts_at,
            ticket=ticket,
            justification=justification,
            break_glass=break_glass,
            extends=extends,
            raises=raises,
            on_behalf_of=on_behalf_of,
            run=run,
            task=task,
        )
    except InvalidInput as error:
        if not justification:
            errors.setdefault(
                "justification", "Say what you need it for: your reviewer decides by this."
            )
        raise InvalidInput(errors | error.errors) from error
    if errors := asked.missing | errors:
        raise InvalidInput(errors)
    age = ask_age(asked.effective, break_glass=asked.break_glass)
    if age is not None:
        proofs.check(Purpose(Action.ASK, str(asked.profile.pk)), age=age)
    return _file(asked, by, justification, ticket, starts_at, together)


def _file(
    asked: Preview,
    by: User,
    justification: str,
    ticket: str,
    starts_at: dt.datetime | None,
    together: uuid.UUID | None,
) -> AccessRequest:
    profile, now = asked.profile, clock.now()
    pending_until = now + asked.pending_timeout
    decide_by = min([pending_until, *filter(None, [starts_at])])
    for grant in filter(None, (asked.extends, asked.raises)):
        pending_until = decide_by = min(pending_until, grant.ends_at)
    owed = asked.effective.break_glass
    if asked.break_glass and owed is not None:
        decide_by = now + owed.review_within
    request = AccessRequest.objects.create(
        profile=profile,
        requester=by,
        scope=asked.scope.as_json(),
        duration=asked.duration,
        justification=justification,
        ticket=ticket,
        starts_at=starts_at,
        automatic=asked.automatic,
        break_glass=asked.break_glass,
        extends=asked.extends,
        raises=asked.raises,
        together=together,
        on_behalf_of=asked.on_behalf_of,
        run=asked.run,
        task=asked.task,
        policy=asked.effective.snapshot(asked.ruling) | {"ceiling": profile.scope},
        pending_until=pending_until,
        decide_by=decide_by,
    )
    for at, routed in enumerate(asked.steps):
        if not routed.skipped and not asked.automatic:
            lay_routes(request, at, routed.step.reviewers, waiting=False)
    concerned = (profile.endpoint, profile, *filter(None, [asked.on_behalf_of]))
    agents = {"run": asked.run, "task": asked.task}
    if asked.on_behalf_of is not None:
        agents["on_behalf_of"] = asked.on_behalf_of.email
    record(
        Event.REQUEST_FILED,
        by=by,
        about=request,
        related=concerned,
        duration_seconds=int(asked.duration.total_seconds()),
        scope=request.scope,
        policies=request.policy["policies"],
        waits_for=[person.email for person in asked.reviewers],
        **({"extends": str(asked.extends.pk)} if asked.extends else {}),
        **({"raises": str(asked.raises.pk)} if asked.raises else {}),
        **{name: text for name, text in agents.items() if text},
    )
    notices.asked_for_you(request)
    if asked.automatic:
        decide(request, RequestState.APPROVED, by=None, how=_policy_names(request))
        record(
            Event.REQUEST_APPROVED,
            by=None,
            about=request,
            related=(*concerned, by),
            automatic=True,
            policies=request.policy["policies"],
        )
        fulfil(request)
        return request
    first = next(at for at, routed in enumerate(asked.steps) if not routed.skipped)
    request.step, request.step_since = first, now
    request.remind_at = now + (decide_by - now) / 2
    if asked.break_glass:
        request.save(update_fields=["step", "step_since", "remind_at"])
        wait_at(request, first)
        decide(request, RequestState.APPROVED, by=None, how=f"break-glass by {by}")
        record(Event.BREAK_GLASS_TAKEN, by=by, about=request, related=concerned)
        fulfil(request)
        notices.break_glass(request)
        return request
    wait_at(request, first)
    request.escalate_at = escalate_at(request, 0)
    request.save(update_fields=["step", "step_since", "remind_at", "escalate_at"])
    notices.review_wanted(request)
    return request


def _policy_names(request: AccessRequest) -> str:
    named = (f"{each['name']}, version {each['version']}" for each in request.policy["policies"])
    return f"the policy {' and '.join(named)}"[:254]


@transaction.atomic
def file_together(
    *, by: User, profile_ids: Iterable[uuid.UUID | str], justification: str, **ask: Any
) -> list[AccessRequest]:
    """Ask for several profiles with one justification: a request and a review for each.

    All are filed or none. Raises InvalidInput, its keys led by the profile that each concerns,
    and StepUpNeeded for all that take one.
    """
    ids = list(dict.fromkeys(str(pk) for pk in profile_ids))
    if not 1 <= len(ids) <= MOST_TOGETHER:
        raise InvalidInput({"profiles": f"Choose from 1 to {MOST_TOGETHER} profiles."})
    together = new_id()
    filed: list[AccessRequest] = []
    errors: dict[str, str] = {}
    unproved: list[StepUpNeeded] = []
    for pk in ids:
        try:
            with transaction.atomic():
                filed.append(
                    file_request(
                        by=by,
                        profile_id=pk,
                        justification=justification,
                        together=together if len(ids) > 1 else None,
                        **ask,
                    )
                )
        except InvalidInput as error:
            errors |= {f"{pk}.{name}": message for name, message in error.errors.items()}
        except StepUpNeeded as error:
            unproved.append(error)
    if errors:
        raise InvalidInput(errors)
    if unproved:
        raise stepup.together(unproved)
    return filed


@transaction.atomic
def cancel_request(
    *, by: User, request_id: uuid.UUID | str, expected: Expected = ANYTHING
) -> AccessRequest:
    """Take a pending request back. Raises NotFound, Forbidden, AlreadyDecided, and
    PreconditionFailed."""
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_cancel(by, request)
    check_pending(request)
    expected.check(request)
    decide(request, RequestState.CANCELLED, by=by)
    record(Event.REQUEST_CANCELLED, by=by, about=request, related=(request.profile.endpoint,))
    notices.cancelled(request)
    return request
