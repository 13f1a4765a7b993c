"""Where the work at hand came from: what every audit row of one request shares."""

import contextlib
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class Identified(Protocol):
    """Anything with an id whose text names it to a reader."""

    @property
    def pk(self) -> Any: ...


@dataclass(frozen=True)
class Origin:
    """`via`: portal, api, scim, gateway, worker or cli; `address`: the client's; `trace`: one id
    for everything that one request caused, also sent to Vault; `agent`: who acts where no person
    does, if it isn't Keyturn itself."""

    via: str = "cli"
    address: str | None = None
    trace: uuid.UUID = field(default_factory=uuid.uuid4)
    agent: Identified | None = None


_origin: ContextVar[Origin | None] = ContextVar("keyturn_origin", default=None)


def origin() -> Origin:
    """The origin of the work at hand; outside of any, the command line's."""
    return _origin.get() or Origin()


@contextlib.contextmanager
def working_for(value: Origin) -> Iterator[None]:
    """Within the block, audit rows carry this origin."""
    token = _origin.set(value)
    try:
        yield
    finally:
        _origin.reset(token)
