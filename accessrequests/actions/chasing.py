"""What is due by the clock: expiry, escalation, reminders, scheduled starts, warnings.

Rows are the queue: each function claims what is due with SKIP LOCKED, and what a dead worker left
behind is found by the next sweep.
"""

import datetime as dt
from collections.abc import Callable

from django.db import transaction
from django.db.models import F, Q, QuerySet

from accessrequests import notices
from accessrequests.actions.deciding import decide
from accessrequests.actions.granting import start_scheduled
from accessrequests.models import AccessRequest, Grant, Route
from accessrequests.policy.document import Reviewers
from accessrequests.routing import escalate_at, lay_routes
from accessrequests.states import RequestState
from accounts.behalf import let_by
from audit import clock
from audit.events import Event
from audit.record import record

MOST = 200
# Reminders come halfway to the time by which a decision is needed, halfway again, and so on.
LAST_REMINDER = dt.timedelta(minutes=5)
OVERDUE = dt.timedelta(hours=4)  # between two reminders of a review that is overdue


def chase() -> int:
    """Everything of requests and grants that is due at this moment; how much."""
    return (
        expire_requests()
        + _once(_take_back)
        + _once(start_scheduled)
        + _once(_reroute)
        + _once(_escalate)
        + _once(_remind)
        + _once(_warn)
    )


def _once(work: Callable[[], int]) -> int:
    with transaction.atomic():
        return work()


def _claimed() -> QuerySet[AccessRequest]:
    rows = AccessRequest.objects.select_for_update(skip_locked=True, of=("self",))
    return rows.select_related("profile__endpoint__owner", "profile__reviewers", "requester")


@transaction.atomic
def expire_requests(*, most: int = 500) -> int:
    """Expire undecided requests whose time is up; how many."""
    due = _claimed().filter(state=RequestState.PENDING, pending_until__lte=clock.now())[:most]
    for request in due:
        decide(request, RequestState.EXPIRED, by=None)
        record(
            Event.REQUEST_EXPIRED,
            by=None,
            about=request,
            related=(request.profile.endpoint, request.requester),
        )
        notices.expired(request)
    return len(due)


def _take_back() -> int:
    """Take back what was asked by or for people who are deactivated since, and by agents whom
    their person no longer lets; how much."""
    gone = (
        Q(requester__is_active=False)
        | Q(requester__owner__is_active=False)
        | Q(on_behalf_of__is_active=False)
    )
    unlet = Q(on_behalf_of__isnull=False) & ~let_by("on_behalf_of", "requester")
    return _cancel(gone, "requester_deactivated") + _cancel(unlet, "consent_taken_back")


def _cancel(lost: Q, reason: str) -> int:
    due = _claimed().filter(lost, state=RequestState.PENDING)[:MOST]
    for request in due:
        decide(request, RequestState.CANCELLED, by=None)
        record(
            Event.REQUEST_CANCELLED,
            by=None,
            about=request,
            related=(request.profile.endpoint, request.requester),
            reason=reason,
        )
        notices.cancelled(request)
    return len(due)


def _reroute() -> int:
    """Lead waiting requests to whoever owns the endpoint, manages the requester or reviews the
    profile by now."""
    via = Route.Via
    moved = (
        # The request too: it may be on its way to its next step at this moment.
        Route.objects.select_for_update(skip_locked=True, of=("self", "request"))
        .select_related("request__profile__endpoint", "request__requester")
        .filter(
            Q(via=via.ENDPOINT_OWNER) & ~Q(person=F("request__profile__endpoint__owner"))
            | Q(via=via.PROFILE_REVIEWERS) & ~Q(group=F("request__profile__reviewers"))
            | Q(via=via.REQUESTER_MANAGER) & ~Q(person=F("request__requester__manager")),
            waiting=True,
        )[:MOST]
    )
    for route in moved:
        request = route.request
        route.delete()
        # The same way, by which the step or one of its escalations leads.
        way = Reviewers.model_validate({str(route.via): True})
        lay_routes(request, route.step, way, waiting=True, escalated=route.escalated)
        record(Event.REQUEST_ROUTED, by=None, about=request, related=(request.requester,))
        notices.review_wanted(request)
    return len(moved)


def _escalate() -> int:
    """Ask those whom the policy names for steps that waited too long."""
    due = _claimed().filter(state=RequestState.PENDING, escalate_at__lte=clock.now())[:MOST]
    for request in due:
        chain = request.policy["steps"][request.step]["escalation"]
        at = request.escalations
        to = Reviewers.model_validate(chain[at]["to"])
        lay_routes(request, request.step, to, waiting=True, escalated=True)
        request.escalations, request.escalate_at = at + 1, escalate_at(request, at + 1)
        request.save(update_fields=["escalations", "escalate_at"])
        record(
            Event.REQUEST_ESCALATED,
            by=None,
            about=request,
            related=(request.profile.endpoint, request.requester),
            to=to.model_dump(mode="json", exclude_defaults=True),
        )
        notices.escalated(request)
    return len(due)


def _remind() -> int:
    """Remind those who may decide; of a break-glass review until it is done."""
    now = clock.now()
    waiting = Q(state=RequestState.PENDING) | Q(break_glass=True, reviewed_at=None)
    due = _claimed().filter(waiting, remind_at__lte=now)[:MOST]
    for request in due:
        left = request.decide_by - now
        if left > LAST_REMINDER:
            request.remind_at = now + left / 2
        else:
            request.remind_at = now + OVERDUE if request.break_glass else None
        request.save(update_fields=["remind_at"])
        notices.reminder(request, now)
    return len(due)


def _warn() -> int:
    """Tell holders that their grant ends soon, once."""
    due = (
        Grant.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("request__profile__endpoint", "holder")
        .filter(ended_at=None, warn_at__lte=clock.now())[:MOST]
    )
    for grant in due:
        Grant.objects.filter(pk=grant.pk).update(warn_at=None)
        if not Grant.objects.filter(request__extends=grant, ended_at=None).exists():
            notices.grant_ending(grant)
    return len(due)
