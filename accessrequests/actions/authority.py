"""Whether all that a request rests on still holds."""

import datetime as dt

from accessrequests.actions.granting import approvals_of, approved_terms
from accessrequests.facts import effective_for, facts_of
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.policy.document import Reviewers
from accessrequests.policy.effective import Effective, Ruling
from accessrequests.policy.facts import Facts
from accessrequests.routing import in_words, may_decide, people, unfilled
from accessrequests.states import RequestState
from accounts.behalf import may_act_for
from accounts.models import User
from audit import clock
from broker.errors import AuthorityLost
from endpoints.models import EmergencyStop


def check_authority(request: AccessRequest) -> None:
    """Raise AuthorityLost unless all that this request rests on holds at this moment.

    No emergency stop is against it, the requester is active and may still ask for it, as may the
    person on whose behalf they do, who still lets them; profile and endpoint are open, scope and
    duration are within the profile as it is now, and the policy as it is now has no objection.
    Once it is approved, whoever approved it still could, and in the number that is needed now.
    """
    profile, requester = request.profile, request.requester
    check_not_stopped(request)
    if not User.objects.active().filter(pk=requester.pk).exists():
        raise AuthorityLost(f"{requester} was deactivated.")
    if not profile.is_active:
        raise AuthorityLost(f"{profile} was retired.")
    if not profile.requesters.has(requester):
        raise AuthorityLost(f"{requester} is no longer in {profile.requesters}.")
    if request.on_behalf_of is not None:
        _check_behalf(request, request.on_behalf_of)
    grant = request.raises
    if grant is not None and (grant.ended_at is not None or grant.ends_at <= clock.now()):
        raise AuthorityLost("The grant whose budget it would raise has ended; ask anew.")
    scope, duration, _ = approved_terms(request)
    if scope.beyond(profile.ceiling) or duration > profile.max_duration:
        raise AuthorityLost(f"{profile} has been narrowed since; ask again within its limits.")
    if request.state == RequestState.APPROVED:
        check_consent(request)
    else:
        _unobjected(request)


def _check_behalf(request: AccessRequest, person: User) -> None:
    if not User.objects.active().filter(pk=person.pk).exists():
        raise AuthorityLost(f"{person}, for whom it is, was deactivated.")
    if not may_act_for(request.requester, person):
        raise AuthorityLost(f"{person} no longer lets {request.requester} act for them.")
    if not request.profile.requesters.has(person):
        raise AuthorityLost(
            f"{person}, for whom it is, is no longer in {request.profile.requesters}."
        )


def check_grant_authority(grant: Grant) -> None:
    """Raise AuthorityLost unless all that a grant rests on holds: its request, and the one that
    gave it the budgets that it has by now."""
    check_authority(grant.request)
    latest = grant.raises.select_related("request").last()
    if latest is not None:
        check_authority(latest.request)


def check_not_stopped(request: AccessRequest) -> None:
    """Raise AuthorityLost where an emergency stop is against it.

    Who looks before a stop is committed sees none: the sweep ends what they made, and the gateway
    refuses it meanwhile.
    """
    stop = EmergencyStop.objects.against(request.profile.endpoint_id, request.decided_at).first()
    if stop is not None:
        raise AuthorityLost(stop.in_words)


def _facts(request: AccessRequest, moment: dt.datetime) -> Facts:
    scope, duration, _ = approved_terms(request)
    return facts_of(request, moment, scope=scope, duration=duration)


def _unobjected(request: AccessRequest) -> tuple[Effective, Ruling]:
    """What policy says now. Raises AuthorityLost where it objects to what was asked."""
    holds = effective_for(request.profile)
    ruling = holds.decide(_facts(request, clock.now()))
    if ruling.problems:
        changed = _changes(request, holds)
        raise AuthorityLost(" ".join(filter(None, [changed, *ruling.problems.values()])))
    return holds, ruling


def _changes(request: AccessRequest, holds: Effective) -> str:
    """How the policies differ from those that the request was filed under, in words."""
    before = {each["slug"]: each["version"] for each in request.policy["policies"]}
    found = []
    for source in holds.sources:
        old = before.get(source.slug)
        if old is None:
            found.append(f"The policy {source.document.name} applies since.")
        elif old != source.version:
            found.append(
                f"The policy {source.document.name} changed from version {old} to "
                f"{source.version} since."
            )
    return " ".join(found)


def _counts(request: AccessRequest, review: Review) -> bool:
    """Whether this approval counts at this moment: its reviewer could still give it."""
    return not request.is_own(review.reviewer) and may_decide(review.reviewer, request, review.step)


def _counting(request: AccessRequest) -> list[Review]:
    return [review for review in approvals_of(request) if _counts(request, review)]


def next_step(request: AccessRequest) -> int | None:
    """The first step that lacks approvals by people who could still give them; None if none."""
    return _lacking(request, _counting(request))


def _lacking(request: AccessRequest, counting: list[Review]) -> int | None:
    counted = [review.step for review in counting]
    for at, needs in enumerate(request.policy["steps"]):
        if not needs["skipped"] and counted.count(at) < needs["approvals"]:
            return at
    return None


def check_consent(request: AccessRequest) -> None:
    """Raise AuthorityLost unless whoever had to consent has, and still could, by policy as it was
    and by policy as it is now."""
    holds, ruling = _unobjected(request)
    changed = _changes(request, holds)
    if request.automatic:
        # Judged at the moment of the decision: a condition on the hour was met then.
        then = holds.decide(_facts(request, request.decided_at or clock.now()))
        if not then.automatic:
            raise AuthorityLost(
                f"{changed} Nobody approved it, and what let the policy decide it by itself no "
                "longer holds; ask again.".strip()
            )
        return
    if request.break_glass:
        return
    counting = _counting(request)
    lacking = _lacking(request, counting)
    if lacking is not None:
        named = _named(request, lacking)
        raise AuthorityLost(
            f"Nobody who approved it is still in {named}."
            if request.policy["steps"][lacking]["approvals"] == 1
            else f"Too few of those who approved it are still in {named}."
        )
    if not changed:
        # What let a step be skipped must still be true of the requester. The rest of the ask is
        # as it was: neither the hour nor a reviewer's narrowing brings a step back.
        asked = facts_of(
            request, request.created_at, scope=request.asked, duration=request.duration
        )
        ruling = holds.decide(asked)
    _check_current_steps(request, ruling, changed, counting)


def _named(request: AccessRequest, step: int) -> str:
    spec = Reviewers.model_validate(request.policy["steps"][step]["reviewers"])
    return in_words(spec, request.profile)


def _check_current_steps(
    request: AccessRequest, ruling: Ruling, changed: str, counting: list[Review]
) -> None:
    """The approvals must do for the policy as it is now, each counting for one step."""
    free = {review.reviewer_id for review in counting}
    slots = []
    for needed in ruling.steps:
        if needed.skipped:
            continue
        named = [needed.step.reviewers, *(entry.to for entry in needed.step.escalation)]
        whose = (request.requester, request.on_behalf_of)
        who = {p.pk for each in named for p in people(each, request.profile, *whose)}
        slots += [(needed.step.name, who & free)] * needed.step.approvals
    lacking = unfilled([candidates for _, candidates in slots])
    if lacking is not None:
        raise AuthorityLost(
            f"{changed or 'What let a step be skipped no longer holds.'} Its step "
            f"“{slots[lacking][0]}” lacks an approval that it asks for now; ask again."
        )
