from celery import shared_task

from notifications import actions


@shared_task(name="notifications.tasks.forget")
def forget() -> None:
    """Drop old notifications. Deliveries need no task: see notifications/delivery.py."""
    actions.forget_old()
