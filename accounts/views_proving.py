"""Proving a second factor: after the password, and anew within a session."""

import datetime as dt
from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.forms import Form
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import factors, passkeys, recovery, signing_in, stepup
from accounts.forms import CodeForm, RecoveryForm
from accounts.models import User
from accounts.passkeys import Ceremony
from accounts.session import person
from accounts.stepup import Purpose
from accounts.way_back import way_back
from broker.errors import InvalidInput, NotFound, TooManyTries


class Proving:
    """The ways in which somebody can prove it, as a page shows them, and what they tried."""

    def __init__(self, request: HttpRequest, user: User, ceremony: Ceremony, about: str) -> None:
        self.request, self.user, self.ceremony, self.about = request, user, ceremony, about
        post = request.POST if request.method == "POST" else None
        self.by_passkey = bool(passkeys.mine(user))
        self.by_app = factors.has_app(user)
        self.left = recovery.left(user)
        self.recovering = post is not None and "recovery" in post
        self.code = CodeForm(None if self.recovering or not self.by_app else post)
        self.recovery = RecoveryForm(post if self.recovering else None)
        self.wrong = ""  # what was wrong with a passkey
        self.factor = ""
        self.status = 200
        if not self.by_passkey:
            self.code.fields["code"].widget.attrs["autofocus"] = True

    def proved(self) -> dt.datetime | None:
        """When what was posted proved it, or None: then the page says why it didn't."""
        post, self.status = self.request.POST, 400
        if "credential" in post:
            self.factor, self.code = "passkey", CodeForm()
            try:
                begun = passkeys.taken(self.request.session, self.ceremony, self.about)
                _, at = passkeys.prove(by=self.user, begun=begun, credential=post["credential"])
            except InvalidInput as error:
                self.wrong = error.errors["credential"]
                return None
            return at
        if self.recovering:
            self.factor = "recovery code"
            return self._typed(
                self.recovery, "recovery", lambda code: recovery.use(by=self.user, code=code)
            )
        self.factor = "app"
        return self._typed(self.code, "code", lambda code: factors.prove(by=self.user, code=code))

    def _typed(
        self, form: Form, field: str, take: Callable[[str], dt.datetime]
    ) -> dt.datetime | None:
        if not form.is_valid():
            return None
        try:
            return take(form.cleaned_data[field])
        except InvalidInput as error:
            form.add_error(field, error.errors[field])
        except TooManyTries as error:
            form.add_error(field, error.detail)
            self.status = error.status
        return None


def _purposes(request: HttpRequest) -> list[Purpose]:
    named = request.POST.getlist("for") or request.GET.getlist("for")
    return [Purpose.parse(text) for text in named[: stepup.KEPT]]


def _all_of(purposes: list[Purpose]) -> str:
    return " ".join(sorted(map(str, purposes)))


def _set_up(back: str) -> str:
    return f"{reverse('factor')}?{urlencode({'next': back})}"


@never_cache
@sensitive_post_parameters("code", "recovery", "credential")
@require_http_methods(["GET", "HEAD", "POST"])
def step_up(request: HttpRequest) -> HttpResponse:
    """Prove a second factor anew, then go back to where it was asked for."""
    user, back = person(request), way_back(request, resolve_url("home"))
    purposes = _purposes(request)
    words = [stepup.in_words(user, purpose) for purpose in purposes]
    if not factors.has_factor(user):
        return render(request, "accounts/step_up.html", {"back": back, "set_up": _set_up(back)})
    others = stepup.others(user, purposes)
    proving = Proving(request, user, Ceremony.PROVE, _all_of(purposes))
    if request.method == "POST" and (at := proving.proved()):
        stepup.keep(request, purposes, at)
        messages.success(request, "Proved. Now do again what you were about to do.")
        _warn_of_few_codes(request, user)
        return redirect(back)
    context = {
        "proving": proving,
        "back": back,
        "purposes": list(map(str, purposes)),
        "words": words,
        "others": [stepup.in_words(user, each) for each in others],
        "for_all": stepup.link(back, [*purposes, *others]),
        "begin_url": reverse("step-up-passkey"),
    }
    return render(request, "accounts/step_up.html", context, status=proving.status)


def _warn_of_few_codes(request: HttpRequest, user: User) -> None:
    left = recovery.left(user)
    if "recovery" in request.POST and left <= recovery.FEW:
        messages.warning(
            request,
            f"{left} recovery code{'s' * (left != 1)} left. Make new ones under Second factors.",
        )


@never_cache
@require_POST
def step_up_passkey(request: HttpRequest) -> HttpResponse:
    """What the browser needs to ask a passkey, for exactly these purposes."""
    user = person(request)
    about = _all_of(_purposes(request))
    return JsonResponse(passkeys.begin(request.session, Ceremony.PROVE, by=user, about=about))


@login_not_required
@never_cache
@sensitive_post_parameters("code", "recovery", "credential")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_factor(request: HttpRequest) -> HttpResponse:
    """The second factor of whoever gave their password just now."""
    back = way_back(request, resolve_url("home"))
    if request.user.is_authenticated:
        return redirect(back)
    found = signing_in.half_way(request)
    if found is None:
        if request.method == "POST":
            messages.warning(request, "That took longer than five minutes. Sign in again.")
        return redirect(f"{reverse('sign-in')}?{urlencode({'next': back})}")
    user, half = found
    proving = Proving(request, user, Ceremony.SECOND, str(user.pk))
    if request.method == "POST" and proving.proved():
        signing_in.finish(request, user, how=half.how, factor=proving.factor, notes=half.notes)
        _warn_of_few_codes(request, user)
        return redirect(back)
    context = {
        "proving": proving,
        "back": back,
        "who": user,
        "by_password": half.how == "password",
        "begin_url": reverse("sign-in-passkey"),
    }
    return render(request, "accounts/sign_in_factor.html", context, status=proving.status)


@login_not_required
@never_cache
@require_POST
def sign_in_passkey(request: HttpRequest) -> HttpResponse:
    """What the browser needs to ask a passkey: of whoever is half-way, or of anybody.

    Says nothing of who has one: without a password the browser looks for itself.
    """
    if request.user.is_authenticated:
        raise NotFound
    found = signing_in.half_way(request)
    if found is None:
        options = passkeys.begin(request.session, Ceremony.SIGN_IN)
    else:
        user, _ = found
        options = passkeys.begin(request.session, Ceremony.SECOND, by=user, about=str(user.pk))
    return JsonResponse(options)
