"""What a reviewer sees of a request, gathered in one place: see docs on approvals."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.utils import timezone

from accessrequests.actions.authority import check_authority
from accessrequests.actions.granting import approved_terms
from accessrequests.facts import effective_for
from accessrequests.models import AccessRequest, Comment, Grant, HandOver, Review
from accessrequests.policy.document import Reviewers
from accessrequests.routing import in_words, reviewers_of
from accessrequests.states import EndReason, RequestState
from accounts.models import User
from audit.templatetags.keyturn import duration, or_list
from broker.errors import AuthorityLost
from endpoints import wording
from endpoints.models import AccessProfile, Endpoint
from endpoints.scope import Scope

NAMED = 5  # people; of more, the rest is counted
REMEMBERED = 100  # requests of one person for one profile; who asks more often is a program


@dataclass(frozen=True)
class Signal:
    """Something that a reviewer should notice, in words."""

    text: str
    grave: bool = False


@dataclass(frozen=True)
class History:
    """How this person's earlier requests for the same profile ended: the last hundred of them."""

    asked: int
    more: bool
    approved: int
    denied: int
    last: AccessRequest | None
    last_grant: Grant | None


@dataclass(frozen=True)
class Verdict:
    """One review, and in words what it left out of what was asked for."""

    review: Review
    less: list[str]


@dataclass(frozen=True)
class StepState:
    """One step of the policy: what it needs and what it has."""

    name: str
    needed: int
    skipped: bool
    current: bool
    verdicts: list[Verdict]
    named: str

    @property
    def lacking(self) -> int:
        """How many approvals are still missing."""
        given = [v for v in self.verdicts if v.review.verdict == Review.Verdict.APPROVE]
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
    conversation: list[Comment | HandOver]
    policies: list[str]
    would_begin: dt.datetime
    would_end: dt.datetime

    @property
    def waits_for(self) -> str:
        """Whom it waits for; many are only counted."""
        names = [str(each) for each in self.reviewers]
        if len(names) > NAMED:
            names = [*names[: NAMED - 1], f"{len(names) - NAMED + 1} others"]
        return or_list(names)

    @property
    def lacking(self) -> int:
        """How many approvals the step that waits still needs."""
        return next((step.lacking for step in self.steps if step.current), 0)

    @property
    def so_far(self) -> list[str]:
        """In words, what the approvals so far leave of what was asked for; empty if all of it."""
        scope, length, starts_at = self.terms
        return _left_out(self.request, scope, length, starts_at)


def _left_out(
    request: AccessRequest,
    scope: Scope | None,
    length: dt.timedelta | None,
    starts_at: dt.datetime | None,
) -> list[str]:
    found = []
    if length is not None and length != request.duration:
        found.append(f"{duration(length)} instead of {duration(request.duration)}")
    if scope is not None:
        found += wording.left_out(scope, request.asked)
    if starts_at is not None and starts_at != request.starts_at:
        local = timezone.localtime(starts_at)
        found.append(f"not before {local.day} {local:%b, %H:%M %Z}")
    return found


def left_out(review: Review) -> list[str]:
    """In words, what an approval left out of what was asked for; empty if nothing."""
    scope = Scope.parse(review.scope) if review.scope else None
    return _left_out(review.request, scope, review.duration, review.starts_at)


def differences(
    profile: AccessProfile, asked_for: dt.timedelta, scope: Scope, usual: dt.timedelta
) -> list[str]:
    """How an ask differs from what is given by default, in words; empty if it doesn't.

    `usual` is how long the profile's policies give by default.
    """
    found = []
    if asked_for > usual:
        found.append(f"{duration(asked_for - usual)} longer than the default of {duration(usual)}")
    elif asked_for < usual:
        found.append(f"{duration(usual - asked_for)} shorter than the default of {duration(usual)}")
    return found + wording.differences(scope, profile.default_scope)


def _difference(request: AccessRequest) -> list[str]:
    """How it differs from the default; of a raise, from what its grant had."""
    if request.raises is not None:
        return wording.raised(request.asked, request.raises.held_before(request.created_at))
    usual = effective_for(request.profile).default_duration
    return differences(request.profile, request.duration, request.asked, usual)


