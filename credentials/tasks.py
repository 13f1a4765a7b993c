import uuid
from typing import Any

from celery import shared_task

from audit.context import Origin, working_for
from credentials import actions


@shared_task(name="credentials.tasks.sweep")
def sweep() -> Any:
    """Everything that is due. Rung each second by beat, and after each change."""
    with working_for(Origin(via="worker", trace=uuid.uuid4())):
        return actions.sweep()


@shared_task(name="credentials.rotate")
def rotate() -> Any:
    """Every rotation that is due. In no queue of revocations: a provider may be slow."""
    with working_for(Origin(via="worker", trace=uuid.uuid4())):
        return actions.rotate_due()
