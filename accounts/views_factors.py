"""Second factors of one's own: passkeys, an authenticator app, recovery codes."""

import base64
import re
import time
from urllib.parse import quote, urlencode

import qrcode
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from accounts import factors, passkeys, recovery, sessions, stepup
from accounts.forms import CodeForm
from accounts.models import Totp, User
from accounts.passkeys import Ceremony
from accounts.session import person
from accounts.stepup import Action, Purpose
from accounts.way_back import way_back
from audit import clock
from broker.errors import Conflict, InvalidInput

PENDING = "factor.pending"  # in the session: the sealed secret that is being set up there
SIGNED_IN_WITHIN = 15 * 60  # seconds


def _at(name: str, back: str) -> str:
    """The address of one of these pages, on the way to `back`."""
    return f"{reverse(name)}?{urlencode({'next': back})}" if back else reverse(name)


def _purpose(user: User) -> Purpose:
    return Purpose(Action.FACTOR, str(user.pk))


def _signed_in_just_now(request: HttpRequest) -> bool:
    # Where there is no factor to be proved, a stolen session could set up the thief's own.
    began: int = request.session.get(sessions.BEGAN, 0)
    return time.time() - began <= SIGNED_IN_WITHIN


def _check_may_change(request: HttpRequest, user: User) -> None:
    factors.check_may_change(user, stepup.proofs(request))
    if not factors.has_factor(user) and not _signed_in_just_now(request):
        raise Conflict("You signed in a while ago. Sign in again, then set up a second factor.")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def factor(request: HttpRequest) -> HttpResponse:
    """One's second factors, or how to set up the first; POST begins with an authenticator app."""
    user, back = person(request), way_back(request, "")
    if request.method == "POST":
        _check_may_change(request, user)
        request.session[PENDING] = factors.new_secret(by=user)
        return redirect(_at("factor-set-up", back))
    return _page(request, user, back)


def _page(
    request: HttpRequest, user: User, back: str, *, wrong: str = "", status: int = 200
) -> HttpResponse:
    here = _at("factor", back)
    asked = {"next": here, "for": str(_purpose(user))}
    context = {
        "app": Totp.objects.filter(person=user).first(),
        "passkeys": passkeys.mine(user),
        "has_factor": factors.has_factor(user),
        "needed": factors.needed_because(user),
        "codes_left": recovery.left(user),
        "few": recovery.FEW,
        "fresh": stepup.proofs(request).fresh(_purpose(user)),
        "signed_in_just_now": _signed_in_just_now(request),
        "suggested": _browser(request),
        "wrong": wrong,
        "back": back,
        "here_url": here,
        "step_up_url": f"{reverse('step-up')}?{urlencode(asked)}",
    }
    return render(request, "accounts/factor.html", context, status=status)


def _browser(request: HttpRequest) -> str:
    """A name for a passkey that is made here: "Firefox on Linux"."""
    agent = request.headers.get("User-Agent", "")
    # Browsers claim to be those before them too, so the most particular is looked for first.
    where = re.search("iPhone|iPad|Android|Windows|Mac OS X|CrOS|Linux", agent)
    which = re.search("Edg|OPR|Firefox|Chrome|Safari", agent)
    spelt = {"Edg": "Edge", "OPR": "Opera", "Mac OS X": "Mac", "CrOS": "Chromebook"}
    found = [spelt.get(each[0], each[0]) for each in (which, where) if each]
    return " on ".join(found) or "Passkey"


@never_cache
@sensitive_post_parameters("code")
@sensitive_variables("secret", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def factor_set_up(request: HttpRequest) -> HttpResponse:
    """The secret of a new authenticator app, and its first code."""
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
                    proofs=stepup.proofs(request),
                )
            except InvalidInput as error:
                form.add_error("code", error.errors["code"])
            else:
                _go_on(request, user)
                stepup.keep(request, [_purpose(user)], at)
                return _added(request, user, back, "Your authenticator app is set up.")
    secret = base64.b32encode(factors.reveal(by=user, sealed=sealed)).decode()
    context = {
        "form": form,
        "back": back,
        "secret": [secret[at : at + 4] for at in range(0, len(secret), 4)],
        "uri": _uri(user, secret),
        "qr": _qr(_uri(user, secret)),
    }
    return render(request, "accounts/factor_set_up.html", context, status=status)


