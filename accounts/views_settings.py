"""One's own: profile, sessions, password."""

import datetime as dt
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import actions, agents, factors, sessions, stepup
from accounts.forms import PasswordForm
from accounts.forms_people import ProfileForm
from accounts.models import Session
from accounts.session import person
from accounts.sso.configuration import provider
from accounts.validation import add_errors
from broker.errors import InvalidInput


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Name and time zone, and what others say of one."""
    user = person(request)
    initial = {"full_name": user.full_name, "time_zone": user.time_zone}
    form, status = ProfileForm(request.POST or None, initial=initial), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                actions.change_profile(by=user, **form.cleaned_data)
            except InvalidInput as error:
                add_errors(form, error)
            else:
                messages.success(request, "Saved.")
                return redirect("profile")
    context = {
        "form": form,
        "groups": user.member_of.all(),
        "has_password": actions.has_password(user),
        "owned": user.owns_groups.all(),
        "services": user.service_accounts.filter(is_active=True),
    }
    return render(request, "accounts/profile.html", context, status=status)


def _shown(row: Session, current: str | None) -> dict[str, Any]:
    since = None if row.began is None else dt.datetime.fromtimestamp(row.began, dt.UTC)
    by_provider = provider(row.how)
    return {
        "name": sessions.name_of(row.session_key),
        "current": row.session_key == current,
        "how": row.how if by_provider is None else by_provider.name,
        "where": row.address,
        "agent": agents.in_words(row.agent),
        "since": since,
        "used": row.expire_date - dt.timedelta(seconds=settings.SESSION_COOKIE_AGE),
    }


@never_cache
@require_safe
def own_sessions(request: HttpRequest) -> HttpResponse:
    """Where one is signed in."""
    current = request.session.session_key
    rows = [_shown(row, current) for row in sessions.opened(person(request))]
    rows.sort(key=lambda row: not row["current"])
    return render(request, "accounts/sessions.html", {"rows": rows})


@never_cache
@require_POST
def session_end(request: HttpRequest) -> HttpResponse:
    """End one of one's own sessions."""
    actions.end_session(by=person(request), name=request.POST.get("name", ""))
    messages.success(request, "That session has ended.")
    return redirect("sessions")


@never_cache
@require_POST
def sessions_end(request: HttpRequest) -> HttpResponse:
    """End all of one's sessions but this one."""
    user = person(request)
    ended = actions.end_sessions(by=user, person=user, but=request.session.session_key)
    messages.success(
        request,
        f"{ended} other session{'' if ended == 1 else 's'} ended."
        if ended
        else "You were signed in nowhere else.",
    )
    return redirect("sessions")


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    """Change one's password."""
    user, proofs = person(request), stepup.proofs(request)
    actions.check_has_password(user)
    # Before anything is typed: a form isn't sent again after a second factor.
    factors.check_may_change(user, proofs)
    form, status = PasswordForm(request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                actions.change_password(
                    by=user,
                    request=request,
                    current=form.cleaned_data["current"],
                    password=form.cleaned_data["password"],
                    proofs=proofs,
                )
            except InvalidInput as error:
                add_errors(form, error)
            else:
                # This session goes on, under another key; all others have ended.
                update_session_auth_hash(request, user)
                stepup.forget(request)
                messages.success(request, "Your password is changed. Other sessions have ended.")
                return redirect("profile")
    return render(request, "accounts/password.html", {"form": form}, status=status)
