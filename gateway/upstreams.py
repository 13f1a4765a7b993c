"""The upstream side: pooled connections, which upstream is up, failing over before the first byte.

No call that an upstream may have billed is repeated: another one is tried only where the
connection could not be made, or where the upstream said that it took nothing in (429).
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from django.conf import settings
from yarl import URL

from credentials.live import Live
from gateway.dialects import Refused

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0  # seconds
PROBE = 5.0  # seconds between two looks at one that is down
HANDSHAKE_TIMEOUT = 30.0  # seconds for an upstream to take a WebSocket
HEARTBEAT = 20.0  # seconds between two pings on a WebSocket
IDLE = 600.0  # seconds after which an unused upstream is no longer looked at


@dataclass
class Upstream:
    """One base URL of one endpoint, as this process sees it."""

    url: str
    endpoint: uuid.UUID
    is_up: bool = True
    error: str = ""
    used: float = 0.0
    changed: bool = True  # and not yet written down

    def went(self, *, up: bool, error: str = "") -> None:
        """It answered, or could not be reached."""
        self.is_up, self.error, self.changed = up, error, True


class Upstreams:
    """All upstreams of this process, over one pool of connections."""

    def __init__(self) -> None:
        self.known: dict[str, Upstream] = {}
        self._session: aiohttp.ClientSession | None = None
        self._sockets: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Open the pool; call within the running loop."""
        self._session = aiohttp.ClientSession(
            # Shorter than any usual server's: one that closes an idle connection just as a call
            # goes out on it would fail that call, which may not be repeated.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=CONNECT_TIMEOUT,
                sock_read=settings.KEYTURN_GATEWAY_UPSTREAM_TIMEOUT,
            ),
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._sockets = aiohttp.ClientSession(
            connector=self._session.connector,
            connector_owner=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT, sock_read=HANDSHAKE_TIMEOUT
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_stay_here,),
        )
        self._task = asyncio.create_task(self._probe_for_ever(), name="probe")

    async def stop(self) -> None:
        """Close the pool."""
        if self._task is not None:
            self._task.cancel()
        if self._sockets is not None:
            await self._sockets.close()
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool."""
        assert self._session is not None  # noqa: S101 -- set by lifespan before any call
        return self._session

    def in_order(self, live: Live) -> list[Upstream]:
        """The endpoint's upstreams: those that are up first."""
        found = []
        for url in live.upstreams:
            upstream = self.known.get(url)
            if upstream is None:
                upstream = self.known[url] = Upstream(url, live.endpoint_id)
            found.append(upstream)
        if len(found) > 1:
            found.sort(key=lambda upstream: not upstream.is_up)
        return found

    def url(self, base: str, path: str) -> URL:
        """`path` is sent as it is: it was matched or checked as it is."""
        text = base + path
        url = self._urls.get(text)
        if url is None:
            if len(self._urls) > 10_000:
                self._urls.clear()
            url = self._urls[text] = URL(text, encoded=True)
        return url

    async def request(
        self,
        live: Live,
        method: str,
        path: str,
        headers: Mapping[str, str],
        data: bytes | AsyncIterable[bytes] | None,
    ) -> aiohttp.ClientResponse:
        """The first answer that an upstream of this endpoint begins. Raises Refused.

        Whoever gets it releases it. What is streamed up can be read once: the first answer to it
        counts.
        """
        last: Exception | None = None
        upstreams = self.in_order(live)
        for number, upstream in enumerate(upstreams, start=1):
            upstream.used = time.monotonic()
            try:
                answer = await self.session.request(
                    method,
                    self.url(upstream.url, path),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                # Nothing of the call went out.
                upstream.went(up=False, error=type(error).__name__)
                logger.warning("%s: %s can't be reached", live.endpoint, upstream.url)
                last = error
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _broke_off(live, error) from error
            if not upstream.is_up:
                upstream.went(up=True)
            is_last = number == len(upstreams) or not isinstance(data, bytes | None)
            if answer.status == 429 and not is_last:
                answer.release()
                continue
            return answer
        raise _unreachable() from last

    async def connect(
        self, live: Live, path: str, headers: Mapping[str, str], protocols: Iterable[str]
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket with the first upstream of this endpoint that can be reached. Raises
        Refused."""
        assert self._sockets is not None  # noqa: S101 -- set by lifespan before any call
        last: Exception | None = None
        for upstream in self.in_order(live):
            upstream.used = time.monotonic()
            try:
                socket = await self._sockets.ws_connect(
                    self.url(upstream.url, path),
                    headers=headers,
                    protocols=tuple(protocols),
                    max_msg_size=settings.KEYTURN_GATEWAY_MAX_BODY,
                    heartbeat=HEARTBEAT,
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                upstream.went(up=False, error=type(error).__name__)
                logger.warning("%s: %s can't be reached", live.endpoint, upstream.url)
                last = error
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("%s: no WebSocket: %s", live.endpoint, type(error).__name__)
                raise Refused(
                    502, "upstream_refused", "The upstream doesn't take a WebSocket here."
                ) from error
            if not upstream.is_up:
                upstream.went(up=True)
            return socket
        raise _unreachable() from last

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PROBE)
            moment = time.monotonic()
            for url, upstream in list(self.known.items()):
                if moment - upstream.used > IDLE:
                    del self.known[url]
                elif not upstream.is_up and await _takes_connections(url):
                    upstream.went(up=True)


async def _takes_connections(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _stay_here(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp follows redirects of a WebSocket's handshake, and takes the upstream's key along."""
    answer = await handler(request)
    if answer.status != 101:
        answer.close()
        raise aiohttp.ClientError(f"answered {answer.status}")
    return answer


def _unreachable() -> Refused:
    return Refused(
        502,
        "upstream_unreachable",
        "No upstream of this endpoint can be reached. Nothing was sent; try again later.",
        retry=True,
    )


class BrokeOff(Refused):
    """The upstream had the call and didn't answer it: it may have been billed."""


def _broke_off(live: Live, error: Exception) -> BrokeOff:
    logger.warning("%s: %s", live.endpoint, type(error).__name__)
    return BrokeOff(
        502,
        "upstream_broke_off",
        "The upstream broke off or took too long. It may have carried the call out, so Keyturn "
        "doesn't repeat it.",
    )
