"""Telling gateways and workers that something ended, in case they'd like to know sooner."""

import logging
import uuid

from django.db import transaction

from credentials import push

logger = logging.getLogger(__name__)

AT_ONCE = 500  # credentials in one message to the gateways


def tell(credentials: list[uuid.UUID]) -> None:
    """Gateways first; then the doorbell, which makes the sweep come sooner.

    Where Redis can't be reached for the one it isn't tried for the other: Celery would keep the
    caller waiting for seconds.
    """
    from credentials.tasks import sweep

    for at in range(0, len(credentials), AT_ONCE):
        if not push.ended(credentials[at : at + AT_ONCE]):
            return
    try:
        sweep.apply_async(expires=5, retry=False)
    except sweep.OperationalError as error:
        logger.warning("no doorbell (%s); the next tick finds it", type(error).__name__)


def tell_on_commit(credentials: list[uuid.UUID]) -> None:
    """Should it never happen: gateways poll, and the sweep finds the rows by their dates."""
    transaction.on_commit(lambda: tell(credentials))
