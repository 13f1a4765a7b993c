import uuid
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accessrequests import actions
from accessrequests.dossier import differences
from accessrequests.forms import OTHER, RequestForm, minutes
from accessrequests.models import AccessRequest
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from audit import clock
from broker.errors import InvalidInput
from endpoints.models import AccessProfile


def _rows() -> QuerySet[AccessRequest]:
    return AccessRequest.objects.select_related(
        "requester", "profile__endpoint__owner", "profile__reviewers", "profile__requesters"
    )


def _initial(request: HttpRequest, user: User, profile: AccessProfile) -> dict[str, Any]:
    """The profile's defaults, or what an earlier request of the reader's asked for."""
    length, models, why = profile.default_duration, profile.default_scope.models, ""
    if again := request.GET.get("again"):
        earlier = fetch(AccessRequest.objects.filter(requester=user, profile=profile), again)
        length = min(earlier.duration, profile.max_duration)
        models = (earlier.asked.models & profile.ceiling.models) or models
        why = earlier.justification
    shown = dict(RequestForm(profile=profile).fields["duration"].choices)  # type: ignore[attr-defined]
    number = str(minutes(length))
    return {
        "duration": number if number in shown else OTHER,
        "minutes": None if number in shown else number,
        "models": sorted(models),
        "justification": why,
    }


def _preview(user: User, profile: AccessProfile, form: RequestForm) -> dict[str, Any]:
    """What filing the form as it stands would lead to, or why it can't be filed."""
    length, models = form.cleaned_data.get("length"), form.cleaned_data.get("models")
    errors = {
        name: " ".join(str(message) for message in found)
        for name, found in form.errors.items()
        if name != "justification"
    }
    if "duration" not in errors and "minutes" not in errors and "models" not in errors:
        try:
            asked = actions.preview_request(
                by=user, profile_id=profile.pk, duration=length, models=models
            )
        except InvalidInput as error:
            errors = error.errors
        else:
            return {
                "asked": asked,
                "difference": differences(profile, asked.duration, asked.scope.models),
            }
    return {"problems": list(errors.values()), "errors": errors}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def request_new(request: HttpRequest, profile_id: uuid.UUID) -> HttpResponseBase:
    """Ask for access: the form, with what would happen beside it."""
    user = person(request)
    profile = fetch(AccessProfile.objects.open_to(user), profile_id)
    status = 200
    if request.method == "POST":
        form = RequestForm(request.POST, profile=profile)
        form.is_valid()
        errors: dict[str, str] = {}
        if not form.errors:
            try:
                filed = actions.file_request(
                    by=user,
                    profile_id=profile_id,
                    justification=form.cleaned_data["justification"],
                    duration=form.cleaned_data["length"],
                    models=form.cleaned_data["models"],
                )
            except InvalidInput as error:
                errors = error.errors
            else:
                messages.success(request, "Asked. You don’t need to keep this page open.")
                return redirect("request", pk=filed.pk)
        status = 400
        preview = _preview(user, profile, form)
        # All that is wrong at once, not one thing after the other.
        for name, message in (preview.pop("errors", {}) | errors).items():
            if name not in form.fields:
                form.add_error(None, message)
            elif not form.has_error(name):
                form.add_error(name, message)
    else:
        initial = _initial(request, user, profile)
        form = RequestForm(initial=initial, profile=profile)
        trial = RequestForm(initial, profile=profile)
        trial.is_valid()
        preview = _preview(user, profile, trial)
    context = {"form": form, "profile": profile, "endpoint": profile.endpoint} | preview
    context["chosen_models"] = form["models"].value() or []
    context["chosen_duration"] = form["duration"].value()
    return render(request, "accessrequests/new.html", context, status=status)


@never_cache
@require_POST
def request_preview(request: HttpRequest, profile_id: uuid.UUID) -> HttpResponse:
    """What the form would lead to as it stands. Writes nothing."""
    user = person(request)
    profile = fetch(AccessProfile.objects.open_to(user), profile_id)
    form = RequestForm(request.POST, profile=profile)
    form.is_valid()
    context = {"profile": profile, "endpoint": profile.endpoint} | _preview(user, profile, form)
    return render(request, "accessrequests/_preview.html", context)


@never_cache
@require_POST
def request_again(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """File the same ask once more. Where it no longer fits its profile, the form says why."""
    user = person(request)
    earlier = fetch(_rows().filter(requester=user), pk)
    try:
        filed = actions.file_request(
            by=user,
            profile_id=earlier.profile_id,
            justification=earlier.justification,
            duration=earlier.duration,
            models=sorted(earlier.asked.models),
        )
    except InvalidInput as error:
        if not AccessProfile.objects.open_to(user).filter(pk=earlier.profile_id).exists():
            messages.error(
                request, "You may no longer ask for this. See the catalogue for what you may."
            )
            return redirect("catalogue")
        messages.error(
            request, f"It can’t be asked for as before. {' '.join(error.errors.values())}"
        )
        return redirect("request-new", profile_id=earlier.profile_id)
    messages.success(request, "Asked again, with the same reason.")
    return redirect("request", pk=filed.pk)


@never_cache
@require_safe
def requests(request: HttpRequest) -> HttpResponse:
    """All that the reader ever asked for."""
    user = person(request)
    rows = _rows().filter(requester=user).select_related("grant")[:200]
    now = clock.now()
    return render(request, "accessrequests/requests.html", {"rows": rows, "now": now})


@never_cache
@require_POST
def request_cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take a pending request back."""
    actions.cancel_request(by=person(request), request_id=pk)
    messages.success(request, "Cancelled. Nobody needs to decide it any more.")
    return redirect("request", pk=pk)
