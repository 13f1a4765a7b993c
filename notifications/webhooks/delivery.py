"""Delivering to webhooks, so that none is late because of another.

A worker takes a turn with one webhook: it's that worker's alone until the claim runs out, and in a
turn its messages go one after the other. Each is noted as tried and committed, then it goes, then
what came of it is committed. No transaction holds a network call. A worker that dies between the
last two leaves a claim that runs out, and the message goes again under the same id: at least once.

Webhooks that took their last message at once have threads of their own. New, slow and failing ones
share others, and while one fails a single message of its queue is tried every so often: a thousand
dead receivers hold up each other, and nobody else.
"""

import contextlib
import datetime as dt
import json
import logging
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass

from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce

from accounts.models import User
from audit import clock
from audit.context import Origin, working_for
from audit.models import AuditEvent
from audit.ticker import Ticker
from broker.errors import Unavailable
from notifications.webhooks import posting, secrets
from notifications.webhooks.disabling import disable
from notifications.webhooks.models import Webhook, WebhookAttempt, WebhookMessage
from notifications.webhooks.permissions import may_call_inside
from notifications.webhooks.posting import Outcome
from notifications.webhooks.seeing import is_active, sights
from notifications.webhooks.telling import tell

logger = logging.getLogger(__name__)

LOCK = 0x4B45_5957  # KEYW
THREADS = 16  # of each lane, in each worker
OF_ONE = THREADS // 2  # turns of a lane at once with webhooks that one person answers for
LOOKED_AT = 1000  # webhooks with something due, those first that waited longest
# How long a webhook is a worker's: a try, and what comes before and after it, many times over.
CLAIM = dt.timedelta(minutes=1)
TURN = 20.0  # seconds after which a worker begins with no other message of a turn
QUICK = 2000  # milliseconds within which a receiver counts as quick
# Until the next try, by how many there were: eight in 24 hours.
PAUSES = [
    dt.timedelta(seconds=5),
    dt.timedelta(minutes=5),
    dt.timedelta(minutes=30),
    dt.timedelta(hours=2),
    dt.timedelta(hours=5),
    dt.timedelta(hours=10),
    dt.timedelta(hours=6),
]
# While a webhook fails: until any of its messages is tried again, doubled by each failure.
HELD, LONGEST_HELD = dt.timedelta(seconds=5), dt.timedelta(minutes=5)
HOPELESS = dt.timedelta(days=5)
HOPELESS_FAILURES = 10  # so that one message, tried for a day long ago, isn't enough

State = WebhookMessage.State


def tickers() -> list[Ticker]:
    """What tells and delivers in each worker, each second."""
    lanes = [Lane(quick=True), Lane(quick=False)]

    def work() -> None:
        tell()
        give_up()
        for lane in lanes:
            lane.go()

    return [Ticker("webhooks", lock=LOCK, every=1.0, work=work)]


class Lane:
    """Threads for webhooks that are alike: those that answer at once, or all others."""

    def __init__(self, *, quick: bool, threads: int = THREADS) -> None:
        self._quick, self._free = quick, threads
        self._lock = threading.Lock()

    def go(self) -> int:
        """Begin a turn with each webhook that has something due, as far as threads are free; with
        how many. It waits for none of them."""
        with self._lock:
            free = self._free
        turns = claim(quick=self._quick, most=free) if free else []
        for turn in turns:
            # Not a pool's, whose threads the end of the process would wait for.
            threading.Thread(target=self._take, args=[turn], name="webhook", daemon=True).start()
            # After it: where no thread can be begun, no place is lost.
            with self._lock:
                self._free -= 1
        return len(turns)

    def _take(self, turn: "Turn") -> None:
        try:
            with working_for(Origin(via="worker", trace=uuid.uuid4())):
                turn.take()
        except DatabaseError as error:
            logger.warning("webhook %s: %s", turn.webhook, type(error).__name__)
        except Exception:
            logger.exception("webhook %s went wrong", turn.webhook)
        finally:
            connection.close()
            with self._lock:
                self._free += 1


def deliver(*, most: int = THREADS) -> int:
    """Take a turn with every webhook that has something due, one after the other, in this thread;
    with how many."""
    turns = claim(quick=True, most=most) + claim(quick=False, most=most)
    for turn in turns:
        turn.take()
    return len(turns)


