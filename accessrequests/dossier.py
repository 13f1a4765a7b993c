"""What a reviewer sees of a request, gathered in one place: see docs on approvals."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from accessrequests.actions.authority import check_authority
from accessrequests.actions.granting import approved_terms
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.policy.document import Reviewers
from accessrequests.routing import in_words, reviewers_of
from accessrequests.states import EndReason, RequestState
from accounts.models import User
from audit.templatetags.keyturn import duration
from broker.errors import AuthorityLost
from endpoints.models import AccessProfile, Endpoint
from endpoints.scope import Scope


@dataclass(frozen=True)
class Signal:
    """Something that a reviewer should notice, in words."""

    text: str
    grave: bool = False


@dataclass(frozen=True)
class History:
    """How this person's earlier requests for the same profile ended."""

    asked: int
    approved: int
    denied: int
    last: AccessRequest | None
    last_grant: Grant | None


@dataclass(frozen=True)
class StepState:
    """One step of the policy: what it needs and what it has."""

    name: str
    needed: int
    skipped: bool
    current: bool
    reviews: list[Review]
    named: str

    @property
    def lacking(self) -> int:
        """How many approvals are still missing."""
        given = [r for r in self.reviews if r.verdict == Review.Verdict.APPROVE]
        return 0 if self.skipped else max(0, self.needed - len(given))


@dataclass(frozen=True)
class Dossier:
    """All that is known about a request when it is to be decided."""

    request: AccessRequest
    reviewers: list[User]
    steps: list[StepState]
    obstacle: str
    terms: tuple[Scope, dt.timedelta, dt.datetime | None]
    difference: list[str]
    signals: list[Signal]
    history: History
    would_end: dt.datetime


def differences(
    profile: AccessProfile, asked_for: dt.timedelta, models: frozenset[str]
) -> list[str]:
    """How an ask differs from what the profile gives by default, in words; empty if it doesn't."""
    found = []
    usual = profile.default_duration
    if asked_for > usual:
        found.append(f"{duration(asked_for - usual)} longer than the default of {duration(usual)}")
    elif asked_for < usual:
        found.append(f"{duration(usual - asked_for)} shorter than the default of {duration(usual)}")
    more = sorted(models - profile.default_scope.models)
    fewer = sorted(profile.default_scope.models - models)
    if more:
        found.append(f"more models than the default: {', '.join(more)}")
    if fewer:
        found.append(f"fewer models than the default: without {', '.join(fewer)}")
    return found


def _history(request: AccessRequest) -> History:
    earlier = AccessRequest.objects.filter(
        requester=request.requester, profile=request.profile
    ).exclude(pk=request.pk)
    states = list(earlier.values_list("state", flat=True))
    last = earlier.select_related("grant").first()
    return History(
        asked=len(states),
        approved=states.count(RequestState.APPROVED),
        denied=states.count(RequestState.DENIED),
        last=last,
        last_grant=getattr(last, "grant", None) if last is not None else None,
    )


def _signals(request: AccessRequest, history: History) -> list[Signal]:
    profile, endpoint = request.profile, request.profile.endpoint
    found = []
    if endpoint.risk == Endpoint.Risk.CRITICAL:
        found.append(Signal("Critical endpoint", grave=True))
    if not history.asked:
        found.append(Signal("First time that they ask for this"))
    if history.denied:
        times = "once" if history.denied == 1 else f"{history.denied} times"
        found.append(Signal(f"Was denied this {times} before"))
    if request.duration == profile.max_duration > profile.default_duration:
        found.append(Signal(f"The longest that this profile allows: {duration(request.duration)}"))
    ceiling = profile.ceiling.models
    if request.asked.models == ceiling and ceiling != profile.default_scope.models:
        found.append(Signal("The widest scope that this profile allows"))
    asked = request.created_at.astimezone(ZoneInfo(request.requester.time_zone))
    if not request.requester.is_service and (asked.weekday() > 4 or not 7 <= asked.hour < 20):
        found.append(Signal(f"Asked outside of working hours: {asked:%A %H:%M} where they are"))
    if request.extends is not None:
        whole = request.extends.ends_at + request.duration - request.extends.starts_at
        found.append(Signal(f"Extends access that they have, to {duration(whole)} in all"))
    last = history.last_grant
    if last is not None and last.end_reason in {EndReason.REVOKED, EndReason.EMERGENCY_STOP}:
        found.append(Signal(f"Their last access here was ended by {last.ended_by}", grave=True))
    return found


def _steps(request: AccessRequest) -> list[StepState]:
    reviews = list(request.reviews.select_related("reviewer"))
    waits = request.state == RequestState.PENDING
    return [
        StepState(
            name=step["name"],
            needed=step["approvals"],
            skipped=step["skipped"],
            current=waits and at == request.step,
            reviews=[review for review in reviews if review.step == at],
            named=in_words(Reviewers.model_validate(step["reviewers"]), request.profile),
        )
        for at, step in enumerate(request.policy["steps"])
    ]


def _obstacle(request: AccessRequest) -> str:
    """Why an approval would be refused at this moment; empty if it wouldn't."""
    if request.state != RequestState.PENDING:
        return ""
    try:
        check_authority(request)
    except AuthorityLost as error:
        return error.detail
    return ""


def dossier(request: AccessRequest, now: dt.datetime) -> Dossier:
    """All that is known about this request at this moment."""
    history = _history(request)
    return Dossier(
        request=request,
        reviewers=reviewers_of([request])[request.pk],
        steps=_steps(request),
        obstacle=_obstacle(request),
        terms=approved_terms(request),
        difference=differences(request.profile, request.duration, request.asked.models),
        signals=_signals(request, history),
        history=history,
        would_end=now + request.duration,
    )
