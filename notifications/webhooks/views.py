"""Webhooks in the portal: the list, one with its delivery log, making and changing one."""

import datetime as dt
import uuid
from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from accounts.validation import add_errors
from audit import clock
from broker.errors import InvalidInput
from notifications.webhooks import actions
from notifications.webhooks.forms import ReplayForm, RotateForm, WebhookForm
from notifications.webhooks.models import Webhook, WebhookMessage
from notifications.webhooks.permissions import can_change, can_end
from notifications.webhooks.seeing import withhold

PAGE = 50
State = WebhookMessage.State


def _seen(user: User) -> Any:
    return Webhook.objects.visible_to(user).select_related("owner")


@never_cache
@require_safe
def webhooks(request: HttpRequest) -> HttpResponse:
    """One's own and those of one's service accounts; all of them for those who see everything."""
    user = person(request)
    mine = Q(owner=user) | Q(owner__owner=user)
    rows = _seen(user).annotate(
        due=Count("messages", filter=Q(messages__state=State.DUE)),
    )
    context = {
        "mine": rows.filter(mine)[:200],
        "others": rows.exclude(mine)[:200] if user.sees_everything else [],
    }
    return render(request, "notifications/webhooks.html", context)


@never_cache
@sensitive_variables("secret")
@require_http_methods(["GET", "HEAD", "POST"])
def webhook_new(request: HttpRequest) -> HttpResponse:
    """Make one, and show its secret, this once."""
    user = person(request)
    owners = [user, *User.objects.active().filter(owner=user).order_by("full_name")]
    form = WebhookForm(request.POST or stepup.posted(request, request.path), owners=owners)
    if request.method == "POST" and form.is_valid():
        chosen = form.cleaned_data.pop("owner", "")
        owner = next((each for each in owners if each.email == chosen), user)
        try:
            row, secret = actions.create_webhook(
                by=user, owner=owner, proofs=stepup.proofs(request), **form.cleaned_data
            )
        except InvalidInput as error:
            add_errors(form, error)
        else:
            return _secret(request, row, secret, new=True)
    wanted = actions.purpose(None)
    context = {
        "form": form,
        "fresh": stepup.proofs(request).fresh(wanted),
        "step_up": stepup.link(request.path, [wanted]),
    }
    code = 400 if request.method == "POST" else 200
    return render(request, "notifications/webhook_edit.html", context, status=code)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def webhook_edit(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Change its name, where it goes, and what it is told."""
    user = person(request)
    row = fetch(_seen(user), pk)
    said = request.POST or stepup.posted(request, request.path)
    initial = {"name": row.name, "url": row.url, "types": row.types}
    form = WebhookForm(said, initial=initial) if said else WebhookForm(initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            actions.change_webhook(
                by=user, webhook_id=pk, proofs=stepup.proofs(request), **form.cleaned_data
            )
        except InvalidInput as error:
            add_errors(form, error)
        else:
            messages.success(request, "Changed.")
            return redirect("webhook", pk=pk)
    context = {"form": form, "webhook": row, "may_change": can_change(user, row)}
    code = 400 if request.method == "POST" else 200
    return render(request, "notifications/webhook_edit.html", context, status=code)


@never_cache
@require_safe
def webhook(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One of them, with what was sent to it."""
    user = person(request)
    row = fetch(_seen(user), pk)
    return render(request, "notifications/webhook.html", _page(request, user, row))


def _page(request: HttpRequest, user: User, row: Webhook) -> dict[str, Any]:
    state = request.GET.get("state", "")
    sent = row.messages.prefetch_related("tries").order_by("-id")
    if state in State.values:
        sent = sent.filter(state=state)
    try:
        before = uuid.UUID(request.GET.get("before", ""))
    except ValueError:
        before = None
    if before is not None:
        sent = sent.filter(pk__lt=before)
    found = list(sent.select_related("webhook__owner__owner")[: PAGE + 1])
    withhold(user, found)
    counts = dict(
        row.messages.order_by()
        .values_list("state")
        .annotate(Count("pk"))
        .values_list("state", "pk__count")
    )
    now = clock.now()
    wanted = actions.purpose(row)
    return {
        "webhook": row,
        "now": now,
        "rows": found[:PAGE],
        "older": found[PAGE - 1].pk if len(found) > PAGE else None,
        "before": before,
        "state": state if state in State.values else "",
        "states": [(each, counts.get(each, 0)) for each in State],
        "total": sum(counts.values()),
        "both_until": row.earlier_until if row.earlier_until and row.earlier_until > now else None,
        "may_change": can_change(user, row),
        "may_end": can_end(user, row),
        "rotate": RotateForm(),
        "replay": ReplayForm(initial={"since": now - dt.timedelta(days=1)}),
        "fresh": stepup.proofs(request).fresh(wanted),
        "step_up": stepup.link(reverse("webhook", args=[row.pk]), [wanted]),
    }


def _secret(request: HttpRequest, row: Webhook, secret: str, *, new: bool) -> HttpResponse:
    context = {"webhook": row, "secret": secret, "new": new}
    answer = render(request, "notifications/webhook_secret.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


@never_cache
@sensitive_variables("secret")
@require_POST
def webhook_rotate(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Another secret, shown this once."""
    form = RotateForm(request.POST)
    overlap = form.cleaned_data["overlap"] if form.is_valid() else 86_400
    row, secret = actions.rotate_secret(
        by=person(request),
        webhook_id=pk,
        overlap=dt.timedelta(seconds=overlap),
        proofs=stepup.proofs(request),
    )
    return _secret(request, row, secret, new=False)


@never_cache
@require_POST
def webhook_test(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send a test event."""
    actions.send_test(by=person(request), webhook_id=pk)
    messages.success(
        request, "A test event is on its way. Reload in a moment to see what came of it."
    )
    return redirect("webhook", pk=pk)


@never_cache
@require_POST
def webhook_replay(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send again what was to be sent since a moment."""
    user = person(request)
    row = fetch(_seen(user), pk)
    form = ReplayForm(request.POST)
    if not form.is_valid():
        context = _page(request, user, row) | {"replay": form}
        return render(request, "notifications/webhook.html", context, status=400)
    count = actions.replay_since(by=user, webhook_id=pk, **form.cleaned_data)
    messages.success(request, f"{count} message{'' if count == 1 else 's'} will be sent again.")
    return redirect("webhook", pk=pk)


@never_cache
@require_POST
def webhook_message_replay(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send one message again."""
    row = actions.replay_message(by=person(request), message_id=pk)
    messages.success(request, f"{row.type} will be sent again.")
    return redirect("webhook", pk=row.webhook_id)


@never_cache
@require_POST
def webhook_enable(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send to it again."""
    actions.enable_webhook(by=person(request), webhook_id=pk)
    messages.success(request, "Enabled. What it missed can be sent again below.")
    return redirect("webhook", pk=pk)


@never_cache
@require_POST
def webhook_disable(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send nothing more to it."""
    actions.disable_webhook(by=person(request), webhook_id=pk)
    messages.success(request, "Disabled. Nothing more is sent to it.")
    return redirect("webhook", pk=pk)


@never_cache
@require_POST
def webhook_delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Delete it."""
    actions.delete_webhook(by=person(request), webhook_id=pk)
    messages.success(request, "Deleted.")
    return redirect("webhooks")
