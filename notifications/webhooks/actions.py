"""Verbs on webhooks."""

import datetime as dt
import uuid
from collections.abc import Iterable

from django.db import transaction
from django.db.models import QuerySet

from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.preconditions import ANYTHING, Expected
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.record import record
from broker.errors import Conflict, InvalidInput, TooManyTries
from notifications.webhooks import disabling, posting, secrets
from notifications.webhooks.models import Webhook, WebhookMessage
from notifications.webhooks.permissions import (
    check_change,
    check_create,
    check_end,
    may_call_inside,
)
from notifications.webhooks.telling import PATIENCE
from notifications.webhooks.types import TEST, TYPES

MOST = 20  # of one owner
OVERLAP = dt.timedelta(days=1)
LONGEST_OVERLAP = dt.timedelta(days=7)
KEPT = dt.timedelta(days=30)  # messages and their tries
TESTS = 60  # in a minute, of one owner
TEST_PATIENCE = dt.timedelta(minutes=10)
NEW = ""  # in a purpose: the webhook that there isn't yet

State = WebhookMessage.State


def purpose(webhook: Webhook | None) -> Purpose:
    """What is proved to make a webhook, to change where it goes, or to rotate its secret."""
    return Purpose(Action.WEBHOOK, str(webhook.pk) if webhook is not None else NEW)


def purpose_in_words(reader: User, about: str) -> str:
    """What a second factor is proved for here. Raises NotFound."""
    if about == NEW:
        return "Create a webhook"
    webhook = fetch(Webhook.objects.visible_to(reader), about)
    return f"Change the webhook “{webhook.name}” or rotate its secret"


def create_webhook(
    *,
    by: User,
    name: str,
    url: str,
    types: Iterable[str] = (),
    owner: User | None = None,
    proofs: Proofs = stepup.NONE,
) -> tuple[Webhook, str]:
    """A webhook of one's own or of a service account one answers for; its signing secret is in the
    answer and nowhere else. `types` of events, none for all.

    Raises Forbidden, InvalidInput, StepUpNeeded and, if Vault can't seal the secret, Unavailable.
    """
    owner = owner or by
    check_create(by, owner)
    chosen = _checked(owner=owner, name=name, url=url, types=types)
    proofs.check(purpose(None))
    # Beforehand, as no transaction holds a network call.
    pk, secret = new_id(), secrets.make()
    sealed = secrets.sealed(secret, pk)
    with transaction.atomic():
        # Its row is the lock, so that two at once don't make one too many.
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        if Webhook.objects.filter(owner=owner).count() >= MOST:
            raise Conflict(f"There are {MOST} webhooks of this owner already, which is the most.")
        webhook = Webhook.objects.create(pk=pk, owner=owner, sealed=sealed, **chosen)
        record(
            Event.WEBHOOK_CREATED,
            by=by,
            about=webhook,
            related=(owner,),
            url=webhook.url,
            types=webhook.types,
        )
    return webhook, secret


def change_webhook(
    *,
    by: User,
    webhook_id: uuid.UUID | str,
    name: str | None = None,
    url: str | None = None,
    types: Iterable[str] | None = None,
    proofs: Proofs = stepup.NONE,
    expected: Expected = ANYTHING,
) -> Webhook:
    """Change what is given of it. Another URL takes a second factor: what is due goes there too."""
    webhook = _own(by, webhook_id)
    url = None if url == webhook.url else url
    given = {"name": name, "url": url, "types": types}
    chosen = _checked(
        owner=webhook.owner,
        name=webhook.name if name is None else name,
        url=webhook.url if url is None else url,
        types=webhook.types if types is None else types,
        judge=url is not None,
    )
    with transaction.atomic():
        webhook = _own(by, webhook_id, lock=True)
        # What wasn't given stays as it is by now: another change may have come first.
        changed = {
            key: value
            for key, value in chosen.items()
            if given[key] is not None and getattr(webhook, key) != value
        }
        if "url" in changed:
            proofs.check(purpose(webhook))
        expected.check(webhook)
        if not changed:
            return webhook
        for key, value in changed.items():
            setattr(webhook, key, value)
        webhook.changed_at = clock.now()
        if "url" in changed:
            # It's another receiver, of which nothing is known.
            webhook.quick, webhook.failures = False, 0
            webhook.failing_since = webhook.held_until = None
        webhook.save()
        record(Event.WEBHOOK_CHANGED, by=by, about=webhook, related=(webhook.owner,), **changed)
    return webhook


