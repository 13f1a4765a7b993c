"""Plain HTTP: admin dashboards, model-management interfaces, whatever else has a URL.

A grant holds methods and path prefixes. The path is matched as it was sent, and what any server
could read in another way than Keyturn does isn't let through at all. Of headers, those that are on
a list go up and come back.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import aiohttp
from django.conf import settings

from gateway import session
from gateway.dialects import Dialect, Plan, Refused
from gateway.dialects.base import Body
from gateway.upstreams import BrokeOff
from gateway.wire import BODY_TIMEOUT, Headers, HungUp, too_large

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.registry import Entry

logger = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
LONGEST = 8_000  # bytes of path and query

# No empty segment but the last, no `.` and `..`, no `;`, and nothing encoded that a server might
# decode into a border of segments, a dot, a control character, or something encoded once more.
_PATH = re.compile(
    rb"(?=/)(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,=:@]"
    rb"|%(?![01]|2[5eEfF]|3[bB]|5[cC]|7[fF])[0-9A-Fa-f]{2})+)*/?"
)
_QUERY = re.compile(rb"[!-\"$-~]*")
_TARGET = re.compile(r"[!-\[\]-~]+")  # of a redirect: no backslash, which browsers take for a slash

# Of the client's headers, those that go up. None of them can carry a credential.
_SENT = frozenset(
    b"""
    accept accept-language content-disposition content-encoding content-language content-type
    hx-boosted hx-prompt hx-request hx-target hx-trigger hx-trigger-name idempotency-key
    if-match if-modified-since if-none-match if-range if-unmodified-since last-event-id prefer
    range x-csrf-token x-csrftoken x-requested-with x-xsrf-token
    """.split()
)
# Of the upstream's, those that come back. What isn't here could name its accounts, rule the
# gateway's whole origin (Strict-Transport-Security, Clear-Site-Data, Service-Worker-Allowed,
# Access-Control-*), or be an order to a proxy in front (X-Accel-Redirect, X-Sendfile).
_RETURNED = frozenset(
    b"""
    accept-ranges allow content-disposition content-encoding content-language content-length
    content-range content-security-policy content-type etag last-modified permissions-policy
    preference-applied referrer-policy retry-after vary x-content-type-options x-csrf-token
    x-frame-options x-total-count
    """.split()
)
_COOKIE = frozenset({"expires", "max-age", "secure", "httponly", "samesite", "partitioned"})


def _error(refused: Refused, trace: str) -> Body:
    return {"error": {"code": refused.code, "message": refused.message, "request_id": trace}}


def _models(names: frozenset[str]) -> Body:
    return {"models": sorted(names)}


HTTP = Dialect("http", _error, _models)


def check(path: bytes, query: bytes) -> None:
    """Raise Refused for a path that two servers may read in two ways."""
    if len(path) + len(query) > LONGEST:
        raise Refused(414, "too_long", f"Path and query may have at most {LONGEST} bytes.")
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(query) is None:
        raise Refused(404, "not_found", "The gateway has nothing at this path.")


def holds(operations: Iterable[str], method: str, path: str) -> bool:
    """Whether these let a method through on this path, which `check` has let pass.

    A prefix ends where a segment does: "GET /api" holds /api and /api/x, and not /apix.
    """
    if method == "HEAD":
        method = "GET"
    for operation in operations:
        held, _, prefix = operation.partition(" ")
        if held in {"*", method} and (
            path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
        ):
            return True
    return False


def check_held(entry: "Entry", method: str, path: str) -> None:
    """Raise Refused unless this endpoint is plain HTTP, and its grant holds this."""
    live = entry.live
    if HTTP.name not in live.dialects:
        raise Refused(404, "not_found", "The gateway has nothing at this path.")
    if not holds(live.scope.operations, method, path):
        raise Refused(
            403,
            "operation_not_granted",
            f"This grant doesn't hold {method} here. It holds: "
            f"{', '.join(sorted(live.scope.operations)) or 'no path'}.",
        )


async def serve(call: "Call", entry: "Entry", rest: bytes, headers: Headers) -> None:
    """Pass one call on and its answer back. Raises Refused."""
    live, gateway, path = entry.live, call.gateway, rest.decode()
    call.dialect, call.record.dialect = HTTP, HTTP.name
    check(rest, call.scope["query_string"])
    check_held(entry, call.record.method, path)
    if b"service-worker" in headers:
        # It would go on answering in this browser when the grant has ended.
        raise Refused(403, "no_service_worker", "Keyturn lets no service worker be installed.")
    key = await call.take_key(entry)
    await call.reserve(entry, Plan(body={}, model=""))
    upload = _upload(call, headers)
    if upload is None:
        call.watch_client()
    where = call.record.method, target(path, call.scope["query_string"])
    try:
        upstream = await gateway.upstreams.request(
            live, *where, sent_up(call, entry, headers, key), upload
        )
        # A body that was streamed up can't be sent once more.
        if upstream.status == 401 and upload is None:
            newer = await call.newer_key(entry, key)
            if newer is not None:
                upstream.release()
                upstream = await gateway.upstreams.request(
                    live, *where, sent_up(call, entry, headers, newer), None
                )
        call.let_go_of_key()
        async with upstream:
            await _pass_back(call, entry, upstream)
    except (aiohttp.ClientError, TimeoutError, BrokeOff) as error:
        if upload is not None and upload.failed is not None:
            raise upload.failed from error
        if isinstance(error, BrokeOff):
            raise
        logger.warning("%s: %s", live.endpoint, type(error).__name__)
        raise BrokeOff(
            502, "upstream_broke_off", "The upstream broke off in the middle of its answer."
        ) from error


def target(path: str, query: bytes) -> str:
    """Path and query as they were sent."""
    return f"{path}?{query.decode()}" if query else path


def sent_up(call: "Call", entry: "Entry", headers: Headers, key: str) -> dict[str, str]:
    """The headers for the upstream: what may go up of the client's, and Keyturn's own."""
    live = entry.live
    # Whoever names a header in Connection means it for the next hop alone, which is Keyturn.
    hop = {name.strip().lower() for name in headers.get(b"connection", b"").split(b",")}
    sent = {
        name.decode(): value.decode()
        for name, value in headers.items()
        if name in _SENT and name not in hop and value.isascii()
    }
    if b"content-length" in headers and b"transfer-encoding" not in headers:
        sent["content-length"] = headers[b"content-length"].decode("latin-1")
    if cookies := session.of_upstream(call.scope):
        sent["cookie"] = cookies
    if headers.get(b"origin") == settings.KEYTURN_GATEWAY_URL.encode():
        # To itself the upstream is where it is called, also when it looks at where forms are from.
        parts = urlsplit(call.gateway.upstreams.in_order(live)[0].url)
        sent["origin"] = f"{parts.scheme}://{parts.netloc}"
    own = {name.lower(): value for name, value in entry.upstream_headers(HTTP, key).items()}
    del own["content-type"]
    return sent | own | {"x-forwarded-prefix": f"/e/{live.endpoint}"}


class _Upload:
    """The client's body, passed on as it comes. It can be read once."""

    def __init__(self, call: "Call") -> None:
        self.failed: Exception | None = None
        self._call = call
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._begun:
            # A repetition would send what is left of the body as if it were all of it.
            raise RuntimeError("this body was read already")
        self._begun = True
        call, most = self._call, settings.KEYTURN_GATEWAY_MAX_BODY
        more = True
        while more:
            try:
                async with asyncio.timeout(BODY_TIMEOUT):
                    message = await call.receive()
            except TimeoutError:
                self.failed = Refused(
                    408, "body_too_slow", f"No more of the body came for {BODY_TIMEOUT:.0f} s."
                )
                raise self.failed from None
            if message["type"] == "http.disconnect":
                self.failed = HungUp()
                raise self.failed
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            call.record.request_bytes += len(chunk)
            if call.record.request_bytes > most:
                self.failed = too_large(most)
                raise self.failed
            if chunk:
                yield chunk
        call.watch_client()


