"""This process among the gateways: its beat, what it holds of budgets, writing down its calls."""

import asyncio
import logging
import socket
import time
import uuid

from django.db import connection, transaction

from audit import clock
from audit.ids import new_id
from credentials import vault
from credentials.live import Live
from endpoints.models import ModelPrice
from gateway.asking import Ask, Unreachable
from gateway.dialects import Plan, Refused
from gateway.keys import Keys
from gateway.meter import Allowance, Forgotten, Lease, Limits, Return, Wanted, lease
from gateway.recording import Record, Recorder, write
from gateway.upstreams import Upstream, Upstreams

logger = logging.getLogger(__name__)

Prices = dict[str, tuple[float, float]]  # US$ per million tokens of input and of output

BEAT = 0.5  # seconds between two writings
ROUND = 5.0  # seconds between two looks at prices, upstreams, and who fell silent
SILENT = 15  # seconds without a beat after which what a process held counts as spent
BEHIND = 30.0  # seconds without writing after which calls are refused


class Books:
    """One per process; for one event loop."""

    def __init__(self, ask: Ask, recorder: Recorder, upstreams: Upstreams, keys: Keys) -> None:
        self.process = new_id()
        self.alive = 1
        self.open_calls = 0
        self._ask = ask
        self._recorder = recorder
        self._upstreams = upstreams
        self._keys = keys
        self._number = 0
        self._is_registered = False
        self._batch: tuple[list[Record], list[Return]] | None = None
        self._allowances: dict[uuid.UUID, Allowance] = {}
        self._prices: dict[uuid.UUID, Prices] = {}
        self._written_at = time.monotonic()
        self._in_touch_since = time.monotonic()
        self._round_at = 0.0
        self._vault_answers = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; call within the running loop."""
        self._written_at = self._in_touch_since = time.monotonic()
        self._task = asyncio.create_task(self._write_for_ever(), name="books")

    async def stop(self) -> None:
        """Write what is left, give back what is held, and sign off."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(5):
                while self._batch or self._recorder.waiting:
                    await self._write()
                if self._is_registered:
                    await self._ask(_sign_off, self.process)
        except (Unreachable, Forgotten, TimeoutError):
            logger.exception("the last calls could not be written")

    @property
    def written_age(self) -> float:
        """Seconds since calls were last written."""
        return time.monotonic() - self._written_at

    @property
    def is_behind(self) -> bool:
        """Whether calls can't be written down any more: then none is let through."""
        return self.written_age > BEHIND

    @property
    def faults(self) -> list[str]:
        """Why this gateway shouldn't be sent anything now."""
        found = []
        if self.written_age > 3.0:
            found.append("calls can't be recorded")
        if not self._vault_answers:
            found.append("Vault can't be asked")
        return found

    def allowance(self, grant: uuid.UUID, limits: Limits) -> Allowance:
        """What this process holds of this grant's limits."""
        found = self._allowances.get(grant)
        if found is None:
            found = self._allowances[grant] = Allowance(grant, limits, self._take)
        found.limits = limits
        return found

    async def _take(self, grant: uuid.UUID, limits: Limits, wanted: Wanted) -> Lease:
        try:
            if self._is_registered:
                return await self._ask(lease, self.process, grant, limits, wanted, self.alive)
        except Forgotten:
            self._forfeit()
        except Unreachable as error:
            logger.warning("no budget can be taken: %s", error)
        raise Refused(
            503,
            "cannot_verify",
            "Keyturn's database can't be asked what is left of this grant's budget.",
            retry=True,
            retry_after=1,
        )

    def price_now(self, live: Live, plan: Plan) -> tuple[float, float] | None:
        """What this call's model costs, as far as it's in memory."""
        prices = self._prices.get(live.endpoint_id)
        return None if prices is None else prices.get(plan.model)

    async def price(self, live: Live, plan: Plan) -> tuple[float, float]:
        """What this call's model costs. Raises Refused where a budget of cost needs to know."""
        prices = self._prices.get(live.endpoint_id)
        if prices is None:
            try:
                found = await self._ask(_prices, [live.endpoint_id])
            except Unreachable as error:
                logger.warning("no prices of %s: %s", live.endpoint, error)
                if live.scope.cost_budget is None:
                    return 0.0, 0.0
                raise Refused(
                    503,
                    "cannot_verify",
                    "Keyturn's database can't be asked for prices.",
                    retry=True,
                ) from None
            prices = self._prices[live.endpoint_id] = found[live.endpoint_id]
        price = prices.get(plan.model)
        if price is not None:
            return price
        if live.scope.cost_budget is not None:
            raise Refused(
                403,
                "no_price",
                f"This grant has a budget in US dollars, and no price is set for {plan.model!r}. "
                "The endpoint's owner can set one.",
                param="model",
            )
        return 0.0, 0.0

    async def _write_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    await self._write()
                    if time.monotonic() - self._round_at > ROUND:
                        await self._go_round()
            except (Unreachable, TimeoutError) as error:
                self._in_touch_since = time.monotonic()
                logger.warning("can't write calls down: %r", error)
            except Exception:
                # Whatever is wrong with one batch, the next one must not be waited for in vain.
                logger.exception("can't write calls down")
            await asyncio.sleep(BEAT)

    async def _write(self) -> None:
        if not self._is_registered:
            await self._ask(_register, self.process)
            self._is_registered, self._number = True, 0
        if self._batch is None:
            returns = [each.give_back(alone=self.alive == 1) for each in self._allowances.values()]
            self._batch = self._recorder.take(), [each for each in returns if any(each[1:])]
            self._number += 1
            for grant in [g for g, each in self._allowances.items() if each.is_idle]:
                del self._allowances[grant]
        try:
            self.alive = await self._ask(
                write,
                self.process,
                self._number,
                self.open_calls,
                self._keys.versions(),
                *self._batch,
            )
        except Forgotten:
            self._forfeit()
            return
        self._batch = None
        self._written_at = time.monotonic()

    def _forfeit(self) -> None:
        """The others took this process for dead and charged all that it held: begin anew."""
        logger.warning("was silent for too long; what it held of budgets is charged")
        for allowance in self._allowances.values():
            allowance.is_forfeited = True
        self._allowances.clear()
        waiting, self._batch = self._batch, None
        records = [*(waiting[0] if waiting else []), *self._recorder.take()]
        for record in records:
            record.is_forfeited = record.is_forfeited or record.is_reserved
        self._recorder.waiting[:0] = records
        self.process, self._is_registered = new_id(), False

    async def _go_round(self) -> None:
        self._round_at = time.monotonic()
        try:
            await self._ask(vault.ping)
            self._vault_answers = True
        except Unreachable:
            self._vault_answers = False
        if self._prices:
            self._prices = await self._ask(_prices, list(self._prices))
        seen = [each for each in self._upstreams.known.values() if each.changed]
        if seen:
            for each in seen:
                each.changed = False
            await self._ask(_write_health, seen)
        # After an outage everybody looks silent; only who was in touch all the time can tell.
        if self._round_at - self._in_touch_since > 2 * SILENT:
            await self._ask(_settle_silent)


