"""ASGI's own small change: headers, bodies, answers. Whoever speaks to a client uses this."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings

from gateway.dialects import Refused
from gateway.dialects.base import Body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]

BODY_TIMEOUT = 30.0  # seconds for a client to send its body
DEPTH = 100  # of JSON
KEYS = 1_000_000  # of JSON, in all: colons, which text may have too

_SECRETS = (b"authorization", b"x-api-key", b"api-key")
_SINGLE = frozenset({*_SECRETS, b"content-length", b"content-type", b"content-encoding"})
_IN_QUERY = frozenset({"key", "api_key", "api-key", "token", "access_token"})


class HungUp(Exception):
    """The client is gone."""


def headers_of(scope: Scope) -> Headers:
    """By name. Raises Refused where one that decides something was sent twice."""
    found: Headers = {}
    for name, value in scope["headers"]:
        if name in found and name in _SINGLE:
            if name in _SECRETS:
                raise Refused(400, "two_keys", "Send exactly one key, once.")
            raise Refused(400, "two_headers", f"{name.decode('latin-1')} was sent twice.")
        found[name] = value
    return found


def secret_of(scope: Scope, headers: Headers) -> str:
    """The one credential that was sent. Raises Refused."""
    query = scope.get("query_string")
    if query and any(
        name.lower() in _IN_QUERY
        for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    ):
        raise Refused(
            401,
            "key_in_url",
            "Keys in URLs end up in logs. Send it as `Authorization: Bearer`, and give this "
            "one back: it may have leaked.",
        )
    found = set()
    authorization = headers.get(b"authorization")
    if authorization:
        scheme, _, value = authorization.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not value.strip():
            raise Refused(401, "invalid_api_key", "Send `Authorization: Bearer <credential>`.")
        found.add(value.strip())
    for name in (b"x-api-key", b"api-key"):
        if headers.get(name):
            found.add(headers[name].decode("latin-1").strip())
    if len(found) > 1:
        raise Refused(400, "two_keys", "Two different keys were sent; send exactly one.")
    if not found:
        raise Refused(
            401,
            "missing_api_key",
            f"No key was sent. Check out a credential at {settings.KEYTURN_BASE_URL}/",
        )
    return found.pop()


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body. Raises Refused for one that is too large or too slow, and HungUp."""
    most = settings.KEYTURN_GATEWAY_MAX_BODY
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise too_large(most)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refused(415, "unsupported_encoding", "Send the body uncompressed.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            message = await receive()
            body: bytes = message.get("body", b"")
            if not message.get("more_body") and message["type"] == "http.request":
                if len(body) > most:
                    raise too_large(most)
                return body
            parts, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large(most)
            if message["type"] == "http.disconnect":
                raise HungUp
            return b"".join(parts)
    except TimeoutError:
        raise Refused(
            408, "body_too_slow", f"The body took longer than {BODY_TIMEOUT:.0f} s."
        ) from None


def too_large(most: int) -> Refused:
    """The answer to a body beyond the most bytes."""
    return Refused(413, "too_large", f"The body may have at most {most} bytes.")


def _pairs(pairs: list[tuple[str, Any]]) -> Body:
    found = dict(pairs)
    # Two parsers may each take another one of two `model` keys.
    if len(found) != len(pairs):
        raise Refused(400, "duplicate_key", "The body names a key twice.")
    return found


def _no_constant(name: str) -> None:
    raise Refused(400, "invalid_json", f"{name} is no JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Refused(400, "invalid_json", "A number in the body is too large.")
    return number


_decode = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_no_constant, parse_float=_finite
).decode


def parse_body(raw: bytes) -> Body:
    """The JSON object of a body. Raises Refused, also for a key named twice."""
    # Counted on the text: there is no key without a colon, no level without a bracket.
    if raw.count(b":") > KEYS:
        raise Refused(400, "too_many_keys", f"The body has more than {KEYS} keys.")
    try:
        data = _decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_json", "The body must be one JSON object.") from error
    if not isinstance(data, dict):
        raise Refused(400, "invalid_json", "The body must be one JSON object.")
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _depth(data) > DEPTH:
        raise Refused(400, "too_deep", f"The body is nested deeper than {DEPTH} levels.")
    return data


def _depth(value: object) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(item, dict):
            waiting += [(inner, level + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, level + 1) for inner in item]
    return deepest


async def answer(
    send: Send, status: int, body: Body | bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Send one whole answer; a dict as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), *headers]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
