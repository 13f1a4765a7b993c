"""What Prometheus reads of credentials: from PostgreSQL when it asks, so that restarts lose nothing
and every process tells the same."""

import time
from collections.abc import Iterable
from typing import Any

from django.db.models import Count, Q, Sum
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audit.events import Event
from audit.models import AuditEvent
from credentials.models import Credential, Rotation
from credentials.operations import Summary, latest_look, summary
from credentials.states import CredentialState, RevokeReason, RotationState

# Totals go through every row there ever was. Nobody needs them fresher than this.
TOTALS_FOR = 30.0
TOTALS = {
    "mints": "Credentials that were minted and confirmed.",
    "mints_in_doubt": "Mints whose outcome was unknown, so that they were taken back.",
    "revokes": "Credentials that were proven gone.",
    "revocation_tries": "Tries to take a credential back; one each is what they need.",
}
EVENTS = {
    "revocation_failures": (
        "Credentials whose revocation failed at least once.",
        Event.CREDENTIAL_STUCK,
    ),
    "orphans_found": ("What was out there and no record accounted for.", Event.ORPHAN_FOUND),
    "orphans_ended": ("Of these, what was ended.", Event.ORPHAN_ENDED),
}


class Credentials(Collector):
    """What is owed at this moment, and all that ever was minted and taken back."""

    def __init__(self) -> None:
        self._totals: list[Metric] = []
        self._counted_at = 0.0

    def collect(self) -> Iterable[Metric]:
        """Figures by kind and target; no person and no secret is among them."""
        found = summary()
        yield from _owed(found)
        yield from _rotations(found)
        yield from _looks(found)
        if not self._totals or time.monotonic() - self._counted_at > TOTALS_FOR:
            self._totals = [*_totals(), *_events()]
            self._counted_at = time.monotonic()
        yield from self._totals

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it asks no database."""
        return ()


def _owed(found: Summary) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "keyturn_revocation_oldest_due_seconds",
        "For how long the oldest credential that is due should have been gone; 0 if none is.",
        found.oldest_age.total_seconds(),
    )
    by_target = ["kind", "target"]
    due = GaugeMetricFamily(
        "keyturn_revocations_due", "Credentials that should be gone by now.", labels=by_target
    )
    stuck = GaugeMetricFamily(
        "keyturn_revocations_stuck", "Of these, for more than a minute.", labels=by_target
    )
    waiting = GaugeMetricFamily(
        "keyturn_revocations_waiting",
        "Ending credentials whose time hasn't come: by expiry or by rotation.",
        labels=by_target,
    )
    for group in found.groups:
        labels = [group.kind, group.target]
        due.add_metric(labels, group.due)
        stuck.add_metric(labels, group.stuck)
        waiting.add_metric(labels, group.waiting)
    yield from (due, stuck, waiting)


def _rotations(found: Summary) -> Iterable[Metric]:
    steps = GaugeMetricFamily(
        "keyturn_rotations_open", "Rotations that aren't over, by step.", labels=["state"]
    )
    rows = Rotation.objects.open().order_by().values_list("state").annotate(Count("pk"))
    counted = dict(rows)
    for state in RotationState.values:
        if state != RotationState.RETIRED:
            steps.add_metric([state], counted.get(state, 0))
    yield steps
    yield GaugeMetricFamily(
        "keyturn_rotations_late",
        "Of these, past their deadline, or five minutes old without one.",
        Rotation.objects.late(found.now).count(),
    )


def _looks(found: Summary) -> Iterable[Metric]:
    look = latest_look()
    if look is None:
        return
    yield GaugeMetricFamily(
        "keyturn_reconciliation_age_seconds",
        "Since Vault and the targets were last held against the record.",
        (found.now - look.at).total_seconds(),
    )
    yield GaugeMetricFamily(
        "keyturn_reconciliation_failures",
        "What couldn't be asked the last time.",
        len(look.failures),
    )
    yield GaugeMetricFamily(
        "keyturn_orphans_left", "Unknown credentials that couldn't be ended.", len(look.left)
    )
    yield GaugeMetricFamily(
        "keyturn_irrevocable_leases", "Leases that Vault gave up on.", len(look.irrevocable)
    )


def _totals() -> Iterable[Metric]:
    rows: Any = (
        Credential.objects.order_by()
        .values("kind")
        .annotate(
            mints=Count("pk", filter=Q(issued_at__isnull=False)),
            mints_in_doubt=Count("pk", filter=Q(revoke_reason=RevokeReason.DOUBT)),
            revokes=Count("pk", filter=Q(state=CredentialState.REVOKED)),
            revocation_tries=Sum("attempts"),
        )
    )
    counted = {row["kind"]: row for row in rows}
    for name, text in TOTALS.items():
        metric = CounterMetricFamily(f"keyturn_{name}", text, labels=["kind"])
        for kind, row in counted.items():
            metric.add_metric([kind], row[name])
        yield metric


def _events() -> Iterable[Metric]:
    for name, (text, event) in EVENTS.items():
        count = AuditEvent.objects.filter(event=event).count()
        yield CounterMetricFamily(f"keyturn_{name}", text, count)


registry = CollectorRegistry(auto_describe=False)
registry.register(Credentials())
