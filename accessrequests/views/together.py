import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accessrequests import actions
from accessrequests.actions import Preview
from accessrequests.actions.asking import MOST_TOGETHER
from accessrequests.facts import effective_for, sources_for
from accessrequests.forms import RequestForm, minutes
from accessrequests.outlook import StepWords, steps_in_words
from accessrequests.policy.effective import Effective
from accessrequests.views.asking import needs_factor
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from accounts.stepup import Action, Purpose
from broker.errors import InvalidInput
from endpoints.models import AccessProfile


@dataclass(frozen=True)
class Outlook:
    """What would become of the ask for one of several profiles."""

    profile: AccessProfile
    asked: Preview | None
    steps: list[StepWords]
    problems: dict[str, str]


def _chosen(request: HttpRequest) -> list[AccessProfile]:
    """The profiles named by the address or the form, all of which the reader may ask for."""
    user = person(request)
    given = request.POST if request.method == "POST" else request.GET
    ids = list(dict.fromkeys(given.getlist("profile")))[: MOST_TOGETHER + 1]
    return [fetch(AccessProfile.objects.open_to(user), pk) for pk in ids]


def _outlook(user: User, profile: AccessProfile, form: RequestForm) -> Outlook:
    try:
        asked = actions.preview_request(by=user, profile_id=profile.pk, **form.ask())
    except InvalidInput as error:
        return Outlook(profile, None, [], error.errors)
    return Outlook(profile, asked, steps_in_words(asked), {})


def _preview(
    request: HttpRequest, chosen: list[AccessProfile], holds: list[Effective], form: RequestForm
) -> dict[str, Any]:
    user = person(request)
    ages = [each.requester_factor_age for each in holds if each.requester_factor_age]
    query = urlencode([("profile", profile.pk) for profile in chosen])
    unproved = [
        Purpose(Action.ASK, str(profile.pk))
        for profile, each in zip(chosen, holds, strict=True)
        if needs_factor(request, profile, each)
    ]
    return {
        "outlooks": [_outlook(user, profile, form) for profile in chosen],
        "needs_factor": bool(unproved),
        "factor_age": min(ages, default=None),
        "step_up": stepup.link(f"{reverse('request-together')}?{query}", unproved),
    }


def _named(errors: dict[str, str], chosen: list[AccessProfile]) -> list[str]:
    """Errors by profile and field, each with the profile's name before it."""
    names = {str(profile.pk): str(profile) for profile in chosen}
    found: dict[str, None] = {}
    for key, message in errors.items():
        pk, _, _ = key.partition(".")
        found[f"{names[pk]}: {message}" if pk in names else message] = None
    return list(found)


def _holds(chosen: list[AccessProfile]) -> list[Effective]:
    sources = sources_for(chosen)
    return [effective_for(profile, sources[profile.pk]) for profile in chosen]


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def request_together(request: HttpRequest) -> HttpResponseBase:
    """Ask for several profiles with one justification; each gets a review of its own."""
    user, chosen = person(request), _chosen(request)
    if not chosen:
        messages.warning(request, "Choose what you want to ask for first.")
        return redirect("catalogue")
    if len(chosen) == 1 and request.method != "POST":
        return redirect("request-new", profile_id=chosen[0].pk)
    holds = _holds(chosen)
    status, problems = 200, []
    if request.method == "POST":
        form = RequestForm(request.POST, holds=holds)
        if form.is_valid():
            try:
                filed = actions.file_together(
                    by=user,
                    profile_ids=[profile.pk for profile in chosen],
                    proofs=stepup.proofs(request),
                    **form.ask(),
                )
            except InvalidInput as error:
                problems = _named(error.errors, chosen)
            else:
                return _filed(request, filed[0].together, len(filed))
        status = 400
        preview = _preview(request, chosen, holds, form)
    else:
        form = RequestForm(holds=holds)
        initial = {
            "duration": str(minutes(form.usual)),
            "begin": "",
            "starts_at": form.usual_start(),
        }
        form = RequestForm(stepup.posted(request, request.path), initial=initial, holds=holds)
        trial = RequestForm(initial, holds=holds)
        trial.is_valid()
        preview = _preview(request, chosen, holds, trial)
    context = {"form": form, "chosen": chosen, "problems": problems} | preview
    return render(request, "accessrequests/together.html", context, status=status)


def _filed(request: HttpRequest, together: uuid.UUID | None, count: int) -> HttpResponseBase:
    messages.success(request, f"Asked for {count} at once. Each is decided by itself.")
    return redirect(f"{reverse('requests')}?together={together}")


@never_cache
@require_POST
def together_preview(request: HttpRequest) -> HttpResponse:
    """What the form for several would lead to as it stands. Writes nothing."""
    chosen = _chosen(request)
    holds = _holds(chosen)
    form = RequestForm(request.POST, holds=holds)
    form.is_valid()
    context = _preview(request, chosen, holds, form)
    return render(request, "accessrequests/_together.html", context)
