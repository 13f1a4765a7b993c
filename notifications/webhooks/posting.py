"""One POST to one webhook. It goes out by the one client of `endpoints.outgoing`, a layer above
this one, which sets `send` and `check` when it starts."""

import datetime as dt
import email.utils
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from standardwebhooks import Webhook as Signer

from broker.errors import Unavailable

TIMEOUT = 10.0  # seconds for a try, from the look-up of the name on


class Answer(Protocol):
    """What a receiver answered. Its body isn't read."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class NoAnswer(Exception):
    """There was none, or it may not be called. The text names the host, and nothing that was
    sent."""


def _no_client(*_: object, **__: object) -> NoReturn:
    raise Unavailable("Nothing here can call a webhook.")


class Send(Protocol):
    """POSTs a body. `trusted` whose URL may be in any network that workers reach, and not only in
    those for anybody's. Raises NoAnswer."""

    def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, trusted: bool
    ) -> Answer: ...


class Check(Protocol):
    """Raises NoAnswer where a delivery to this URL would be refused."""

    def __call__(self, url: str, *, trusted: bool) -> None: ...


send: Send = _no_client
check: Check = _no_client


@dataclass(frozen=True)
class Outcome:
    """What came of a try."""

    status: int | None
    milliseconds: int
    error: str = ""
    retry_after: dt.timedelta | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants nothing more (410)."""
        return self.status == 410


def post(
    url: str,
    body: str,
    *,
    message_id: str,
    at: dt.datetime,
    secrets: Sequence[str],
    trusted: bool,
) -> Outcome:
    """Send this once, signed by each of these secrets; what came of it."""
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signer(each).sign(message_id, at, body) for each in secrets),
    }
    began = time.monotonic()
    try:
        answer = send(url, body.encode(), headers, TIMEOUT, trusted=trusted)
    except NoAnswer as error:
        return Outcome(None, _since(began), str(error)[:300])
    if 200 <= answer.status < 300:
        return Outcome(answer.status, _since(began))
    said = f"It answered with {answer.status}."
    if 300 <= answer.status < 400:
        said = f"It answered with {answer.status}: redirects are not followed."
    return Outcome(answer.status, _since(began), said, _retry_after(answer.headers, at))


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _retry_after(headers: Mapping[str, str], at: dt.datetime) -> dt.timedelta | None:
    """How long the receiver asks to be left alone, if it does (RFC 9110, 10.2.3)."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return dt.timedelta(seconds=min(int(said[:9]), 86_400))
    try:
        moment = email.utils.parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return min(max(moment - at, dt.timedelta(0)), dt.timedelta(days=1))
