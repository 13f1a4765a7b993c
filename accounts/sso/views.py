"""The way to a provider, the way back from it, and what it calls by itself."""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from allauth.core.exceptions import ImmediateHttpResponse
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from accounts import sessions, signing_in, standing
from accounts.models import ProviderSignIn
from accounts.published import NoAnswer, NotGood
from accounts.sso import actions, speaking
from accounts.sso.adapter import Adapter, Callback, Client, CodeFlow
from accounts.sso.configuration import Provider, provider
from accounts.way_back import way_back
from audit.events import Event
from audit.record import record
from broker.errors import Unavailable

logger = logging.getLogger(__name__)


def _provider(slug: str) -> Provider:
    found = provider(slug)
    if found is None:
        raise Http404
    return found


@login_not_required
@never_cache
@require_safe
def start(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Go to the provider.

    By GET, so that a link at the provider leads here too. Whoever makes a browser follow it signs
    its own person in and nobody else: state, nonce and PKCE are of this browser's session.
    """
    found = _provider(slug)
    back = way_back(request, "")
    if request.user.is_authenticated:
        return redirect(back or settings.LOGIN_REDIRECT_URL)
    try:
        speaking.metadata(found)
    except NoAnswer as error:
        return failed(request, slug, why=str(error))
    client: Client = Adapter(request).get_provider(request, slug)
    try:
        return client.start(request, back)
    except ImmediateHttpResponse as done:
        return done.response  # type: ignore[no-any-return]


@login_not_required
@never_cache
@require_safe
def callback(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Come back from the provider."""
    _provider(slug)
    view = Callback.adapter_view(CodeFlow(request, slug))
    return view(request)  # type: ignore[no-any-return]


@sensitive_variables("tokens")
def let_in(
    request: HttpRequest,
    by_provider: Provider,
    *,
    claims: Mapping[str, Any],
    tokens: Mapping[str, str],
) -> HttpResponse:
    """Begin the session of whom the provider has spoken for, or say that there is none."""
    back = getattr(request, "sso_back", "")
    try:
        user = actions.admit(by_provider=by_provider, claims=claims)
    except actions.NotAdmitted:
        messages.error(
            request,
            f"{by_provider.name} knows you, but there is no account here that you may enter by "
            "it. Ask an administrator of Keyturn.",
        )
        return redirect("sign-in")
    row = actions.keep(by_provider=by_provider, person=user, claims=claims, tokens=tokens)
    if request.user.is_authenticated:
        logout(request)
    if not back.startswith("/") or not url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        back = ""
    notes = {sessions.PROVIDER_SESSION: row.provider_session, standing.SIGN_IN: str(row.pk)}
    return signing_in.begin(request, user, how=by_provider.slug, back=back, notes=notes)


def failed(
    request: HttpRequest, slug: str, *, cancelled: bool = False, why: str = ""
) -> HttpResponse:
    """Back to the sign-in page, with what to do; the reason is for the log and the record."""
    found = _provider(slug)
    if cancelled:
        messages.error(request, f"You didn’t sign in at {found.name}.")
        return redirect("sign-in")
    logger.warning("sign-in by %s: %s", slug, why or "no state of this browser's")
    with transaction.atomic():
        record(Event.SIGN_IN_REFUSED, by=None, provider=slug, reason=(why or "state")[:300])
    messages.error(
        request,
        f"Signing in by {found.name} didn’t work. Try again; if it fails again, ask an "
        "administrator of Keyturn.",
    )
    return redirect("sign-in")


@csrf_exempt
@login_not_required
@never_cache
@sensitive_post_parameters("logout_token")
@require_POST
def backchannel_logout(request: HttpRequest, slug: str) -> HttpResponse:
    """What a provider calls when somebody is no longer signed in there, by its signed token."""
    found = _provider(slug)
    if not found.backchannel_logout:
        raise Http404
    try:
        ended = actions.take_logout(by_provider=found, token=request.POST.get("logout_token", ""))
    except NotGood as error:
        logger.warning("logout token of %s: %s", slug, error)
        return JsonResponse({"error": "invalid_request"}, status=400)
    except NoAnswer as error:
        logger.warning("logout token of %s: %s", slug, error)
        raise Unavailable from error
    logger.info("logout token of %s: %s sign-ins ended", slug, ended)
    return HttpResponse(status=200)


def leave(request: HttpRequest) -> str | None:
    """Where a browser goes to sign out at its provider too (RP-Initiated Logout 1.0), once this
    session has ended; None where there is nothing of the kind."""
    key = request.session.get(standing.SIGN_IN)
    row = None if key is None else ProviderSignIn.objects.filter(pk=key).first()
    found = None if row is None else provider(row.provider)
    if row is None or found is None:
        return None
    said = {
        "client_id": found.client_id,
        "post_logout_redirect_uri": settings.KEYTURN_BASE_URL + reverse("sign-in"),
    }
    try:
        at = speaking.metadata(found).get("end_session_endpoint")
        said["id_token_hint"] = actions.tokens_of(row).get("id_token", "")
    except (NoAnswer, Unavailable) as error:
        # Signing out here mustn't wait for either.
        logger.warning("sign-out at %s: %s", found.slug, error)
        at = None
    row.delete()
    if at is None:
        return None
    joint = "&" if "?" in at else "?"
    return f"{at}{joint}{urlencode(said)}"
