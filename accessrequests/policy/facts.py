"""What the conditions of a policy are judged by."""

import datetime as dt
from dataclasses import dataclass
from typing import Any


def _utc(moment: dt.datetime) -> dt.datetime:
    """The same moment as CEL takes it: the library refuses zones other than fixed offsets."""
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:  # within a day of the calendar's ends, which no limit allows
        return moment.replace(tzinfo=dt.UTC)


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

    def for_cel(self) -> dict[str, Any]:
        """The variables of an expression: see `cel.VARIABLES`."""
        return {
            "requester": {
                "email": self.email,
                "groups": sorted(self.groups),
                "kind": "service" if self.is_service else "person",
                "on_call": self.on_call,
            },
            "request": {
                "profile": self.profile,
                "duration": self.duration,
                "models": sorted(self.models),
                "ticket": self.ticket,
                "justification": self.justification,
                "starts_at": _utc(self.starts_at or self.now),
                "scheduled": self.starts_at is not None,
                "extension": self.extension,
                "break_glass": self.break_glass,
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
