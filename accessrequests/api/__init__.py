"""The REST API about requests, reviews, policies and absences."""

from accessrequests.api.absences import AbsenceViewSet
from accessrequests.api.approvals import ApprovalViewSet
from accessrequests.api.policies import PolicyViewSet
from accessrequests.api.requests import RequestViewSet
from accessrequests.api.reviews import ReviewsView

__all__ = [
    "AbsenceViewSet",
    "ApprovalViewSet",
    "PolicyViewSet",
    "RequestViewSet",
    "ReviewsView",
]
