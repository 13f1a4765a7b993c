"""Pages about what happens now: who is in, emergency stops, what a grant does, upstreams."""

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accessrequests.models import Grant
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from audit import clock
from broker.errors import NotFound
from credentials import stopping
from credentials.actions import end_grant
from endpoints.models import EmergencyStop, Endpoint
from endpoints.permissions import can_lift, check_stop
from gateway.forms import END, StopForm
from gateway.health import upstreams_of
from gateway.models import Call
from gateway.presence import By, inside, may_look, presence
from gateway.usage import NONE, Usage, rates_of

LATEST = 8
PAGE = 50


def _check_may_look(user: User) -> None:
    if not may_look(user):
        raise NotFound


def _target(request: HttpRequest) -> str:
    htmx: Any = getattr(request, "htmx", None)
    return str(htmx.target or "") if htmx else ""


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Who is in now, by endpoint or by person, and what is stopped."""
    user = person(request)
    _check_may_look(user)
    by: By = "person" if request.GET.get("by") == "person" else "endpoint"
    words = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    only = _uuid(request.GET.get("only", ""))
    context = {
        "presence": presence(user, by=by, only=only, words=words),
        "by": by,
        "words": words,
        "only": only,
        "query": request.GET.urlencode(),
        "stopped_all": None,
    }
    found: Any = context["presence"]
    context["stopped_all"] = next((row for row in found.stops if row.endpoint_id is None), None)
    part = _target(request) == "now"
    return render(request, "gateway/_live.html" if part else "gateway/live.html", context)


@never_cache
@require_POST
def live_end(request: HttpRequest) -> HttpResponse:
    """End one grant from the live page."""
    user = person(request)
    _check_may_look(user)
    grant = end_grant(by=user, grant_id=request.POST.get("grant", ""))
    endpoint = grant.request.profile.endpoint
    messages.success(
        request, f"Ended {grant.holder}’s access to {endpoint}. It is refused already."
    )
    query = request.POST.get("query", "")
    return redirect(f"{reverse('live')}?{query}" if query else "live")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def stop_new(request: HttpRequest) -> HttpResponseBase:
    """Stop an endpoint or everything, or end all access to it: what that will do, then do it."""
    user = person(request)
    slug = request.GET.get("endpoint", "")
    endpoint: Endpoint | None = None
    if slug:
        endpoint = Endpoint.objects.visible_to(user).filter(slug=slug).first()
        if endpoint is None:
            raise NotFound(kind="endpoint", id=slug)
    else:
        _check_may_look(user)
    check_stop(user, endpoint)
    # Before anything is filled in, not after.
    stepup.proofs(request).check(stopping.purpose(endpoint))
    form = StopForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        verb = stopping.end_all if form.cleaned_data["how"] == END else stopping.stop
        row = verb(
            by=user,
            endpoint=endpoint,
            reason=form.cleaned_data["reason"],
            proofs=stepup.proofs(request),
        )
        return redirect("stop", pk=row.pk)
    hit = inside(user)
    if endpoint is not None:
        hit = hit.filter(request__profile__endpoint=endpoint)
    context = {
        "endpoint": endpoint,
        "form": form,
        "grants": hit.count(),
        "people": hit.values("holder").distinct().count(),
        "already": EmergencyStop.objects.in_force()
        .filter(endpoint=endpoint)
        .select_related("stopped_by")
        .first(),
    }
    return render(request, "gateway/stop_new.html", context, status=400 if form.errors else 200)


@never_cache
@require_safe
def stop(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One stop: who, why, what it ended so far, and lifting it."""
    user = person(request)
    rows = EmergencyStop.objects.visible_to(user).select_related(
        "endpoint", "stopped_by", "lifted_by"
    )
    row = fetch(rows, pk)
    # Other stops may be against the same grants; what is left to be ended is the same.
    left = Grant.objects.filter(ended_at=None)
    if row.endpoint_id is not None:
        left = left.filter(request__profile__endpoint=row.endpoint_id)
    if row.lifted_at is not None:
        left = left.filter(request__decided_at__lt=row.lifted_at)
    context = {
        "row": row,
        "left": left.count(),
        "may_lift": row.lifted_at is None and can_lift(user, row),
        "ended_at_once": row.lifted_at == row.stopped_at,
    }
    part = _target(request) == "ending"
    return render(request, "gateway/_ending.html" if part else "gateway/stop.html", context)


@never_cache
@require_POST
def stop_lift(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Lift a stop: people may ask again."""
    row = stopping.lift(by=person(request), stop_id=pk, proofs=stepup.proofs(request))
    what = f"{row.endpoint} is" if row.endpoint else "Everything is"
    messages.success(request, f"Lifted. {what} open again: people may ask anew.")
    return redirect("stop", pk=row.pk)


@never_cache
@require_safe
def grant_usage(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What a grant has spent and its calls: a part of its page, and a page of its own."""
    user = person(request)
    grant = fetch(
        Grant.objects.visible_to(user).select_related("meter", "request__profile__endpoint"), pk
    )
    now = clock.now()
    context: dict[str, Any] = {
        "grant": grant,
        "endpoint": grant.request.profile.endpoint,
        "usage": Usage.of(grant),
        "rate": rates_of([grant], now).get(grant.pk, NONE),
        "live": grant.is_live(now),
        "mine": grant.holder_id == user.pk,
        "credentials": grant.credentials.exists(),
    }
    calls = Call.objects.filter(grant=grant)
    if _target(request) == "usage":
        context["calls"] = calls[:LATEST]
        return render(request, "gateway/_usage.html", context)
    refused = request.GET.get("refused") == "1"
    model = request.GET.get("model", "").replace("\x00", "")[:200]
    if refused:
        calls = calls.exclude(refusal="")
    if model:
        calls = calls.filter(model=model)
    marker = _uuid(request.GET.get("before", ""))
    before = Call.objects.filter(grant=grant, pk=marker).first() if marker else None
    if before is not None:
        calls = calls.filter(at__lt=before.at) | calls.filter(at=before.at, pk__lt=before.pk)
    rows = list(calls.order_by("-at", "-pk")[: PAGE + 1])
    context |= {
        "calls": rows[:PAGE],
        "older": rows[PAGE - 1].pk if len(rows) > PAGE else None,
        "newer": before is not None,
        "refused": refused,
        "model": model,
        "models": sorted(grant.allowed.models),
    }
    return render(request, "gateway/calls.html", context)


@never_cache
@require_safe
def upstreams(request: HttpRequest, slug: str) -> HttpResponse:
    """How an endpoint's upstreams answer: a part of its page, for its owner and auditors."""
    user = person(request)
    row = Endpoint.objects.visible_to(user).filter(slug=slug).first()
    if row is None:
        raise NotFound(kind="endpoint", id=slug)
    context = {"endpoint": row, "upstreams": upstreams_of(user, row)}
    return render(request, "gateway/_upstreams.html", context)
