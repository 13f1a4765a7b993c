"""Limits and budgets of a grant, over any number of gateways, without asking anybody per call.

A gateway takes a part of a budget from PostgreSQL in advance (`Holding`), and lets calls go
against that part in memory. A call reserves the most that it can come to, and is settled once, by
what the upstream counted. What is charged and what all gateways hold never exceed the budget
together, so it is a hard cap whatever the gateways do at once; what a dead gateway held counts as
spent. The rate is a sliding window of a minute, the concurrency slots; both are taken in parts too.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from django.db import connection, transaction

from endpoints.scope import Scope
from gateway.dialects import Plan, Refused
from gateway.dialects.base import cost_of
from gateway.models import MICRO, Holding, Meter

WINDOW = 60  # seconds, of the rate
PATIENCE = 1.5  # seconds to wait for what another gateway holds and may give back
PAUSE = 0.1  # seconds between two tries
IDLE = 5.0  # seconds without a call after which what is held is given back
LEAST_OUTPUT = 16  # tokens: for less it isn't worth asking the upstream


class Limits(NamedTuple):
    """What a grant's scope limits over all of its calls; None doesn't limit. Cost in micro-US$."""

    tokens: int | None
    cost: int | None
    per_minute: int | None
    concurrency: int | None

    @classmethod
    def of(cls, scope: Scope) -> "Limits | None":
        """Those of this scope, or None where it has none at all."""
        cost = None if scope.cost_budget is None else int(scope.cost_budget * Decimal(MICRO))
        limits = cls(scope.token_budget, cost, scope.requests_per_minute, scope.concurrency)
        return limits if any(limit is not None for limit in limits) else None


class Lease(NamedTuple):
    """What could be taken. `refused` names what there wasn't enough of."""

    tokens: int = 0
    cost: int = 0
    slots: int = 0
    permits: int = 0
    permits_for: float = 0.0
    refused: str = ""
    elsewhere: bool = False
    retry_after: int = 1


class Wanted(NamedTuple):
    """What a call needs at least and could use, of the budgets; and whether slot and permit."""

    tokens_least: int
    tokens: int
    cost_least: int
    cost: int
    slot: bool
    permit: bool


class Forgotten(Exception):
    """This process was silent for so long that the others settled what it held."""


