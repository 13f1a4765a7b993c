"""What Prometheus reads of webhooks: from PostgreSQL when it asks. No URL and no name is in it."""

import datetime as dt
from collections.abc import Iterable

from django.db.models import Count, Min, Q
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audit import clock
from notifications.webhooks.models import Untold, Webhook, WebhookMessage

State = WebhookMessage.State


class Webhooks(Collector):
    """What is on its way to webhooks."""

    def collect(self) -> Iterable[Metric]:
        """Figures of this moment."""
        now = clock.now()
        well = WebhookMessage.objects.filter(
            state=State.DUE, webhook__failing_since=None, next_attempt_at__lte=now
        ).aggregate(oldest=Min("next_attempt_at"))["oldest"]
        yield GaugeMetricFamily(
            "keyturn_webhook_oldest_due_seconds",
            "For how long the oldest message is due, of webhooks that don't fail; 0 if none is.",
            (now - well).total_seconds() if well is not None else 0.0,
        )
        yield GaugeMetricFamily(
            "keyturn_webhook_events_untold",
            "Audit rows that no message was made of yet.",
            Untold.objects.count(),
        )
        by_state = GaugeMetricFamily(
            "keyturn_webhook_messages",
            "Messages that are due, and those of the last day that are not, by state.",
            labels=["state"],
        )
        counts = dict.fromkeys(State.values, 0) | dict(
            WebhookMessage.objects.order_by()
            .filter(Q(state=State.DUE) | Q(at__gte=now - dt.timedelta(days=1)))
            .values_list("state")
            .annotate(Count("pk"))
        )
        for state, count in counts.items():
            by_state.add_metric([state], count)
        yield by_state
        found = Webhook.objects.aggregate(
            failing=Count("pk", filter=Q(disabled_at=None, failing_since__isnull=False)),
            disabled=Count("pk", filter=Q(disabled_at__isnull=False)),
        )
        yield GaugeMetricFamily(
            "keyturn_webhooks_failing", "Webhooks that take nothing at present.", found["failing"]
        )
        yield GaugeMetricFamily(
            "keyturn_webhooks_disabled", "Webhooks that nothing is sent to.", found["disabled"]
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it asks no database."""
        return ()
