"""What holds for one profile: its policy and its endpoint's, the strictest of each item.

Everything here is a function of documents and facts; `manage.py policy test` runs the same.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accessrequests.policy import cel
from accessrequests.policy.document import (
    BreakGlass,
    Constraint,
    Limits,
    PolicyDocument,
    Reviewers,
    Step,
    Ticket,
    iso,
)
from accessrequests.policy.facts import Facts
from audit.templatetags.keyturn import duration as in_words

# What holds where nobody wrote a policy: one of those whom the profile names.
DEFAULT = PolicyDocument(
    slug="default",
    name="One reviewer",
    steps=(Step(name="Review", reviewers=Reviewers(profile_reviewers=True)),),
    limits=Limits(latest_start=dt.timedelta(days=7)),
)


@dataclass(frozen=True)
class Source:
    """One policy that went into it; version 0 is the built-in one."""

    slug: str
    version: int
    document: PolicyDocument


@dataclass(frozen=True)
class NeededStep:
    """A step, and whether this ask has to take it."""

    step: Step
    skipped: bool


@dataclass(frozen=True)
class Ruling:
    """What policy says to one ask: `problems` by field, and how it would be decided."""

    problems: dict[str, str]
    automatic: bool
    steps: tuple[NeededStep, ...]


def _shortest(values: Iterable[dt.timedelta | None]) -> dt.timedelta | None:
    return min((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class Effective:
    """The policies of one profile, as one."""

    sources: tuple[Source, ...]
    default_duration: dt.timedelta
    max_duration: dt.timedelta
    pending_timeout: dt.timedelta

    @property
    def documents(self) -> tuple[PolicyDocument, ...]:
        """The documents that went into it."""
        return tuple(source.document for source in self.sources)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, the endpoint's before the profile's.

        Where both policies ask the same people under the same condition, the higher count holds
        once. Two steps of one policy stay two, whomever they ask.
        """
        found: list[Step] = []
        for document in self.documents:
            earlier = list(enumerate(found))
            for step in document.steps:
                same = next(
                    (
                        each
                        for each in earlier
                        if (each[1].reviewers, each[1].skip_when, each[1].escalation)
                        == (step.reviewers, step.skip_when, step.escalation)
                    ),
                    None,
                )
                if same is None:
                    found.append(step)
                    continue
                earlier.remove(same)
                if step.approvals > same[1].approvals:
                    found[same[0]] = step
        return tuple(found)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """All of them must hold."""
        return tuple(item for document in self.documents for item in document.constraints)

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """All of them must be met."""
        return tuple(d.limits.ticket for d in self.documents if d.limits.ticket is not None)

    @property
    def latest_start(self) -> dt.timedelta | None:
        """How far ahead a start may lie; None where none may be chosen."""
        if any(document.limits.latest_start is None for document in self.documents):
            return None
        return _shortest(document.limits.latest_start for document in self.documents)

    @property
    def justification_length(self) -> int:
        """The fewest characters of a justification."""
        return max(document.limits.justification_length for document in self.documents)

    @property
    def requester_factor_age(self) -> dt.timedelta | None:
        """How long ago the requester may have proved a second factor; None for no need."""
        return _shortest(document.limits.requester_factor_age for document in self.documents)

    @property
    def reviewer_factor_age(self) -> dt.timedelta | None:
        """How long ago a reviewer may have proved a second factor; None for no need."""
        return _shortest(document.limits.reviewer_factor_age for document in self.documents)

    @property
    def break_glass(self) -> BreakGlass | None:
        """Who may have access before review: only whom each of the policies names."""
        each = [document.break_glass for document in self.documents]
        given = [item for item in each if item is not None]
        if len(given) < len(each):
            return None
        groups = set(given[0].groups).intersection(*(item.groups for item in given))
        return BreakGlass(
            groups=tuple(sorted(groups)),
            max_duration=min(self.max_duration, *(item.max_duration for item in given)),
            review_within=min(item.review_within for item in given),
        )

    def may_break_glass(self, groups: Iterable[str]) -> bool:
        """Whether a member of these groups may."""
        allowed = self.break_glass
        return allowed is not None and not set(allowed.groups).isdisjoint(groups)

    def decide(self, facts: Facts) -> Ruling:
        """What this ask would come to. Where an agent asks on somebody's behalf, the stricter of
        what it comes to for the agent and for that person: their rights are its ceiling."""
        ruling = self._decide(facts)
        if facts.behalf is None:
            return ruling
        theirs = self._decide(facts.as_person())
        problems = {
            name: f"For {facts.behalf.email}: {message}"
            for name, message in theirs.problems.items()
            if name not in ruling.problems
        }
        return Ruling(
            ruling.problems | problems,
            ruling.automatic and theirs.automatic,
            tuple(
                NeededStep(agents.step, agents.skipped and persons.skipped)
                for agents, persons in zip(ruling.steps, theirs.steps, strict=True)
            ),
        )

    def _decide(self, facts: Facts) -> Ruling:
        problems = self._problems(facts)
        variables = facts.for_cel()
        for constraint in self.constraints:
            if not cel.compile(constraint.expression).holds(variables):
                problems["policy"] = " ".join(
                    filter(None, [problems.get("policy", ""), constraint.message])
                )
        automatic = not facts.break_glass and all(
            document.auto_approve_when is not None
            and (facts.risk != "critical" or document.auto_approve_critical)
            and cel.compile(document.auto_approve_when).holds(variables)
            for document in self.documents
        )
        steps = [
            NeededStep(
                step, bool(step.skip_when) and cel.compile(step.skip_when or "").holds(variables)
            )
            for step in self.steps
        ]
        # Only auto_approve_when dispenses with people: if all would be skipped, the last isn't.
        if all(needed.skipped for needed in steps):
            steps[-1] = NeededStep(steps[-1].step, skipped=False)
        return Ruling(problems, automatic, tuple(steps))

    def _problems(self, facts: Facts) -> dict[str, str]:
        problems: dict[str, str] = {}
        longest = self.max_duration
        if facts.break_glass:
            allowed = self.break_glass
            if allowed is None or not self.may_break_glass(facts.groups):
                problems["break_glass"] = (
                    "The policy lets nobody have this before a review."
                    if allowed is None or not allowed.groups
                    else f"Only for members of {', '.join(allowed.groups)}."
                )
            else:
                longest = allowed.max_duration
            if facts.starts_at is not None:
                problems["starts_at"] = "Break-glass access begins at once."
        if facts.duration > longest:
            problems["duration"] = f"Must be at most {in_words(longest)}" + (
                " without a review." if facts.break_glass else " for this profile."
            )
        problems |= self._start_problem(facts)
        if len(facts.justification) < self.justification_length:
            problems["justification"] = (
                "Say what you need it for: your reviewer decides by this."
                if not facts.justification
                else f"Say more: at least {self.justification_length} characters."
            )
        for ticket in self.tickets:
            if not facts.ticket:
                if ticket.required:
                    problems["ticket"] = "Name the ticket that this is for."
            elif ticket.pattern and not cel.matches(facts.ticket, ticket.pattern):
                problems["ticket"] = f"Must be a ticket that matches {ticket.pattern}."
        return problems

    def _start_problem(self, facts: Facts) -> dict[str, str]:
        if facts.starts_at is None or facts.break_glass or facts.extension:
            return {}
        if self.latest_start is None:
            return {"starts_at": "This profile's access begins when it is approved: leave it out."}
        if facts.starts_at <= facts.now:
            return {"starts_at": "Must be in the future; leave it out to begin at approval."}
        if facts.starts_at > facts.now + self.latest_start:
            return {"starts_at": f"Must be within {in_words(self.latest_start)} from now."}
        return {}

    def snapshot(self, ruling: Ruling) -> dict[str, Any]:
        """What applied, as the request keeps it for ever."""
        factor = {
            "requester_factor_age": self.requester_factor_age,
            "reviewer_factor_age": self.reviewer_factor_age,
        }
        return {
            "policies": [
                {"slug": source.slug, "version": source.version, "name": source.document.name}
                for source in self.sources
            ],
            "steps": [
                needed.step.model_dump(mode="json", exclude_defaults=True)
                | {"approvals": needed.step.approvals, "skipped": needed.skipped}
                for needed in ruling.steps
            ],
            "constraints": [item.model_dump(mode="json") for item in self.constraints],
            "automatic": ruling.automatic,
            "max_duration": iso(self.max_duration),
            "pending_timeout": iso(self.pending_timeout),
        } | {name: iso(value) for name, value in factor.items() if value is not None}


def effective(
    sources: Sequence[Source],
    *,
    default_duration: dt.timedelta,
    max_duration: dt.timedelta,
    pending_timeout: dt.timedelta,
) -> Effective:
    """The policies of a profile as one, with the profile's own limits; the endpoint's come first.

    Without any, the built-in one holds.
    """
    sources = tuple(sources) or (Source(DEFAULT.slug, 0, DEFAULT),)
    limits = [source.document.limits for source in sources]
    longest = min([max_duration, *(x.max_duration for x in limits if x.max_duration)])
    defaults = [x.default_duration for x in limits if x.default_duration] or [default_duration]
    return Effective(
        sources=tuple(sources),
        default_duration=min([*defaults, longest]),
        max_duration=longest,
        pending_timeout=min(
            [pending_timeout, *(x.pending_timeout for x in limits if x.pending_timeout)]
        ),
    )
