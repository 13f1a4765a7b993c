"""From an audit row to a message for each webhook whose owner may see it.

PostgreSQL notes the row's id beside it, in the same statement (`Untold`); this turns the notes into
messages within a second, many in a few statements, and what it made is the queue of
notifications/webhooks/delivery.py.
"""

import datetime as dt

from django.db import transaction

from audit import clock
from audit.models import AuditEvent
from notifications.webhooks.models import Untold, Webhook, WebhookMessage
from notifications.webhooks.seeing import sights
from notifications.webhooks.types import is_told, load_addresses, payload

BATCH = 500
PATIENCE = dt.timedelta(days=1)  # how long a delivery is tried


def tell(*, most: int = BATCH) -> int:
    """Make messages of the oldest `most` audit rows that nobody was told of; how many rows that
    were."""
    load_addresses()
    return _tell(most)


@transaction.atomic
def _tell(most: int) -> int:
    ids = list(
        Untold.objects.select_for_update(skip_locked=True)
        .order_by("event_id")
        .values_list("event_id", flat=True)[:most]
    )
    if not ids:
        return 0
    webhooks = list(Webhook.objects.enabled().select_related("owner__owner").order_by("pk"))
    seen = sights({webhook.owner_id: webhook.owner for webhook in webhooks}.values())
    until = clock.now() + PATIENCE
    messages = []
    for event in AuditEvent.objects.filter(pk__in=ids).order_by("pk"):
        if not is_told(event):
            continue
        said = payload(event)
        for webhook in webhooks:
            if webhook.types and said["type"] not in webhook.types:
                continue
            if event.subject_id == webhook.pk:
                continue  # of itself it needn't be told
            if event.at >= webhook.created_at and seen[webhook.owner_id].of(event):
                messages.append(
                    WebhookMessage(
                        webhook=webhook,
                        type=said["type"],
                        event_id=event.pk,
                        payload=said,
                        give_up_at=until,
                    )
                )
    WebhookMessage.objects.bulk_create(messages, batch_size=1000, ignore_conflicts=True)
    Untold.objects.filter(pk__in=ids).delete()
    return len(ids)
