import json

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from audit.events import Event
from audit.models import AuditEvent, AuditEvents
from audit.reading import sentence, step
from broker.errors import NotFound

PAGE = 50
ABOUT = {
    "access_request": "Requests",
    "grant": "Grants",
    "credential": "Credentials",
    "access": "Refusals",
    "session": "Sign-ins",
    "endpoint": "Endpoints",
    "access_profile": "Access profiles",
    "upstream_secret": "Upstream secrets",
    "user": "People",
    "group": "Groups",
    "api_token": "API tokens",
}


def visible(request: HttpRequest) -> AuditEvents:
    """Everything for those who see everything; for others, what concerns themselves."""
    user = request.user
    if not user.is_authenticated:
        raise NotFound
    rows = AuditEvent.objects.all()
    return rows.visible_to(user)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@never_cache
@require_safe
def record(request: HttpRequest) -> HttpResponse:
    """Who did what, newest first."""
    rows = visible(request)
    words = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    about = request.GET.get("about", "")
    before = _number(request.GET.get("before", ""))
    for word in words.split()[:8]:
        rows = rows.filter(
            Q(actor__icontains=word)
            | Q(subject__icontains=word)
            | Q(event__icontains=word)
            | Q(event__in=[e for e in Event if word.lower() in e.label.lower()])
        )
    if about in ABOUT:
        rows = rows.filter(event__startswith=f"{about}:")
    if before is not None:
        rows = rows.filter(id__lt=before)
    found = list(rows[: PAGE + 1])
    page = found[:PAGE]
    context = {
        "steps": [(row, step(row)) for row in page],
        "words": words,
        "about": about,
        "abouts": ABOUT,
        "before": before,
        "older": page[-1].id if len(found) > PAGE else None,
        "filtered": bool(words or about in ABOUT),
    }
    part = getattr(request, "htmx", False) and request.htmx.target == "results"  # type: ignore[attr-defined]
    return render(request, "audit/_results.html" if part else "audit/record.html", context)


@never_cache
@require_safe
def record_event(request: HttpRequest, pk: int) -> HttpResponse:
    """One event, with all that was recorded; its address stays valid for ever."""
    row = visible(request).filter(pk=pk).first()
    if row is None:
        raise NotFound(kind="auditevent", id=str(pk))
    context = {
        "row": row,
        "sentence": sentence(row),
        "step": step(row),
        "data": json.dumps(row.data, indent=2, ensure_ascii=False, sort_keys=True),
    }
    return render(request, "audit/event.html", context)
