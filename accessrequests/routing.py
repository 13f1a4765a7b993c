"""To whom a request goes: from the reviewers that a policy names to people."""

import datetime as dt
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Q

from accessrequests.models import Absence, AccessRequest, Route
from accessrequests.policy.document import Reviewers, Step, duration_of
from accounts.models import Group, Membership, User
from audit.templatetags.keyturn import or_list
from endpoints.models import AccessProfile, Endpoint

# A queue is ordered by when each must be decided; risk brings it forward by so much.
FORWARD = {
    Endpoint.Risk.LOW: dt.timedelta(0),
    Endpoint.Risk.ELEVATED: dt.timedelta(hours=4),
    Endpoint.Risk.CRITICAL: dt.timedelta(hours=12),
}
# Access that is on already, and whose review is owed, comes before all that isn't.
OWED_FORWARD = dt.timedelta(days=366)


def linked_to(requester: User, behalf: User | None = None) -> Q:
    """People whose approval would be the requester's own, or theirs on whose behalf it's asked,
    and programs, which approve nothing."""
    linked = Q(pk=requester.pk) | Q(owner__isnull=False)
    if behalf is not None:
        linked |= Q(pk=behalf.pk)
    return linked | Q(pk=requester.owner_id) if requester.owner_id else linked


def people(
    reviewers: Reviewers, profile: AccessProfile, requester: User, behalf: User | None = None
) -> list[User]:
    """The active people whom this names, without the requester, on whose behalf they ask, and
    whoever is linked to them."""
    named = Q(memberships__group__slug__in=reviewers.groups) | Q(email__in=reviewers.people)
    if reviewers.endpoint_owner:
        named |= Q(pk=profile.endpoint.owner_id)
    if reviewers.requester_manager and requester.manager_id:
        named |= Q(pk=requester.manager_id)
    if reviewers.profile_reviewers:
        named |= Q(memberships__group=profile.reviewers_id)
    return list(
        User.objects.active().filter(named).exclude(linked_to(requester, behalf)).distinct()
    )


def in_words(
    reviewers: Reviewers, profile: AccessProfile, names: Mapping[str, str] | None = None
) -> str:
    """Whom this names, as a sentence says it; `names` are those of groups, where known already."""
    groups = names
    if groups is None:
        groups = dict(Group.objects.filter(slug__in=reviewers.groups).values_list("slug", "name"))
    found = [groups.get(slug, slug) for slug in reviewers.groups]
    found += reviewers.people
    if reviewers.profile_reviewers and profile.reviewers.name not in found:
        found.append(profile.reviewers.name)
    if reviewers.endpoint_owner:
        found.append("the endpoint’s owner")
    if reviewers.requester_manager:
        found.append("the requester’s manager")
    return or_list(found)


@dataclass(frozen=True)
class RoutedStep:
    """A step and the people whom it reaches; `later` can be reached by escalation."""

    step: Step
    skipped: bool
    people: list[User]
    later: list[User]


def unfilled(slots: Sequence[Collection[object]]) -> int | None:
    """The first slot that can't be filled, each candidate filling one at most; None if all can.

    A bipartite matching by augmenting paths (Kuhn's algorithm).
    """
    taken: dict[object, int] = {}

    def fill(slot: int, tried: set[object]) -> bool:
        for candidate in slots[slot]:
            if candidate in tried:
                continue
            tried.add(candidate)
            if candidate not in taken or fill(taken[candidate], tried):
                taken[candidate] = slot
                return True
        return False

    return next((slot for slot in range(len(slots)) if not fill(slot, set())), None)


def unreachable(steps: Iterable[RoutedStep]) -> RoutedStep | None:
    """The first step that lacks people for its approvals, each deciding once; None if none does."""
    slots = [
        (routed, {person.pk for person in [*routed.people, *routed.later]})
        for routed in steps
        if not routed.skipped
        for _ in range(routed.step.approvals)
    ]
    lacking = unfilled([candidates for _, candidates in slots])
    return None if lacking is None else slots[lacking][0]


def lay_routes(
    request: AccessRequest, at: int, reviewers: Reviewers, *, waiting: bool, escalated: bool = False
) -> None:
    """Record how this step of the request reaches those whom its policy names."""
    profile, via = request.profile, Route.Via
    ways: list[tuple[Route.Via, Group | None, uuid.UUID | None]] = [
        (via.GROUP, group, None) for group in Group.objects.filter(slug__in=reviewers.groups)
    ]
    if reviewers.profile_reviewers:
        ways.append((via.PROFILE_REVIEWERS, profile.reviewers, None))
    if reviewers.people:
        named = User.objects.filter(email__in=reviewers.people)
        ways += [(via.PERSON, None, pk) for pk in named.values_list("pk", flat=True)]
    if reviewers.endpoint_owner:
        ways.append((via.ENDPOINT_OWNER, None, profile.endpoint.owner_id))
    if reviewers.requester_manager and request.requester.manager_id:
        ways.append((via.REQUESTER_MANAGER, None, request.requester.manager_id))
    forward = FORWARD[Endpoint.Risk(profile.endpoint.risk)]
    sort_at = request.decide_by - (OWED_FORWARD if request.break_glass else forward)
    Route.objects.bulk_create(
        (
            Route(
                request=request,
                step=at,
                via=way,
                group=group,
                person_id=person,
                waiting=waiting,
                escalated=escalated,
                sort_at=sort_at,
            )
            for way, group, person in ways
        ),
        ignore_conflicts=True,
    )


