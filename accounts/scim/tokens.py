"""The tokens with which directories call /scim/v2/.

Apart from what they say there: who only asks whose token it is needs none of its schemas.
"""

import datetime as dt
import hashlib
import hmac

from django.db import connection, transaction

from accounts import tokens
from accounts.actions import TRY_WINDOW
from accounts.models import ScimToken, SignInTry
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput, TooManyTries

TOKEN_DAYS = 365
WRONG_TOKENS = 20
_WRONG = hashlib.sha256(b"keyturn.scim").hexdigest()


@transaction.atomic
def create_token(*, name: str, days: int = TOKEN_DAYS) -> tuple[ScimToken, str]:
    """A new token of a directory's, valid for `days`; its text is in the answer and nowhere else.

    Raises InvalidInput for a name that is empty or days outside of 1 to 365.
    """
    errors = {}
    if not name.strip() or len(name) > 100:
        errors["name"] = "Say which directory will use it, in up to 100 characters."
    if not 1 <= days <= TOKEN_DAYS:
        errors["days"] = f"Must be from 1 to {TOKEN_DAYS}."
    if errors:
        raise InvalidInput(errors)
    token = tokens.generate("scim")
    row = ScimToken.objects.create(
        lookup=token.lookup,
        digest=tokens.digest(token),
        name=name.strip(),
        expires_at=clock.now() + dt.timedelta(days=days),
    )
    record(Event.SCIM_TOKEN_CREATED, by=None, about=row, lookup=token.lookup)
    return row, token.text


@transaction.atomic
def revoke_token(*, token: ScimToken) -> bool:
    """Make a directory's token good for nothing; whether it hadn't been made so before."""
    first = ScimToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=clock.now())
    if first:
        record(Event.SCIM_TOKEN_REVOKED, by=None, about=token)
    return bool(first)


def find_token(text: str) -> ScimToken | None:
    """The directory's token in `text`, if it is one, good or not."""
    token = tokens.parse(text, "scim")
    if token is None:
        return None
    row = ScimToken.objects.filter(lookup=token.lookup).first()
    stored = bytes(row.digest) if row is not None else bytes(32)
    # An unknown id costs the same comparison as a wrong secret.
    matches = hmac.compare_digest(stored, tokens.digest(token))
    return row if matches else None


def token_of(text: str) -> ScimToken | None:
    """The directory's token in `text`, if it is one and good for anything at this moment, which is
    noted as its use."""
    row, moment = find_token(text), clock.now()
    if row is None or row.revoked_at is not None or row.expires_at <= moment:
        return None
    if row.last_used_at is None or moment - row.last_used_at > dt.timedelta(minutes=1):
        ScimToken.objects.filter(pk=row.pk).update(last_used_at=moment)
    return row


@transaction.atomic
def count_wrong_token() -> None:
    """Note a call without a good token. Raises TooManyTries for an address that goes on so.

    A good token is never held up by it: directories call from addresses that others share.
    """
    address = origin().address
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", [str(address)])
    tries = SignInTry.objects.filter(
        account=_WRONG, address=address, at__gt=clock.now() - TRY_WINDOW
    )
    if tries.count() >= WRONG_TOKENS:
        raise TooManyTries(
            "Too many calls without a good token. Wait 15 minutes, then try again.",
            retry_after=int(TRY_WINDOW.total_seconds()),
        )
    SignInTry.objects.create(account=_WRONG, address=address)
