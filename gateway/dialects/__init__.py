"""The APIs that clients speak: which paths, what a call may ask for, how each says no.

An SDK must raise its own exception for every refusal, also in the middle of a stream.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.dialects import anthropic, ollama, openai
from gateway.dialects.anthropic import ANTHROPIC
from gateway.dialects.base import Dialect, Follower, Operation, Plan, Refused, Usage
from gateway.dialects.ollama import OLLAMA
from gateway.dialects.openai import OPENAI, dumps

# Matched against the raw path, so that `%2f`, `..`, `//` and any other second spelling of a path
# are simply not on the list below.
ENDPOINT = re.compile(rb"/e/(?P<endpoint>[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?)(?P<rest>/.*)?")


@dataclass(frozen=True)
class Route:
    """What a path is of a dialect. Without an operation it lists the models of the grant, or
    tells of one."""

    dialect: Dialect
    method: str
    operation: Operation | None
    one: str | None = None


# The whole allow-list.
ROUTES: dict[bytes, Route] = {
    path.encode(): Route(dialect, operation.method, operation)
    for dialect, operations in (
        (OPENAI, openai.OPERATIONS),
        (ANTHROPIC, anthropic.OPERATIONS),
        (OLLAMA, ollama.OPERATIONS),
    )
    for path, operation in operations.items()
} | {
    b"/api/tags": Route(OLLAMA, "GET", None),
}
_MODELS = b"/v1/models"


def route(rest: bytes, headers: dict[bytes, bytes]) -> Route | None:
    """What this path below an endpoint is; None where it is nobody's.

    `/v1/models` is told apart by the header that only Anthropic's SDK sends.
    """
    if rest.startswith(_MODELS):
        dialect = ANTHROPIC if b"anthropic-version" in headers else OPENAI
        if rest == _MODELS:
            return Route(dialect, "GET", None)
        if rest.startswith(_MODELS + b"/"):
            # Compared with names that the grant holds, and never sent on.
            return Route(dialect, "GET", None, unquote(rest[len(_MODELS) + 1 :].decode("latin-1")))
    return ROUTES.get(rest)


__all__ = [
    "ANTHROPIC",
    "ENDPOINT",
    "OLLAMA",
    "OPENAI",
    "ROUTES",
    "Dialect",
    "Follower",
    "Operation",
    "Plan",
    "Refused",
    "Route",
    "Usage",
    "dumps",
    "route",
]
