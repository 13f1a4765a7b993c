import uuid

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.session import person
from accounts.validation import add_errors
from broker.errors import InvalidInput
from notifications import actions
from notifications.forms import SettingsForm
from notifications.kinds import Topic
from notifications.models import Notification

PAGE = 30


def _id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


@never_cache
@require_safe
def notifications(request: HttpRequest) -> HttpResponse:
    """What the reader was told, newest first. Looking marks nothing as read."""
    rows = Notification.objects.visible_to(person(request))
    unread_only = request.GET.get("show") == "unread"
    before = _id(request.GET.get("before", ""))
    if unread_only:
        rows = rows.unread()
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-id")[: PAGE + 1])
    context = {
        "rows": found[:PAGE],
        "unread_only": unread_only,
        "before": before,
        "older": found[PAGE - 1].pk if len(found) > PAGE else None,
    }
    return render(request, "notifications/list.html", context)


@never_cache
@require_POST
def notification_read(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Mark one as read."""
    actions.mark_read(by=person(request), notification_id=pk)
    return redirect("notifications")


@never_cache
@require_POST
def notifications_read(request: HttpRequest) -> HttpResponse:
    """Mark all as read."""
    actions.mark_all_read(by=person(request))
    return redirect("notifications")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def notification_settings(request: HttpRequest) -> HttpResponseBase:
    """What the reader wants to be told, and how."""
    user = person(request)
    serves = {"email": settings.KEYTURN_EMAIL, "chat": bool(settings.KEYTURN_CHAT_URL)}
    status = 200
    if request.method == "POST":
        form = SettingsForm(request.POST, zone=user.time_zone, **serves)
        if form.is_valid():
            try:
                actions.change_settings(by=user, **form.cleaned_data)
            except InvalidInput as error:
                add_errors(form, error)
            else:
                messages.success(request, "Saved.")
                return redirect("notification-settings")
        status = 400
    else:
        initial = SettingsForm.initial_of(actions.preference(user))
        form = SettingsForm(initial=initial, zone=user.time_zone, **serves)
    context = {"form": form, "security": Topic.SECURITY.label} | serves
    return render(request, "notifications/settings.html", context, status=status)
