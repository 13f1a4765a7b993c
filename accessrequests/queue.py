"""What waits for a reviewer, the most urgent first."""

from django.db.models import Exists, OuterRef, Q, QuerySet

from accessrequests.models import Review, Route
from accessrequests.models.requests import own_of
from accessrequests.states import RequestState
from accounts.models import User
from audit.clock import ClockTimestamp


def waiting_for(user: User) -> QuerySet[Route]:
    """One route for each request that this person may decide and hasn't, by urgency.

    PostgreSQL walks the partial index of what waits, in order, and stops when a page is full:
    neither what was decided nor what waits for others is sorted.
    """
    routes = Route.objects.to(user).filter(waiting=True)
    earlier = routes.filter(request=OuterRef("request"), pk__lt=OuterRef("pk"))
    return (
        routes.filter(
            Q(request__state=RequestState.PENDING, request__pending_until__gt=ClockTimestamp())
            | Q(request__break_glass=True, request__reviewed_at=None),
            # Several routes may lead to one person.
            ~Exists(earlier),
            ~Exists(Review.objects.filter(request=OuterRef("request"), reviewer=user)),
        )
        .exclude(own_of(user, "request__"))
        .select_related(
            "request__requester",
            "request__on_behalf_of",
            "request__profile__endpoint",
            "request__profile__reviewers",
            "request__grant",
        )
        .order_by("sort_at", "request_id")
    )
