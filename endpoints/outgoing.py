"""The one HTTP client with which workers call what people enter: upstreams, rotators, webhooks.

Which networks it may reach is set where Keyturn is deployed (KEYTURN_OUTGOING_NETWORKS, and for
what anybody enters KEYTURN_WEBHOOK_NETWORKS too), and nobody who administers the app can widen it.
Addresses are judged, not names: every answer of DNS, and once more at the moment a socket is opened
to one of them, so that a second answer changes nothing.
"""

import asyncio
import json as jsons
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from itertools import product
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from django.conf import settings
from yarl import URL

TIMEOUT = 10.0
MOST = 1_000_000
CONNECT_TIMEOUT = 5.0

# The settings that list networks. An address has to be in what each of those lists opens by which a
# call is judged.
EVERY_CALL = ("KEYTURN_OUTGOING_NETWORKS",)
WHAT_ANYBODY_ENTERS = (*EVERY_CALL, "KEYTURN_WEBHOOK_NETWORKS")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
# Where nothing is that a company calls by its own address. One of these is opened only by a network
# that is listed by itself, inside of it: 0.0.0.0/0 opens none.
SPECIAL = _networks(
    # IANA's registries of special-purpose addresses
    "0.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    # metadata and credentials of clouds: AWS, Azure, Google, Oracle, OpenStack; ECS and EKS;
    # Tencent; Alibaba; Azure's wire server, which has a public address
    "169.254.169.254/32",
    "169.254.170.2/32",
    "169.254.170.23/32",
    "169.254.0.23/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "168.63.129.16/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
)
NAT64 = IPv6Network("64:ff9b::/96")
UNICAST = IPv6Network("2000::/3")


class OutgoingError(Exception):
    """There is no answer to this request that one could read.

    `sent` says that it may have arrived all the same. The text names the host and what went wrong;
    nothing of the request or of an answer is in it.
    """

    def __init__(self, why: str, *, sent: bool = False) -> None:
        super().__init__(why)
        self.sent = sent


class Refused(OutgoingError):
    """This may not be called from here. Nothing was sent."""


@dataclass(frozen=True)
class Answer:
    """What a server answered: names of headers are in lower case."""

    host: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body. Raises OutgoingError where it is no JSON."""
        try:
            return jsons.loads(self.body)
        except (ValueError, RecursionError):
            raise OutgoingError(
                f"{self.host} answered with {self.status} and something that is no JSON.", sent=True
            ) from None


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    body: bytes | None = None,
    timeout: float = TIMEOUT,
    most: int = MOST,
    judged_by: Sequence[str] = EVERY_CALL,
) -> Answer:
    """Call `url` once and read the answer, whatever its status; redirects are not followed.

    `judged_by` names the settings that list which networks it may reach. It ends within `timeout`
    seconds, name resolution and body included, and reads at most `most` bytes; with 0, none of the
    body. Raises Refused or OutgoingError. Not for code that runs in an event loop.
    """
    sent = {"Accept-Encoding": "identity", "User-Agent": "Keyturn"} | dict(headers or {})
    if json is not None:
        body = jsons.dumps(json).encode()
        sent["Content-Type"] = "application/json"
    if not all(text.isascii() and text.isprintable() for pair in sent.items() for text in pair):
        raise Refused("A header that is sent has only printable ASCII characters in it.")
    target = _target(url)
    limits = aiohttp.ClientTimeout(total=timeout, connect=min(timeout, CONNECT_TIMEOUT))
    return asyncio.run(_send(method, target, sent, body, limits, most, judged_by))


def check(url: str, *, judged_by: Sequence[str] = EVERY_CALL) -> None:
    """Raise Refused where `url` may not be called from here, as things stand. A name that isn't
    found in two seconds passes, and so does one while four others are looked for: each call judges
    it again."""
    target = _target(url)
    host, in_clear = str(target.host), target.scheme == "http"
    if not _judging.acquire(blocking=False):
        return
    try:
        lookup = _lookups.submit(look_up, host, target.port or 443, socket.AF_UNSPEC)
        lookup.add_done_callback(lambda _: _judging.release())
        found = lookup.result(timeout=2)
    except (OSError, TimeoutError, UnicodeError):
        return
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    _check(host, addresses, in_clear=in_clear, judged_by=judged_by)


def allowed(address: Address, *, in_clear: bool = False, setting: str = EVERY_CALL[0]) -> bool:
    """Whether this deployment lets workers connect to it, by what this setting lists.

    `in_clear`, without TLS: then not over the Internet, unless its network is listed by itself.
    """
    address = _judged(address)
    listed: set[str] = set(getattr(settings, setting))
    networks = [ip_network(entry) for entry in listed - {"public", "private"}]
    holding = [network for network in networks if address in network]
    special = [network for network in SPECIAL if address in network]
    if special:
        return any(all(_inside(each, around) for around in special) for each in holding)
    if holding:
        return True
    if any(address in network for network in PRIVATE):
        return "private" in listed
    if in_clear:
        return False
    return "public" in listed and (address.version == 4 or address in UNICAST)


def _inside(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.network_address in outer
        and inner.prefixlen >= outer.prefixlen
    )


def _judged(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _target(url: str) -> URL:
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Refused("A URL that is called has only printable ASCII characters in it.")
    try:
        target = URL(url, encoded=True)
        host, port = target.host, target.port
    except ValueError:
        raise Refused("This is no URL that could be called.") from None
    if target.scheme not in {"http", "https"} or not host or not port:
        raise Refused("Only http and https URLs are called.")
    if target.user is not None or target.password is not None:
        raise Refused("A URL that is called has no user and no password in it.")
    return target.with_fragment(None)


def _check(
    host: str, addresses: Iterable[str], *, in_clear: bool, judged_by: Sequence[str]
) -> None:
    for text, setting in product(addresses, judged_by):
        try:
            # The zone of a link-local address says which interface, not which address.
            address = ip_address(text.partition("%")[0])
            good = allowed(address, in_clear=in_clear, setting=setting)
            needs_tls = not good and allowed(address, setting=setting)
        except ValueError:  # a number that a library takes for an address
            good = needs_tls = False
        if needs_tls:
            raise Refused(f"{host} is on the Internet: it is called by https alone.")
        if not good:
            where = host if text == host else f"{host} is {text}, which"
            raise Refused(f"{where} may not be called from here ({setting}).")


# Apart from the event loop's own, whose end would wait for a name server that doesn't answer.
# As many as there are webhooks in flight, and some: names that hang must hold up no other's.
_lookups = ThreadPoolExecutor(max_workers=64, thread_name_prefix="lookup")
# What anybody enters is looked up while a thread of web waits: names that hang, entered in a loop,
# would take all of these threads and those from the calls that web itself makes.
_judging = threading.BoundedSemaphore(4)


class _Resolver(AbstractResolver):
    def __init__(self, *, in_clear: bool, judged_by: Sequence[str]) -> None:
        self._in_clear, self._judged_by = in_clear, judged_by

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_lookups, look_up, host, port, family)
        if not found:
            raise OSError
        addresses = [str(sockaddr[0]) for *_, sockaddr in found]
        _check(host, addresses, in_clear=self._in_clear, judged_by=self._judged_by)
        return [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=each,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for each, _, proto, _, sockaddr in found
        ]

    async def close(self) -> None:
        pass


def look_up(
    host: str, port: int, family: socket.AddressFamily
) -> list[tuple[socket.AddressFamily, int, int, str, tuple[Any, ...]]]:
    """What the system's resolver says."""
    return list(
        socket.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    )