@transaction.atomic
def delete_webhook(*, by: User, webhook_id: uuid.UUID | str, expected: Expected = ANYTHING) -> None:
    """Delete it, with all that it was to be sent and was sent."""
    webhook = fetch(_seen(by), webhook_id, lock=True)
    check_end(by, webhook)
    expected.check(webhook)
    record(Event.WEBHOOK_DELETED, by=by, about=webhook, related=(webhook.owner,), url=webhook.url)
    webhook.delete()


def rotate_secret(
    *,
    by: User,
    webhook_id: uuid.UUID | str,
    overlap: dt.timedelta = OVERLAP,
    proofs: Proofs = stepup.NONE,
) -> tuple[Webhook, str]:
    """Another signing secret, which is in the answer and nowhere else. What is sent is signed by
    the one before too, for `overlap`: 0 to 7 days; with 0 it's good for nothing at once."""
    webhook = _own(by, webhook_id)
    if not dt.timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidInput({"overlap": f"Must be from 0 to {LONGEST_OVERLAP.days} days."})
    proofs.check(purpose(webhook))
    secret = secrets.make()
    sealed = secrets.sealed(secret, webhook.pk)
    with transaction.atomic():
        webhook = _own(by, webhook_id, lock=True)
        until = clock.now() + overlap if overlap else None
        webhook.earlier = webhook.sealed if overlap else ""
        webhook.sealed, webhook.earlier_until = sealed, until
        webhook.save(update_fields=["sealed", "earlier", "earlier_until"])
        record(
            Event.WEBHOOK_SECRET_ROTATED,
            by=by,
            about=webhook,
            related=(webhook.owner,),
            until=until.isoformat() if until else None,
        )
    return webhook, secret


@transaction.atomic
def enable_webhook(*, by: User, webhook_id: uuid.UUID | str) -> Webhook:
    """Send to it again what happens from now on. What it missed can be replayed."""
    webhook = _own(by, webhook_id, lock=True)
    if webhook.disabled_at is not None:
        webhook.disabled_at, webhook.disabled_because = None, ""
        webhook.failing_since = webhook.held_until = None
        webhook.failures = 0
        webhook.save()
        record(Event.WEBHOOK_ENABLED, by=by, about=webhook, related=(webhook.owner,))
    return webhook


@transaction.atomic
def disable_webhook(*, by: User, webhook_id: uuid.UUID | str) -> Webhook:
    """Send nothing more to it. What was due is withdrawn."""
    webhook = fetch(_seen(by), webhook_id, lock=True)
    check_end(by, webhook)
    if webhook.disabled_at is None:
        disabling.disable(webhook, because=f"{by} disabled it.", by=by)
    return webhook


@transaction.atomic
def replay_message(*, by: User, message_id: uuid.UUID | str) -> WebhookMessage:
    """Send one message again, under the same id. One that is due goes at once."""
    message = fetch(WebhookMessage.objects.visible_to(by), message_id)
    webhook = _enabled(_own(by, message.webhook_id, lock=True))
    _replay(WebhookMessage.objects.filter(pk=message.pk))
    record(
        Event.WEBHOOK_REPLAYED,
        by=by,
        about=webhook,
        related=(webhook.owner,),
        message=str(message.pk),
    )
    message.refresh_from_db()
    return message


