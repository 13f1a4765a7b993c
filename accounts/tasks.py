from celery import shared_task
from django.core.management import call_command

from accounts import changes
from accounts.actions import forget_old_tries, warn_of_ends
from accounts.idempotency import forget_old_keys
from accounts.passkeys import forget_old_challenges
from accounts.sso.actions import forget_old
from accounts.workloads.exchange import forget_used


@shared_task(name="accounts.tasks.tidy")
def tidy() -> None:
    """Forget what no longer counts: failed sign-ins, challenges, sessions, others' tokens, answers
    to calls; close changes that nobody decided in time; and tell which service accounts end soon.
    """
    warn_of_ends()
    forget_old_tries()
    forget_old_challenges()
    forget_old_keys()
    call_command("clearsessions")
    forget_old()
    forget_used()
    changes.expire()