def _history(request: AccessRequest) -> History:
    earlier = AccessRequest.objects.filter(
        requester=request.requester, profile=request.profile
    ).exclude(pk=request.pk)
    states = list(earlier.values_list("state", flat=True)[: REMEMBERED + 1])
    more, states = len(states) > REMEMBERED, states[:REMEMBERED]
    last = earlier.select_related("grant").first()
    return History(
        asked=len(states),
        more=more,
        approved=states.count(RequestState.APPROVED),
        denied=states.count(RequestState.DENIED),
        last=last,
        last_grant=getattr(last, "grant", None) if last is not None else None,
    )


def _signals(request: AccessRequest, history: History) -> list[Signal]:
    profile, endpoint = request.profile, request.profile.endpoint
    found = []
    if request.break_glass:
        found.append(Signal("Break-glass: access began before anybody reviewed it", grave=True))
    if endpoint.risk == Endpoint.Risk.CRITICAL:
        found.append(Signal("Critical endpoint", grave=True))
    if not history.asked:
        found.append(Signal("First time that they ask for this"))
    if history.denied:
        times = "once" if history.denied == 1 else f"{history.denied} times"
        found.append(Signal(f"Was denied this {times} before"))
    if (
        request.raises_id is None
        and request.duration == profile.max_duration > profile.default_duration
    ):
        found.append(Signal(f"The longest that this profile allows: {duration(request.duration)}"))
    ceiling = profile.ceiling
    if request.raises_id is None and request.asked == ceiling != profile.default_scope:
        found.append(Signal("The widest scope that this profile allows"))
    asked = request.created_at.astimezone(ZoneInfo(request.requester.time_zone))
    if not request.requester.is_service and (asked.weekday() > 4 or not 7 <= asked.hour < 20):
        found.append(Signal(f"Asked outside of working hours: {asked:%A %H:%M} where they are"))
    if request.extends is not None:
        whole = request.extends.ends_at + request.duration - request.extends.starts_at
        found.append(Signal(f"Extends access that they have, to {duration(whole)} in all"))
    if request.raises is not None and (earlier := request.raises.raises.count()):
        times = "once" if earlier == 1 else f"{earlier} times"
        found.append(Signal(f"Its budget was raised {times} already"))
    last = history.last_grant
    if last is not None and last.end_reason in {EndReason.REVOKED, EndReason.EMERGENCY_STOP}:
        found.append(Signal(f"Their last access here was ended by {last.ended_by}", grave=True))
    return found


def _steps(request: AccessRequest) -> list[StepState]:
    reviews = list(request.reviews.select_related("reviewer"))
    waits = request.state == RequestState.PENDING or (
        request.break_glass and request.reviewed_at is None
    )
    return [
        StepState(
            name=step["name"],
            needed=step["approvals"],
            skipped=step["skipped"],
            current=waits and at == request.step,
            verdicts=[_verdict(request, review) for review in reviews if review.step == at],
            named=in_words(Reviewers.model_validate(step["reviewers"]), request.profile),
        )
        for at, step in enumerate(request.policy["steps"])
    ]


def _verdict(request: AccessRequest, review: Review) -> Verdict:
    review.request = request
    return Verdict(review, left_out(review))


def _conversation(request: AccessRequest) -> list[Comment | HandOver]:
    said: list[Comment | HandOver] = list(request.comments.select_related("author"))
    said += request.hand_overs.select_related("by", "to")
    return sorted(said, key=lambda each: each.at)


def _policies(request: AccessRequest) -> list[str]:
    """The policies that applied when it was filed; version 0 is the one that is built in."""
    return [
        f"{each['name']}, version {each['version']}" if each["version"] else each["name"]
        for each in request.policy["policies"]
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
    terms = approved_terms(request)
    begin = max(now, terms[2] or now)
    if request.extends is not None:
        begin = request.extends.ends_at
    return Dossier(
        request=request,
        reviewers=reviewers_of([request])[request.pk],
        steps=_steps(request),
        obstacle=_obstacle(request),
        terms=terms,
        difference=_difference(request),
        signals=_signals(request, history),
        history=history,
        conversation=_conversation(request),
        policies=_policies(request),
        would_begin=begin,
        would_end=request.raises.ends_at if request.raises else begin + terms[1],
    )
