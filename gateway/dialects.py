"""The APIs that clients speak: which paths, and how each says that something is wrong.

An SDK must raise its own exception for every refusal, also in the middle of a stream.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Name = Literal["openai", "anthropic"]

# The whole allow-list. Matched against the raw path, so that `%2f`, `..`, `//` and any other
# second spelling of a path are simply not on it.
ROUTE = re.compile(
    rb"/e/(?P<endpoint>[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?)"
    rb"/v1/(?P<call>models|chat/completions|embeddings|messages)"
)
METHODS = {
    b"models": "GET",
    b"chat/completions": "POST",
    b"embeddings": "POST",
    b"messages": "POST",
}


class Refused(Exception):
    """The gateway answers this call itself. `code` is stable, `message` is for people."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry = retry


_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    503: "overloaded_error",
}


@dataclass(frozen=True)
class Dialect:
    """One client-side API."""

    name: Name

    def error(self, refused: Refused, trace: str) -> dict[str, Any]:
        """The body of an error."""
        if self.name == "anthropic":
            return {
                "type": "error",
                "error": {
                    "type": _ANTHROPIC_TYPES.get(refused.status, "api_error"),
                    "message": refused.message,
                },
                "request_id": trace,
            }
        return {
            "error": {
                "message": refused.message,
                "type": _OPENAI_TYPES.get(refused.status, "api_error"),
                "param": refused.param,
                "code": refused.code,
            }
        }

    def event(self, refused: Refused, trace: str) -> bytes:
        """The server-sent event that ends a stream with an error."""
        data = json.dumps(self.error(refused, trace)).encode()
        prefix = b"event: error\n" if self.name == "anthropic" else b""
        return prefix + b"data: " + data + b"\n\n"

    def models(self, names: frozenset[str]) -> dict[str, Any]:
        """The answer to `GET /v1/models`: what the grant holds, whatever the upstream has."""
        ordered = sorted(names)
        if self.name == "anthropic":
            return {
                "data": [
                    {
                        "type": "model",
                        "id": name,
                        "display_name": name,
                        "created_at": "1970-01-01T00:00:00Z",
                    }
                    for name in ordered
                ],
                "has_more": False,
                "first_id": ordered[0],
                "last_id": ordered[-1],
            }
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "keyturn"}
                for name in ordered
            ],
        }

    def upstream_headers(self, key: str, headers: dict[bytes, bytes]) -> dict[str, str]:
        """What is sent on. Nothing else of the client's headers is: no credential, cookie,
        forwarding or vendor control header reaches the upstream."""
        sent = {
            "Content-Type": "application/json",
            "Accept": headers.get(b"accept", b"application/json").decode("latin-1"),
            "Accept-Encoding": "identity",
            "User-Agent": "keyturn-gateway",
        }
        if self.name == "anthropic":
            sent["x-api-key"] = key
            sent["anthropic-version"] = headers.get(b"anthropic-version", b"2023-06-01").decode(
                "latin-1"
            )
        else:
            sent["Authorization"] = f"Bearer {key}"
        return sent


OPENAI = Dialect("openai")
ANTHROPIC = Dialect("anthropic")


def spoken(call: bytes, headers: dict[bytes, bytes]) -> Dialect:
    """The dialect of a call: by its path, else by the header that only Anthropic's SDK sends."""
    return ANTHROPIC if call == b"messages" or b"anthropic-version" in headers else OPENAI
