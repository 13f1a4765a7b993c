from celery import shared_task
from django.core.management import call_command

from accounts.actions import forget_old_tries
from accounts.sso.actions import forget_old


@shared_task(name="accounts.tasks.tidy")
def tidy() -> None:
    """Forget what no longer counts: failed sign-ins, sessions that are over, providers' tokens."""
    forget_old_tries()
    call_command("clearsessions")
    forget_old()
