"""From rows to what policy judges by."""

import datetime as dt
from collections.abc import Iterable
from functools import lru_cache

from django.db.models import Q

from accessrequests.models import AccessRequest, PolicyBinding, PolicyVersion
from accessrequests.policy.effective import Effective, Source, effective
from accessrequests.policy.facts import Behalf, Facts
from accounts.models import Group, User
from endpoints.models import AccessProfile
from endpoints.scope import Scope


@lru_cache(maxsize=256)
def _source(version: PolicyVersion) -> Source:
    # Versions never change, so what was parsed once stays right.
    return version.source()


def sources_for(profiles: Iterable[AccessProfile]) -> dict[object, list[Source]]:
    """For each profile the current versions of its policies, its endpoint's first; one query."""
    rows = list(profiles)
    bindings = PolicyBinding.objects.filter(
        Q(profile__in=rows) | Q(endpoint__in={row.endpoint_id for row in rows})
    ).select_related("policy__current__policy")
    by_target: dict[object, Source] = {}
    for binding in bindings:
        version = binding.policy.current
        if version is not None and binding.policy.retired_at is None:
            by_target[binding.endpoint_id or binding.profile_id] = _source(version)
    found: dict[object, list[Source]] = {}
    for row in rows:
        both = (by_target.get(row.endpoint_id), by_target.get(row.pk))
        # The same policy may govern both.
        once = {(source.slug, source.version): source for source in both if source is not None}
        found[row.pk] = list(once.values())
    return found


def sources_of(profile: AccessProfile) -> list[Source]:
    """The current versions of the policies that govern this profile, its endpoint's first."""
    return sources_for([profile])[profile.pk]


def effective_for(profile: AccessProfile, sources: Iterable[Source] | None = None) -> Effective:
    """What holds for this profile at this moment."""
    return effective(
        list(sources) if sources is not None else sources_of(profile),
        default_duration=profile.default_duration,
        max_duration=profile.max_duration,
        pending_timeout=profile.pending_timeout,
    )


def facts_about(
    requester: User,
    profile: AccessProfile,
    *,
    scope: Scope,
    duration: dt.timedelta,
    now: dt.datetime,
    ticket: str = "",
    justification: str = "",
    starts_at: dt.datetime | None = None,
    extension: bool = False,
    raises: bool = False,
    break_glass: bool = False,
    groups: Iterable[Group] | None = None,
    on_behalf_of: User | None = None,
    run: str = "",
    task: str = "",
) -> Facts:
    """One ask as policy sees it, with the requester's groups as they are at this moment.

    `groups` spares the query where many asks are judged at once.
    """
    endpoint = profile.endpoint
    if groups is None:
        groups = Group.objects.filter(memberships__user=requester)
    groups = list(groups)
    return Facts(
        email=requester.email,
        groups=frozenset(group.slug for group in groups),
        is_service=requester.is_service,
        on_call=any(group.is_rota for group in groups),
        profile=profile.slug,
        duration=duration,
        models=scope.models,
        ticket=ticket,
        justification=justification,
        starts_at=starts_at,
        extension=extension,
        raises=raises,
        break_glass=break_glass,
        endpoint=endpoint.slug,
        kind=endpoint.kind,
        environment=endpoint.environment,
        risk=endpoint.risk,
        connected_systems=tuple(endpoint.connected_systems),
        now=now,
        credential=profile.credential_kind,
        revocation=profile.revocation,
        tools=scope.tools,
        mcp_hosts=scope.mcp_hosts,
        operations=scope.operations,
        max_output_tokens=scope.max_output_tokens,
        requests_per_minute=scope.requests_per_minute,
        concurrency=scope.concurrency,
        token_budget=scope.token_budget,
        cost_budget=scope.cost_budget,
        agent=requester.is_service,
        behalf=None if on_behalf_of is None else _behalf(on_behalf_of),
        run=run,
        task=task,
    )


def _behalf(person: User) -> Behalf:
    groups = person.member_of.all()
    return Behalf(
        email=person.email,
        groups=frozenset(group.slug for group in groups),
        on_call=any(group.is_rota for group in groups),
    )


def facts_of(
    request: AccessRequest, now: dt.datetime, *, scope: Scope, duration: dt.timedelta
) -> Facts:
    """A filed request as policy sees it at this moment, as far as it was approved."""
    return facts_about(
        request.requester,
        request.profile,
        scope=scope,
        duration=duration,
        now=now,
        ticket=request.ticket,
        justification=request.justification,
        # What was in time when it was filed isn't too late for having waited.
        starts_at=request.starts_at if request.starts_at and request.starts_at > now else None,
        extension=request.extends_id is not None,
        raises=request.raises_id is not None,
        break_glass=request.break_glass,
        on_behalf_of=request.on_behalf_of,
        run=request.run,
        task=request.task,
    )
