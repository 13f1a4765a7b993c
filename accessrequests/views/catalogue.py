import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accessrequests.actions.asking import MOST_TOGETHER
from accessrequests.outlook import Offered, offered
from accounts.models import User
from accounts.session import person
from broker.errors import NotFound
from endpoints.forms import PriceForm
from endpoints.models import AccessProfile, Dialect, EmergencyStop, Endpoint
from endpoints.permissions import can_stop
from endpoints.prices import price_list


@dataclass(frozen=True)
class Offer:
    """An endpoint with those of its profiles that the reader sees, and which they may ask for."""

    endpoint: Endpoint
    profiles: list[Offered]


def offers(user: User, endpoints: list[Endpoint]) -> list[Offer]:
    """These endpoints with their profiles, in six queries whatever their number."""
    open_ids: set[object] = set(AccessProfile.objects.open_to(user).values_list("pk", flat=True))
    seen = {
        profile.pk: profile
        for profile in AccessProfile.objects.visible_to(user)
        .filter(endpoint__in=endpoints, retired_at=None)
        .select_related("endpoint", "reviewers")
    }
    by_endpoint: dict[object, list[Offered]] = {}
    for each in offered(user, seen.values(), open_ids):
        by_endpoint.setdefault(each.profile.endpoint_id, []).append(each)
    return [Offer(endpoint, by_endpoint.get(endpoint.pk, [])) for endpoint in endpoints]


def _chosen_elsewhere(user: User, chosen: list[str], shown: list[Offer]) -> list[AccessProfile]:
    """What was chosen to be asked for and isn't among the results any more."""
    visible = {str(each.profile.pk) for offer in shown for each in offer.profiles}
    rest = [pk for pk in chosen if pk not in visible]
    return list(AccessProfile.objects.open_to(user).filter(pk__in=rest)) if rest else []


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


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
    found = offers(user, list(rows))
    picked = [pk for pk in request.GET.getlist("profile")[:MOST_TOGETHER] if _is_id(pk)]
    context = {
        "offers": found,
        "picked": picked,
        "picked_elsewhere": _chosen_elsewhere(user, picked, found),
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
    """One endpoint: what it is, what it reaches, what may be asked for on it and what it costs."""
    user = person(request)
    row = Endpoint.objects.visible_to(user).select_related("owner").filter(slug=slug).first()
    if row is None:
        raise NotFound(kind="endpoint", id=slug)
    stop = EmergencyStop.objects.against(row.pk, None).select_related("stopped_by").first()
    offer = offers(user, [row])[0]
    owns = user.is_administrator or row.owner_id == user.pk
    context = {
        "endpoint": row,
        "offer": offer,
        "stop": stop,
        "sees_stop": user.sees_everything or row.owner_id == user.pk,
        "sees_upstreams": not row.is_direct and (user.sees_everything or row.owner_id == user.pk),
        "may_stop": can_stop(user, row),
        "prices": price_list(row),
        "price_form": PriceForm() if owns else None,
        "models": sorted({name for item in offer.profiles for name in item.profile.ceiling.models}),
        "dialects": [Dialect(name).label for name in row.dialects],
        "base_url": "" if row.is_direct else f"{settings.KEYTURN_GATEWAY_URL}/e/{row.slug}/v1",
    }
    return render(request, "endpoints/endpoint.html", context)
