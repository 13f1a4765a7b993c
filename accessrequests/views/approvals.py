"""The approver's dashboard: what waits, what was decided, and the figures of it."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accessrequests import actions, desk
from accessrequests.desk import KINDS, Filters, Page
from accessrequests.dossier import left_out
from accessrequests.figures import PERIODS, figures
from accessrequests.forms import ReviewForm
from accessrequests.models import AccessRequest, Review, Route
from accessrequests.models.requests import groups_of
from accessrequests.states import RequestState
from accessrequests.views.detail import detail, is_htmx, still_waits, visible
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from accounts.standing import check_standing
from audit import clock
from audit.refusals import record_refusal
from broker.errors import InvalidInput, NotFound, StepUpNeeded
from endpoints.models import Endpoint


def queue(
    user: User, filters: Filters, chosen: str | None, after: list[str] | None = None
) -> dict[str, Any]:
    """The queue, and the request shown beside it: the one chosen, or the first there is of
    `after`, or the first."""
    page = desk.page(user, filters)
    by_id = {str(item.request.pk): item.request for item in page.items}
    order = [chosen or "", *(after or []), *by_id]
    shown = next((by_id[pk] for pk in order if pk in by_id), None)
    context = list_context(filters, page) | {"shown": shown}
    if shown is not None:
        context |= detail(user, shown, filters=filters)
    return context


def list_context(filters: Filters, page: Page) -> dict[str, Any]:
    """What the list itself shows."""
    return {
        "queue": page.items,
        "filters": filters,
        "query": filters.query(),
        "more": filters.query(after=page.after) if page.after else "",
        "first": filters.query(after="") if filters.after else "",
        "seen": _digest(page),
    }


def _digest(page: Page) -> str:
    """Changes when anything that the list says does, but for the passing of time."""
    said = [
        (
            item.cursor,
            item.place,
            item.given,
            item.late,
            item.soon,
            item.asks and item.asks.pk,
            item.handed_to_me and item.handed_to_me.pk,
            item.handed_on and item.handed_on.pk,
            [each.pk for each in item.in_place_of],
        )
        for item in page.items
    ]
    return hashlib.sha256(repr((said, page.after)).encode()).hexdigest()[:16]


def filters_of(query: str) -> Filters:
    """The filters in a query string that a form of the queue sent along."""
    return Filters.parse(QueryDict(query.removeprefix("?")[:2000]).dict())


@never_cache
@require_safe
def approvals(request: HttpRequest) -> HttpResponse:
    """What waits for the reader's decision, with the details of one beside it."""
    user = person(request)
    filters = Filters.parse(request.GET.dict())
    chosen = request.GET.get("request")
    if is_htmx(request, "queue-list"):
        return _list_again(request, user, filters)
    context = queue(user, filters, chosen) | _bulk_kept(request)
    if chosen and (context["shown"] is None or str(context["shown"].pk) != chosen):
        # Somebody else was first, it lapsed, or it's on another page: its own page says which.
        row = fetch(visible(user), chosen)
        if not is_htmx(request):
            return redirect("request", pk=row.pk)
        context |= detail(user, row, filters=filters) | {"shown": row}
    context |= form_kept(request, context["shown"])
    if is_htmx(request, "detail"):
        return render(request, "accessrequests/_detail.html", context)
    if is_htmx(request, "queue"):
        return render(request, "accessrequests/_queue.html", context)
    return render(request, "accessrequests/approvals.html", context | choices(user))


def _bulk_kept(request: HttpRequest) -> dict[str, Any]:
    """What was selected and typed when a proof was asked for."""
    typed = stepup.posted(request, reverse("approvals-decide"))
    if typed is None:
        return {}
    return {"bulk_chosen": set(typed.getlist("requests")), "bulk_reason": typed.get("reason", "")}


def form_kept(request: HttpRequest, row: AccessRequest | None) -> dict[str, Any]:
    """The form for a verdict on this request as it was when a proof was asked for."""
    if row is None:
        return {}
    typed = stepup.posted(request, reverse("request-review", args=[row.pk]))
    if typed is None:
        return {}
    form = ReviewForm(typed, request=row)
    return {"form": form, "chose_less": form.is_valid() and bool(form.less())}


def choices(user: User) -> dict[str, Any]:
    """What the queue can be filtered by."""
    return {
        "tab": "waiting",
        "risks": Endpoint.Risk.choices,
        "environments": Endpoint.Environment.choices,
        "kinds": KINDS.items(),
        "endpoints": desk.endpoints(user),
    }


def _list_again(request: HttpRequest, user: User, filters: Filters) -> HttpResponse:
    """The list alone, as it is now; nothing at all if it is as the reader has it already."""
    page = desk.page(user, filters)
    context = list_context(filters, page)
    if request.GET.get("seen") == context["seen"]:
        return HttpResponse(status=204)
    shown = request.GET.get("shown", "")
    context["shown"] = {"pk": shown}
    if shown and all(str(item.request.pk) != shown for item in page.items):
        try:
            row = fetch(visible(user), shown)
        except NotFound:
            row = None
        context["overtaken"] = (
            row if row is not None and not still_waits(row, clock.now()) else None
        )
    return render(request, "accessrequests/_list.html", context | {"polled": True})


