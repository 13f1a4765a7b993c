"""States of requests and grants, and the only moves between them.

PostgreSQL holds the same tables by triggers made from these, and docs/request-states.md is
generated from them.
"""

from typing import Literal, NamedTuple

from django.db import models

Actor = Literal["requester", "reviewer", "owner", "administrator", "keyturn"]


class Move(NamedTuple):
    """A legal move, who makes it, and the words for it in the documentation."""

    source: str
    target: str
    by: tuple[Actor, ...]
    when: str


class RequestState(models.TextChoices):
    PENDING = "pending", "Pending"
    APPROVED = "approved", "Approved"
    DENIED = "denied", "Denied"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "Expired"


class GrantState(models.TextChoices):
    SCHEDULED = "scheduled", "Scheduled"
    ACTIVE = "active", "Active"
    ENDED = "ended", "Ended"


class EndReason(models.TextChoices):
    EXPIRED = "expired", "its time was up"
    GIVEN_BACK = "given_back", "given back early"
    REVOKED = "revoked", "revoked"
    SUPERSEDED = "superseded", "replaced by another grant"
    REQUESTER_DEACTIVATED = "requester_deactivated", "its requester was deactivated"
    GROUP_LOST = "group_lost", "its holder left the group that may ask for it"
    ENDPOINT_RETIRED = "endpoint_retired", "its endpoint was retired"
    EMERGENCY_STOP = "emergency_stop", "emergency stop"
    BUDGET_EXHAUSTED = "budget_exhausted", "its budget was used up"
    REVIEW_DENIED = "review_denied", "its review afterwards was denied"


REQUEST_MOVES = (
    Move(
        "pending",
        "approved",
        ("reviewer", "keyturn"),
        "the policy has the approvals that it asks for, decides by itself, or lets break-glass in",
    ),
    Move("pending", "denied", ("reviewer",), "one reviewer denies it"),
    Move(
        "pending",
        "cancelled",
        ("requester", "keyturn"),
        "the requester takes it back, or the grant whose budget it would raise has ended",
    ),
    Move("pending", "expired", ("keyturn",), "nobody decided within the pending time-out"),
)

# As accessrequests.permissions.can_end has it; `owner` is the endpoint's.
WHO_ENDS: tuple[Actor, ...] = ("requester", "reviewer", "owner", "administrator", "keyturn")

GRANT_MOVES = (
    Move("scheduled", "active", ("keyturn",), "its start has come"),
    Move("scheduled", "ended", WHO_ENDS, "ended before it began"),
    Move("active", "ended", WHO_ENDS, "expired, given back or revoked"),
)


def pairs(moves: tuple[Move, ...]) -> list[tuple[str, str]]:
    """The legal (from, to) of a table."""
    return [(move.source, move.target) for move in moves]
