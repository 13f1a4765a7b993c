"""Calls to OpenID providers and issuers, which `accounts`, a layer below this one, has made by
it."""

from typing import Any

from accounts.published import NoAnswer
from endpoints import outgoing


def send(method: str, url: str, **said: Any) -> outgoing.Answer:
    """As `outgoing.send`. Raises NoAnswer."""
    try:
        return outgoing.send(method, url, **said)
    except outgoing.OutgoingError as error:
        raise NoAnswer(str(error)) from error
