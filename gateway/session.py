"""Browser sessions: opened from a grant's page in the portal, carried on by a cookie.

The portal has the browser post a fresh credential to `/e/<endpoint>/.keyturn/session`; what the
browser keeps is a signed cookie that names the credential and is worth nothing without it. All
endpoints share the gateway's origin, so one browser has one session, on one endpoint: scripts of
a dashboard that is left open can reach no other one but that.
"""

import re
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from django.conf import settings
from django.core import signing
from django.template.loader import render_to_string

from gateway.dialects import Refused
from gateway.wire import Headers, Scope, answer, read_body

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.registry import Entry

OWN = b"/.keyturn/"
IDLE = 15 * 60  # seconds without a call after which it's over
RENEW = 60  # seconds after which a call renews it
LONGEST_FORM = 10_000  # bytes; a JWT is in it

_TLS = settings.KEYTURN_GATEWAY_URL.startswith("https://")
NAME = "__Host-keyturn-gateway" if _TLS else "keyturn-gateway"
_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if _TLS else "")
_SALT = "keyturn.gateway.session"
_KEYS = (b"authorization", b"x-api-key", b"api-key")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@dataclass(frozen=True)
class Session:
    """What a cookie says; `at` is when it was signed, by a gateway's host."""

    credential: uuid.UUID
    grant: uuid.UUID
    endpoint: str
    at: int

    def signed(self) -> str:
        """The cookie's value."""
        fields = [self.credential.hex, self.grant.hex, self.endpoint, self.at]
        return signing.Signer(salt=_SALT).sign_object(fields)


def is_reserved(name: str) -> bool:
    """Whether a cookie of this name is Keyturn's own: the portal's too, which a browser sends
    here where both have one host. None goes to an upstream or comes from one."""
    return name.lower().startswith(("keyturn", "__host-keyturn"))


def _cookies(scope: Scope) -> Iterator[tuple[str, str]]:
    for name, value in scope["headers"]:
        if name == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                its_name, equals, its_value = pair.strip().partition("=")
                if equals:
                    yield its_name.strip(), its_value


def of_upstream(scope: Scope) -> str:
    """The client's cookies that go up, as one header's value."""
    return "; ".join(
        f"{name}={value}"
        for name, value in _cookies(scope)
        if not is_reserved(name) and (name + value).isascii()
    )


def read(scope: Scope, headers: Headers) -> Session | None:
    """The session that a call comes with; None where it has none or brings a key. Raises Refused
    for a cookie that isn't good."""
    if b"cookie" not in headers or any(headers.get(name) for name in _KEYS):
        return None
    values = [value for name, value in _cookies(scope) if name == NAME]
    if not values:
        return None
    try:
        # A second one was put there by somebody else's script.
        [value] = values
        credential, grant, endpoint, at = signing.Signer(salt=_SALT).unsign_object(value)
    except (signing.BadSignature, ValueError):
        raise Refused(
            401, "no_session", "Keyturn doesn't know this browser's session. Open it again."
        ) from None
    found = Session(uuid.UUID(credential), uuid.UUID(grant), endpoint, at)
    if time.time() - at > IDLE:
        raise Refused(
            401,
            "session_idle",
            f"This browser's session is over: it was not used for {IDLE // 60} minutes.",
        )
    return found


def check(found: Session, scope: Scope, headers: Headers, endpoint: str) -> None:
    """Raise Refused unless a call with this cookie is for this endpoint, and made by its pages.

    SameSite=Lax keeps the cookie from other sites' forms and scripts, but not from other hosts of
    the same site.
    """
    if found.endpoint != endpoint:
        raise Refused(
            403,
            "wrong_endpoint",
            f"This browser's session is for {found.endpoint}. A browser has one at a time: open "
            f"{endpoint} from its grant's page, which ends the other one here.",
        )
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if scope["type"] == "websocket":
        is_own = origin == settings.KEYTURN_GATEWAY_URL.encode()
    elif scope["method"] in {"GET", "HEAD"}:
        is_own = (
            site in {None, b"same-origin", b"none"} or headers.get(b"sec-fetch-mode") == b"navigate"
        )
    else:
        is_own = site == b"same-origin" or (
            site is None and origin == settings.KEYTURN_GATEWAY_URL.encode()
        )
    if not is_own:
        raise Refused(403, "cross_site", "This came from a page of another site, so it is refused.")


def _cookie(found: Session, entry: "Entry") -> tuple[bytes, bytes]:
    age = max(0, min(IDLE, int(entry.deadline - time.monotonic())))
    value = f"{NAME}={found.signed()}; Max-Age={age}; {_ATTRIBUTES}"
    return b"set-cookie", value.encode()


