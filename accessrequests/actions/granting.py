"""The one function that makes a grant, and the ones that end it."""

import datetime as dt
from collections.abc import Callable

from accessrequests import notices
from accessrequests.actions.deciding import decide
from accessrequests.models import AccessRequest, Grant, GrantRaise, Review
from accessrequests.states import EndReason, GrantState, RequestState
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import KEYTURN, Entry, record, record_many
from audit.templatetags.keyturn import and_list
from broker.errors import AuthorityLost
from endpoints.scope import BUDGETS, Scope
from endpoints.wording import budgets_in_words

WARNING = dt.timedelta(minutes=10)


def approvals_of(request: AccessRequest) -> list[Review]:
    """Reviews that approve it. Who has prefetched its reviews isn't made to ask for them again."""
    return [each for each in request.reviews.all() if each.verdict == Review.Verdict.APPROVE]


def approved_terms(request: AccessRequest) -> tuple[Scope, dt.timedelta, dt.datetime | None]:
    """What was asked for, narrowed by each approval: scope, duration, and a later start."""
    scope, duration, starts_at = request.asked, request.duration, request.starts_at
    for review in approvals_of(request):
        if review.scope is not None:
            scope = scope & Scope.parse(review.scope)
        duration = min(duration, review.duration or duration)
        starts_at = max(filter(None, [starts_at, review.starts_at]), default=None)
    return scope, duration, starts_at


def fulfil(request: AccessRequest) -> Grant:
    """Give what was approved in this transaction, on its locked row: a grant, or larger budgets
    of one. Raises AuthorityLost where what it builds on has ended meanwhile."""
    return start_grant(request) if request.raises_id is None else raise_grant(request)


def raise_grant(request: AccessRequest) -> Grant:
    """Give a grant the larger budgets that this request was approved for; its credential goes on
    working, and nothing else of it changes."""
    grant = Grant.objects.select_for_update().get(raises_asked=request)
    if grant.ended_at is not None or grant.ends_at <= clock.now():
        raise AuthorityLost("The grant whose budget it would raise has ended; ask anew.")
    scope, _, _ = approved_terms(request)
    before = grant.allowed
    if before.beyond(scope):
        raise AuthorityLost("The grant has more by now than this would give it.")
    row = GrantRaise.objects.create(grant=grant, request=request, scope=scope.as_json())
    record(
        Event.GRANT_RAISED,
        by=None,
        about=grant,
        related=(request.profile.endpoint, request.profile, request.requester, request),
        budgets={key: row.scope[key] for key in BUDGETS if key in row.scope},
        to=and_list(budgets_in_words(scope)),
    )
    notices.raised(request, grant)
    return grant


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


def close_grants(grants: list[Grant], *, reason: EndReason, by: User | None) -> list[Grant]:
    """End these locked grants in the caller's transaction; those that hadn't ended before.

    Only for `credentials.actions.ending`, which takes their credentials back in the same
    transaction: a grant must never end by another path.
    """
    open_ids = set(
        Grant.objects.filter(pk__in=[grant.pk for grant in grants], ended_at=None).values_list(
            "pk", flat=True
        )
    )
    closing = [grant for grant in grants if grant.pk in open_ids]
    if not closing:
        return []
    changes = {
        "state": GrantState.ENDED,
        "ended_at": clock.now(),
        "ended_by": str(by) if by is not None else KEYTURN,
        "end_reason": reason,
    }
    Grant.objects.filter(pk__in=open_ids).update(**changes)
    for grant in closing:
        for name, value in changes.items():
            setattr(grant, name, value)
    record_many(
        Event.GRANT_ENDED,
        by=by,
        entries=[
            Entry(
                grant,
                (grant.request, grant.holder, grant.request.profile.endpoint),
                {"reason": reason},
            )
            for grant in closing
        ],
    )
    notices.grants_ended(closing, by)
    _cancel_raises(closing)
    return closing


def _cancel_raises(grants: list[Grant]) -> None:
    """Nobody needs to decide what a grant that has ended could be given.

    Who approves one at this moment holds its row and waits for the grant's: waiting for theirs
    would be a deadlock. They are refused then, and the request expires with the grant's time.
    """
    waiting = (
        AccessRequest.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("profile__endpoint", "requester")
        .filter(raises__in=grants, state=RequestState.PENDING)
    )
    for request in waiting:
        decide(request, RequestState.CANCELLED, by=None)
        record(
            Event.REQUEST_CANCELLED,
            by=None,
            about=request,
            related=(request.profile.endpoint, request.requester),
        )
        notices.cancelled(request)


def followers(grants: list[Grant]) -> list[Grant]:
    """Grants that extend one of these and haven't ended, locked."""
    return list(
        Grant.objects.select_for_update(of=("self",))
        .select_related("request__profile__endpoint", "request__requester", "holder")
        .filter(request__extends__in=grants, ended_at=None)
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
