"""What an ask would come to, in words for the person who asks."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from accessrequests.actions import Preview, preview_request
from accessrequests.dossier import differences
from accessrequests.facts import effective_for, facts_about, sources_for
from accessrequests.policy.effective import Effective
from accessrequests.routing import RoutedStep, in_words
from accounts.models import Group, User
from audit import clock
from audit.templatetags.keyturn import and_list, duration, or_list
from broker.errors import InvalidInput
from endpoints import wording
from endpoints.models import AccessProfile

NAMES = 5


def some_of(people: Iterable[User]) -> list[str]:
    """The names of these people; of many, the first few and how many others there are."""
    names = [str(person) for person in people]
    if len(names) > NAMES:
        names[NAMES - 1 :] = [f"{len(names) - NAMES + 1} others"]
    return names


@dataclass(frozen=True)
class StepWords:
    """One step of a preview, in words."""

    title: str
    notes: list[str]
    skipped: bool = False


def steps_in_words(asked: Preview) -> list[StepWords]:
    """Who would have to approve this, step by step, and who is asked when nobody decides."""
    needed = len(asked.needed)
    found, place = [], 0
    for routed in asked.steps:
        if routed.skipped:
            found.append(StepWords(routed.step.name, ["Not needed for this ask"], skipped=True))
            continue
        place += 1
        notes = [f"Step {place} of {needed}: {routed.step.name}"] if needed > 1 else []
        words = _step(routed, asked.profile, notes)
        if place == needed:
            ends = " or when your access ends" if asked.extends or asked.raises else ""
            words.notes.append(
                f"Undecided, it expires after {duration(asked.pending_timeout)}{ends}"
            )
        found.append(words)
    return found


def told_at_once(asked: Preview) -> list[str]:
    """Who is told when this is taken before a review: whom it goes past, and the owner."""
    told = {person.pk: person for routed in asked.needed for person in routed.people}
    owner = asked.profile.endpoint.owner
    told.setdefault(owner.pk, owner)
    return some_of(told.values())


def _step(routed: RoutedStep, profile: AccessProfile, notes: list[str]) -> StepWords:
    count, asked_first = routed.step.approvals, routed.people
    escalation = routed.step.escalation
    if len(asked_first) < count:
        # Those who come later are asked at once then.
        first = {person.pk for person in asked_first}
        asked_first = [*asked_first, *(p for p in routed.later if p.pk not in first)]
        escalation = ()
    names = or_list(some_of(asked_first))
    title = f"{names} decides" if count == 1 else f"{count} of {names} approve"
    notes += [
        f"After {duration(entry.after)} without a decision also {in_words(entry.to, profile)}"
        for entry in escalation
    ]
    return StepWords(title, notes)


def seen(asked: Preview) -> list[str]:
    """What a reviewer would read first: how this differs from the default, or from what is had."""
    if asked.raises is not None:
        return wording.raised(asked.scope, asked.raises.allowed)
    return differences(asked.profile, asked.duration, asked.scope, asked.effective.default_duration)


def cost(by: User, asked: Preview, *, ticket: str, justification: str) -> str:
    """What was chosen beyond the default costs in decisions; empty where that's nothing."""
    profile, holds = asked.profile, asked.effective
    as_default = asked.duration <= holds.default_duration and asked.scope == profile.default_scope
    if as_default or asked.automatic or asked.break_glass or asked.extends or asked.raises:
        return ""
    try:
        usual = preview_request(
            by=by, profile_id=profile.pk, ticket=ticket, justification=justification
        )
    except InvalidInput:
        return ""
    length = duration(usual.duration)
    if usual.automatic:
        return f"The default, {length}, would be decided automatically. This waits for a person."
    before = {routed.step.name for routed in usual.needed}
    more = [routed.step.name for routed in asked.needed if routed.step.name not in before]
    if not more:
        return ""
    return f"The default, {length}, wouldn’t need {and_list(more)}."


@dataclass(frozen=True)
class Offered:
    """A profile as the catalogue offers it: within its policy, and who decides on its default."""

    profile: AccessProfile
    is_open: bool
    holds: Effective
    automatic: bool
    deciders: str


def offered(user: User, profiles: Iterable[AccessProfile], open_ids: set[object]) -> list[Offered]:
    """These profiles as this person may ask for them; in three queries however many they are."""
    profiles = list(profiles)
    sources = sources_for(profiles)
    mine = list(Group.objects.filter(memberships__user=user))
    named = {
        slug
        for found in sources.values()
        for source in found
        for step in source.document.steps
        for slug in step.reviewers.groups
    }
    names = dict(Group.objects.filter(slug__in=named).values_list("slug", "name"))
    now = clock.now()
    return [
        _offer(user, profile, profile.pk in open_ids, holds, mine, names, now)
        for profile in profiles
        for holds in [effective_for(profile, sources[profile.pk])]
    ]


def _offer(
    user: User,
    profile: AccessProfile,
    is_open: bool,
    holds: Effective,
    groups: list[Group],
    names: dict[str, str],
    now: dt.datetime,
) -> Offered:
    ruling = holds.decide(
        facts_about(
            user,
            profile,
            scope=profile.default_scope,
            duration=holds.default_duration,
            now=now,
            groups=groups,
        )
    )
    steps = [needed.step for needed in ruling.steps if not needed.skipped]
    words = list(dict.fromkeys(in_words(step.reviewers, profile, names) for step in steps))
    return Offered(
        profile=profile,
        is_open=is_open,
        holds=holds,
        automatic=is_open and ruling.automatic and "policy" not in ruling.problems,
        deciders=", then ".join(words).replace("the requester’s manager", "your manager"),
    )