@cache
def _tls() -> ssl.SSLContext:
    """Verifies by what Python trusts; SSL_CERT_FILE names other CA certificates."""
    return ssl.create_default_context()


async def _send(
    method: str,
    target: URL,
    headers: Mapping[str, str],
    body: bytes | None,
    limits: aiohttp.ClientTimeout,
    most: int,
    judged_by: Sequence[str],
) -> Answer:
    host, in_clear = str(target.host), target.scheme == "http"
    connected = False
    refused: list[Refused] = []

    async def now_connected(*_: object) -> None:
        nonlocal connected
        connected = True

    def open_socket(info: Any) -> socket.socket:
        family, kind, proto, _, sockaddr = info
        try:
            _check(host, [str(sockaddr[0])], in_clear=in_clear, judged_by=judged_by)
        except Refused as error:
            refused.append(error)
            raise
        return socket.socket(family, kind, proto)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(now_connected)
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(in_clear=in_clear, judged_by=judged_by),
        use_dns_cache=False,
        socket_factory=open_socket,
        ssl=True if in_clear else _tls(),
        force_close=True,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=limits,
        trust_env=False,
        # An answer that was asked for as it is and comes compressed is not unpacked to a gigabyte.
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        middlewares=(_once,),
    )
    try:
        async with (
            session,
            session.request(
                method, target, headers=headers, data=body, allow_redirects=False
            ) as response,
        ):
            read = bytearray()
            while most and (part := await response.content.readany()):
                read += part
                if len(read) > most:
                    raise OutgoingError(
                        f"{host} answered with more than {most:,} bytes.", sent=True
                    )
            return Answer(
                host,
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                bytes(read),
            )
    # aiohttp's own words quote what was sent and what came: neither is repeated, nor chained.
    except TimeoutError:
        raise OutgoingError(
            f"{host} gave no answer within {limits.total:g} s."
            if connected
            else f"{host} could not be reached in time.",
            sent=connected,
        ) from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise OutgoingError(f"The certificate of {host} is not accepted{_why(error)}.") from None
    except aiohttp.ClientConnectorDNSError:
        raise OutgoingError(f"{host} has no address.") from None
    except (aiohttp.ClientError, OSError):
        if refused:
            raise refused[0] from None
        raise OutgoingError(
            f"{host} broke off, or its answer is no HTTP."
            if connected
            else f"{host} could not be reached.",
            sent=connected,
        ) from None
    except ValueError:
        if connected:
            raise OutgoingError(f"The answer of {host} is no HTTP.", sent=True) from None
        raise Refused(f"{host} can’t be called by that name.") from None


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp repeats a GET or DELETE whose connection broke; whoever calls decides that here."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise aiohttp.ClientError from None


def _why(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    said = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else ""
    return f" ({said.rstrip('.')})" if said else ""
