"""What of the API is to go: said in each answer and in the OpenAPI document. See docs/api.md."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, ClassVar

from django.conf import settings
from django.utils.http import http_date
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


@dataclass(frozen=True)
class Deprecation:
    """Since when there is something better, and from when on this answers nothing any more."""

    since: dt.date
    sunset: dt.date
    instead: str  # the template of its address


def _seconds(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp())


class Deprecated(APIView):
    """A view that is to go. Its answers say so by RFC 9745 and RFC 8594, the refusals too."""

    deprecation: ClassVar[Deprecation]

    def successor(self) -> str | None:
        """The path to call instead of this one, as far as it's known."""
        return None

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        answer: Response = super().finalize_response(request, response, *args, **kwargs)
        base = settings.KEYTURN_BASE_URL
        links = [f'<{base}/api/v1/docs/>; rel="deprecation"; type="text/html"']
        if instead := self.successor():
            links.append(f'<{base}{instead}>; rel="successor-version"')
        answer["Deprecation"] = f"@{_seconds(self.deprecation.since)}"
        answer["Sunset"] = http_date(_seconds(self.deprecation.sunset))
        answer["Link"] = ", ".join(links)
        return answer
