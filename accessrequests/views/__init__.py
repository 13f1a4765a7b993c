"""The portal's pages about requests: asking on one side, deciding on the other."""

from accessrequests.views.absences import absence_drop, absences
from accessrequests.views.agents import agent_take_back, agents
from accessrequests.views.approvals import (
    approvals,
    approvals_decide,
    approvals_decided,
    approvals_figures,
    approvals_others,
)
from accessrequests.views.asking import (
    grant_extend,
    grant_extend_preview,
    grant_raise,
    grant_raise_preview,
    request_again,
    request_cancel,
    request_new,
    request_preview,
    requests,
)
from accessrequests.views.catalogue import catalogue, endpoint
from accessrequests.views.deciding import (
    request_comment,
    request_hand_over,
    request_page,
    request_review,
)
from accessrequests.views.policies import (
    policies,
    policy,
    policy_check,
    policy_edit,
    policy_retire,
)
from accessrequests.views.together import request_together, together_preview

__all__ = [
    "absence_drop",
    "absences",
    "agent_take_back",
    "agents",
    "approvals",
    "approvals_decide",
    "approvals_decided",
    "approvals_figures",
    "approvals_others",
    "catalogue",
    "endpoint",
    "grant_extend",
    "grant_extend_preview",
    "grant_raise",
    "grant_raise_preview",
    "policies",
    "policy",
    "policy_check",
    "policy_edit",
    "policy_retire",
    "request_again",
    "request_cancel",
    "request_comment",
    "request_hand_over",
    "request_new",
    "request_page",
    "request_preview",
    "request_review",
    "request_together",
    "requests",
    "together_preview",
]
