import time
import zoneinfo
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect

from accounts import factors, sessions
from accounts.models import User

Handler = Callable[[HttpRequest], HttpResponse]


def session_window(get_response: Handler) -> Handler:
    """Ends a session a fixed time after its sign-in, however busy it is."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            began = request.session.setdefault(sessions.BEGAN, int(time.time()))
            request.session[sessions.AGENT_KEY] = request.headers.get("User-Agent", "")
            if time.time() - began > settings.KEYTURN_SESSION_MAX:
                logout(request)
        return get_response(request)

    return middleware


def own_time_zone(get_response: Handler) -> Handler:
    """Shows times in the reader's zone; the API's are UTC for everybody."""

    def middleware(request: HttpRequest) -> HttpResponse:
        zone = getattr(request.user, "time_zone", None)
        if zone is None or request.path.startswith("/api/"):
            return get_response(request)
        with timezone.override(zoneinfo.ZoneInfo(zone)):
            return get_response(request)

    return middleware


class SecondFactorFirst:
    """Sends people who must have a second factor to set one up, from every page but that one.

    The API is not asked: what takes a factor there takes a proof of it each time.
    """

    OPEN = frozenset(
        {
            "sign-out",
            "factor",
            "factor-set-up",
            "factor-codes",
            "passkey-add",
            "passkey-begin",
            "profile",
        }
    )

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., object], *_: object
    ) -> HttpResponse | None:
        user, match = request.user, request.resolver_match
        if (
            not isinstance(user, User)
            or match is None
            or match.url_name in self.OPEN
            or request.path.startswith("/api/")
            or not getattr(view, "login_required", True)
            or request.session.get(factors.ENROLLED)
        ):
            return None
        if factors.has_factor(user):
            # Losing one ends the session, and this with it.
            request.session[factors.ENROLLED] = True
            return None
        if not factors.needed_because(user):
            return None
        back = {"next": request.get_full_path()} if request.method in {"GET", "HEAD"} else {}
        where = f"{reverse('factor')}?{urlencode(back)}" if back else reverse("factor")
        return (
            HttpResponseClientRedirect(where)
            if request.headers.get("HX-Request")
            else redirect(where)
        )
