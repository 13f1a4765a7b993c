from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRefresh

from accounts import actions, passkeys, signing_in
from accounts.actions.signing_in import may_without_provider
from accounts.forms import SignInForm
from accounts.models import User
from accounts.session import person
from accounts.sso import views as sso
from accounts.sso.configuration import providers
from accounts.way_back import way_back
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput, TooManyTries


def _next(request: HttpRequest) -> str:
    """Where to go after signing in."""
    return way_back(request, resolve_url(settings.LOGIN_REDIRECT_URL))


@login_not_required
@never_cache
@sensitive_post_parameters("password", "credential")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Email and password, or a passkey alone; back to where one was going."""
    if getattr(request, "htmx", False):
        # The session ended under an open page: the whole page must go to the form, not a part.
        return HttpResponseClientRefresh()
    if request.user.is_authenticated:
        return redirect(_next(request))
    by_passkey = request.method == "POST" and "credential" in request.POST
    form = SignInForm(None if by_passkey else request.POST or None)
    status, wrong = 200, ""
    if request.method != "POST":
        # Whoever comes back to this page begins anew.
        signing_in.give_up(request)
    elif by_passkey:
        try:
            owner = _by_passkey(request)
        except InvalidInput as error:
            wrong, status = error.errors["credential"], error.status
        else:
            signing_in.finish(request, owner, how="passkey")
            return redirect(_next(request))
    else:
        status = 400
        if form.is_valid():
            try:
                user = actions.sign_in(
                    request=request,
                    email=form.cleaned_data["username"],
                    password=form.cleaned_data["password"],
                )
            except TooManyTries as error:
                form.add_error(None, error.detail)
                status = error.status
            else:
                if user is not None:
                    return signing_in.begin(request, user, how="password", back=_next(request))
                form.add_error(
                    None, "No account has this email and password. Check both and try again."
                )
    return render(
        request,
        "accounts/sign_in.html",
        {
            "form": form,
            "wrong": wrong,
            "next": _next(request),
            "providers": providers(),
            "passwords": settings.KEYTURN_PASSWORD_SIGN_IN or "password" in request.GET,
        },
        status=status,
    )


def _by_passkey(request: HttpRequest) -> User:
    begun = passkeys.taken(request.session, passkeys.Ceremony.SIGN_IN)
    owner, _ = passkeys.prove(by=None, begun=begun, credential=request.POST["credential"])
    if not may_without_provider(owner):
        raise InvalidInput({"credential": "Sign in by your company’s provider."})
    return owner


@never_cache
@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session here and now; `next` is where to go once signed in again."""
    back = way_back(request, "")
    elsewhere = sso.leave(request)
    with transaction.atomic():
        record(Event.SIGNED_OUT, by=person(request))
        logout(request)
    if elsewhere is not None:
        # A page, not a redirect: the policy on forms holds for where they are sent on to, too.
        return render(request, "accounts/signed_out.html", {"elsewhere": elsewhere})
    if back:
        return redirect_to_login(back)
    return redirect(settings.LOGOUT_REDIRECT_URL)
