"""Verbs on API tokens."""

import datetime as dt
import hmac
import uuid
from collections.abc import Collection

from django.db import transaction

from accounts import scopes, tokens
from accounts.door import fetch
from accounts.models import ApiToken, User
from accounts.permissions import check_answer_for
from accounts.scopes import BY_ITSELF, Verb
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from broker.errors import Forbidden, InvalidInput

TOKEN_DAYS = 90
NAME_LENGTH = 100


def purpose(owner: User) -> Purpose:
    """What is proved to make an API token that acts for them."""
    return Purpose(Action.TOKEN, str(owner.pk))


def owner_of_new(by: User, pk: str) -> User:
    """For whom this person makes a token: themself, or a service account that they own. Raises
    NotFound."""
    if pk in {"", str(by.pk)}:
        return by
    return fetch(User.objects.active().filter(owner=by), pk)


def in_words(reader: User, about: str) -> str:
    """What a second factor is proved for to make a token of somebody's. Raises NotFound."""
    owner = owner_of_new(reader, about)
    return "Make an API token" if owner.pk == reader.pk else f"Make an API token of {owner}"


def check_make(by: User | None, owner: User) -> None:
    """Raise Forbidden unless this person may make tokens that act for `owner`: for themself, and
    for service accounts that they own. Not an administrator, who would act as somebody else."""
    if by is not None and by.pk != owner.pk and (owner.owner_id != by.pk or not by.is_active):
        raise Forbidden("A token acts for its owner: only they, or a service account’s, make one.")


@transaction.atomic
def create_token(
    *,
    by: User | None,
    owner: User,
    name: str,
    days: int = 30,
    verbs: Collection[str] = BY_ITSELF,
    endpoints: Collection[uuid.UUID] = (),
    proofs: Proofs | None = None,
    within: ApiToken | None = None,
) -> tuple[ApiToken, str]:
    """A new API token of this owner, valid for `days`; its text is in the answer and nowhere else.

    `endpoints` are those that it is for; none for all. `proofs` of whoever makes it; None for an
    operator at the host, who is asked for none. One made with another, `within`, is for no more
    and for no longer than that. Raises InvalidInput by field, Forbidden, StepUpNeeded.
    """
    check_make(by, owner)
    if by is not None and proofs is not None:
        proofs.check(purpose(owner))
    errors = {}
    if not name.strip() or len(name.strip()) > NAME_LENGTH or not name.strip().isprintable():
        errors["name"] = (
            "Say what will use it, so that its owner recognises it later, "
            f"in one line of at most {NAME_LENGTH} characters."
        )
    if not 1 <= days <= TOKEN_DAYS:
        errors["days"] = f"Must be from 1 to {TOKEN_DAYS}."
    if not owner.is_active:
        errors["owner"] = "Is deactivated."
    lifetime = dt.timedelta(days=min(max(days, 0), TOKEN_DAYS))
    expires_at = clock.now() + lifetime - dt.timedelta(seconds=1)
    errors |= _beyond(owner, set(verbs), set(endpoints))
    if within is not None:
        errors |= _beyond_another(within, set(verbs), set(endpoints), expires_at)
    if errors:
        raise InvalidInput(errors)
    token = tokens.generate()
    row = ApiToken.objects.create(
        lookup=token.lookup,
        digest=tokens.digest(token),
        owner=owner,
        name=name.strip(),
        verbs=[verb.value for verb in Verb if verb in verbs],
        endpoints=sorted(set(endpoints)),
        expires_at=expires_at,
    )
    record(
        Event.TOKEN_CREATED,
        by=by,
        about=row,
        related=(owner,),
        lookup=token.lookup,
        verbs=row.verbs,
        endpoints=[str(each) for each in row.endpoints],
    )
    return row, token.text


def _beyond(owner: User, verbs: set[str], endpoints: set[uuid.UUID]) -> dict[str, str]:
    """What no token of this owner may be for, by field."""
    errors = {}
    if not verbs or not verbs <= set(Verb.values):
        errors["verbs"] = f"Choose from {', '.join(Verb.values)}."
    elif owner.is_service and Verb.REVIEW in verbs:
        errors["verbs"] = "A service account never reviews, so no token of it does."
    if endpoints and not endpoints <= scopes.endpoints_seen_by(owner).keys():
        errors["endpoints"] = f"Must be endpoints that {owner} sees."
    return errors


def _beyond_another(
    token: ApiToken, verbs: set[str], endpoints: set[uuid.UUID], expires_at: dt.datetime
) -> dict[str, str]:
    """What goes beyond this token, by field: whoever found one must not make a better one."""
    errors = {}
    if not verbs <= set(token.verbs):
        errors["verbs"] = f"The token that makes it is for {', '.join(token.verbs)} alone."
    if token.endpoints and (not endpoints or not endpoints <= set(token.endpoints)):
        errors["endpoints"] = "The token that makes it is for some endpoints alone."
    if expires_at > token.expires_at:
        errors["days"] = f"The token that makes it ends at {token.expires_at:%Y-%m-%d %H:%M} UTC."
    return errors


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
    row = find_token(text)
    if row is None or not is_good(row):
        return None
    moment = clock.now()
    if row.last_used_at is None or moment - row.last_used_at > dt.timedelta(minutes=1):
        ApiToken.objects.filter(pk=row.pk).update(
            last_used_at=moment, last_used_from=origin().address
        )
    return row.owner, row


def find_token(text: str) -> ApiToken | None:
    """The API token that this is the text of, good or not."""
    token = tokens.parse(text) or tokens.parse(text, ApiToken.Kind.WORKLOAD)
    if token is None:
        return None
    rows = ApiToken.objects.select_related("owner__owner", "rule__issuer")
    row = rows.filter(lookup=token.lookup).first()
    stored = bytes(row.digest) if row is not None else bytes(32)
    # An unknown id costs the same comparison as a wrong secret.
    matches = hmac.compare_digest(stored, tokens.digest(token))
    return row if matches else None


def is_good(token: ApiToken) -> bool:
    """Whether it opens anything at this moment."""
    now, owner = clock.now(), token.owner
    over = token.revoked_at is not None or token.expires_at <= now
    # The sweep that deactivates a service account only tidies up.
    ended = not owner.is_active or (owner.ends_at is not None and owner.ends_at <= now)
    return not over and not ended and _stands(token)


def _stands(token: ApiToken) -> bool:
    """Whether a workload's token is still given by a rule of an issuer that is trusted."""
    if token.kind == ApiToken.Kind.PERSONAL:
        return True
    rule = token.rule
    return rule is not None and rule.retired_at is None and rule.issuer.retired_at is None
