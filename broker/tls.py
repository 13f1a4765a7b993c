"""What programs send comes by TLS or isn't taken."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from broker.errors import Forbidden
from broker.problems import MEDIA_TYPE, as_json

FOR_PROGRAMS = ("/api/", "/scim/")


def programs_by_tls(get_response: Callable[[HttpRequest], HttpResponse]) -> object:
    """Refuses programs' calls in the clear. Only browsers are sent on to https: a program that is
    would send its token in the clear each time, and nobody would notice (ASVS 5.0, 4.1.2)."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if (
            settings.SECURE_SSL_REDIRECT
            and request.path.startswith(FOR_PROGRAMS)
            and not request.is_secure()
        ):
            error = Forbidden("Call this by https. What you sent came in the clear, a token too.")
            body = as_json(error, request.path)
            return JsonResponse(body, status=error.status, content_type=MEDIA_TYPE)
        return get_response(request)

    return middleware