def _added(request: HttpRequest, user: User, back: str, words: str) -> HttpResponse:
    """After the first factor come the codes that help when it is lost."""
    messages.success(request, words)
    if recovery.left(user):
        return redirect(back or "factor")
    return _codes(request, user, back)


@sensitive_variables("codes", "context")
def _codes(request: HttpRequest, user: User, back: str) -> HttpResponse:
    """New codes, in this answer alone."""
    codes = recovery.make(by=user, proofs=stepup.proofs(request))
    # What a download is made of, without a copy of it on the server.
    text = "Keyturn recovery codes of {}\nEach works once.\n\n{}\n".format(
        user.email, "\n".join(codes)
    )
    context = {
        "codes": codes,
        "file": f"data:text/plain;charset=utf-8,{quote(text)}",
        "back": back or reverse("factor"),
        "whose": user.email,
    }
    return render(request, "accounts/factor_codes.html", context)


@never_cache
@require_POST
def factor_codes(request: HttpRequest) -> HttpResponse:
    """New recovery codes; the old ones end."""
    return _codes(request, person(request), way_back(request, ""))


@never_cache
@require_POST
def factor_remove(request: HttpRequest) -> HttpResponse:
    """Take one's own authenticator app away."""
    user = person(request)
    factors.remove(by=user, person=user, proofs=stepup.proofs(request))
    _go_on(request, user)
    messages.success(request, "Your authenticator app is removed.")
    return redirect("factor")


@never_cache
@require_POST
def passkey_begin(request: HttpRequest) -> HttpResponse:
    """What the browser needs to make a passkey."""
    user = person(request)
    _check_may_change(request, user)
    return JsonResponse(
        passkeys.begin_adding(request.session, by=user, proofs=stepup.proofs(request))
    )


@never_cache
@sensitive_post_parameters("credential")
@require_POST
def passkey_add(request: HttpRequest) -> HttpResponse:
    """Take the passkey that the browser made."""
    user, back = person(request), way_back(request, "")
    _check_may_change(request, user)
    try:
        passkey = passkeys.add(
            by=user,
            begun=passkeys.taken(request.session, Ceremony.ADD, str(user.pk)),
            credential=request.POST.get("credential", ""),
            name=request.POST.get("name", ""),
            proofs=stepup.proofs(request),
        )
    except InvalidInput as error:
        return _page(request, user, back, wrong=error.errors["credential"], status=error.status)
    _go_on(request, user)
    stepup.keep(request, [_purpose(user)], clock.now())
    return _added(request, user, back, f"The passkey “{passkey.name}” is set up.")


@never_cache
@require_POST
def passkey_rename(request: HttpRequest, pk: int) -> HttpResponse:
    """Call one of one's own passkeys something else."""
    user = person(request)
    try:
        passkeys.rename(by=user, pk=pk, name=request.POST.get("name", ""))
    except InvalidInput as error:
        messages.error(request, error.errors["name"])
    return redirect(_at("factor", way_back(request, "")))


@never_cache
@require_POST
def passkey_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Take one of one's own passkeys away."""
    user = person(request)
    passkeys.remove(by=user, pk=pk, proofs=stepup.proofs(request))
    _go_on(request, user)
    messages.success(request, "The passkey is removed.")
    return redirect("factor")


def _go_on(request: HttpRequest, user: User) -> None:
    """Keep this one session, under another key, of all those that the change ended."""
    update_session_auth_hash(request, user)
    stepup.forget(request)
    for key in (PENDING, factors.ENROLLED):
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