def _upload(call: "Call", headers: Headers) -> _Upload | None:
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" not in headers and length == b"0":
        return None
    most = settings.KEYTURN_GATEWAY_MAX_BODY
    if length.isdigit() and int(length) > most:
        raise too_large(most)
    return _Upload(call)


async def _pass_back(call: "Call", entry: "Entry", upstream: aiohttp.ClientResponse) -> None:
    live, record = entry.live, call.record
    call.answered = upstream.status
    if upstream.status == 401 and live.key_header != "none":
        logger.error("%s answered 401 to its key", live.endpoint)
        raise Refused(
            502,
            "upstream_refused",
            "The upstream doesn't take the key that Keyturn holds for it. This is not about your "
            "credential; the endpoint's owner has to look at it.",
        )
    headers = [*_returned(entry, upstream), *call.own_headers()]
    if call.session is not None:
        headers += session.renewed(call.session, entry)
    record.status, record.first_byte = upstream.status, time.perf_counter()
    call.started = True
    await call.send({"type": "http.response.start", "status": upstream.status, "headers": headers})
    async for chunk in upstream.content.iter_any():
        await call.pass_on(chunk)
    await call.send({"type": "http.response.body", "body": b""})


def _returned(entry: "Entry", upstream: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    live = entry.live
    found = []
    for raw_name, value in upstream.raw_headers:
        name = raw_name.lower()
        if name in _RETURNED:
            found.append((name, value))
        elif name == b"set-cookie":
            cookie = own_cookie(value.decode("latin-1"), live.endpoint, _base(live.upstreams))
            if cookie is not None:
                found.append((name, cookie.encode("latin-1")))
        elif name == b"location":
            location = own_location(
                value.decode("latin-1"), str(upstream.url), live.upstreams, live.endpoint
            )
            if location is not None:
                found.append((name, location.encode()))
            elif 300 <= upstream.status < 400:
                logger.warning("%s redirects away", live.endpoint)
                raise Refused(
                    502,
                    "upstream_redirects_away",
                    "The upstream redirects to somewhere outside of itself, which Keyturn doesn't "
                    "follow and doesn't send you to.",
                )
    if not any(name == b"referrer-policy" for name, _ in found):
        found.append((b"referrer-policy", b"same-origin"))
    # Another site, the portal's own too, must not lay its buttons over a dashboard's.
    found.append((b"content-security-policy", b"frame-ancestors 'self'"))
    return found


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _base(upstreams: Iterable[str]) -> str:
    """The path of the first upstream's base URL, without a slash at its end."""
    return urlsplit(next(iter(upstreams))).path.rstrip("/")


def own_cookie(value: str, endpoint: str, base: str) -> str | None:
    """An upstream's Set-Cookie as the browser gets it, for this endpoint's paths alone.

    None for a name that is Keyturn's own, and for `__Host-`, which would be sent everywhere.
    """
    pair, *attributes = (part.strip() for part in value.split(";"))
    name = pair.partition("=")[0].strip().lower()
    if not name or "=" not in pair or session.is_reserved(name) or name.startswith("__host-"):
        return None
    kept, path = [], "/"
    for attribute in attributes:
        key, _, detail = attribute.partition("=")
        match key.strip().lower():
            case "path" if _PATH.fullmatch(detail.strip().encode("latin-1")):
                path = detail.strip()
            case "samesite" if detail.strip().lower() == "none":
                pass  # no other site has a reason to act in it
            case known if known in _COOKIE:
                kept.append(attribute)
    if not any(attribute.lower().startswith("samesite") for attribute in kept):
        kept.append("SameSite=Lax")
    if path == base or path.startswith(f"{base}/"):
        path = path[len(base) :]
    return "; ".join([pair, f"Path=/e/{endpoint}{path or '/'}", *kept])


def own_location(
    location: str, sent_to: str, upstreams: Iterable[str], endpoint: str
) -> str | None:
    """Where a redirect leads below /e/<endpoint>; None where that is outside of the upstream."""
    if _TARGET.fullmatch(location) is None:
        return None
    try:
        found = urlsplit(urljoin(sent_to, location))
        origin = _origin(found)
    except ValueError:
        return None
    if found.username is not None or found.password is not None:
        return None
    for upstream in upstreams:
        base = urlsplit(upstream)
        inner = found.path or "/"
        prefix = base.path.rstrip("/")
        if _origin(base) != origin or not (inner == prefix or inner.startswith(f"{prefix}/")):
            continue
        inner = inner[len(prefix) :] or "/"
        if _PATH.fullmatch(inner.encode()) is not None:
            return urlunsplit(("", "", f"/e/{endpoint}{inner}", found.query, found.fragment))
    return None
