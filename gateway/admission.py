"""Admission for a proxy that people have in front of their upstream: may this call go on to it.

The proxy asks `/authz/<endpoint>/<proxy>` before each call. Admission is all that it gets: the
credential, the grant, method and path. Models, tools and budgets are in bodies, which no proxy
shows; nothing is metered, and no stream that was let through is cut.
"""

import re
import time
from datetime import UTC, datetime

from django.conf import settings

from credentials.live import Live
from gateway import plain
from gateway.dialects import OPENAI, Refused, route
from gateway.dialects.base import Body
from gateway.registry import Entry, Registry
from gateway.wire import Headers, Scope, headers_of, secret_of

PREFIX = "/authz/"
# Which proxy asks is in the path, which its configuration fixes: read from anything that a client
# can send, it would let the client choose the header to be believed.
_ROUTE = re.compile(
    rb"/authz/(?P<endpoint>[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?)"
    rb"/(?P<proxy>envoy|nginx|traefik|caddy)(?P<rest>/.*)?",
    re.DOTALL,
)
# What holds the call's own method and target: each of these proxies overwrites these two whatever
# a client sent in them, and passes the other pair on unread. Envoy asks with the call's method, at
# its path below ours.
_TOLD = {
    b"nginx": (b"x-original-method", b"x-original-uri"),
    b"traefik": (b"x-forwarded-method", b"x-forwarded-uri"),
    b"caddy": (b"x-forwarded-method", b"x-forwarded-uri"),
}
# With one of these some servers serve another path or method than those that were checked.
_OVERRIDES = frozenset(
    {
        b"x-original-url",
        b"x-rewrite-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    }
)


async def admit_request(
    registry: Registry, scope: Scope
) -> tuple[int, list[tuple[bytes, bytes]], Body | bytes]:
    """The answer to a proxy that asks whether a call may go on: status, headers, body.

    200 with who it is in `X-Keyturn-*`; else 401, 403 or 503, which every proxy takes for no.
    """
    try:
        entry = await _admitted(registry, scope)
    except Refused as refused:
        return _refusal(refused)
    until = datetime.fromtimestamp(time.time() + entry.deadline - time.monotonic(), UTC)
    told = {
        b"x-keyturn-grant": str(entry.live.grant),
        b"x-keyturn-user": entry.live.holder,
        b"x-keyturn-endpoint": entry.live.endpoint,
        b"x-keyturn-expires": f"{until:%Y-%m-%dT%H:%M:%SZ}",
    }
    return 200, [(name, value.encode()) for name, value in told.items()], b""


async def _admitted(registry: Registry, scope: Scope) -> Entry:
    found = _ROUTE.fullmatch(scope.get("raw_path") or b"")
    if found is None or (found["rest"] and found["proxy"] != b"envoy"):
        raise Refused(403, "not_found", "A proxy asks at /authz/<endpoint>/<its name>.")
    headers = headers_of(scope)
    if found["proxy"] == b"envoy":
        method, path = scope["method"].encode(), found["rest"] or b""
        query = scope.get("query_string", b"")
    else:
        method, target = (_only(scope, name) for name in _TOLD[found["proxy"]])
        path, _, query = target.partition(b"?")
    secret = secret_of({"query_string": query}, headers)
    entry = await registry.admit(secret, found["endpoint"].decode())
    plain.check(path, query)
    if override := next(iter(_OVERRIDES & headers.keys()), None):
        raise Refused(403, "override_refused", f"{override.decode()} isn't let through.")
    said = "WEBSOCKET" if b"upgrade" in headers else method.decode("latin-1")
    if said not in plain.METHODS:
        raise Refused(403, "method_refused", "This method isn't let through.")
    if not may_call(entry.live, said, path, headers):
        raise Refused(
            403,
            "operation_not_granted",
            f"This grant doesn't hold {said} on this path. Ask for more at "
            f"{settings.KEYTURN_BASE_URL}/request/{entry.live.profile}/",
        )
    return entry


def may_call(live: Live, method: str, path: bytes, headers: Headers) -> bool:
    """Whether this path, which `plain.check` has let pass, may be called: by an operation of the
    grant, or as a call of a dialect that the endpoint speaks."""
    if plain.HTTP.name in live.dialects and plain.holds(
        live.scope.operations, method, path.decode()
    ):
        return True
    known = route(path, headers) if live.scope.models else None
    return (
        known is not None
        and known.method == method
        and known.dialect.name in live.dialects
        # Unlike the gateway, which tells of a model itself, a proxy sends this on.
        and (known.one is None or known.one in live.scope.models)
    )


def _only(scope: Scope, name: bytes) -> bytes:
    found: list[bytes] = [value for each, value in scope["headers"] if each == name]
    if len(found) != 1:
        raise Refused(
            403, "call_unknown", f"The proxy must say what is called in one {name.decode()}."
        )
    return found[0]


def _refusal(refused: Refused) -> tuple[int, list[tuple[bytes, bytes]], Body]:
    # nginx takes any other status for a fault of ours.
    status = 503 if refused.status >= 500 else 403
    if refused.status == 401 or refused.code == "two_keys":
        status = 401
    headers = [(b"x-should-retry", b"true" if refused.retry else b"false")]
    if status == 401:
        sent = refused.code != "missing_api_key"
        error = b', error="invalid_token"' if sent else b""
        headers.append((b"www-authenticate", b'Bearer realm="keyturn"' + error))
    return status, headers, OPENAI.error(refused, "")
