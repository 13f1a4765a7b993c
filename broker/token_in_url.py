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
DEEP = 3  # times that it is decoded


def no_token_in_url(get_response: Handler) -> Handler:
    """Answers 400, also where the token would have been right in a header: it's in the logs of
    every proxy on the way by now."""

    def middleware(request: HttpRequest) -> HttpResponse:
        paths = _spellings(request.path)
        queries = _spellings(request.META.get("QUERY_STRING", ""))
        found = tokens.found_in("?".join([*paths, *queries]))
        if not found:
            return get_response(request)
        error, path = TokenInUrl(), redact(paths[-1])
        for text in found:
            leaks.seen_in_url(text, method=request.method or "", path=path)
        if path.startswith(("/api/", "/oauth/")):
            return JsonResponse(as_json(error, path), status=error.status, content_type=MEDIA_TYPE)
        # Without the request: nobody is known yet.
        page = render_to_string("errors/problem.html", {"error": error})
        return HttpResponse(page, status=error.status)

    return middleware


def _spellings(text: str) -> list[str]:
    """This part of a URL and all that it may be read as: an address within one is encoded twice."""
    found = [text]
    while len(found) <= DEEP and (plain := unquote_plus(found[-1])) != found[-1]:
        found.append(plain)
    return found
