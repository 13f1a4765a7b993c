"""Delivering what is in the outbox.

Rows that are due are the queue: a claim is committed, then the message goes, then the outcome is
committed. No transaction holds a network call. A worker that dies between the last two leaves a
claim that runs out, and the message goes again: at least once, and a second one has the same
Message-ID.
"""

import contextlib
import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from audit import clock
from audit.ticker import Ticker
from notifications import chat, mail
from notifications.models import Delivery, Preference
from notifications.undelivered import Refused, Undelivered, Unreachable

logger = logging.getLogger(__name__)

BATCH = 50
# How long a worker has for what it claimed before another may claim it, and until when it begins
# with another of them: one takes at most four of the mail server's time-outs.
CLAIM = dt.timedelta(minutes=2)
HURRY = 60.0  # seconds
LONGEST_PAUSE = 600.0  # seconds between two tries
LOCKS = {Delivery.Channel.EMAIL: 0x4B45_594D, Delivery.Channel.CHAT: 0x4B45_5943}  # KEYM, KEYC
CARRIERS = {Delivery.Channel.EMAIL: mail.carrier, Delivery.Channel.CHAT: chat.carrier}

Send = Callable[[Sequence[Delivery]], None]


def tickers() -> list[Ticker]:
    """What delivers in each worker, each second: a thread for each channel, none waits for
    another's server, nor do revocations for any."""

    def ticker(channel: Delivery.Channel) -> Ticker:
        return Ticker(
            f"deliveries by {channel}",
            lock=LOCKS[channel],
            every=1.0,
            work=lambda: deliver_due(channels=[channel]),
        )

    return [ticker(channel) for channel in Delivery.Channel]


def deliver_due(
    *, most: int = BATCH, channels: Sequence[Delivery.Channel] = tuple(Delivery.Channel)
) -> int:
    """Send what is due, `most` of each kind; how many messages went."""
    return sum(_deliver(channel, most) for channel in channels)


def _is_on(channel: Delivery.Channel) -> bool:
    if channel == Delivery.Channel.EMAIL:
        return bool(settings.KEYTURN_EMAIL)
    return bool(settings.KEYTURN_CHAT_URL)


def _deliver(channel: Delivery.Channel, most: int) -> int:
    if not _is_on(channel):
        _due(channel).filter(give_up_at__lte=clock.now()).update(
            state=Delivery.State.GIVEN_UP, last_error="the channel is off"
        )
        return 0
    claimed = _claim(channel, most)
    if not claimed:
        return 0
    sent, hurry = 0, time.monotonic() + HURRY
    with _carrier(channel) as send:
        for group in claimed:
            if time.monotonic() > hurry:
                break  # their claim runs out, and whoever comes next takes them
            rows = _still_wanted(group)
            if not rows:
                continue
            try:
                send(rows)
            except Undelivered as error:
                _not_sent(rows, error)
            except Exception as error:
                # Whatever is wrong with this one, it must not come first for ever.
                logger.exception("%s went wrong", rows[0])
                _not_sent(rows, Undelivered(type(error).__name__))
            else:
                _sent(rows)
                sent += 1
    return sent


@contextlib.contextmanager
def _carrier(channel: Delivery.Channel) -> Iterator[Send]:
    """What sends. Once nobody is reached the rest isn't tried: it would outlast the claim."""
    down: Unreachable | None = None
    with contextlib.ExitStack() as stack:
        carry: Send | None = None
        try:
            carry = stack.enter_context(CARRIERS[channel]())
        except Unreachable as error:
            down = error

        def send(rows: Sequence[Delivery]) -> None:
            nonlocal down
            if down is not None or carry is None:
                raise Unreachable(str(down))
            try:
                carry(rows)
            except Unreachable as error:
                down = error
                raise

        yield send


def _due(channel: Delivery.Channel) -> QuerySet[Delivery]:
    return Delivery.objects.filter(channel=channel, state=Delivery.State.DUE)


@transaction.atomic
def _claim(channel: Delivery.Channel, most: int) -> list[list[Delivery]]:
    """Deliveries that are now this worker's, in groups that go in one message."""
    moment = clock.now()
    due = (
        _due(channel)
        .filter(next_attempt_at__lte=moment)
        .select_for_update(skip_locked=True, of=("self",))
        .select_related("notification")
    )
    groups = [[row] for row in due.filter(digest=False).order_by("next_attempt_at")[:most]]
    if channel == Delivery.Channel.EMAIL:
        groups += _claim_digests(due.filter(digest=True), most)
    rows = [row for group in groups for row in group]
    for row in rows:
        row.attempts += 1
        row.next_attempt_at = moment + CLAIM
    Delivery.objects.bulk_update(rows, ["attempts", "next_attempt_at"])
    return groups


def _claim_digests(due: QuerySet[Delivery], most: int) -> list[list[Delivery]]:
    """All of a person's together. Their settings are the lock: by rows alone, two workers would
    send a half each."""
    people = list(
        Preference.objects.select_for_update(skip_locked=True)
        .filter(
            Exists(
                Delivery.objects.filter(
                    notification__person=OuterRef("person"),
                    channel=Delivery.Channel.EMAIL,
                    state=Delivery.State.DUE,
                    digest=True,
                    next_attempt_at__lte=clock.now(),
                )
            )
        )
        .values_list("person", flat=True)[:most]
    )
    rows = due.filter(notification__person__in=people).order_by(
        "notification__person_id", "notification_id"
    )
    return [list(group) for _, group in groupby(rows, key=lambda row: row.notification.person_id)]


def _still_wanted(group: list[Delivery]) -> list[Delivery]:
    """Those that are this worker's still, and news still.

    Between the claim and now they may have been withdrawn or read, their person deactivated, or,
    where everything before them was slow, another worker may have claimed them.
    """
    attempts = {row.pk: row.attempts for row in group}
    rows = (
        Delivery.objects.filter(pk__in=attempts, state=Delivery.State.DUE)
        .select_related("notification__person")
        .order_by("notification_id")
    )
    mine = [row for row in rows if row.attempts == attempts[row.pk]]
    moot = [
        row.pk
        for row in mine
        if row.notification.read_at is not None or not row.notification.person.is_active
    ]
    Delivery.objects.filter(pk__in=moot, state=Delivery.State.DUE).update(
        state=Delivery.State.WITHDRAWN
    )
    return [row for row in mine if row.pk not in moot]


def _sent(rows: Sequence[Delivery]) -> None:
    # Also what was withdrawn while it went: it went.
    Delivery.objects.filter(pk__in=[row.pk for row in rows]).exclude(
        state=Delivery.State.SENT
    ).update(state=Delivery.State.SENT, sent_at=clock.now(), last_error="")


def _not_sent(rows: Sequence[Delivery], error: Undelivered) -> None:
    """Set the next try, with jitter, the same for all that go together; or give up."""
    moment = clock.now()
    pause = min(LONGEST_PAUSE, 5.0 * 2.0 ** min(rows[0].attempts, 8)) * random.uniform(0.5, 1)  # noqa: S311
    again = moment + dt.timedelta(seconds=pause)
    why = str(error)[:300]
    for row in rows:
        mine = Delivery.objects.filter(pk=row.pk, state=Delivery.State.DUE, attempts=row.attempts)
        if isinstance(error, Refused) or again > row.give_up_at:
            if mine.update(state=Delivery.State.GIVEN_UP, last_error=why):
                logger.warning(
                    "%s (%s) for %s is given up: %s",
                    row,
                    row.notification.kind,
                    row.notification.person_id,
                    why,
                )
        else:
            mine.update(next_attempt_at=again, last_error=why)
