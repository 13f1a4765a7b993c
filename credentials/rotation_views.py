"""An endpoint's keys: how old, who holds them, how they are rotated, and doing so."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import stepup
from accounts.models import User
from accounts.session import person
from audit import clock
from broker.errors import InvalidInput, NotFound
from credentials import actions, stopping
from credentials.actions import rotations
from credentials.actions.upstream_keys import rotator_of
from credentials.models import Rotation, UpstreamSecret, Use
from credentials.rotation_forms import KeyForm, LeakForm
from credentials.rotators.base import Rotator
from credentials.states import RotationState
from endpoints.models import Endpoint
from endpoints.permissions import can_stop

HISTORY = 20
# What has been reached, in the order in which it is.
STEPS = (
    ("Made due", "due_at"),
    ("New key made and stored", "created_at"),
    ("Tried at the endpoint, and in use", "published_at"),
    ("Old key retired, and refused", "retired_at"),
)


@dataclass(frozen=True)
class Shown:
    """One secret as its page has it."""

    secret: UpstreamSecret
    rotator: Rotator
    rotation: Rotation | None
    late: bool
    history: list[Rotation]

    @property
    def steps(self) -> list[tuple[str, Any, str]]:
        """What the open rotation has reached, when (None for what is to come), and how that
        looks."""
        found = []
        kind = "good"
        for text, column in STEPS:
            at = getattr(self.rotation, column)
            if at is None:
                wrong = self.rotation is not None and self.rotation.last_error
                kind = "" if kind != "good" else "bad" if wrong else "wait"
            found.append((text, at, kind))
        return found

    @property
    def waits_for_owner(self) -> str:
        """What only a person can do next: "store", "delete", or nothing."""
        rotation = self.rotation
        if rotation is None or self.rotator.by_itself:
            stuck = rotation is not None and rotation.waits_for.startswith("somebody to delete")
            return "delete" if stuck else ""
        if rotation.state != RotationState.PUBLISHED:
            return "store"
        return "delete" if rotation.confirmed_at is None else ""


def shown(endpoint: Endpoint, *, history: int = HISTORY) -> list[Shown]:
    """The endpoint's secrets, its upstream key first."""
    now, found = clock.now(), []
    for secret in endpoint.secrets.select_related("endpoint").order_by("-use"):
        rows = list(secret.rotations.select_related("by")[: history + 1])
        rotation = next((row for row in rows if row.is_open), None)
        found.append(
            Shown(
                secret,
                rotator_of(secret),
                rotation,
                rotation is not None and rotation.is_late(now),
                [row for row in rows if not row.is_open][:history],
            )
        )
    return found


def _endpoint(request: HttpRequest, slug: str) -> tuple[User, Endpoint]:
    user = person(request)
    row = Endpoint.objects.visible_to(user).select_related("owner").filter(slug=slug).first()
    if row is None:
        raise NotFound(kind="endpoint", id=slug)
    return user, row


def _use(request: HttpRequest) -> Use:
    use = request.POST.get("use", Use.UPSTREAM)
    return Use(use) if use in Use.values else Use.UPSTREAM


def _page(request: HttpRequest, user: User, endpoint: Endpoint) -> dict[str, Any]:
    sees = user.sees_everything or endpoint.owner_id == user.pk
    found, wanted = shown(endpoint), rotations.purpose(endpoint)
    return {
        "endpoint": endpoint,
        "now": clock.now(),
        "sees": sees,
        "shown": found if sees else [],
        "exposed": any(each.secret.is_exposed for each in found),
        "takes_key": endpoint.key_header != "none",
        "may_rotate": can_stop(user, endpoint),
        "fresh": stepup.proofs(request).fresh(wanted),
        "step_up": stepup.link(reverse("upstream-key", args=[endpoint.slug]), [wanted]),
        "form": KeyForm(),
    }


def _render(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    htmx: Any = getattr(request, "htmx", None)
    part = bool(htmx) and htmx.target in {"upstream-key", "keys"}
    page = "credentials/_keys.html" if part and htmx.target == "keys" else "credentials/keys.html"
    if part and htmx.target == "upstream-key":
        page = "credentials/_upstream_key.html"
    return render(request, page, context, status=status)


@never_cache
@require_safe
def upstream_key(request: HttpRequest, slug: str) -> HttpResponse:
    """An endpoint's keys and their rotations: a page, and a part of the endpoint's own."""
    user, endpoint = _endpoint(request, slug)
    return _render(request, _page(request, user, endpoint))


@never_cache
@require_POST
def upstream_key_rotate(request: HttpRequest, slug: str) -> HttpResponse:
    """Rotate now."""
    user, endpoint = _endpoint(request, slug)
    actions.rotate(
        by=user,
        endpoint=endpoint,
        use=_use(request),
        reason=request.POST.get("reason", ""),
        proofs=stepup.proofs(request),
    )
    messages.success(request, "The rotation has begun. This page shows how far it is.")
    return redirect("upstream-key", slug=slug)


@never_cache
@sensitive_post_parameters("key")
@sensitive_variables("form", "context")
@require_POST
def upstream_key_store(request: HttpRequest, slug: str) -> HttpResponse:
    """Store a new key, which is shown to nobody again."""
    user, endpoint = _endpoint(request, slug)
    form = KeyForm(request.POST)
    if form.is_valid():
        try:
            version = actions.enter_key(
                by=user,
                endpoint=endpoint,
                key=form.cleaned_data["key"],
                use=_use(request),
                proofs=stepup.proofs(request),
            )
        except InvalidInput as error:
            form.add_error("key", error.errors["key"])
        else:
            messages.success(request, f"Stored as version {version}.")
            return redirect("upstream-key", slug=slug)
    context = _page(request, user, endpoint) | {
        "form": form,
        "blank": KeyForm(),
        "failed": _use(request),
    }
    return _render(request, context, 400)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def upstream_key_leak(request: HttpRequest, slug: str) -> HttpResponse:
    """Report that a key of this endpoint leaked."""
    user, endpoint = _endpoint(request, slug)
    form, wanted = (
        LeakForm(request.POST or stepup.posted(request, request.path)),
        stopping.purpose(endpoint),
    )
    if request.method == "POST" and form.is_valid():
        try:
            actions.report_leak(
                by=user,
                endpoint=endpoint,
                reason=form.cleaned_data["reason"],
                use=_use(request),
                stop_it=form.cleaned_data["stop"],
                proofs=stepup.proofs(request),
            )
        except InvalidInput as error:
            form.add_error("reason", error.errors["reason"])
        else:
            messages.success(request, "Reported. The key is being rotated; thank you.")
            return redirect("endpoint", slug=slug)
    context = {
        "endpoint": endpoint,
        "form": form,
        "uses": [each.secret for each in shown(endpoint, history=0)],
        "may_stop": can_stop(user, endpoint),
        "fresh": stepup.proofs(request).fresh(wanted),
        "step_up": stepup.link(reverse("upstream-key-leak", args=[slug]), [wanted]),
    }
    return render(request, "credentials/leak.html", context, status=400 if form.errors else 200)


@never_cache
@require_POST
def rotation_confirm(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """The old key is deleted at its provider."""
    rotation = actions.confirm_retired(
        by=person(request), rotation_id=pk, proofs=stepup.proofs(request)
    )
    messages.success(request, "Noted. Keyturn now tries the old key, which must be refused.")
    return redirect("upstream-key", slug=rotation.secret.endpoint.slug)
