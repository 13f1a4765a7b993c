"""How rotators call a provider: what it answers, in words that quote nothing of it."""

import json as jsons
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from credentials.rotators.base import New, ProviderError
from endpoints.outgoing import OutgoingError, send

TIMEOUT = 10.0  # seconds for one call
MOST = 1_000_000  # bytes of one answer
LONGEST_HANDLE = 2_000
SENDABLE = re.compile(r"[!-~]{8,8192}")


class Answered(BaseModel):
    """What is read of an answer; providers may add to it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Shape = TypeVar("Shape", bound=Answered)


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError("This is no URL") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii():
        raise ValueError("Give an http or https URL")
    if parts.query or parts.fragment or parts.username or parts.password or not url.isprintable():
        raise ValueError("Give the URL alone: no user, password, query or fragment")
    return url


Url = Annotated[str, AfterValidator(_url)]
BaseUrl = Annotated[Url, AfterValidator(lambda url: url.rstrip("/"))]


class Provider:
    """One provider, as error texts call it, and what the calls of one step have in common."""

    def __init__(self, name: str, headers: Mapping[str, str]) -> None:
        self.name = name
        self._headers = dict(headers)
        self._known = [
            value.removeprefix("Bearer ")
            for header, value in headers.items()
            if header == "Authorization"
        ]

    def call(
        self,
        doing: str,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        changes: bool = False,
        fine: Collection[int] = (),
    ) -> "Reply":
        """Call it once. `doing` completes "to …"; `changes` says that it alters something there.

        Statuses of 200 to 299 and those in `fine` are answers; all else raises ProviderError.
        """
        try:
            answer = send(
                method,
                url,
                headers=self._headers | dict(headers or {}),
                json=json,
                body=body,
                timeout=TIMEOUT,
                most=MOST,
            )
        except OutgoingError as error:
            raise self.failed(doing, str(error), unknown=changes and error.sent) from None
        status = answer.status
        if 200 <= status < 300 or status in fine:
            return Reply(self, doing, changes, status, answer.body, self._known)
        # A proxy on the way may have given up on a call that goes on behind it.
        unknown = changes and (status < 400 or status == 408 or status >= 500)
        raise self.failed(doing, _in_words(status), unknown=unknown)

    def failed(self, doing: str, why: str, *, unknown: bool) -> ProviderError:
        """The error that people read."""
        after = " It may have been done all the same." if unknown else ""
        return ProviderError(f"{self.name} was asked to {doing}: {why}{after}", unknown=unknown)


class Reply:
    """A status that is fine, and a body that nobody has read yet."""

    def __init__(
        self,
        provider: Provider,
        doing: str,
        changes: bool,
        status: int,
        body: bytes,
        known: list[str],
    ) -> None:
        self.status = status
        self._provider, self._doing, self._changes = provider, doing, changes
        self._body, self._known = body, known

    def read(self, shape: type[Shape]) -> Shape:
        """The body. Raises ProviderError where it isn't of this shape."""
        try:
            return shape.model_validate_json(self._body)
        except ValidationError:
            # Its text quotes what came, which may be a secret.
            raise self.wrong("what it answered can’t be read.") from None

    def wrong(self, why: str) -> ProviderError:
        """It can't be used, though the status was fine."""
        return self._provider.failed(self._doing, why, unknown=self._changes)

    def new(self, secret: str, handle: dict[str, Any]) -> New:
        """A secret that can go into a header, and a handle that anybody may see.

        Raises ProviderError.
        """
        if not SENDABLE.fullmatch(secret):
            raise self.wrong("the secret that came can’t be used as a key.")
        text = jsons.dumps(handle)
        if len(text) > LONGEST_HANDLE or any(each in text for each in (secret, *self._known)):
            raise self.wrong("its handle is too long, or has a secret in it.")
        return New(secret, handle)


def bearer(admin_key: str) -> dict[str, str]:
    """The header for an admin key. Raises ProviderError where there is none to send."""
    key = admin_key.strip()
    if not re.fullmatch(r"[!-~]+", key):
        raise ProviderError(
            "No admin key is stored for this endpoint’s rotator."
            if not key
            else "The admin key that is stored has characters that no key has."
        )
    return {"Authorization": f"Bearer {key}"}


def _in_words(status: int) -> str:
    if 300 <= status < 400:
        return f"it sent us elsewhere ({status}), and nothing is followed: check the URL."
    known = {
        401: "it doesn’t take the admin key (401).",
        403: "the admin key may not do this (403).",
        404: "there is no such thing there (404): check the settings.",
        429: "it takes no more calls for now (429).",
    }
    if status in known:
        return known[status]
    return f"it {'failed' if status >= 500 else 'refused'} ({status})."
