"""Sending nothing more to a webhook, and telling whoever answers for it."""

from django.urls import reverse

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from notifications.kinds import Kind
from notifications.outbox import notify
from notifications.webhooks.models import Webhook, WebhookMessage


def disable(webhook: Webhook, *, because: str, by: User | None = None) -> None:
    """Send nothing more to a webhook whose row is locked, and withdraw what is due. Its owner is
    told unless it was they who did it."""
    webhook.disabled_at, webhook.disabled_because = clock.now(), because
    webhook.save(update_fields=["disabled_at", "disabled_because"])
    webhook.messages.filter(state=WebhookMessage.State.DUE).update(
        state=WebhookMessage.State.WITHDRAWN
    )
    record(Event.WEBHOOK_DISABLED, by=by, about=webhook, related=(webhook.owner,), because=because)
    person = webhook.owner.owner or webhook.owner
    if by is None or by.pk != person.pk:
        notify(
            Kind.WEBHOOK_DISABLED,
            to=[person],
            about=webhook,
            path=reverse("webhook", args=[webhook.pk]),
            sentence=f"The webhook “{webhook.name}” is disabled",
            facts=[("Why", because)],
            quote="Nothing is sent to it until you enable it again.",
            occasion=webhook.disabled_at.isoformat(timespec="milliseconds"),
        )
