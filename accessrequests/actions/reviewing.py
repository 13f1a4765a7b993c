"""Reviewing: a verdict, as much as was asked for or less."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from accessrequests import notices
from accessrequests.actions.authority import check_authority, check_consent, next_step
from accessrequests.actions.choosing import chosen_parts
from accessrequests.actions.deciding import decide
from accessrequests.actions.granting import approved_terms, end_denied, fulfil
from accessrequests.actions.pending import check_pending
from accessrequests.facts import effective_for
from accessrequests.models import AccessRequest, Review
from accessrequests.permissions import check_review
from accessrequests.policy.document import duration_of
from accessrequests.routing import escalate_at, wait_at
from accessrequests.states import RequestState
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.preconditions import ANYTHING, Expected
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from audit.templatetags.keyturn import and_list
from audit.templatetags.keyturn import duration as duration_words
from broker.errors import Conflict, InvalidInput, KeyturnError
from endpoints.models import SHORTEST
from endpoints.scope import LISTS, Scope
from endpoints.wording import budgets_in_words, limit_words

REASON_LENGTH = 1000
MOST_AT_ONCE = 100


@dataclass(frozen=True)
class _Less:
    """What a reviewer approves, where it is less than what is asked for."""

    scope: Scope | None = None
    duration: dt.timedelta | None = None
    starts_at: dt.datetime | None = None


@transaction.atomic
def review_request(
    *,
    by: User,
    request_id: uuid.UUID | str,
    verdict: Review.Verdict,
    reason: str = "",
    duration: dt.timedelta | None = None,
    models: list[str] | None = None,
    scope: Mapping[str, Any] | None = None,
    starts_at: dt.datetime | None = None,
    proofs: Proofs = stepup.NONE,
    expected: Expected = ANYTHING,
) -> Review:
    """Approve, approve less, or deny. The approval that completes the policy makes the grant.

    `duration`, `models`, `scope` and `starts_at` narrow what is approved, each part of the scope
    that is named; several approvals narrow together. Of break-glass access it is the review
    afterwards: a denial ends its grant. Raises NotFound, SelfReview, Forbidden, StepUpNeeded,
    AlreadyDecided (who and when), Conflict for a second verdict of the same person, AuthorityLost
    where what it rests on no longer holds, PreconditionFailed, and InvalidInput for a denial
    without a reason or what would widen.
    """
    request = fetch(AccessRequest.objects.visible_to(by), request_id, lock=True)
    check_review(by, request)
    afterwards = request.break_glass and request.reviewed_at is None
    if not afterwards:
        check_pending(request)
    if request.reviews.filter(reviewer=by).exists():
        raise Conflict("You have decided this already; it waits for somebody else.")
    reason = reason.strip()
    if verdict == Review.Verdict.DENY and not reason:
        raise InvalidInput({"reason": "Say why: the requester reads it."})
    if len(reason) > REASON_LENGTH or "\x00" in reason:
        raise InvalidInput({"reason": f"Must be at most {REASON_LENGTH} plain characters."})
    proofs.check(Purpose(Action.REVIEW, str(request.pk)), age=factor_age(request))
    less = _Less()
    if verdict == Review.Verdict.APPROVE and not afterwards:
        check_authority(request)
        less = _less(request, duration, models, scope, starts_at)
    elif any(given is not None for given in (duration, models, scope, starts_at)):
        raise InvalidInput({"verdict": "Only an approval before access can give less."})
    expected.check(request)
    review = Review.objects.create(
        request=request,
        reviewer=by,
        step=request.step,
        verdict=verdict,
        reason=reason,
        scope=less.scope.as_json() if less.scope else None,
        duration=less.duration,
        starts_at=less.starts_at,
    )
    if afterwards:
        _afterwards(request, review)
    elif verdict == Review.Verdict.DENY:
        decide(request, RequestState.DENIED, by=by)
        _record(Event.REQUEST_DENIED, review)
        notices.denied(request, review)
    else:
        _approved(request, review)
    return review


def factor_age(request: AccessRequest) -> dt.timedelta:
    """How fresh a reviewer's second factor must be: five minutes, or what policy then or now asks
    for where that's less."""
    filed = request.policy.get("reviewer_factor_age")
    ages = [duration_of(filed) if filed else None]
    ages.append(effective_for(request.profile).reviewer_factor_age)
    return stepup.shortest(min((age for age in ages if age is not None), default=None))


def _record(event: Event, review: Review, **data: object) -> None:
    request = review.request
    less = {
        "scope": review.scope,
        "duration_seconds": int(review.duration.total_seconds()) if review.duration else None,
        "starts_at": review.starts_at.isoformat() if review.starts_at else None,
    }
    record(
        event,
        by=review.reviewer,
        about=request,
        related=(request.profile.endpoint, request.profile, request.requester),
        reason=review.reason,
        **{name: value for name, value in less.items() if value is not None},
        **data,
    )