@transaction.atomic
def claim(*, quick: bool, most: int) -> list["Turn"]:
    """Turns with webhooks that have something due and are nobody else's, those first that waited
    longest. Whoever has them alone takes them.

    Nobody's webhooks have more than OF_ONE of them at once: 20 receivers that are slow on purpose
    would have all threads, again and again.
    """
    now = clock.now()
    due = WebhookMessage.objects.filter(
        webhook=OuterRef("pk"), state=State.DUE, next_attempt_at__lte=now
    )
    waiting = (
        Webhook.objects.enabled()
        .filter(
            Q(claimed_until=None) | Q(claimed_until__lte=now),
            Q(held_until=None) | Q(held_until__lte=now),
            Exists(due),
            quick=quick,
        )
        .order_by(F("turn_at").asc(nulls_first=True))
    )
    chosen = _chosen(waiting, Webhook.objects.filter(claimed_until__gt=now, quick=quick), most)
    if not chosen:
        return []
    webhooks = list(waiting.filter(pk__in=chosen).select_for_update(skip_locked=True, no_key=True))
    for webhook in webhooks:
        webhook.claim += 1
        webhook.claimed_until = now + CLAIM
        webhook.turn_at = now
    Webhook.objects.bulk_update(webhooks, ["claim", "claimed_until", "turn_at"])
    return [Turn(webhook.pk, webhook.claim) for webhook in webhooks]


def _chosen(waiting: QuerySet[Webhook], taken: QuerySet[Webhook], most: int) -> list[uuid.UUID]:
    who = Coalesce("owner__owner", "owner")
    found = list(waiting.annotate(who=who).values_list("pk", "who")[:LOOKED_AT])
    turns = Counter(taken.values_list(who, flat=True)) if found else Counter[uuid.UUID]()
    chosen: list[uuid.UUID] = []
    for pk, person in found:
        if len(chosen) < most and turns[person] < OF_ONE:
            turns[person] += 1
            chosen.append(pk)
    return chosen


@dataclass(frozen=True)
class _Parcel:
    """One message on its way out, and what it takes to send it."""

    webhook: Webhook
    message: WebhookMessage
    at: dt.datetime


class Turn:
    """A worker's turn with one webhook."""

    def __init__(self, webhook: uuid.UUID, number: int) -> None:
        self.webhook, self._number = webhook, number
        self._unsealed: dict[str, str] = {}

    def take(self) -> None:
        """Send what is due, in order, until one fails or the turn is over."""
        until = time.monotonic() + TURN
        try:
            while time.monotonic() < until:
                parcel = self._next()
                if parcel is None or not self._send(parcel):
                    return
        finally:
            # Where the database is away, the claim runs out.
            with contextlib.suppress(DatabaseError):
                self._mine().update(claimed_until=None)

    def _mine(self) -> QuerySet[Webhook]:
        return Webhook.objects.filter(pk=self.webhook, claim=self._number)

    @transaction.atomic
    def _next(self) -> _Parcel | None:
        """The message that is due first, noted as tried; None once there is none or the webhook
        isn't this turn's any more."""
        webhook = (
            Webhook.objects.enabled()
            .select_for_update(no_key=True, of=("self",))
            .select_related("owner__owner")
            .filter(pk=self.webhook, claim=self._number)
            .first()
        )
        now = clock.now()
        if webhook is None or (webhook.held_until is not None and webhook.held_until > now):
            return None
        due = webhook.messages.filter(state=State.DUE)
        if not is_active(webhook.owner):
            due.update(state=State.WITHDRAWN)
            return None
        for message in due.filter(next_attempt_at__lte=now).order_by("next_attempt_at", "id")[:50]:
            if not may_be_told(webhook.owner, message):
                message.state = State.WITHDRAWN
                message.save(update_fields=["state"])
                continue
            message.attempts += 1
            message.next_attempt_at = now + CLAIM
            message.save(update_fields=["attempts", "next_attempt_at"])
            webhook.claimed_until = now + CLAIM
            webhook.save(update_fields=["claimed_until"])
            return _Parcel(webhook, message, now)
        return None

    def _send(self, parcel: _Parcel) -> bool:
        """Whether the receiver took it."""
        webhook, message = parcel.webhook, parcel.message
        try:
            keys = self._secrets(parcel)
        except Unavailable:
            # Vault's failure, not the receiver's: it counts as no try.
            WebhookMessage.objects.filter(
                pk=message.pk, state=State.DUE, attempts=message.attempts
            ).update(attempts=message.attempts - 1, next_attempt_at=parcel.at)
            self._mine().update(held_until=parcel.at + HELD)
            return False
        if not webhook.quick:
            # A receiver that may take long holds no connection to the database meanwhile.
            connection.close()
        outcome = posting.post(
            webhook.url,
            json.dumps(message.payload, separators=(",", ":")),
            message_id=str(message.pk),
            at=parcel.at,
            secrets=keys,
            trusted=may_call_inside(webhook.owner),
        )
        settle(webhook, message, outcome)
        return outcome.taken

    def _secrets(self, parcel: _Parcel) -> list[str]:
        webhook = parcel.webhook
        stored = [webhook.sealed]
        if webhook.earlier_until is not None and webhook.earlier_until > parcel.at:
            stored.append(webhook.earlier)
        for each in stored:
            if each not in self._unsealed:
                self._unsealed[each] = secrets.unsealed(each, webhook.pk)
        return [self._unsealed[each] for each in stored]


