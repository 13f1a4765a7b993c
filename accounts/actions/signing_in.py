"""Signing in, and counting the tries that failed."""

import datetime as dt
import hashlib

from django.conf import settings
from django.contrib.auth import authenticate
from django.db import connection, transaction
from django.http import HttpRequest

from accounts.factors import has_factor
from accounts.models import SignInTry, User
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from broker.errors import TooManyTries

TRY_WINDOW = dt.timedelta(minutes=15)
TRIES_PER_ACCOUNT_AND_ADDRESS = 5
TRIES_PER_ACCOUNT = 30


def _account(email: str) -> str:
    # Whatever was typed: it may be a password in the wrong field, so never in clear.
    return hashlib.sha256(User.objects.normalize_email(email).encode()).hexdigest()


def may_without_provider(user: User) -> bool:
    """Whether this person may sign in by password or passkey. Where people come by a provider,
    that is for when none works: for administrators, who prove a second factor."""
    if settings.KEYTURN_PASSWORD_SIGN_IN:
        return True
    return user.is_administrator and has_factor(user)


def sign_in(*, request: HttpRequest, email: str, password: str) -> User | None:
    """The person with this address and password, or None. Nobody is signed in by it yet.

    Failures are counted per account, and per account with address; beyond the limit it raises
    TooManyTries, before any password is looked at. The limit never touches sessions that exist,
    so nobody is kept out of one by somebody else's guessing. Unknown, deactivated and wrong
    take the same time (Django hashes for each) and get the same answer.
    """
    account, address = _account(email), origin().address
    with transaction.atomic():
        # Two guesses at once must not both see the last free try.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [account])
        since = clock.now() - TRY_WINDOW
        tries = SignInTry.objects.filter(account=account, at__gt=since)
        if (
            tries.filter(address=address).count() >= TRIES_PER_ACCOUNT_AND_ADDRESS
            or tries.count() >= TRIES_PER_ACCOUNT
        ):
            raise TooManyTries(
                "Too many failed sign-ins for this address. Wait 15 minutes, then try again.",
                retry_after=int(TRY_WINDOW.total_seconds()),
            )
        SignInTry.objects.create(account=account, address=address)
    user = authenticate(request, username=User.objects.normalize_email(email), password=password)
    with transaction.atomic():
        if not isinstance(user, User) or user.is_service or not may_without_provider(user):
            record(Event.SIGN_IN_REFUSED, by=None, account=account[:16])
            return None
        SignInTry.objects.filter(account=account, address=address).delete()
    return user


def forget_old_tries() -> int:
    """Delete counted failures that no longer count; how many there were."""
    gone, _ = SignInTry.objects.filter(at__lt=clock.now() - TRY_WINDOW).delete()
    return gone
