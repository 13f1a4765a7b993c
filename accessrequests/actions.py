"""Verbs on requests and grants: one transaction each, with its audit row."""

import datetime as dt
import uuid
from dataclasses import dataclass

from django.db import transaction

from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.permissions import check_cancel, check_review, eligible_reviewers
from accessrequests.states import EndReason, GrantState, RequestState
from accounts.door import fetch
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import KEYTURN, record
from broker.errors import AlreadyDecided, AuthorityLost, InvalidInput, NotFound
from endpoints.models import SHORTEST, AccessProfile
from endpoints.scope import Scope

JUSTIFICATION_LENGTH = 2000
REASON_LENGTH = 1000


@dataclass(frozen=True)
class Preview:
    """What would happen to a request: who could decide it, and until when at the latest."""

    profile: AccessProfile
    scope: Scope
    duration: dt.timedelta
    reviewers: list[User]
    ends_at: dt.datetime


def in_words(duration: dt.timedelta) -> str:
    """A duration as people say it: `1 hour 30 minutes`."""
    minutes = int(duration.total_seconds() // 60)
    days, minutes = divmod(minutes, 24 * 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    return " ".join(f"{n} {word}{'s' if n != 1 else ''}" for n, word in parts if n) or "0 minutes"


def preview_request(
    *,
    by: User,
    profile_id: uuid.UUID | str,
    duration: dt.timedelta | None = None,
    models: list[str] | None = None,
) -> Preview:
    """What filing this request would lead to, without filing it.

    Duration and models default to the profile's. Raises NotFound for a profile that this person
    may not ask for, and InvalidInput for all that is beyond its limits.
    """
    try:
        profile = fetch(AccessProfile.objects.open_to(by), profile_id)
    except NotFound as error:
        raise InvalidInput({"profile": "There is no such profile that you may ask for."}) from error
    errors = {}
    if duration is None:
        duration = profile.default_duration
    if duration < SHORTEST:
        errors["duration"] = (
            f"Must be at least 1 minute and at most {in_words(profile.max_duration)}."
        )
    elif duration > profile.max_duration:
        errors["duration"] = f"Must be at most {in_words(profile.max_duration)} for this profile."
    scope = profile.default_scope
    if models is not None:
        try:
            scope = Scope.parse({"models": models})
        except InvalidInput:
            errors["models"] = "Choose at least one model."
        else:
            beyond = scope.beyond(profile.ceiling)
            if beyond:
                errors["models"] = (
                    f"Not in this profile: {', '.join(sorted(beyond))}. "
                    f"It offers: {', '.join(sorted(profile.ceiling.models))}."
                )
    reviewers = eligible_reviewers(profile.reviewers, by)
    if not reviewers:
        errors["profile"] = (
            f"Nobody could approve this: {profile.reviewers} has no active member other than "
            "yourself. Ask the owner of the endpoint, "
            f"{profile.endpoint.owner}, to add a reviewer."
        )
    if errors:
        raise InvalidInput(errors)
    return Preview(profile, scope, duration, reviewers, clock.now() + duration)


@transaction.atomic
def file_request(
    *,
    by: User,
    profile_id: uuid.UUID | str,
    justification: str,
    duration: dt.timedelta | None = None,
    models: list[str] | None = None,
) -> AccessRequest:
    """Ask for access. Raises InvalidInput, naming each field at fault; nothing is written then."""
    errors = {}
    justification = justification.replace("\r\n", "\n").strip()
    if not justification:
        errors["justification"] = "Say what you need it for: your reviewer decides by this."
    elif len(justification) > JUSTIFICATION_LENGTH:
        errors["justification"] = f"Must be at most {JUSTIFICATION_LENGTH} characters."
    elif "\x00" in justification:
        errors["justification"] = "Must not contain NUL characters."
    try:
        asked = preview_request(by=by, profile_id=profile_id, duration=duration, models=models)
    except InvalidInput as error:
        raise InvalidInput(errors | error.errors) from error
    if errors:
        raise InvalidInput(errors)
    profile = asked.profile
    request = AccessRequest.objects.create(
        profile=profile,
        requester=by,
        scope=asked.scope.as_json(),
        duration=asked.duration,
        justification=justification,
        policy={
            "approvals": 1,
            "reviewers": profile.reviewers.slug,
            "max_duration_seconds": int(profile.max_duration.total_seconds()),
            "ceiling": profile.scope,
        },
        pending_until=clock.now() + profile.pending_timeout,
    )
    record(
        Event.REQUEST_FILED,
        by=by,
        about=request,
        related=(profile.endpoint, profile),
        duration_seconds=int(asked.duration.total_seconds()),
        scope=request.scope,
        waits_for=[person.email for person in asked.reviewers],
    )
    return request


def _check_pending(request: AccessRequest) -> None:
    if request.state != RequestState.PENDING:
        raise AlreadyDecided(
            f"Already {request.get_state_display().lower()} by {request.decided_by} at "
            f"{request.decided_at:%Y-%m-%d %H:%M:%S} UTC; nothing was changed.",
            state=request.state,
            decided_by=request.decided_by,
            decided_at=request.decided_at.isoformat() if request.decided_at else None,
        )
    if request.pending_until <= clock.now():
        raise AlreadyDecided(
            f"Nobody decided by {request.pending_until:%Y-%m-%d %H:%M:%S} UTC, so it expired; "
            "it can be filed again.",
            state=RequestState.EXPIRED,
            decided_by=KEYTURN,
            decided_at=request.pending_until.isoformat(),
        )


def _decide(request: AccessRequest, state: RequestState, by: User | None) -> None:
    request.state = state
    request.decided_at = clock.now()
    request.decided_by = str(by) if by is not None else KEYTURN
    request.save(update_fields=["state", "decided_at", "decided_by"])


@transaction.atomic
def review_request(
    *, by: User, request_id: uuid.UUID | str, verdict: Review.Verdict, reason: str = ""
) -> Review:
    """Approve or deny. An approval that completes the policy makes the grant, which begins now.

    Raises NotFound, SelfReview, Forbidden, AlreadyDecided (who and when), AuthorityLost where
    the requester may no longer ask for this, and InvalidInput for a denial without a reason.
    """
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_review(by, request)
    _check_pending(request)
    reason = reason.strip()
    if verdict == Review.Verdict.DENY and not reason:
        raise InvalidInput({"reason": "Say why: the requester reads it."})
    if len(reason) > REASON_LENGTH or "\x00" in reason:
        raise InvalidInput({"reason": f"Must be at most {REASON_LENGTH} plain characters."})
    if verdict == Review.Verdict.APPROVE:
        check_authority(request)
    review = Review.objects.create(request=request, reviewer=by, verdict=verdict, reason=reason)
    concerned = (request.profile.endpoint, request.profile, request.requester)
    if verdict == Review.Verdict.DENY:
        _decide(request, RequestState.DENIED, by)
        record(Event.REQUEST_DENIED, by=by, about=request, related=concerned, reason=reason)
        return review
    _decide(request, RequestState.APPROVED, by)
    record(Event.REQUEST_APPROVED, by=by, about=request, related=concerned, reason=reason)
    begin = clock.now()
    grant = Grant.objects.create(
        request=request,
        holder=request.requester,
        scope=request.scope,
        starts_at=begin,
        ends_at=begin + request.duration,
    )
    record(
        Event.GRANT_STARTED,
        by=None,
        about=grant,
        related=(*concerned, request),
        ends_at=grant.ends_at.isoformat(),
        scope=grant.scope,
    )
    return review


def check_authority(request: AccessRequest) -> None:
    """Raise AuthorityLost unless all that this request rests on holds at this moment.

    The requester is active and may still ask for it, profile and endpoint are open, scope and
    duration are within the profile as it is now, and whoever approved it still could.
    """
    profile, requester = request.profile, request.requester
    lost = ""
    if not requester.is_active:
        lost = f"{requester} was deactivated."
    elif not profile.is_active:
        lost = f"{profile} was retired."
    elif not profile.requesters.has(requester):
        lost = f"{requester} is no longer in {profile.requesters}."
    elif request.asked.beyond(profile.ceiling) or request.duration > profile.max_duration:
        lost = f"{profile} has been narrowed since; ask again within its limits."
    elif request.state == RequestState.APPROVED:
        approvals = request.reviews.filter(verdict=Review.Verdict.APPROVE).select_related(
            "reviewer"
        )
        if not any(profile.reviewers.has(review.reviewer) for review in approvals):
            lost = f"Nobody who approved it is still in {profile.reviewers}."
    if lost:
        raise AuthorityLost(lost)


@transaction.atomic
def cancel_request(*, by: User, request_id: uuid.UUID | str) -> AccessRequest:
    """Take a pending request back. Raises NotFound, Forbidden, AlreadyDecided."""
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_cancel(by, request)
    _check_pending(request)
    _decide(request, RequestState.CANCELLED, by)
    record(Event.REQUEST_CANCELLED, by=by, about=request, related=(request.profile.endpoint,))
    return request


@transaction.atomic
def expire_requests(*, most: int = 500) -> int:
    """Expire undecided requests whose time is up; how many."""
    due = (
        AccessRequest.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("profile__endpoint", "requester")
        .filter(state=RequestState.PENDING, pending_until__lte=clock.now())[:most]
    )
    for request in due:
        _decide(request, RequestState.EXPIRED, None)
        record(
            Event.REQUEST_EXPIRED,
            by=None,
            about=request,
            related=(request.profile.endpoint, request.requester),
        )
    return len(due)


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
    return True
