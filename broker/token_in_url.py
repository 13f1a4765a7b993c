"""Refusing what has a token of Keyturn's in its URL, before anything else looks at it."""

from collections.abc import Callable
from urllib.parse import unquote_plus

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from accounts import leaks, tokens
from audit.redaction import redact
from broker.errors import TokenInUrl
from broker.problems import MEDIA_TYPE, as_json

Handler = Callable[[HttpRequest], HttpResponse]


def no_token_in_url(get_response: Handler) -> Handler:
    """Answers 400, also where the token would have been right in a header: it's in the logs of
    every proxy on the way by now."""

    def middleware(request: HttpRequest) -> HttpResponse:
        query = request.META.get("QUERY_STRING", "")
        found = tokens.found_in(f"{request.path}?{query}?{unquote_plus(query)}")
        if not found:
            return get_response(request)
        for text in found:
            leaks.seen_in_url(text, method=request.method or "", path=request.path)
        error, path = TokenInUrl(), redact(request.path)
        if path.startswith(("/api/", "/oauth/")):
            return JsonResponse(as_json(error, path), status=error.status, content_type=MEDIA_TYPE)
        # Without the request: nobody is known yet.
        page = render_to_string("errors/problem.html", {"error": error})
        return HttpResponse(page, status=error.status)

    return middleware