@never_cache
@require_POST
def approvals_decide(request: HttpRequest) -> HttpResponse:
    """The same verdict on several requests, each decided or refused by itself."""
    user = person(request)
    filters = filters_of(request.POST.get("query", ""))
    verdict, reason = request.POST.get("verdict", ""), request.POST.get("reason", "").strip()
    chosen = request.POST.getlist("requests")
    problem, status = "", 200
    outcomes: list[actions.Outcome] = []
    if verdict not in Review.Verdict.values:
        problem = "Choose to approve or to deny."
    elif verdict == Review.Verdict.DENY and not reason:
        problem = "Say why: each requester reads it."
    else:
        check_standing(request)
        try:
            outcomes = actions.review_many(
                by=user,
                request_ids=chosen,
                verdict=Review.Verdict(verdict),
                reason=reason,
                proofs=stepup.proofs(request),
            )
        except InvalidInput as error:
            problem = " ".join(error.errors.values())
    unproved = [each.error for each in outcomes if isinstance(each.error, StepUpNeeded)]
    if unproved and len(unproved) == len(outcomes):
        raise stepup.together(unproved)
    if unproved:
        stepup.keep_posted(request)
    for outcome in outcomes:
        if outcome.error is not None:
            record_refusal(outcome.error, by=user, method=request.method, path=request.path)
    if problem:
        status = 400
    context = queue(user, filters, None) | {
        "bulk_problem": problem,
        "bulk_reason": reason if problem else "",
        "bulk_chosen": set(chosen) if problem else set(),
        "results": results(user, outcomes),
        "step_up": stepup.link(
            reverse("approvals") + filters.query(), stepup.together(unproved).purposes
        )
        if unproved
        else "",
        "decided": True,
    }
    if is_htmx(request):
        return render(request, "accessrequests/_queue.html", context, status=status)
    return render(request, "accessrequests/approvals.html", context | choices(user), status=status)


def results(user: User, outcomes: Iterable[actions.Outcome]) -> list[dict[str, Any]]:
    """What became of each, with the request where the reader may know of it."""
    outcomes = list(outcomes)
    ids = [pk for pk in (_uuid(outcome.request_id) for outcome in outcomes) if pk]
    rows = {str(row.pk): row for row in visible(user).filter(pk__in=ids)}
    return [
        {
            "row": rows.get(outcome.request_id),
            "error": outcome.error,
            "denied": outcome.review is not None and outcome.review.verdict == Review.Verdict.DENY,
        }
        for outcome in outcomes
    ]


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


@never_cache
@require_safe
def approvals_decided(request: HttpRequest) -> HttpResponse:
    """What the reader decided, newest first, and what became of it."""
    user = person(request)
    mine = Review.objects.filter(reviewer=user).order_by("-at", "-id")
    rows = mine
    before = _uuid(request.GET.get("before", ""))
    last = mine.filter(pk=before).first() if before else None
    if last is not None:
        rows = rows.filter(Q(at__lt=last.at) | Q(at=last.at, id__lt=last.pk), at__lte=last.at)
    found = list(
        rows.select_related(
            "request__requester",
            "request__on_behalf_of",
            "request__profile__endpoint",
            "request__grant",
        )[: desk.SHOWN + 1]
    )
    shown = found[: desk.SHOWN]
    context = {
        "tab": "decided",
        "rows": [(review, review.request, left_out(review)) for review in shown],
        "older": shown[-1].pk if len(found) > desk.SHOWN else None,
        "before": last is not None,
    }
    return render(request, "accessrequests/decided.html", context)


@never_cache
@require_safe
def approvals_others(request: HttpRequest) -> HttpResponse:
    """What came to the reader and was decided without them, newest first."""
    user = person(request)
    before = _uuid(request.GET.get("before", ""))
    rows = (
        AccessRequest.objects.filter(pk__in=_decided_without(user, before))
        .select_related("requester", "on_behalf_of", "profile__endpoint", "grant")
        .order_by("-pk")
    )
    found = list(rows)
    context = {
        "tab": "others",
        "rows": found[: desk.SHOWN],
        "older": found[desk.SHOWN - 1].pk if len(found) > desk.SHOWN else None,
        "before": before is not None,
        "now": clock.now(),
    }
    return render(request, "accessrequests/decided_without.html", context)


def _decided_without(user: User, before: uuid.UUID | None) -> list[uuid.UUID]:
    """Their ids. Each group's are read from their own index as far as a page goes, and merged:
    over all groups at once, PostgreSQL would sort everything that was ever decided."""
    decided = Review.objects.filter(request=OuterRef("request"), reviewer=user)
    rows = Route.objects.filter(
        ~Exists(decided),
        ~Q(request__requester=user),
        ~Q(request__on_behalf_of=user),
        Q(request__break_glass=True, request__reviewed_at__isnull=False)
        | Q(request__break_glass=False) & ~Q(request__state=RequestState.PENDING),
    )
    if before is not None:
        rows = rows.filter(request__lt=before)
    ways = [rows.filter(group=pk) for (pk,) in groups_of(user).values_list("group")]
    ways.append(rows.filter(person=user))
    first, *more = [
        way.order_by("-request_id").values("request_id").distinct()[: desk.SHOWN + 1]
        for way in ways
    ]
    merged = first.union(*more).order_by("-request_id")[: desk.SHOWN + 1] if more else first
    return [row["request_id"] for row in merged]


@never_cache
@require_safe
def approvals_figures(request: HttpRequest) -> HttpResponse:
    """How the requests of the reader's profiles were decided of late."""
    user = person(request)
    asked = request.GET.get("days", "")
    days = next((number for number in PERIODS if str(number) == asked), PERIODS[0])
    context = {
        "tab": "figures",
        "days": days,
        "periods": PERIODS,
        "figures": figures(user, days=days, today=clock.now().date()),
    }
    return render(request, "accessrequests/figures.html", context)
