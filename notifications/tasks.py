from celery import shared_task

from notifications import actions
from notifications.webhooks import actions as webhooks


@shared_task(name="notifications.tasks.forget")
def forget() -> None:
    """Drop old notifications, and what was sent to webhooks. Deliveries need no task: see
    notifications/delivery.py."""
    actions.forget_old()
    webhooks.forget_old()
