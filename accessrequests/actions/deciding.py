"""The one place where a request leaves `pending`."""

from django.db import connection

from accessrequests.models import AccessRequest, Tally
from accessrequests.models.figures import WAITS
from accessrequests.routing import wait_at
from accessrequests.states import RequestState
from accounts.models import User
from audit import clock
from audit.record import KEYTURN


def decide(request: AccessRequest, state: RequestState, *, by: User | None, how: str = "") -> None:
    """Decide this locked request in the caller's transaction; nothing waits for it any more.

    `how` says what decided where nobody did.
    """
    request.state = state
    request.decided_at = clock.now()
    request.decided_by = how or (str(by) if by is not None else KEYTURN)
    request.escalate_at = None
    if not request.break_glass:
        request.remind_at = None
        wait_at(request, None)
    request.save(update_fields=["state", "decided_at", "decided_by", "remind_at", "escalate_at"])
    if state == RequestState.CANCELLED:
        return
    if request.automatic:
        count(request, Tally.Outcome.AUTOMATIC, None)
    elif request.break_glass:
        count(request, Tally.Outcome.BREAK_GLASS, None)
    else:
        count(request, Tally.Outcome(state), by)


def count(request: AccessRequest, outcome: Tally.Outcome, by: User | None) -> None:
    """Add one decision to the figures of its day."""
    moment = request.decided_at or clock.now()
    first = request.reviews.order_by("at").values_list("at", flat=True).first() or moment
    waited = first - request.created_at
    wait = next((at for at, end in enumerate(WAITS) if waited <= end), len(WAITS))
    # One statement: two decisions at once are both counted.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accessrequests_tally (day, profile_id, reviewer_id, outcome, wait, count)"
            " VALUES (%s, %s, %s, %s, %s, 1)"
            " ON CONFLICT (day, profile_id, reviewer_id, outcome, wait)"
            " DO UPDATE SET count = accessrequests_tally.count + 1",
            [moment.date(), request.profile_id, by.pk if by else None, outcome, wait],
        )
