"""What the queue's detail and a request's own page have in common."""

import datetime as dt
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from accessrequests.actions.reviewing import factor_age
from accessrequests.desk import Filters
from accessrequests.dossier import Dossier, dossier
from accessrequests.forms import CommentForm, HandOverForm, ReviewForm
from accessrequests.models import AccessRequest
from accessrequests.permissions import can_comment, can_review
from accessrequests.states import RequestState
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.reading import Step, timeline
from endpoints.models import Endpoint


def is_htmx(request: HttpRequest, target: str = "") -> bool:
    """Whether a script asks for a part of a page, and for this one if named."""
    htmx: Any = getattr(request, "htmx", False)
    return bool(htmx) and (not target or htmx.target == target)


def visible(user: User) -> QuerySet[AccessRequest]:
    """The requests that this person may see, with all that a page says of each."""
    return AccessRequest.objects.visible_to(user).select_related(
        "requester",
        "on_behalf_of",
        "profile__endpoint__owner",
        "profile__reviewers",
        "profile__requesters",
        "extends",
        "raises",
        "grant",
    )


def still_waits(row: AccessRequest, now: dt.datetime) -> bool:
    """Whether anybody is to decide it, by the clock and not by any worker."""
    if row.state == RequestState.PENDING:
        return row.pending_until > now
    return row.break_glass and row.reviewed_at is None


def others_who_may(user: User, found: Dossier) -> list[User]:
    """Those to whom this person could hand the request."""
    decided = {v.review.reviewer_id for step in found.steps for v in step.verdicts}
    return [each for each in found.reviewers if each.pk != user.pk and each.pk not in decided]


def detail(
    user: User,
    row: AccessRequest,
    *,
    filters: Filters | None = None,
    form: ReviewForm | None = None,
    comment_form: CommentForm | None = None,
    hand_over_form: HandOverForm | None = None,
) -> dict[str, Any]:
    """All that a page says of one request; `filters` are those of the queue that it's beside."""
    now = clock.now()
    grant = getattr(row, "grant", None)
    waits = still_waits(row, now)
    pending = row.state == RequestState.PENDING
    found = dossier(row, now)
    mine = row.is_own(user)
    verdicts = [verdict for step in found.steps for verdict in step.verdicts]
    own = next((v for v in verdicts if v.review.reviewer_id == user.pk), None)
    decides = waits and own is None and can_review(user, row)
    others = others_who_may(user, found)
    together = AccessRequest.objects.visible_to(user).filter(together=row.together)
    return {
        "row": row,
        "profile": row.profile,
        "endpoint": row.profile.endpoint,
        "endpoint_seen": Endpoint.objects.visible_to(user)
        .filter(pk=row.profile.endpoint_id)
        .exists(),
        "grant": grant,
        "grant_live": grant is not None and grant.is_live(now),
        "grant_ended": grant is not None and (grant.ended_at is not None or grant.ends_at <= now),
        "pending": pending and waits,
        "lapsed": pending and not waits,
        "owed": waits and not pending,
        "waits": waits,
        "mine": mine,
        "belongs_to": "" if mine else reverse("approvals"),
        "own": own,
        "decides": decides,
        "comments": can_comment(user, row),
        "others": others,
        "together": list(together.exclude(pk=row.pk).select_related("profile__endpoint"))
        if row.together
        else [],
        "factor_age": factor_age(row),
        "dossier": found,
        "form": form or (ReviewForm(request=row) if decides else None),
        "comment_form": comment_form or CommentForm(),
        "hand_over_form": hand_over_form or HandOverForm(people=others),
        "from_queue": filters is not None,
        "query": (filters or Filters()).query(),
    }


def page(user: User, row: AccessRequest, **forms: Any) -> dict[str, Any]:
    """The same, with all that happened to it, for the request's own page."""
    context = detail(user, row, **forms)
    return context | {"steps": story(row)}


def story(row: AccessRequest) -> list[Step]:
    """All that happened to a request and its grant but what was said, which is shown as said."""
    grant = getattr(row, "grant", None)
    ids = [row.pk] if grant is None else [row.pk, grant.pk]
    return timeline(*ids, without=(Event.REQUEST_COMMENTED, Event.REQUEST_QUESTIONED))