def _less(
    request: AccessRequest,
    duration: dt.timedelta | None,
    models: list[str] | None,
    scope: Mapping[str, Any] | None,
    starts_at: dt.datetime | None,
) -> _Less:
    """What is less than what was asked for and approved so far. Raises InvalidInput for more."""
    asked, longest, start = approved_terms(request)
    errors: dict[str, str] = {}
    chosen = asked
    try:
        chosen = _narrowed(asked, models, scope)
    except InvalidInput as error:
        errors |= error.errors
    if request.raises is not None and not errors:
        errors |= _less_of_a_raise(request.raises.allowed, chosen, duration, starts_at)
    if duration is not None and not SHORTEST <= duration <= longest:
        errors["duration"] = f"Must be from 1 minute to {duration_words(longest)}, as asked for."
    if starts_at is not None:
        if request.raises_id is not None:
            pass
        elif request.extends_id is not None:
            errors["starts_at"] = "An extension begins when its grant ends."
        elif starts_at <= clock.now() or (start is not None and starts_at < start):
            errors["starts_at"] = "Must be later than now and than what was asked for."
        elif starts_at > clock.now() + dt.timedelta(days=30):
            errors["starts_at"] = "Must be within 30 days."
    if errors:
        raise InvalidInput(errors)
    return _Less(
        chosen if chosen != asked else None,
        duration if duration is not None and duration < longest else None,
        starts_at if starts_at is not None and starts_at != start else None,
    )


def _less_of_a_raise(
    held: Scope, chosen: Scope, duration: dt.timedelta | None, starts_at: dt.datetime | None
) -> dict[str, str]:
    """What is wrong with approving this of a raise: all but larger budgets stays as it is."""
    errors = {}
    for name, given in (("duration", duration), ("starts_at", starts_at)):
        if given is not None:
            errors[name] = "A larger budget leaves the grant's time as it is."
    if held.beyond(chosen) or chosen == held:
        has = and_list(budgets_in_words(held))
        errors["scope"] = f"Leave more than the grant has ({has}), or deny."
    return errors


def _narrowed(asked: Scope, models: list[str] | None, scope: Mapping[str, Any] | None) -> Scope:
    """What was asked for, but for what is named. Raises InvalidInput for more, and for nothing."""
    chosen, where = chosen_parts(models, scope)
    less = replace(asked, **chosen)
    if not less.opens_something:
        name = "models" if asked.models else "operations"
        raise InvalidInput({where[name]: f"Leave at least one {name.removesuffix('s')}."})
    errors = {}
    for key, beyond in less.beyond(asked).items():
        if key in LISTS:
            left = ", ".join(sorted(getattr(asked, key))) or "none"
            errors[where[key]] = f"Was not asked for: {', '.join(beyond)}. You can leave of {left}."
        else:
            most = limit_words(key, getattr(asked, key))
            errors[where[key]] = f"Must be at most {most}, as asked for."
    if errors:
        raise InvalidInput(errors)
    return less


def _approved(request: AccessRequest, review: Review) -> None:
    """Complete the policy, or wait for whom it asks next."""
    lacking = next_step(request)
    if lacking is None:
        # The policy may have changed since it was filed: the strictest holds.
        check_consent(request)
        decide(request, RequestState.APPROVED, by=review.reviewer)
        _record(Event.REQUEST_APPROVED, review)
        fulfil(request)
        return
    _record(Event.REQUEST_REVIEWED, review, step=request.policy["steps"][review.step]["name"])
    if lacking != request.step:
        now = clock.now()
        request.step, request.step_since, request.escalations = lacking, now, 0
        wait_at(request, lacking)
        request.escalate_at = escalate_at(request, 0)
        left = max(request.decide_by - now, dt.timedelta(0))
        request.remind_at = now + left / 2 if left else None
        request.save(
            update_fields=["step", "step_since", "escalations", "escalate_at", "remind_at"]
        )
        notices.taken_a_step(request)
        notices.review_wanted(request)
    else:
        notices.taken_a_step(request, by=review.reviewer)


def _afterwards(request: AccessRequest, review: Review) -> None:
    """The review that break-glass access owes: its grant goes on, or ends at once."""
    request.reviewed_at = clock.now()
    request.remind_at = None
    request.save(update_fields=["reviewed_at", "remind_at"])
    wait_at(request, None)
    _record(Event.BREAK_GLASS_REVIEWED, review, verdict=review.verdict)
    if review.verdict == Review.Verdict.DENY:
        end_denied(request, review.reviewer)
    notices.reviewed_afterwards(request, review)


@dataclass(frozen=True)
class Outcome:
    """What became of one of several reviews."""

    request_id: str
    review: Review | None
    error: KeyturnError | None


def review_many(
    *,
    by: User,
    request_ids: Iterable[uuid.UUID | str],
    verdict: Review.Verdict,
    reason: str = "",
    proofs: Proofs = stepup.NONE,
) -> list[Outcome]:
    """The same verdict on several requests, each decided or refused by itself.

    Raises InvalidInput for none, or for more than a hundred.
    """
    ids = list(dict.fromkeys(str(pk) for pk in request_ids))
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        raise InvalidInput({"requests": f"Choose from 1 to {MOST_AT_ONCE} requests."})
    outcomes = []
    for pk in ids:
        try:
            review = review_request(
                by=by, request_id=pk, verdict=verdict, reason=reason, proofs=proofs
            )
        except KeyturnError as error:
            outcomes.append(Outcome(pk, None, error))
        else:
            outcomes.append(Outcome(pk, review, None))
    return outcomes
