"""The one function that makes a grant, and the ones that end it."""

import datetime as dt
from collections.abc import Callable

from accessrequests import notices
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import EndReason, GrantState
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import KEYTURN, record
from broker.errors import AuthorityLost
from endpoints.scope import Scope

WARNING = dt.timedelta(minutes=10)


def approved_terms(request: AccessRequest) -> tuple[Scope, dt.timedelta, dt.datetime | None]:
    """What was asked for, narrowed by each approval: scope, duration, and a later start."""
    scope, duration, starts_at = request.asked, request.duration, request.starts_at
    for review in request.reviews.filter(verdict=Review.Verdict.APPROVE):
        if review.scope is not None:
            scope = scope & Scope.parse(review.scope)
        duration = min(duration, review.duration or duration)
        starts_at = max(filter(None, [starts_at, review.starts_at]), default=None)
    return scope, duration, starts_at


def start_grant(request: AccessRequest) -> Grant:
    """Make the grant of a request that was approved in this transaction, on its locked row.

    It begins now, or at the later start that was asked for or approved; an extension when the
    grant that it extends ends. Raises AuthorityLost where that has ended meanwhile.
    """
    scope, duration, starts_at = approved_terms(request)
    now = clock.now()
    begin = max(now, starts_at or now)
    if request.extends_id is not None:
        extended = Grant.objects.select_for_update().get(pk=request.extends_id)
        if extended.ended_at is not None or extended.ends_at <= now:
            raise AuthorityLost("The grant that it would extend has ended; ask anew.")
        begin = extended.ends_at
    end = begin + duration
    grant = Grant.objects.create(
        request=request,
        holder=request.requester,
        state=GrantState.SCHEDULED if begin > now else GrantState.ACTIVE,
        scope=scope.as_json(),
        starts_at=begin,
        ends_at=end,
        warn_at=end - max(duration / 10, min(WARNING, duration / 2)),
    )
    record(
        Event.GRANT_SCHEDULED if begin > now else Event.GRANT_STARTED,
        by=None,
        about=grant,
        related=(request.profile.endpoint, request.profile, request.requester, request),
        starts_at=grant.starts_at.isoformat(),
        ends_at=grant.ends_at.isoformat(),
        scope=grant.scope,
    )
    notices.decided(request, grant)
    return grant


def close_grant(grant: Grant, *, reason: EndReason, by: User | None) -> bool:
    """End this grant in the caller's transaction; False if it had ended before.

    Only for `credentials.actions.end_grant`, which takes its credentials back in the same
    transaction: a grant must never end by another path.
    """
    moment = clock.now()
    changed = Grant.objects.filter(pk=grant.pk, ended_at=None).update(
        state=GrantState.ENDED,
        ended_at=moment,
        ended_by=str(by) if by is not None else KEYTURN,
        end_reason=reason,
    )
    if not changed:
        return False
    grant.refresh_from_db(fields=["state", "ended_at", "ended_by", "end_reason"])
    record(
        Event.GRANT_ENDED,
        by=by,
        about=grant,
        related=(grant.request, grant.holder, grant.request.profile.endpoint),
        reason=reason,
    )
    notices.grant_ended(grant, by)
    return True


def followers(grant: Grant) -> list[Grant]:
    """Grants that extend this one and haven't ended, locked."""
    return list(
        Grant.objects.select_for_update(of=("self",))
        .select_related("request__profile__endpoint", "request__requester", "holder")
        .filter(request__extends=grant, ended_at=None)
    )


_end: list[Callable[[Grant, User], None]] = []


def on_denied_afterwards(end: Callable[[Grant, User], None]) -> None:
    """Name what ends a grant whose break-glass review was denied.

    Ending takes credentials back, and `credentials` is above this app.
    """
    _end[:] = [end]


def end_denied(request: AccessRequest, by: User) -> None:
    """End the grant of this break-glass request, if it still runs."""
    grant = Grant.objects.select_for_update().filter(request=request, ended_at=None).first()
    if grant is not None:
        _end[0](grant, by)


def start_scheduled(*, most: int = 500) -> int:
    """Mark scheduled grants whose start has come as active; how many. They hold by the clock."""
    due = (
        Grant.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("request__profile__endpoint", "holder")
        .filter(state=GrantState.SCHEDULED, starts_at__lte=clock.now(), ended_at=None)[:most]
    )
    for grant in due:
        grant.state = GrantState.ACTIVE
        grant.save(update_fields=["state"])
        record(
            Event.GRANT_STARTED,
            by=None,
            about=grant,
            related=(grant.request, grant.holder, grant.request.profile.endpoint),
            ends_at=grant.ends_at.isoformat(),
        )
        notices.grant_started(grant)
    return len(due)