def _register(process: uuid.UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO gateway_process"
            " (id, host, started_at, beat_at, open_calls, written, keys)"
            " VALUES (%s, %s, clock_timestamp(), clock_timestamp(), 0, 0, '{}')"
            " ON CONFLICT DO NOTHING",
            [process, socket.gethostname()[:100]],
        )


def _sign_off(process: uuid.UUID) -> None:
    """It has no open calls any more, so what it still holds is free."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM gateway_holding WHERE process_id = %s", [process])
        cursor.execute("DELETE FROM gateway_process WHERE id = %s", [process])


def _settle_silent() -> None:
    """Charge what silent processes held: their calls may have spent it."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM gateway_process"
            " WHERE beat_at < clock_timestamp() - make_interval(secs => %s)"
            " ORDER BY id FOR UPDATE SKIP LOCKED",
            [SILENT],
        )
        silent = [row[0] for row in cursor.fetchall()]
        if not silent:
            return
        cursor.execute(
            "WITH gone AS (DELETE FROM gateway_holding WHERE process_id = ANY(%s)"
            " RETURNING grant_id, tokens, cost), sums AS (SELECT grant_id,"
            " sum(tokens) AS tokens, sum(cost) AS cost FROM gone GROUP BY grant_id)"
            " UPDATE gateway_meter m SET charged_tokens = m.charged_tokens + sums.tokens,"
            " charged_cost = m.charged_cost + sums.cost FROM sums WHERE m.grant_id = sums.grant_id",
            [silent],
        )
        cursor.execute("DELETE FROM gateway_process WHERE id = ANY(%s)", [silent])
    logger.warning("%d silent gateways: what they held is charged", len(silent))


def _prices(endpoints: list[uuid.UUID]) -> dict[uuid.UUID, Prices]:
    """Prices that hold today, by endpoint and model."""
    found: dict[uuid.UUID, Prices] = {endpoint: {} for endpoint in endpoints}
    rows = (
        ModelPrice.objects.filter(endpoint__in=endpoints, since__lte=clock.now().date())
        .order_by("endpoint_id", "model", "-since")
        .distinct("endpoint_id", "model")
    )
    for row in rows:
        found[row.endpoint_id][row.model] = float(row.input_price), float(row.output_price)
    return found


def _write_health(seen: list[Upstream]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        for each in sorted(seen, key=lambda upstream: upstream.url):
            cursor.execute(
                "INSERT INTO gateway_upstreamhealth AS h"
                " (id, endpoint_id, url, is_up, since, checked_at, last_error)"
                " VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp(), %s)"
                " ON CONFLICT (endpoint_id, url) DO UPDATE SET is_up = excluded.is_up,"
                " since = CASE WHEN h.is_up = excluded.is_up THEN h.since ELSE excluded.since END,"
                " checked_at = excluded.checked_at,"
                " last_error = CASE WHEN excluded.is_up THEN h.last_error"
                " ELSE excluded.last_error END",
                [new_id(), each.endpoint, each.url, each.is_up, each.error],
            )
