"""Setting a second factor up, and proving it anew within a session."""

import base64
import time
from urllib.parse import quote, urlencode

import qrcode
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from accounts import factors, stepup
from accounts.forms import CodeForm
from accounts.models import Totp, User
from accounts.session import person
from accounts.stepup import Purpose
from accounts.way_back import way_back
from broker.errors import Conflict, InvalidInput, StepUpNeeded, TooManyTries

PENDING = "factor.pending"  # in the session: the sealed secret that is being set up there
SIGNED_IN_WITHIN = 15 * 60  # seconds


def _at(name: str, back: str) -> str:
    """The address of one of these pages, on the way to `back`."""
    return f"{reverse(name)}?{urlencode({'next': back})}" if back else reverse(name)


def _signed_in_just_now(request: HttpRequest) -> bool:
    # Where there is no factor to be proved, a stolen session could set up the thief's own.
    began: int = request.session.get("began", 0)
    return time.time() - began <= SIGNED_IN_WITHIN


def _check_may_change(request: HttpRequest, user: User) -> None:
    if factors.has_factor(user):
        if not factors.is_fresh(factors.proved_at(request)):
            raise StepUpNeeded
    elif not _signed_in_just_now(request):
        raise Conflict("You signed in a while ago. Sign in again, then set up a second factor.")


def _try(form: CodeForm, error: InvalidInput | TooManyTries) -> int:
    """Say on the form what was wrong; the status of the answer."""
    form.add_error(
        "code", error.errors["code"] if isinstance(error, InvalidInput) else error.detail
    )
    return error.status


@never_cache
@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
def step_up(request: HttpRequest) -> HttpResponse:
    """Prove the second factor anew, then go back to where it was asked for."""
    user, back = person(request), way_back(request, resolve_url("home"))
    purposes = [
        Purpose.parse(text)
        for text in (request.POST.getlist("for") or request.GET.getlist("for"))[: stepup.KEPT]
    ]
    words = [stepup.in_words(user, purpose) for purpose in purposes]
    form, status = CodeForm(request.POST or None), 200
    form.fields["code"].widget.attrs["autofocus"] = True
    if not factors.has_factor(user):
        return render(
            request, "accounts/step_up.html", {"back": back, "set_up": _at("factor", back)}
        )
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                at = factors.prove(by=user, code=form.cleaned_data["code"])
            except (InvalidInput, TooManyTries) as error:
                status = _try(form, error)
            else:
                stepup.keep(request, purposes, at)
                request.session[factors.PROVED_AT] = at.isoformat()
                messages.success(request, "Proved. Now do again what you were about to do.")
                return redirect(back)
    context = {"form": form, "back": back, "purposes": list(map(str, purposes)), "words": words}
    return render(request, "accounts/step_up.html", context, status=status)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def factor(request: HttpRequest) -> HttpResponse:
    """Whether one has a second factor; POST begins to set one up."""
    user, back = person(request), way_back(request, "")
    if request.method == "POST":
        _check_may_change(request, user)
        request.session[PENDING] = factors.new_secret(by=user)
        return redirect(_at("factor-set-up", back))
    here = _at("factor", back)
    context = {
        "factor": Totp.objects.filter(person=user).first(),
        "fresh": factors.is_fresh(factors.proved_at(request)),
        "signed_in_just_now": _signed_in_just_now(request),
        "back": back,
        "here_url": here,
        "step_up_url": _at("step-up", here),
    }
    return render(request, "accounts/factor.html", context)


@never_cache
@sensitive_post_parameters("code")
@sensitive_variables("secret", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def factor_set_up(request: HttpRequest) -> HttpResponse:
    """The secret of a new second factor, and its first code."""
    user, back = person(request), way_back(request, "")
    sealed = request.session.get(PENDING)
    if sealed is None:
        return redirect(_at("factor", back))
    _check_may_change(request, user)
    form, status = CodeForm(request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                at = factors.add(
                    by=user,
                    sealed=sealed,
                    code=form.cleaned_data["code"],
                    proof=factors.proved_at(request),
                )
            except InvalidInput as error:
                status = _try(form, error)
            else:
                _go_on(request, user)
                request.session[factors.PROVED_AT] = at.isoformat()
                messages.success(request, "Your second factor is set up.")
                return redirect(back or "factor")
    secret = base64.b32encode(factors.reveal(by=user, sealed=sealed)).decode()
    context = {
        "form": form,
        "back": back,
        "secret": [secret[at : at + 4] for at in range(0, len(secret), 4)],
        "uri": _uri(user, secret),
        "qr": _qr(_uri(user, secret)),
    }
    return render(request, "accounts/factor_set_up.html", context, status=status)


@never_cache
@require_POST
def factor_remove(request: HttpRequest) -> HttpResponse:
    """Take one's own second factor away."""
    user = person(request)
    factors.remove(by=user, person=user, proof=factors.proved_at(request))
    _go_on(request, user)
    messages.success(request, "Your second factor is removed.")
    return redirect("factor")


def _go_on(request: HttpRequest, user: User) -> None:
    """Keep this one session, under another key, of all those that the change ended."""
    update_session_auth_hash(request, user)
    for key in (PENDING, factors.PROVED_AT):
        request.session.pop(key, None)


def _uri(user: User, secret: str) -> str:
    """What authenticators read: github.com/google/google-authenticator/wiki/Key-Uri-Format."""
    return f"otpauth://totp/Keyturn:{quote(user.email)}?secret={secret}&issuer=Keyturn"


def _qr(text: str) -> dict[str, object]:
    """The QR code as the path of an SVG, so that the page needs nothing inline but shapes."""
    code = qrcode.QRCode(border=4)
    code.add_data(text)
    rows = code.get_matrix()
    path = "".join(
        f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, dark in enumerate(row) if dark
    )
    return {"size": len(rows), "path": path}
