"""What a grant has spent of what it may, and its calls: read for people, never for a decision."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Self

from django.db.models import Count, Q, QuerySet

from accessrequests.models import Grant
from endpoints.scope import Scope
from gateway.models import MICRO, Call, Meter

MINUTE = dt.timedelta(minutes=1)
# Refused by the gateway itself, before or in place of the upstream's answer.
REFUSED = ~Q(refusal="")


@dataclass(frozen=True)
class Spent:
    """So much of a budget; None where there is none."""

    spent: Decimal
    budget: Decimal | None

    @property
    def left(self) -> Decimal | None:
        """What is left of it, never below 0."""
        return None if self.budget is None else max(self.budget - self.spent, Decimal(0))

    @property
    def percent(self) -> int:
        """How much of it is spent: 0 to 100, and 100 only when nothing is left."""
        if not self.budget:
            return 0
        share = int(self.spent * 100 / self.budget)
        return min(share, 100 if self.spent >= self.budget else 99)

    @property
    def is_low(self) -> bool:
        """Whether a tenth or less of it is left."""
        return self.budget is not None and self.spent * 10 >= self.budget * 9


@dataclass(frozen=True)
class Usage:
    """What a grant has spent, by its meter."""

    calls: int
    refused: int
    input_tokens: int
    output_tokens: int
    tokens: Spent
    cost: Spent
    last_call_at: dt.datetime | None

    @classmethod
    def of(cls, grant: Grant) -> Self:
        """By the grant's meter; it has none until its first call."""
        scope: Scope = grant.allowed
        meter: Meter = getattr(grant, "meter", None) or Meter()
        budget = scope.token_budget
        return cls(
            calls=meter.calls,
            refused=meter.refused,
            input_tokens=meter.input_tokens,
            output_tokens=meter.output_tokens,
            tokens=Spent(Decimal(meter.charged_tokens), Decimal(budget) if budget else None),
            cost=Spent(dollars(meter.charged_cost), scope.cost_budget),
            last_call_at=meter.last_call_at,
        )


def dollars(micro: int) -> Decimal:
    """Millionths of a US dollar as US dollars, to a hundredth of a cent."""
    return round(Decimal(micro) / MICRO, 4)


class Rate(NamedTuple):
    """Calls within the last minute, and how many of them were refused."""

    calls: int
    refused: int


NONE = Rate(0, 0)


def rates(calls: QuerySet[Call], key: str, now: dt.datetime) -> dict[uuid.UUID, Rate]:
    """Of these calls those of the last minute, counted by this column, in one query."""
    rows = (
        calls.filter(at__gt=now - MINUTE)
        .order_by()
        .values_list(key)
        .annotate(calls=Count("pk"), refused=Count("pk", filter=REFUSED))
    )
    return {each: Rate(count, refused) for each, count, refused in rows}


def rates_of(grants: Iterable[Grant], now: dt.datetime) -> dict[uuid.UUID, Rate]:
    """The same for each of these grants."""
    return rates(Call.objects.filter(grant__in=list(grants)), "grant_id", now)