def lease(
    process: uuid.UUID, grant: uuid.UUID, limits: Limits, wanted: Wanted, alive: int
) -> Lease:
    """Take what is wanted, and a part of the rest in advance, or nothing. Raises Forgotten."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO gateway_meter (grant_id, calls, refused, input_tokens, output_tokens,"
            " charged_tokens, charged_cost, minute, taken, taken_before)"
            " VALUES (%s, 0, 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING",
            [grant],
        )
        meter = Meter.objects.select_for_update().get(grant=grant)
        cursor.execute("SELECT 1 FROM gateway_process WHERE id = %s FOR KEY SHARE", [process])
        if cursor.fetchone() is None:
            raise Forgotten
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        now: float = cursor.fetchone()[0]
        held = list(Holding.objects.filter(grant=grant))
        elsewhere = [each for each in held if each.process_id != process]
        taken = _of_budgets(meter, held, elsewhere, limits, wanted, alive)
        if not taken.refused and wanted.slot and limits.concurrency is not None:
            free = limits.concurrency - sum(each.slots for each in held)
            if free < 1:
                taken = Lease(refused="concurrency", elsewhere=any(e.slots for e in elsewhere))
            else:
                taken = taken._replace(slots=max(1, free // (2 * alive)))
        if not taken.refused and wanted.permit and limits.per_minute is not None:
            taken = _permits(meter, limits.per_minute, now, alive, taken)
        if taken.refused:
            return taken
        cursor.execute(
            "INSERT INTO gateway_holding (grant_id, process_id, tokens, cost, slots)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (grant_id, process_id) DO UPDATE SET"
            " tokens = gateway_holding.tokens + excluded.tokens,"
            " cost = gateway_holding.cost + excluded.cost,"
            " slots = gateway_holding.slots + excluded.slots",
            [grant, process, taken.tokens, taken.cost, taken.slots],
        )
        if taken.permits:
            meter.save(update_fields=["minute", "taken", "taken_before"])
        return taken


def _of_budgets(
    meter: Meter,
    held: list[Holding],
    elsewhere: list[Holding],
    limits: Limits,
    wanted: Wanted,
    alive: int,
) -> Lease:
    found = Lease()
    for name, budget, charged, least, most in (
        ("tokens", limits.tokens, meter.charged_tokens, wanted.tokens_least, wanted.tokens),
        ("cost", limits.cost, meter.charged_cost, wanted.cost_least, wanted.cost),
    ):
        if budget is None or most == 0:
            continue
        left = budget - charged - sum(getattr(each, name) for each in held)
        if left < least:
            used_up = budget - charged < least
            return Lease(
                refused=f"{name}_used_up" if used_up else f"{name}_reserved",
                elsewhere=any(getattr(each, name) for each in elsewhere),
            )
        found = found._replace(**{name: min(left, max(most, left // (4 * alive)))})
    return found


def _permits(meter: Meter, per_minute: int, now: float, alive: int, taken: Lease) -> Lease:
    minute = int(now // WINDOW)
    if minute != meter.minute:
        meter.taken_before = meter.taken if minute == meter.minute + 1 else 0
        meter.minute, meter.taken = minute, 0
    rest = WINDOW - now % WINDOW
    free = per_minute - meter.taken - meter.taken_before * rest / WINDOW
    if free < 1:
        soon = WINDOW / meter.taken_before if meter.taken_before else rest
        return Lease(refused="rate", retry_after=max(1, round(min(rest, soon) + 0.5)))
    permits = max(1, int(free) // (4 * alive))
    meter.taken += permits
    return taken._replace(permits=permits, permits_for=rest)


@dataclass(slots=True)
class Reservation:
    """What one call holds while it lasts. `output`: the most tokens that it may come to."""

    allowance: "Allowance"
    tokens: int = 0
    cost: int = 0
    slot: bool = False
    output: int | None = None


class Return(NamedTuple):
    """What goes off one holding: it was settled or is given back."""

    grant: uuid.UUID
    tokens: int
    cost: int
    slots: int


class Allowance:
    """What this process holds of one grant's limits. For one event loop."""

    def __init__(
        self,
        grant: uuid.UUID,
        limits: Limits,
        take: Callable[[uuid.UUID, Limits, Wanted], Awaitable[Lease]],
    ) -> None:
        self.grant = grant
        self.limits = limits
        self.tokens = 0
        self.cost = 0
        self.slots = 0
        self.permits = 0
        self.permits_until = 0.0
        self.open = 0
        self.used_at = 0.0
        self.is_forfeited = False
        self.settled_tokens = 0  # off what is held, and not yet off the row in PostgreSQL
        self.settled_cost = 0
        self._take = take
        self._waiting = 0
        self._lock = asyncio.Lock()
        self._growing: set[asyncio.Task[Lease]] = set()
        self._denied: tuple[float, Lease] = (0.0, Lease())

    def reserve_now(
        self, plan: Plan, price: tuple[float, float], *, least: bool = False
    ) -> Reservation | None:
        """Reserve from what is held, or None. `least`: with less output than wanted, if need be."""
        limits, bound, output = self.limits, plan.input_bound, plan.output_bound
        if limits.concurrency is not None and self.slots < 1:
            return None
        if limits.per_minute is not None and (
            self.permits < 1 or time.monotonic() >= self.permits_until
        ):
            return None
        tokens = cost = 0
        if limits.tokens is not None:
            if least:
                output = max(min(output, self.tokens - bound), min(output, LEAST_OUTPUT))
            tokens = bound + output
            if tokens > self.tokens:
                return None
        if limits.cost is not None:
            for_input = bound * price[0]
            if least and price[1]:
                affordable = int((self.cost - for_input - 1) / price[1])
                output = max(min(output, affordable), min(output, LEAST_OUTPUT))
                tokens = min(tokens, bound + output)
            cost = cost_of(bound, output, price)
            if cost > self.cost:
                return None
        self.tokens -= tokens
        self.cost -= cost
        if limits.concurrency is not None:
            self.slots -= 1
        if limits.per_minute is not None:
            self.permits -= 1
        self.open += 1
        budgeted = limits.tokens is not None or limits.cost is not None
        return Reservation(
            self, tokens, cost, limits.concurrency is not None, output if budgeted else None
        )

    async def reserve(self, plan: Plan, price: tuple[float, float]) -> Reservation:
        """Reserve, leasing more where what is held doesn't suffice. Raises Refused."""
        # Forgotten while a call waits, it would lease what nobody gives back.
        self._waiting += 1
        try:
            return await self._reserve(plan, price)
        finally:
            self._waiting -= 1

    async def _reserve(self, plan: Plan, price: tuple[float, float]) -> Reservation:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.is_forfeited:
                raise Refused(503, "cannot_verify", "This gateway begins anew.", retry=True)
            async with self._lock:
                found = self.reserve_now(plan, price)
                if found is None:
                    refused = await self._lease(plan, price)
                    found = self.reserve_now(plan, price, least=True)
            if found is not None:
                return found
            if not refused.refused:
                continue  # the minute was over before its permits could be used
            if not refused.elsewhere or time.monotonic() > deadline:
                raise self._refusal(refused)
            await asyncio.sleep(PAUSE)

    async def _lease(self, plan: Plan, price: tuple[float, float]) -> Lease:
        limits, bound, output = self.limits, plan.input_bound, plan.output_bound
        least = min(output, LEAST_OUTPUT)
        tokens_least = tokens = cost_least = cost = 0
        if limits.tokens is not None:
            tokens_least = max(bound + least - self.tokens, 0)
            tokens = max(bound + output - self.tokens, 0)
        if limits.cost is not None:
            cost_least = max(cost_of(bound, least, price) - self.cost, 0)
            cost = max(cost_of(bound, output, price) - self.cost, 0)
        now = time.monotonic()
        wanted = Wanted(
            tokens_least,
            tokens,
            cost_least,
            cost,
            slot=limits.concurrency is not None and self.slots < 1,
            permit=limits.per_minute is not None
            and (self.permits < 1 or now >= self.permits_until),
        )
        denied_at, denied = self._denied
        if now - denied_at < PAUSE and (denied.refused != "rate" or wanted.permit):
            return denied  # others of a thousand calls at once have just been told
        growing = asyncio.create_task(self._grow(limits, wanted))
        self._growing.add(growing)
        growing.add_done_callback(self._growing.discard)
        # A caller that hangs up meanwhile must not leave behind what nobody knows is held.
        return await asyncio.shield(growing)

    async def _grow(self, limits: Limits, wanted: Wanted) -> Lease:
        now = time.monotonic()
        taken = await self._take(self.grant, limits, wanted)
        if taken.refused:
            self._denied = (time.monotonic(), taken)
            return taken
        self.tokens += taken.tokens
        self.cost += taken.cost
        self.slots += taken.slots
        if taken.permits:
            # Counted from before the question: they end early rather than late.
            self.permits, self.permits_until = taken.permits, now + taken.permits_for
        return taken

    def settle(self, reservation: Reservation, tokens: int, cost: int) -> None:
        """The call is over and came to this much: what it reserved beyond that is free again."""
        self.open -= 1
        self.used_at = time.monotonic()
        self._denied = (0.0, Lease())
        if self.is_forfeited:
            return
        # What the upstream counted beyond the reservation is charged, but was never held.
        tokens, cost = min(tokens, reservation.tokens), min(cost, reservation.cost)
        self.settled_tokens += tokens
        self.settled_cost += cost
        self.tokens += reservation.tokens - tokens
        self.cost += reservation.cost - cost
        if reservation.slot:
            self.slots += 1

    def give_back(self, *, alone: bool) -> Return:
        """What goes off its row: what was settled, and what is free and better had by others.

        A process that is alone keeps what it holds until it has been idle for a while.
        """
        tokens, self.settled_tokens = self.settled_tokens, 0
        cost, self.settled_cost = self.settled_cost, 0
        slots = 0
        if (
            not self._growing
            and not self._lock.locked()
            and (not alone or (not self.open and time.monotonic() - self.used_at > IDLE))
        ):
            tokens, self.tokens = tokens + self.tokens, 0
            cost, self.cost = cost + self.cost, 0
            slots, self.slots = self.slots, 0
        return Return(self.grant, tokens, cost, slots)

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing and nobody uses it, so that it may be forgotten."""
        held = self.tokens, self.cost, self.slots, self.settled_tokens, self.settled_cost, self.open
        is_asked_for = self._growing or self._waiting
        return not any(held) and not is_asked_for and time.monotonic() > self.permits_until

    def _refusal(self, lease: Lease) -> Refused:
        limits, what = self.limits, lease.refused
        if not self.open and not lease.elsewhere:
            # What seems reserved was spent a moment ago, and isn't written down yet.
            what = what.replace("reserved", "used_up")
        match what:
            case "rate":
                return Refused(
                    429,
                    "rate_limited",
                    f"This grant holds {limits.per_minute} calls a minute.",
                    retry=True,
                    retry_after=lease.retry_after,
                )
            case "concurrency":
                return Refused(
                    429,
                    "too_many_at_once",
                    f"This grant holds {limits.concurrency} calls at once.",
                    retry=True,
                    retry_after=1,
                )
            case "tokens_reserved" | "cost_reserved":
                return Refused(
                    429,
                    "budget_reserved",
                    "What is left of this grant's budget is reserved by calls that are open. Wait "
                    "for one to end, or ask for less output.",
                    retry=True,
                    retry_after=2,
                )
            case "tokens_used_up":
                holds = f"{limits.tokens} tokens"
            case _:
                holds = f"US$ {Decimal(limits.cost or 0) / MICRO:.2f}"
        return Refused(
            429,
            "budget_exhausted",
            f"This grant's budget of {holds} doesn't have enough left for this call.",
        )


def take_off(process: uuid.UUID, returns: list[Return]) -> None:
    """Take these off what the process holds, in the caller's transaction."""
    with connection.cursor() as cursor:
        for each in sorted(returns):
            cursor.execute(
                "UPDATE gateway_holding SET tokens = greatest(tokens - %s, 0),"
                " cost = greatest(cost - %s, 0), slots = greatest(slots - %s, 0)"
                " WHERE grant_id = %s AND process_id = %s",
                [each.tokens, each.cost, each.slots, each.grant, process],
            )
