"""Whether a request still waits."""

from accessrequests.models import AccessRequest
from accessrequests.states import RequestState
from audit import clock
from audit.record import KEYTURN
from broker.errors import AlreadyDecided


def check_pending(request: AccessRequest) -> None:
    """Raise AlreadyDecided, with who and when, unless this locked request waits for a decision."""
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
