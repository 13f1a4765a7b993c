"""Whether one policy in place of another lets nobody do more: only where that is certain."""

import datetime as dt
from collections.abc import Iterable, Sequence
from operator import gt

from accessrequests.policy.document import (
    BreakGlass,
    Escalation,
    Limits,
    PolicyDocument,
    Reviewers,
    Step,
    Ticket,
)


def narrower(before: PolicyDocument, after: PolicyDocument) -> bool:
    """Whether `after` in place of `before` allows nothing that `before` didn't.

    True only where each part can be held against its own: the same people asked under the same
    conditions, as many approvals or more, the same constraints or more, times as long or shorter.
    Whatever else may be narrower too counts as wider: a second person looks at it then.
    """
    return (
        _steps(before.steps, after.steps)
        and {each.expression for each in before.constraints}
        <= {each.expression for each in after.constraints}
        and after.auto_approve_when in (None, before.auto_approve_when)
        and after.auto_approve_critical <= before.auto_approve_critical
        and _limits(before.limits, after.limits)
        and _break_glass(before.break_glass, after.break_glass)
    )


def always_asks(steps: Iterable[Step]) -> bool:
    """Whether some step is never skipped."""
    return not all(step.skip_when for step in steps)


def _whom(step: Step) -> tuple[Reviewers, str | None, tuple[Escalation, ...]]:
    return (step.reviewers, step.skip_when, step.escalation)


def _steps(before: Sequence[Step], after: Sequence[Step]) -> bool:
    """Whether each step is still there. Fewer reviewers aren't taken for narrower: a step that
    then asks whom another policy's asks is one with it, and takes one approval for both."""
    if not always_asks(before) and [_whom(step) for step in before] != [
        _whom(step) for step in after
    ]:
        # Of steps that could all be skipped the last isn't: another one would be that.
        return False
    for whom in {_whom(step) for step in before}:
        # One by one in their order: so do those of two policies become one.
        counts, will_be = (
            [step.approvals for step in steps if _whom(step) == whom] for steps in (before, after)
        )
        if len(will_be) < len(counts) or any(map(gt, counts, will_be)):
            return False
    return True


def _shorter(before: dt.timedelta | None, after: dt.timedelta | None) -> bool:
    """Whether it is as short or shorter, where none is no limit."""
    return before is None or (after is not None and after <= before)


def _same_or_shorter(before: dt.timedelta | None, after: dt.timedelta | None) -> bool:
    """The same where none isn't the longest."""
    return before == after or (before is not None and after is not None and after < before)


def _limits(before: Limits, after: Limits) -> bool:
    return (
        # Without one the profile's holds, which may be longer or shorter.
        _same_or_shorter(before.default_duration, after.default_duration)
        and _shorter(before.max_duration, after.max_duration)
        and _shorter(before.pending_timeout, after.pending_timeout)
        # Without one no start can be chosen at all.
        and (
            after.latest_start is None or _same_or_shorter(before.latest_start, after.latest_start)
        )
        and _ticket(before.ticket, after.ticket)
        and after.justification_length >= before.justification_length
        and _shorter(before.requester_factor_age, after.requester_factor_age)
        and _shorter(before.reviewer_factor_age, after.reviewer_factor_age)
    )


def _ticket(before: Ticket | None, after: Ticket | None) -> bool:
    if before is None:
        return True
    return (
        after is not None
        and after.required >= before.required
        and before.pattern in (None, after.pattern)
    )


def _break_glass(before: BreakGlass | None, after: BreakGlass | None) -> bool:
    if after is None:
        return True
    return (
        before is not None
        and set(after.groups) <= set(before.groups)
        and after.max_duration <= before.max_duration
        and after.review_within <= before.review_within
    )
