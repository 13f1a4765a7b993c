"""Pages for what went wrong before any view could say it better."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@login_not_required
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001
    """A form without the mark that proves where it comes from."""
    if getattr(request, "htmx", False):
        error = {"detail": "This page is too old to be sent from. Reload it and try again."}
        return render(request, "errors/problem_fragment.html", {"error": error}, status=403)
    return render(request, "csrf_failure.html", status=403)


@login_not_required
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """400: unreadable."""
    return render(request, "400.html", status=400)


@login_not_required
def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """403: not allowed."""
    return render(request, "403.html", status=403)


@login_not_required
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """404: nothing here, or nothing that one may see."""
    return render(request, "404.html", status=404)


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """500: says so without touching anything that may be what failed."""
    return HttpResponse(_plain(), status=500)


def _plain() -> str:
    from django.template.loader import render_to_string

    # Without the request: its context processors query the database.
    return render_to_string("500.html")


handler400, handler403, handler404, handler500 = bad_request, forbidden, not_found, server_error
