"""Verbs on policies, requests, reviews and grants: one transaction each, with its audit row."""

from accessrequests.actions.absences import drop_absence, note_absence
from accessrequests.actions.asking import (
    JUSTIFICATION_LENGTH,
    Preview,
    ask_age,
    cancel_request,
    file_request,
    file_together,
    preview_request,
)
from accessrequests.actions.authority import (
    check_authority,
    check_grant_authority,
    check_not_stopped,
)
from accessrequests.actions.chasing import chase, expire_requests
from accessrequests.actions.granting import close_grants, on_denied_afterwards
from accessrequests.actions.policies import (
    change_policy,
    check_policy,
    end_policy,
    retire_policy,
    save_policy,
    stored,
    widens,
)
from accessrequests.actions.reviewing import (
    REASON_LENGTH,
    Outcome,
    review_many,
    review_request,
)
from accessrequests.actions.talking import comment, hand_over

__all__ = [
    "JUSTIFICATION_LENGTH",
    "REASON_LENGTH",
    "Outcome",
    "Preview",
    "ask_age",
    "cancel_request",
    "change_policy",
    "chase",
    "check_authority",
    "check_grant_authority",
    "check_not_stopped",
    "check_policy",
    "close_grants",
    "comment",
    "drop_absence",
    "end_policy",
    "expire_requests",
    "file_request",
    "file_together",
    "hand_over",
    "note_absence",
    "on_denied_afterwards",
    "preview_request",
    "retire_policy",
    "review_many",
    "review_request",
    "save_policy",
    "stored",
    "widens",
]
