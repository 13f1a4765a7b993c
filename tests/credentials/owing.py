"""Credentials that are owed: of any kind, any age, as many as wanted, without minting them."""

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from accessrequests.models import Grant
from audit import clock
from credentials.actions.revoking import _close
from credentials.kinds import kinds
from credentials.kinds.base import Kind
from credentials.models import Credential
from credentials.states import RevokeReason
from endpoints import kinds as endpoint_kinds
from endpoints.kinds import Revocation


class Paper(Kind):
    """A kind whose settings say all about it: `how` it ends, and where."""

    slug = "paper"
    label = "Paper"

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        return Revocation(settings.get("how", "immediate"))

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return dict(settings)

    def describe(self, settings: Mapping[str, Any]) -> str:
        return f"A slip of paper, {settings}."

    def target(self, credential: Credential) -> str:
        return str(credential.settings.get("target", ""))


@contextmanager
def papers(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be such a kind."""
    with patch.context() as inner:
        inner.setitem(kinds(), "paper", Paper())
        inner.setitem(endpoint_kinds._known, "paper", Paper())
        yield


def owed(
    grant: Grant,
    *,
    seconds: float = 90,
    count: int = 1,
    kind: str = "paper",
    attempts: int = 4,
    known: bool = True,
    expires_in: float | None = None,
    error: str = "ask orders-db: ConnectionError",
    **settings: Any,
) -> list[Credential]:
    """Credentials under this grant that have been revoking for so many seconds."""
    moment = clock.now()
    began = moment - dt.timedelta(seconds=seconds)
    rows = [
        Credential(
            grant=grant,
            kind=kind,
            settings=settings,
            state="revoking",
            created_at=began - dt.timedelta(seconds=1),
            issued_at=began,
            handles={"paper": "1"} if known else {},
            expires_at=None if expires_in is None else moment + dt.timedelta(seconds=expires_in),
            revoking_since=began,
            revoke_reason=RevokeReason.GRANT_ENDED,
            next_attempt_at=moment + dt.timedelta(seconds=20),
            attempts=attempts,
            last_error=error,
        )
        for _ in range(count)
    ]
    return Credential.objects.bulk_create(rows)


def gone(*rows: Credential) -> None:
    """What is proven of these all at once."""
    fresh = Credential.objects.select_related("grant__request__profile").in_bulk(
        [row.pk for row in rows]
    )
    _close(list(fresh.values()), {str(pk): "it says so itself" for pk in fresh})
