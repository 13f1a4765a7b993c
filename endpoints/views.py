from dataclasses import dataclass

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.session import person
from broker.errors import NotFound
from endpoints.models import AccessProfile, Dialect, Endpoint


@dataclass(frozen=True)
class Offer:
    """An endpoint with those of its profiles that the reader sees, and which they may ask for."""

    endpoint: Endpoint
    profiles: list[tuple[AccessProfile, bool]]


def offers(user: User, endpoints: list[Endpoint]) -> list[Offer]:
    """These endpoints with their profiles, in three queries whatever their number."""
    open_ids = set(AccessProfile.objects.open_to(user).values_list("pk", flat=True))
    seen: dict[object, dict[object, AccessProfile]] = {}
    for profile in (
        AccessProfile.objects.visible_to(user)
        .filter(endpoint__in=endpoints, retired_at=None)
        .select_related("endpoint", "reviewers")
    ):
        seen.setdefault(profile.endpoint_id, {})[profile.pk] = profile
    return [
        Offer(
            endpoint,
            [(profile, profile.pk in open_ids) for profile in seen.get(endpoint.pk, {}).values()],
        )
        for endpoint in endpoints
    ]


@never_cache
@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """What there is, and what the reader may ask for."""
    user = person(request)
    every = Endpoint.objects.visible_to(user).filter(retired_at=None).select_related("owner")
    rows = every
    words = request.GET.get("q", "").replace("\x00", "").strip()[:200]
    for word in words.split()[:8]:
        # Only what the reader sees may answer: a hit tells of the profile that it's in.
        matching = (
            AccessProfile.objects.visible_to(user)
            .filter(endpoint=OuterRef("pk"), retired_at=None)
            .filter(
                Q(name__icontains=word)
                | Q(description__icontains=word)
                | Q(scope__models__icontains=word)
            )
        )
        rows = rows.filter(
            Q(name__icontains=word)
            | Q(slug__icontains=word)
            | Q(description__icontains=word)
            | Q(connected_systems__icontains=word)
            | Exists(matching)
        )
    chosen = {}
    for name, choices in (
        ("environment", Endpoint.Environment),
        ("risk", Endpoint.Risk),
        ("kind", Endpoint.Kind),
    ):
        value = request.GET.get(name, "")
        if value in choices.values:
            chosen[name] = value
            rows = rows.filter(**{name: value})
    context = {
        "offers": offers(user, list(rows)),
        "words": words,
        "chosen": chosen,
        "environments": Endpoint.Environment.choices,
        "risks": Endpoint.Risk.choices,
        "kinds": Endpoint.Kind.choices,
        "filtered": bool(words or chosen),
        "any": every.exists(),
    }
    part = getattr(request, "htmx", False) and request.htmx.target == "results"  # type: ignore[attr-defined]
    page = "endpoints/_results.html" if part else "endpoints/catalogue.html"
    return render(request, page, context)


@never_cache
@require_safe
def endpoint(request: HttpRequest, slug: str) -> HttpResponse:
    """One endpoint: what it is, what it reaches, what may be asked for on it."""
    user = person(request)
    row = Endpoint.objects.visible_to(user).select_related("owner").filter(slug=slug).first()
    if row is None:
        raise NotFound(kind="endpoint", id=slug)
    context = {
        "endpoint": row,
        "offer": offers(user, [row])[0],
        "dialects": [Dialect(name).label for name in row.dialects],
        "base_url": f"{settings.KEYTURN_GATEWAY_URL}/e/{row.slug}/v1",
    }
    return render(request, "endpoints/endpoint.html", context)
