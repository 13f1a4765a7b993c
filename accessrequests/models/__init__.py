"""Policies, access requests, their reviews, and grants."""

from accessrequests.models.absences import Absence
from accessrequests.models.figures import Tally
from accessrequests.models.grants import Grant, GrantRaise, Grants
from accessrequests.models.policies import Policy, PolicyBinding, PolicyVersion
from accessrequests.models.requests import (
    AccessRequest,
    AccessRequests,
    Comment,
    HandOver,
    Route,
)
from accessrequests.models.reviews import Review

__all__ = [
    "Absence",
    "AccessRequest",
    "AccessRequests",
    "Comment",
    "Grant",
    "GrantRaise",
    "Grants",
    "HandOver",
    "Policy",
    "PolicyBinding",
    "PolicyVersion",
    "Review",
    "Route",
    "Tally",
]
