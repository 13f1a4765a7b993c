"""The portal's pages about requests: asking on one side, deciding on the other."""

from accessrequests.views.asking import (
    request_again,
    request_cancel,
    request_new,
    request_preview,
    requests,
)
from accessrequests.views.deciding import approvals, request_page, request_review

__all__ = [
    "approvals",
    "request_again",
    "request_cancel",
    "request_new",
    "request_page",
    "request_preview",
    "request_review",
    "requests",
]
