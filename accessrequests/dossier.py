"""What a reviewer sees of a request, gathered in one place: see docs on approvals."""

import datetime as dt
from dataclasses import dataclass

from accessrequests.models import AccessRequest, Grant
from accessrequests.permissions import eligible_reviewers
from accessrequests.states import EndReason, RequestState
from accounts.models import User
from audit.templatetags.keyturn import duration
from endpoints.models import AccessProfile, Endpoint


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
class Dossier:
    """All that is known about a request when it is to be decided."""

    request: AccessRequest
    reviewers: list[User]
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
    last = history.last_grant
    if last is not None and last.end_reason in {EndReason.REVOKED, EndReason.EMERGENCY_STOP}:
        found.append(Signal(f"Their last access here was ended by {last.ended_by}", grave=True))
    return found


def dossier(request: AccessRequest, now: dt.datetime) -> Dossier:
    """All that is known about this request at this moment."""
    history = _history(request)
    return Dossier(
        request=request,
        reviewers=eligible_reviewers(request.profile.reviewers, request.requester),
        difference=differences(request.profile, request.duration, request.asked.models),
        signals=_signals(request, history),
        history=history,
        would_end=now + request.duration,
    )
