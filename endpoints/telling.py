"""Calls to webhooks, which `notifications`, a layer below this one, has made by it; and who owns
which endpoint, so that it knows whom to tell."""

import uuid
from collections.abc import Collection, Iterable, Mapping

from endpoints import outgoing
from endpoints.models import Endpoint
from notifications.webhooks.posting import NoAnswer


def post(
    url: str, body: bytes, headers: Mapping[str, str], timeout: float, *, trusted: bool
) -> outgoing.Answer:
    """POST this once and read no more than the answer's status and headers. Raises NoAnswer."""
    by = _judged_by(trusted=trusted)
    try:
        return outgoing.send(
            "POST", url, headers=headers, body=body, timeout=timeout, most=0, judged_by=by
        )
    except outgoing.OutgoingError as error:
        raise NoAnswer(str(error)) from error


def check(url: str, *, trusted: bool) -> None:
    """Raise NoAnswer where this may not be called."""
    try:
        outgoing.check(url, judged_by=_judged_by(trusted=trusted))
    except outgoing.Refused as error:
        raise NoAnswer(str(error)) from error


def _judged_by(*, trusted: bool) -> tuple[str, ...]:
    return outgoing.EVERY_CALL if trusted else outgoing.WHAT_ANYBODY_ENTERS


def owned(people: Collection[uuid.UUID]) -> Iterable[tuple[uuid.UUID, uuid.UUID]]:
    """Each of these people's endpoints: who, and which."""
    return Endpoint.objects.filter(owner__in=people).values_list("owner_id", "pk")