def wait_at(request: AccessRequest, step: int | None) -> None:
    """From now on only this step's routes wait; none of them when it's None."""
    rows = Route.objects.filter(request=request)
    if step is None:
        rows.filter(waiting=True).update(waiting=False)
        return
    rows.exclude(step=step).filter(waiting=True).update(waiting=False)
    rows.filter(step=step).update(waiting=True)


def escalate_at(request: AccessRequest, number: int) -> dt.datetime | None:
    """When this escalation, by its number, of the step that waits is due; None where there is none.

    At once where those whom it has reached so far are too few for the approvals that it lacks.
    """
    step = request.policy["steps"][request.step]
    chain = step.get("escalation", [])
    if number >= len(chain):
        return None
    reviews = request.reviews.values_list("reviewer", "step", "verdict")
    done = {reviewer for reviewer, _, _ in reviews}
    given = sum(each[1:] == (request.step, "approve") for each in reviews)
    free = [person for person in reviewers_of([request])[request.pk] if person.pk not in done]
    if len(free) < step["approvals"] - given:
        return request.step_since
    return request.step_since + duration_of(chain[number]["after"])


def holds(route: Route, person: User) -> bool:
    """Whether this route leads to this person, by what is true at this moment."""
    request = route.request
    match route.via:
        case Route.Via.GROUP:
            return route.group is not None and route.group.has(person)
        case Route.Via.PERSON:
            return route.person_id == person.pk
        case Route.Via.ENDPOINT_OWNER:
            return request.profile.endpoint.owner_id == person.pk
        case Route.Via.REQUESTER_MANAGER:
            return request.requester.manager_id == person.pk
        case Route.Via.PROFILE_REVIEWERS:
            return request.profile.reviewers.has(person)
    return False


def may_decide(person: User, request: AccessRequest, step: int) -> bool:
    """Whether this person is, at this moment, one of those who decide this step."""
    if not User.objects.active().filter(pk=person.pk, owner=None).exists():
        return False
    routes = Route.objects.filter(request=request, step=step).select_related("group")
    return any(holds(_with(route, request), person) for route in routes)


def _with(route: Route, request: AccessRequest) -> Route:
    route.request = request
    return route


def reviewers_of(requests: Iterable[AccessRequest]) -> dict[object, list[User]]:
    """For each request, the people for whom it waits; in three queries however many there are."""
    rows = {request.pk: request for request in requests}
    routes = list(Route.objects.filter(request__in=rows, waiting=True))
    members: dict[object, list[User]] = {}
    memberships = (
        Membership.objects.filter(
            group__in={route.group_id for route in routes if route.group_id},
            user__is_active=True,
            user__owner=None,
        )
        .select_related("user")
        .order_by("user__full_name", "user__pk")
    )
    for membership in memberships:
        members.setdefault(membership.group_id, []).append(membership.user)
    persons = User.objects.active().in_bulk({r.person_id for r in routes if r.person_id})
    found: dict[object, dict[object, User]] = {pk: {} for pk in rows}
    for route in routes:
        reached = members.get(route.group_id, []) if route.group_id else []
        if route.person_id in persons:
            reached = [persons[route.person_id]]
        for person in reached:
            if not rows[route.request_id].is_own(person):
                found[route.request_id][person.pk] = person
    return {
        pk: sorted(each.values(), key=lambda person: (person.full_name, str(person.pk)))
        for pk, each in found.items()
    }


def told_for(told: Iterable[User], eligible: Callable[[User], bool]) -> dict[User, User | None]:
    """Whom to tell: each person, or the delegate of one who is away and whose delegate may decide.

    The value is the absent person in whose place somebody is told.
    """
    wanted = {person.pk: person for person in told}
    away = Absence.objects.now().filter(person__in=wanted).select_related("delegate")
    instead = {absence.person_id: absence.delegate for absence in away}
    found: dict[User, User | None] = {
        person: None for person in wanted.values() if person.pk not in instead
    }
    for pk, delegate in instead.items():
        if delegate is not None and delegate.is_active and eligible(delegate):
            found.setdefault(delegate, wanted[pk])
        else:
            # Nobody eligible stands in: better told while away than not at all.
            found.setdefault(wanted[pk], None)
    return found
