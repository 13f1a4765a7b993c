import logging
import uuid
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.middleware.common import CommonMiddleware
from django.shortcuts import redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from accounts import stepup
from accounts.models import User
from audit.context import Origin, origin, working_for
from audit.forwarded import client_address, is_trusted
from audit.refusals import RECORDED, record_refusal
from broker.errors import KeyturnError, SignInAgain, StepUpNeeded

logger = logging.getLogger(__name__)
Handler = Callable[[HttpRequest], HttpResponse]


def forwarded(get_response: Handler) -> Handler:
    """Has everything behind it see who called, where a proxy of ours is who connected.

    What anybody else sends in such headers is gone, so that nothing can come to believe it.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        peer = request.META.get("REMOTE_ADDR") or ""
        named = request.META.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = request.META.pop("HTTP_X_FORWARDED_PROTO", "")
        if is_trusted(peer):
            request.META["REMOTE_ADDR"] = client_address(peer, [named])
        if scheme and (settings.KEYTURN_BEHIND_PROXY or is_trusted(peer)):
            # Where there are several, the nearest proxy's.
            request.META["HTTP_X_FORWARDED_PROTO"] = scheme.rpartition(",")[2].strip()
        return get_response(request)

    return middleware


def audit_context(get_response: Handler) -> Handler:
    """Gives every audit row of a request its origin, and the answer the id of it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        via = "api" if request.path.startswith(("/api/", "/oauth/")) else "portal"
        # `forwarded` has put whom it comes from there.
        source = Origin(
            via=via, address=request.META.get("REMOTE_ADDR") or None, trace=uuid.uuid4()
        )
        with working_for(source):
            response = get_response(request)
        response["X-Request-Id"] = str(source.trace)
        return response

    return middleware


def audit_refusal(error: KeyturnError, request: HttpRequest) -> None:
    """Put a refused try of somebody whom we know on the record."""
    # Looking at `request.user` asks the database, which may be what the error is about.
    if isinstance(error, RECORDED) and isinstance(request.user, User):
        record_refusal(error, by=request.user, method=request.method, path=request.path)


def problem_headers(error: KeyturnError, response: HttpResponse) -> None:
    """When to try again, for those problems where that helps."""
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)


def _page_of(request: HttpRequest) -> str:
    """The page from which this was sent, where it's one of ours; else the first page."""
    sent_from = request.headers.get("HX-Current-URL")
    if sent_from is None:
        if request.method in {"GET", "HEAD"}:
            return request.get_full_path()
        sent_from = request.headers.get("Referer", "")
    parts = urlsplit(sent_from)
    if f"{parts.scheme}://{parts.netloc}" != f"{request.scheme}://{request.get_host()}":
        return reverse("home")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


class Slashes(CommonMiddleware):
    """Django's, which redirects to the address with a slash at its end.

    Not what changes something through the API: clients follow that with a GET, whose 200 would
    look as if it had been done.
    """

    def should_redirect_with_slash(self, request: HttpRequest) -> bool:
        """Whether to."""
        if request.method not in {"GET", "HEAD"} and request.path.startswith("/api/"):
            return False
        return super().should_redirect_with_slash(request)


class Problems:
    """Turns domain errors of the portal into pages; the API has a handler of its own."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, KeyturnError):
            return None
        audit_refusal(error, request)
        htmx = getattr(request, "htmx", False)
        context: dict[str, object] = {"error": error, "trace": origin().trace}
        if isinstance(error, StepUpNeeded):
            step_up = stepup.link(_page_of(request), error.purposes)
            # Never sent again by itself: its page has what was typed, for the person to send.
            stepup.keep_posted(request)
            return HttpResponseClientRedirect(step_up) if htmx else redirect(step_up)
        if isinstance(error, SignInAgain):
            messages.error(request, error.detail)
            sign_in = f"{reverse('sign-in')}?{urlencode({'next': _page_of(request)})}"
            return HttpResponseClientRedirect(sign_in) if htmx else redirect(sign_in)
        page = "errors/problem_fragment.html" if htmx else "errors/problem.html"
        response = render(request, page, context, status=error.status)
        problem_headers(error, response)
        return response