def may_be_told(owner: User, message: WebhookMessage) -> bool:
    """Whether the owner may still see what this message tells of."""
    if message.event_id is None or owner.sees_everything:
        return True
    event = AuditEvent.objects.filter(pk=message.event_id).first()
    return event is not None and sights([owner])[owner.pk].of(event)


@transaction.atomic
def settle(webhook: Webhook, message: WebhookMessage, outcome: Outcome) -> None:
    """Note what came of a try, and what that means for the message and the webhook."""
    hook = Webhook.objects.select_for_update(no_key=True).filter(pk=webhook.pk).first()
    if hook is None:
        return  # deleted meanwhile
    now = clock.now()
    WebhookAttempt.objects.create(
        message=message,
        status=outcome.status,
        milliseconds=outcome.milliseconds,
        error=outcome.error,
    )
    if outcome.taken:
        # Also what was withdrawn while it went: it went.
        WebhookMessage.objects.filter(pk=message.pk).exclude(state=State.DELIVERED).update(
            state=State.DELIVERED, delivered_at=now
        )
    else:
        _again(message, outcome, now)
    if hook.disabled_at is not None or hook.url != webhook.url:
        return  # meanwhile, and what another receiver said means nothing for this one
    hook.quick = outcome.taken and outcome.milliseconds < QUICK
    if outcome.taken:
        hook.delivered_at, hook.failures = now, 0
        hook.failing_since = hook.held_until = None
    else:
        hook.failing_since = hook.failing_since or now
        hook.failures += 1
        hook.held_until = now + _held(hook.failures, outcome)
    hook.save(
        update_fields=["quick", "delivered_at", "failures", "failing_since", "held_until"],
    )
    if outcome.gone:
        disable(hook, because="Its receiver answered with 410 Gone: it wants nothing more.")
    elif (
        hook.failing_since is not None
        and now - hook.failing_since > HOPELESS
        and hook.failures >= HOPELESS_FAILURES
    ):
        disable(hook, because=f"Nothing was taken for {HOPELESS.days} days.")


def _again(message: WebhookMessage, outcome: Outcome, now: dt.datetime) -> None:
    mine = WebhookMessage.objects.filter(pk=message.pk, state=State.DUE, attempts=message.attempts)
    if message.attempts > len(PAUSES):
        mine.update(state=State.GIVEN_UP)
        return
    pause = PAUSES[message.attempts - 1] * random.uniform(0.9, 1)  # noqa: S311
    again = now + max(pause, outcome.retry_after or pause)
    if again > message.give_up_at:
        mine.update(state=State.GIVEN_UP)
    else:
        mine.update(next_attempt_at=again)


def _held(failures: int, outcome: Outcome) -> dt.timedelta:
    held = min(HELD * float(2 ** min(failures - 1, 10)), LONGEST_HELD)
    held *= random.uniform(0.9, 1)  # noqa: S311
    return max(held, min(outcome.retry_after or held, dt.timedelta(hours=1)))


@transaction.atomic
def give_up() -> int:
    """Give up what couldn't be tried in time, as its webhook failed all along; how many."""
    late = WebhookMessage.objects.filter(state=State.DUE, give_up_at__lte=clock.now())
    # What is locked is somebody's at this moment: waiting for it could be a deadlock.
    ids = list(late.select_for_update(skip_locked=True).values_list("pk", flat=True)[:5000])
    return WebhookMessage.objects.filter(pk__in=ids).update(state=State.GIVEN_UP) if ids else 0
