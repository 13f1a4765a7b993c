import time
import zoneinfo
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from accounts import sessions

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
