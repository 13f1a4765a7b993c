"""A newcomer's first minutes: the link, a password, and on to a second factor."""

from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_safe

from accounts import invitations, signing_in
from accounts.forms import NewPasswordForm
from broker.errors import InvalidInput, NotFound

CLAIMING = "welcome"  # in the session: the digest of the token whose link was opened there


@login_not_required
@never_cache
@require_safe
@sensitive_variables("token")
def welcome(request: HttpRequest, token: str) -> HttpResponse:
    """Open an invitation's link. That uses nothing up: mail scanners open links too.

    The page itself is at an address without the token, so that neither history, a Referer nor
    the log of a later error has it.
    """
    invitation = invitations.find(token)
    if invitation is None:
        response = _over(request)
    elif not invitations.opens(invitation.person):
        messages.info(request, "Your account is ready. Sign in by your company’s provider.")
        response = redirect("sign-in")
    else:
        request.session[CLAIMING] = invitations.digest(token).hex()
        response = redirect("welcome-password")
    response["Referrer-Policy"] = "no-referrer"
    return response


def _over(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/welcome_over.html", status=404)


@login_not_required
@never_cache
@sensitive_post_parameters("password", "again")
@require_http_methods(["GET", "HEAD", "POST"])
def welcome_password(request: HttpRequest) -> HttpResponse:
    """Choose a password, which uses the invitation up and signs its person in."""
    stored = bytes.fromhex(request.session.get(CLAIMING, ""))
    invitation = invitations.find_digest(stored)
    if invitation is None:
        return _over(request)
    form, status = NewPasswordForm(request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                person = invitations.claim(stored=stored, password=form.cleaned_data["password"])
            except InvalidInput as error:
                form.add_error("password", error.errors["password"])
            except NotFound:
                return _over(request)
            else:
                request.session.pop(CLAIMING, None)
                back = f"{reverse('factor')}?{urlencode({'next': reverse('home')})}"
                return signing_in.begin(request, person, how="invitation", back=back)
    context = {"form": form, "invitation": invitation, "person": invitation.person}
    return render(request, "accounts/welcome.html", context, status=status)
