"""What a policy would have done to the requests of the last weeks."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Prefetch, Q

from accessrequests.facts import effective_for, facts_about, sources_of
from accessrequests.models import AccessRequest
from accessrequests.policy.document import PolicyDocument
from accessrequests.policy.effective import Effective, Ruling, Source
from accounts.models import Group
from audit import clock
from endpoints.models import AccessProfile

SINCE = dt.timedelta(days=30)
MOST = 1000


@dataclass(frozen=True)
class Otherwise:
    """One past request on which the two would have differed, in words."""

    request: AccessRequest
    before: str
    after: str


@dataclass(frozen=True)
class Replay:
    """`looked_at` requests of the last weeks; those that would have been decided otherwise."""

    looked_at: int
    otherwise: list[Otherwise]
    since: dt.datetime


def _in_words(ruling: Ruling) -> str:
    if ruling.problems:
        return "refused: " + " ".join(ruling.problems.values())
    if ruling.automatic:
        return "decided automatically"
    needed = [needed.step for needed in ruling.steps if not needed.skipped]
    return ", then ".join(
        f"{step.name} ({step.approvals} approval{'s' if step.approvals > 1 else ''})"
        for step in needed
    )


def _with(document: PolicyDocument, profile: AccessProfile) -> Effective:
    """What would hold for this profile if this document were the current one."""
    name = f"{profile.endpoint.slug}/{profile.slug}"
    sources = [s for s in sources_of(profile) if s.slug != document.slug]
    ours = Source(document.slug, 0, document)
    if profile.endpoint.slug in document.applies_to.endpoints:
        sources = [ours, *sources]
    elif name in document.applies_to.profiles:
        sources = [*sources, ours]
    return effective_for(profile, sources)


def replay(document: PolicyDocument) -> Replay:
    """Judge the last weeks' requests by the policies as they are, and with this one in place.

    Requesters count with the groups that they have now: what they had then isn't kept. At most a
    thousand requests, the newest, are looked at.
    """
    since = clock.now() - SINCE
    names = [name.partition("/") for name in document.applies_to.profiles]
    governed = Q(endpoint__slug__in=document.applies_to.endpoints)
    for endpoint, _, slug in names:
        governed |= Q(endpoint__slug=endpoint, slug=slug)
    governed |= Q(policy_binding__policy__slug=document.slug)
    governed |= Q(endpoint__policy_binding__policy__slug=document.slug)
    profiles = {
        profile.pk: profile
        for profile in AccessProfile.objects.filter(governed)
        .select_related("endpoint", "reviewers")
        .distinct()
    }
    pairs = {
        pk: (effective_for(profile), _with(document, profile)) for pk, profile in profiles.items()
    }
    rows: Sequence[AccessRequest] = list(
        AccessRequest.objects.filter(profile__in=profiles, created_at__gt=since)
        .select_related("requester", "on_behalf_of")
        .prefetch_related(
            Prefetch("requester__member_of", queryset=Group.objects.all()),
            Prefetch("on_behalf_of__member_of", queryset=Group.objects.all()),
        )
        .order_by("-id")[:MOST]
    )
    otherwise = []
    for row in rows:
        profile = profiles[row.profile_id]
        facts = facts_about(
            row.requester,
            profile,
            scope=row.asked,
            duration=row.duration,
            now=row.created_at,
            ticket=row.ticket,
            justification=row.justification,
            starts_at=row.starts_at,
            extension=row.extends_id is not None,
            raises=row.raises_id is not None,
            break_glass=row.break_glass,
            groups=row.requester.member_of.all(),
            on_behalf_of=row.on_behalf_of,
            run=row.run,
            task=row.task,
        )
        before, after = (_in_words(each.decide(facts)) for each in pairs[row.profile_id])
        if before != after:
            row.profile = profile
            otherwise.append(Otherwise(row, before, after))
    return Replay(len(rows), otherwise, since)
