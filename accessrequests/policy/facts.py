"""What the conditions of a policy are judged by."""

import datetime as dt
import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

from endpoints.scope import MOST

NO_LIMIT = 1000 * MOST


def _utc(moment: dt.datetime) -> dt.datetime:
    """The same moment as CEL takes it: the library refuses zones other than fixed offsets."""
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:  # within a day of the calendar's ends, which no limit allows
        return moment.replace(tzinfo=dt.UTC)


def _number(limit: int | Decimal | None) -> int:
    """A limit as CEL takes it: a whole number, an amount rounded up so that a condition on it is
    never met by less than the whole; where there is none, more than any limit can be."""
    return NO_LIMIT if limit is None else math.ceil(limit)


@dataclass(frozen=True)
class Behalf:
    """The person on whose behalf an agent asks."""

    email: str
    groups: frozenset[str]
    on_call: bool


@dataclass(frozen=True)
class Facts:
    """One ask, by one requester, on one endpoint, at one moment."""

    email: str
    groups: frozenset[str]
    is_service: bool
    on_call: bool
    profile: str
    duration: dt.timedelta
    models: frozenset[str]
    ticket: str
    justification: str
    starts_at: dt.datetime | None
    extension: bool
    break_glass: bool
    endpoint: str
    kind: str
    environment: str
    risk: str
    connected_systems: tuple[str, ...]
    now: dt.datetime
    tools: frozenset[str] = frozenset()
    mcp_hosts: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    max_output_tokens: int | None = None
    requests_per_minute: int | None = None
    concurrency: int | None = None
    token_budget: int | None = None
    cost_budget: Decimal | None = None
    raises: bool = False
    credential: str = "gateway_token"
    revocation: str = "immediate"
    agent: bool = False
    behalf: Behalf | None = None
    run: str = ""
    task: str = ""

    def as_person(self) -> Self:
        """The same ask as if the person on whose behalf it is made asked themself."""
        if self.behalf is None:
            return self
        return replace(
            self,
            email=self.behalf.email,
            groups=self.behalf.groups,
            is_service=False,
            on_call=self.behalf.on_call,
        )

    def for_cel(self) -> dict[str, Any]:
        """The variables of an expression: see `cel.VARIABLES`."""
        return {
            "requester": {
                "email": self.email,
                "groups": sorted(self.groups),
                "kind": "service" if self.is_service else "person",
                "on_call": self.on_call,
            },
            "profile": {
                "kind": self.credential,
                "revocation": self.revocation,
            },
            "request": {
                "profile": self.profile,
                "duration": self.duration,
                "models": sorted(self.models),
                "tools": sorted(self.tools),
                "mcp_hosts": sorted(self.mcp_hosts),
                "operations": sorted(self.operations),
                "max_output_tokens": _number(self.max_output_tokens),
                "requests_per_minute": _number(self.requests_per_minute),
                "concurrency": _number(self.concurrency),
                "token_budget": _number(self.token_budget),
                "cost_budget": _number(self.cost_budget),
                "ticket": self.ticket,
                "justification": self.justification,
                "starts_at": _utc(self.starts_at or self.now),
                "scheduled": self.starts_at is not None,
                "extension": self.extension,
                "raises": self.raises,
                "break_glass": self.break_glass,
                "agent": self.agent,
                "on_behalf_of": self.behalf.email if self.behalf else "",
                "run": self.run,
                "task": self.task,
            },
            "behalf": {
                "groups": sorted(self.behalf.groups) if self.behalf else [],
                "on_call": self.behalf is not None and self.behalf.on_call,
            },
            "endpoint": {
                "slug": self.endpoint,
                "kind": self.kind,
                "environment": self.environment,
                "risk": self.risk,
                "connected_systems": list(self.connected_systems),
            },
            "now": _utc(self.now),
        }
