"""Pages for what went wrong before any view could say it better."""

import sys

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from audit.context import origin
from broker.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    KeyturnError,
    NotFound,
    TooLarge,
    Unavailable,
)
from broker.middleware import problem_headers
from broker.problems import MEDIA_TYPE, as_json


@login_not_required
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001
    """A form without the mark that proves where it comes from."""
    if _is_api(request):
        return _problem(request, Forbidden("CSRF Failed: send the token in `X-CSRFToken`."))
    if getattr(request, "htmx", False):
        error = {"detail": "This page is too old to be sent from. Reload it and try again."}
        return render(request, "errors/problem_fragment.html", {"error": error}, status=403)
    return render(request, "csrf_failure.html", status=403)


@login_not_required
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: unreadable."""
    if _is_api(request):
        too_big = isinstance(exception, RequestDataTooBig)
        return _problem(request, TooLarge() if too_big else BadRequest())
    return render(request, "400.html", status=400)


@login_not_required
def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """403: not allowed."""
    if _is_api(request):
        return _problem(request, Forbidden())
    return render(request, "403.html", status=403)


@login_not_required
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """404: nothing here, or nothing that one may see."""
    if _is_api(request):
        slash = "" if request.path.endswith("/") else " Its addresses end with a slash."
        return _problem(request, NotFound(f"The API has nothing at this address.{slash}"))
    return render(request, "404.html", status=404)


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:
    """500, or 503 where it's the database that can't answer; asks nothing of it again."""
    down = isinstance(sys.exc_info()[1], OperationalError)
    if _is_api(request):
        if down:
            return _problem(request, Unavailable("The database can't answer at the moment."))
        return _problem(request, InternalError(trace=str(origin().trace)))
    # Without the request: its context processors query the database.
    page = HttpResponse(render_to_string("503.html" if down else "500.html"))
    page.status_code = 503 if down else 500
    if down:
        page["Retry-After"] = "5"
    return page


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _problem(request: HttpRequest, error: KeyturnError) -> HttpResponse:
    response = JsonResponse(
        as_json(error, request.path), status=error.status, content_type=MEDIA_TYPE
    )
    problem_headers(error, response)
    return response


handler400, handler403, handler404, handler500 = bad_request, forbidden, not_found, server_error