@transaction.atomic
def replay_since(
    *, by: User, webhook_id: uuid.UUID | str, since: dt.datetime, delivered: bool = False
) -> int:
    """Send again, under the same ids, all that was to be sent since that moment and wasn't
    delivered; with `delivered`, what was too. How many messages."""
    webhook = _enabled(_own(by, webhook_id, lock=True))
    rows = webhook.messages.filter(at__gte=since).exclude(state=State.DUE)
    count = _replay(rows if delivered else rows.exclude(state=State.DELIVERED))
    record(
        Event.WEBHOOK_REPLAYED,
        by=by,
        about=webhook,
        related=(webhook.owner,),
        since=since.isoformat(),
        messages=count,
    )
    return count


@transaction.atomic
def send_test(*, by: User, webhook_id: uuid.UUID | str) -> WebhookMessage:
    """Send `webhook.test`, so that a receiver can be tried. Raises TooManyTries."""
    webhook = _enabled(_own(by, webhook_id, lock=True))
    now = clock.now()
    sent = WebhookMessage.objects.filter(
        webhook__owner=webhook.owner, type=TEST, at__gt=now - dt.timedelta(minutes=1)
    )
    # What a server in a listed network answers shows in the log: nobody is to look for them so.
    if sent.count() >= TESTS:
        raise TooManyTries(f"At most {TESTS} test events are sent in a minute.", retry_after=60)
    message = WebhookMessage.objects.create(
        webhook=webhook,
        type=TEST,
        payload={
            "type": TEST,
            "timestamp": now.isoformat(),
            "data": {"webhook": str(webhook.pk), "by": by.full_name},
        },
        give_up_at=now + TEST_PATIENCE,
    )
    # Whoever tries it watches: it waits for no pause that failures before have brought.
    Webhook.objects.filter(pk=webhook.pk).update(held_until=None)
    record(Event.WEBHOOK_TESTED, by=by, about=webhook, related=(webhook.owner,))
    return message


def forget_old() -> None:
    """Drop messages and their tries that are older than KEPT, and secrets that sign no more."""
    now = clock.now()
    Webhook.objects.filter(earlier_until__lte=now).update(earlier="", earlier_until=None)
    before = now - KEPT
    while True:
        rows = WebhookMessage.objects.filter(at__lt=before).values("pk")[:2000]
        if not WebhookMessage.objects.filter(pk__in=rows).delete()[0]:
            return


def _replay(rows: QuerySet[WebhookMessage]) -> int:
    now = clock.now()
    return rows.update(
        state=State.DUE,
        attempts=0,
        next_attempt_at=now,
        give_up_at=now + PATIENCE,
        delivered_at=None,
    )


def _seen(by: User) -> QuerySet[Webhook]:
    return Webhook.objects.visible_to(by).select_related("owner__owner")


def _own(by: User, webhook_id: uuid.UUID | str, *, lock: bool = False) -> Webhook:
    webhook = fetch(_seen(by), webhook_id, lock=lock)
    check_change(by, webhook)
    return webhook


def _enabled(webhook: Webhook) -> Webhook:
    if webhook.disabled_at is not None:
        raise Conflict("This webhook is disabled: enable it first.")
    return webhook


def _checked(
    *, owner: User, name: str, url: str, types: Iterable[str], judge: bool = True
) -> dict[str, object]:
    """What was entered, whole and tidy. Raises InvalidInput with all that is wrong."""
    name, url, chosen = name.strip(), url.strip(), sorted(set(types))
    errors = {}
    if not name or len(name) > 100:
        errors["name"] = "Say in 100 characters at most what receives it."
    unknown = [each for each in chosen if each not in TYPES]
    if unknown:
        errors["types"] = f"No such type: {', '.join(unknown[:5])[:200]}."
    if len(url) > 500:
        errors["url"] = "Must have 500 characters at most."
    elif judge:
        try:
            posting.check(url, trusted=may_call_inside(owner))
        except posting.NoAnswer as error:
            errors["url"] = str(error)
    if errors:
        raise InvalidInput(errors)
    return {"name": name, "url": url, "types": chosen}
