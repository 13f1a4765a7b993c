"""Tokens that turned up where they shouldn't: found by somebody, or sent to Keyturn in a URL."""

import hashlib

from django.db import connection, transaction

from accounts import rate_limits, telling
from accounts.actions import TRY_WINDOW, find_token, is_good
from accounts.models import ApiToken, SignInTry, User
from accounts.scim import tokens as scim
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from audit.redaction import neutral, redact
from broker.errors import TooManyTries

WRONG_REPORTS = 60  # from one address in 15 minutes
_WRONG = hashlib.sha256(b"keyturn.leaks").hexdigest()


def report(*, text: str, url: str = "") -> None:
    """Revoke the token in `text`, which was found at `url`; whoever answers for it is told.

    Whoever has a token may end it, so nobody is asked who they are, and nothing is said of what
    isn't one. Raises TooManyTries for an address that goes on with such.
    """
    if not _report(text, redact(url)[:300]):
        _count_wrong()


@transaction.atomic
def _report(text: str, url: str) -> bool:
    """Whether that is a token of ours, good or not."""
    directory = scim.find_token(text)
    if directory is not None:
        if scim.revoke_token(token=directory):
            record(Event.TOKEN_LEAKED, by=None, about=directory, url=url, lookup=directory.lookup)
            people = User.objects.active().filter(is_administrator=True)
            telling.token_leaked(directory, people, url)
        return True
    token = find_token(text)
    if token is None:
        return False
    good = is_good(token)
    first = ApiToken.objects.filter(pk=token.pk, reported_at=None).update(reported_at=clock.now())
    if first:
        ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=clock.now())
        record(
            Event.TOKEN_LEAKED,
            by=None,
            about=token,
            related=(token.owner,),
            lookup=token.lookup,
            url=url,
            was_good=good,
        )
        if good:
            telling.token_leaked(token, [token.owner.owner or token.owner], url)
    return True


@transaction.atomic
def _count_wrong() -> None:
    address = origin().address
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 3))", [str(address)])
    tries = SignInTry.objects.filter(
        account=_WRONG, address=address, at__gt=clock.now() - TRY_WINDOW
    )
    if tries.count() >= WRONG_REPORTS:
        raise TooManyTries(
            "Too many reports of what is no token. Wait 15 minutes, then try again.",
            retry_after=int(TRY_WINDOW.total_seconds()),
        )
    SignInTry.objects.create(account=_WRONG, address=address)


@transaction.atomic
def seen_in_url(text: str, *, method: str, path: str) -> None:
    """Put on record that this token came in a URL, where it's a good one, and tell whoever answers
    for it, once a day: what is in a URL is in logs and histories on the way."""
    token = find_token(text)
    if token is None or not is_good(token):
        return
    # A call like another: a record that whoever found one can fill hides what is in it.
    standing = rate_limits.count(str(token.owner_id), writes=False)
    if standing is not None and not standing.allowed:
        return
    record(
        Event.TOKEN_IN_URL,
        by=None,
        about=token,
        related=(token.owner,),
        lookup=token.lookup,
        method=method,
        path=neutral(redact(path))[:300],
    )
    telling.token_in_url(token, token.owner.owner or token.owner)
