"""The portal's pages about requests: asking on one side, deciding on the other."""

from accessrequests.views.asking import (
    request_again,
    request_cancel,
    request_new,
    request_preview,
    requests,
)
from accessrequests.views.deciding import approvals, request_page, request_review
from accessrequests.views.policies import (
    policies,
    policy,
    policy_check,
    policy_edit,
    policy_retire,
)

__all__ = [
    "approvals",
    "policies",
    "policy",
    "policy_check",
    "policy_edit",
    "policy_retire",
    "request_again",
    "request_cancel",
    "request_new",
    "request_page",
    "request_preview",
    "request_review",
    "requests",
]
