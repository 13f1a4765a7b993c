import uuid
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import push_url, retarget

from accessrequests import actions
from accessrequests.dossier import dossier
from accessrequests.forms import ReviewForm
from accessrequests.models import AccessRequest, Review
from accessrequests.permissions import can_review
from accessrequests.states import RequestState
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from audit import clock
from audit.reading import timeline
from audit.refusals import record_refusal
from broker.errors import Conflict, InvalidInput

QUEUE_SHOWN = 100


def _htmx(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def _visible(user: User) -> QuerySet[AccessRequest]:
    return AccessRequest.objects.visible_to(user).select_related(
        "requester", "profile__endpoint__owner", "profile__reviewers", "profile__requesters"
    )


def _detail(user: User, row: AccessRequest, form: ReviewForm | None = None) -> dict[str, Any]:
    now = clock.now()
    grant = getattr(row, "grant", None)
    # Whether it still waits is a matter of the clock, not of a worker having run.
    lapsed = row.state == RequestState.PENDING and row.pending_until <= now
    pending = row.state == RequestState.PENDING and not lapsed
    return {
        "row": row,
        "profile": row.profile,
        "endpoint": row.profile.endpoint,
        "grant": grant,
        "grant_live": grant is not None and grant.is_live(now),
        "pending": pending,
        "lapsed": lapsed,
        "mine": row.requester_id == user.pk,
        "belongs_to": "" if row.requester_id == user.pk else reverse("approvals"),
        "decides": pending and can_review(user, row),
        "dossier": dossier(row, now),
        "form": form or ReviewForm(),
    }


@never_cache
@require_safe
def request_page(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Where one request is."""
    user = person(request)
    row = fetch(_visible(user), pk)
    context = _detail(user, row)
    ids: list[object] = [row.pk]
    if context["grant"] is not None:
        ids.append(context["grant"].pk)
    context["steps"] = timeline(*ids)
    return render(request, "accessrequests/request.html", context)


def _queue(user: User, chosen: str | None, after: list[str] | None = None) -> dict[str, Any]:
    """The queue, oldest first, and the request shown beside it."""
    rows = list(
        AccessRequest.objects.waiting_for(user)
        .select_related("requester", "profile__endpoint__owner", "profile__reviewers")
        .order_by("id")[:QUEUE_SHOWN]
    )
    shown = next((row for row in rows if str(row.pk) == chosen), None)
    if shown is None and after:
        by_id = {str(row.pk): row for row in rows}
        shown = next((by_id[pk] for pk in after if pk in by_id), None)
    if shown is None and rows:
        shown = rows[0]
    context: dict[str, Any] = {"queue": rows, "shown": shown}
    if shown is not None:
        context |= _detail(user, shown)
    return context


@never_cache
@require_safe
def approvals(request: HttpRequest) -> HttpResponse:
    """What waits for the reader's decision, with the details of one beside it."""
    user = person(request)
    chosen = request.GET.get("request")
    context = _queue(user, chosen)
    if chosen and (context["shown"] is None or str(context["shown"].pk) != chosen):
        # Somebody else was first, or it lapsed: its own page says which.
        row = fetch(_visible(user), chosen)
        if _htmx(request):
            context |= _detail(user, row) | {"shown": row}
        else:
            return redirect("request", pk=row.pk)
    part = _htmx(request) and request.htmx.target == "detail"  # type: ignore[attr-defined]
    page = "accessrequests/_detail.html" if part else "accessrequests/approvals.html"
    return render(request, page, context)


@never_cache
@require_POST
def request_review(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Approve or deny; from the queue the next request is then beside it."""
    user = person(request)
    form = ReviewForm(request.POST)
    form.is_valid()
    verdict = form.cleaned_data.get("verdict")
    row = fetch(_visible(user), pk)
    from_queue = request.POST.get("from") == "approvals"
    order = [str(item.pk) for item in AccessRequest.objects.waiting_for(user).order_by("id")]
    at = order.index(str(pk)) if str(pk) in order else 0
    status, lost = 200, ""
    try:
        if verdict is None:
            raise InvalidInput({"verdict": "Choose to approve or to deny."})
        actions.review_request(
            by=user,
            request_id=pk,
            verdict=Review.Verdict(verdict),
            reason=form.cleaned_data.get("reason", ""),
        )
    except InvalidInput as error:
        for name, message in error.errors.items():
            if not form.has_error(name):
                form.add_error(name if name in form.fields else None, message)
        return _not_decided(request, user, row, form)
    except Conflict as error:
        # A decision that lost a race says who decided, and changes nothing.
        record_refusal(error, by=user, method=request.method, path=request.path)
        status, lost = error.status, error.detail
        messages.warning(request, f"{row.requester}’s request: {lost}")
    else:
        _say_decided(request, row, verdict)
    if from_queue and _htmx(request):
        context = _queue(user, None, order[at + 1 :] + order[:at][::-1]) | {"decided": True}
        response = render(request, "accessrequests/_queue.html", context, status=status)
        shown = context["shown"]
        address = reverse("approvals") + (f"?request={shown.pk}" if shown else "")
        return push_url(retarget(response, "#queue"), address)
    if lost:
        fresh = fetch(_visible(user), pk)
        context = _detail(user, fresh) | {"steps": timeline(fresh.pk)}
        return render(request, "accessrequests/request.html", context, status=status)
    return redirect("approvals") if from_queue else redirect("request", pk=pk)


def _say_decided(request: HttpRequest, row: AccessRequest, verdict: str) -> None:
    if verdict == Review.Verdict.APPROVE:
        until = timezone.localtime(clock.now() + row.duration)
        messages.success(
            request,
            f"Approved. {row.requester} has access to {row.profile.endpoint} until {until:%H:%M}.",
        )
    else:
        messages.success(request, f"Denied. {row.requester} reads your reason.")


def _not_decided(
    request: HttpRequest, user: User, row: AccessRequest, form: ReviewForm
) -> HttpResponse:
    """The same page again with what was missing, and nothing written."""
    context = _detail(user, row, form)
    if _htmx(request):
        context["shown"] = row
        return retarget(
            render(request, "accessrequests/_detail.html", context, status=400), "#detail"
        )
    context["steps"] = timeline(row.pk)
    return render(request, "accessrequests/request.html", context, status=400)
