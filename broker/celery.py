"""The Celery application of worker and beat."""

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
# Django's checks import every page, for a third of a worker's start. `migrate` has run them.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
app = Celery("keyturn")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_djangos_logging(**_: Any) -> None:
    """Celery's own logging set-up would drop the redaction filter."""


@signals.worker_init.connect
def _work_unasked(**_: Any) -> None:
    """Each worker sweeps and delivers by itself too: neither must hang on beat or Redis."""
    from audit.clock import Skewed, check_skew
    from credentials.sweeper import tickers as sweepers
    from gateway.retention import dropper
    from notifications.delivery import tickers
    from notifications.webhooks.delivery import tickers as webhooks

    try:
        check_skew()
    except Skewed as error:
        # Celery logs any other exception here, and goes on.
        raise SystemExit(str(error)) from error
    for ticker in (*sweepers(), dropper(), *tickers(), *webhooks()):
        ticker.start()