def renewed(found: Session, entry: "Entry") -> list[tuple[bytes, bytes]]:
    """The header that keeps a session going that is being used; none where it's still fresh."""
    now = int(time.time())
    if now - found.at < RENEW:
        return []
    return [_cookie(Session(found.credential, found.grant, found.endpoint, now), entry)]


async def serve(call: "Call", endpoint: str, rest: bytes, headers: Headers) -> None:
    """Answer at the gateway's own paths below an endpoint. Raises Refused."""
    match call.record.method, rest:
        case "POST", b"/.keyturn/session":
            await _open(call, endpoint, headers)
        case "POST", b"/.keyturn/leave":
            await _leave(call, headers)
        case "GET" | "HEAD", b"/.keyturn/leave":
            body, of_page = _page("gateway/leave.html", {"endpoint": endpoint})
            call.record.status = 200
            await answer(call.send, 200, body, of_page)
        case _:
            raise Refused(404, "not_found", "The gateway has nothing at this path.")


async def _open(call: "Call", endpoint: str, headers: Headers) -> None:
    # Anybody's page could post a credential of its own here, and have a browser work under it.
    if headers.get(b"origin") != settings.KEYTURN_BASE_URL.encode():
        raise Refused(403, "cross_site", "Open this endpoint from its grant's page in Keyturn.")
    raw = await read_body(headers, call.receive)
    if len(raw) > LONGEST_FORM:
        raise Refused(413, "too_large", f"The form may have at most {LONGEST_FORM} bytes.")
    secret = parse_qs(raw.decode("latin-1")).get("credential", [""])[0]
    entry = await call.gateway.registry.admit(secret, endpoint)
    call.take_place(entry)
    live = entry.live
    if "http" not in live.dialects:
        raise Refused(404, "not_found", "This endpoint isn't opened in a browser.")
    before = _quietly(call, headers)
    found = Session(live.credential, live.grant, live.endpoint, int(time.time()))
    sent = [(b"location", f"/e/{endpoint}{landing(live.scope.operations)}".encode())]
    sent.append(_cookie(found, entry))
    if before is None or before.endpoint != endpoint:
        # What another endpoint's pages keep in this browser is neither this one's to read nor to
        # be misled by.
        sent.append((b"clear-site-data", b'"cache", "storage"'))
    call.record.status = 303
    await answer(call.send, 303, b"", sent)


async def _leave(call: "Call", headers: Headers) -> None:
    if headers.get(b"origin") != settings.KEYTURN_GATEWAY_URL.encode():
        raise Refused(403, "cross_site", "This came from a page of another site, so it is refused.")
    found = _quietly(call, headers)
    back = f"{settings.KEYTURN_BASE_URL}/" + (f"grants/{found.grant}/" if found else "")
    sent = [
        (b"location", back.encode()),
        (b"set-cookie", f"{NAME}=; Max-Age=0; {_ATTRIBUTES}".encode()),
        (b"clear-site-data", b'"cache", "storage"'),
    ]
    call.record.status = 303
    await answer(call.send, 303, b"", sent)


def _quietly(call: "Call", headers: Headers) -> Session | None:
    try:
        return read(call.scope, headers)
    except Refused:
        return None


def landing(operations: frozenset[str]) -> str:
    """Where a browser begins: the shortest path that may be read."""
    paths = [
        path
        for method, _, path in (operation.partition(" ") for operation in operations)
        if method in {"*", "GET"}
    ]
    return min(paths, key=lambda path: (len(path), path), default="/")


def wants_page(headers: Headers) -> bool:
    """Whether whoever calls is a person in front of a browser."""
    return b"text/html" in headers.get(b"accept", b"")


def page(refused: Refused, found: Session | None) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A refusal in plain words, with the way on."""
    context = {
        "refused": refused,
        "endpoint": found.endpoint if found else "",
        "grant_url": f"{settings.KEYTURN_BASE_URL}/grants/{found.grant}/" if found else "",
        "portal_url": f"{settings.KEYTURN_BASE_URL}/",
    }
    return _page("gateway/refused.html", context)


def _page(name: str, context: dict[str, object]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    html = render_to_string(name, context)
    style = _STYLE.search(html)
    digest = b64encode(sha256((style[1] if style else "").encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; "
        f"base-uri 'none'; form-action 'self' {settings.KEYTURN_BASE_URL}"
    )
    return html.encode(), [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
