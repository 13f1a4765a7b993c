"""Verbs on API tokens."""

import datetime as dt
import hmac

from django.db import transaction

from accounts import tokens
from accounts.models import ApiToken, User
from accounts.permissions import check_answer_for
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput

TOKEN_DAYS = 90


@transaction.atomic
def create_token(*, by: User, owner: User, name: str, days: int = 30) -> tuple[ApiToken, str]:
    """A new API token of this owner, valid for `days`; its text is in the answer and nowhere else.

    Raises InvalidInput for a name that is empty or days outside of 1 to 90.
    """
    errors = {}
    if not name.strip():
        errors["name"] = "Say what will use it, so that its owner recognises it later."
    if not 1 <= days <= TOKEN_DAYS:
        errors["days"] = f"Must be from 1 to {TOKEN_DAYS}."
    if not owner.is_active:
        errors["owner"] = "Is deactivated."
    if errors:
        raise InvalidInput(errors)
    token = tokens.generate()
    row = ApiToken.objects.create(
        lookup=token.lookup,
        digest=tokens.digest(token),
        owner=owner,
        name=name.strip(),
        expires_at=clock.now() + dt.timedelta(days=days) - dt.timedelta(seconds=1),
    )
    record(Event.TOKEN_CREATED, by=by, about=row, related=(owner,), lookup=token.lookup)
    return row, token.text


@transaction.atomic
def revoke_token(*, by: User | None, token: ApiToken) -> None:
    """Make an API token good for nothing. Doing so twice changes nothing. By its owner, whoever
    answers for that, or an administrator; else Forbidden."""
    if by is not None and by.pk != token.owner_id:
        check_answer_for(by, token.owner)
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=clock.now()):
        record(Event.TOKEN_REVOKED, by=by, about=token, related=(token.owner,))


def token_owner(text: str) -> tuple[User, ApiToken] | None:
    """Whose API token this is, if it is one and good for anything at this moment."""
    token = tokens.parse(text)
    if token is None:
        return None
    row = ApiToken.objects.select_related("owner").filter(lookup=token.lookup).first()
    stored = bytes(row.digest) if row is not None else bytes(32)
    # An unknown id costs the same comparison as a wrong secret.
    matches = hmac.compare_digest(stored, tokens.digest(token))
    if row is None or not matches:
        return None
    moment = clock.now()
    if row.revoked_at is not None or row.expires_at <= moment or not row.owner.is_active:
        return None
    if row.last_used_at is None or moment - row.last_used_at > dt.timedelta(minutes=1):
        ApiToken.objects.filter(pk=row.pk).update(last_used_at=moment)
    return row.owner, row
