"""The Celery application of worker and beat."""

import os
from typing import Any

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
app = Celery("keyturn")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_djangos_logging(**_: Any) -> None:
    """Celery's own logging set-up would drop the redaction filter."""


@signals.worker_init.connect
def _sweep_unasked(**_: Any) -> None:
    """Each worker sweeps by itself too: correctness must not hang on beat or Redis."""
    from credentials.sweeper import sweeper

    sweeper().start()
