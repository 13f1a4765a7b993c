"""Verbs on people, groups and API tokens."""

import datetime as dt
import hashlib
import hmac
from typing import Any

from django.contrib.auth import authenticate
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.http import HttpRequest

from accounts import tokens
from accounts.models import ApiToken, Group, Membership, SignInTry, User
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput, TooManyTries

TRY_WINDOW = dt.timedelta(minutes=15)
TRIES_PER_ACCOUNT_AND_ADDRESS = 5
TRIES_PER_ACCOUNT = 30
TOKEN_DAYS = 90


def _messages(error: ValidationError) -> dict[str, str]:
    return {field: " ".join(texts) for field, texts in error.message_dict.items()}


@transaction.atomic
def create_user(
    *, by: User | None, email: str, full_name: str, password: str | None = None, **fields: Any
) -> User:
    """Add a person. Without a password nobody can sign in as them yet.

    Raises InvalidInput by field.
    """
    user = User(email=User.objects.normalize_email(email), full_name=full_name.strip(), **fields)
    try:
        if password is None:
            user.set_unusable_password()
        else:
            validate_password(password, user)
            user.set_password(password)
    except ValidationError as error:
        raise InvalidInput({"password": " ".join(error.messages)}) from error
    try:
        user.full_clean()
    except ValidationError as error:
        raise InvalidInput(_messages(error)) from error
    user.save(force_insert=True)
    record(Event.USER_CREATED, by=by, about=user, email=user.email)
    return user


@transaction.atomic
def set_manager(*, by: User | None, user: User, manager: User | None) -> bool:
    """Say who this person's manager is, or that nobody is; whether that is news.

    Raises InvalidInput for themself, and for a service account on either side.
    """
    if manager is not None and (manager.pk == user.pk or user.is_service or manager.is_service):
        raise InvalidInput({"manager": "Must be another person, and not a service account."})
    changed = User.objects.filter(pk=user.pk).exclude(manager=manager).update(manager=manager)
    if changed:
        user.manager = manager
        related = () if manager is None else (manager,)
        email = None if manager is None else manager.email
        record(Event.MANAGER_SET, by=by, about=user, related=related, manager=email)
    return bool(changed)


@transaction.atomic
def set_password(*, by: User | None, user: User, password: str) -> None:
    """Give a person a new password; their sessions end by it. Raises InvalidInput."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput({"password": " ".join(error.messages)}) from error
    user.set_password(password)
    user.save(update_fields=["password"])
    record(Event.PASSWORD_SET, by=by, about=user)


@transaction.atomic
def deactivate_user(*, by: User | None, user: User) -> None:
    """Close a person's account. Their sessions and API tokens stop at once, the sweep ends the
    grants that they hold, and gateways refuse these within a second."""
    if User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
        record(Event.USER_DEACTIVATED, by=by, about=user)


@transaction.atomic
def create_group(*, by: User | None, slug: str, name: str, is_rota: bool = False) -> Group:
    """Add an empty group; members of a rota are on call. Raises InvalidInput by field."""
    group = Group(slug=slug, name=name, is_rota=is_rota)
    try:
        group.full_clean()
    except ValidationError as error:
        raise InvalidInput(_messages(error)) from error
    group.save(force_insert=True)
    record(Event.GROUP_CREATED, by=by, about=group)
    return group


@transaction.atomic
def set_rota(*, by: User | None, group: Group, is_rota: bool) -> bool:
    """Say whether a group's members are on call; whether that is news."""
    changed = Group.objects.filter(pk=group.pk).exclude(is_rota=is_rota).update(is_rota=is_rota)
    if changed:
        group.is_rota = is_rota
        record(Event.GROUP_ROTA_SET, by=by, about=group, is_rota=is_rota)
    return bool(changed)


@transaction.atomic
def join_group(*, by: User | None, user: User, group: Group) -> None:
    """Make this person a member; once is enough."""
    _, created = Membership.objects.get_or_create(user=user, group=group)
    if created:
        record(Event.GROUP_JOINED, by=by, about=user, related=(group,), group=group.slug)


@transaction.atomic
def leave_group(*, by: User | None, user: User, group: Group) -> None:
    """End this person's membership, if there is one."""
    gone, _ = Membership.objects.filter(user=user, group=group).delete()
    if gone:
        record(Event.GROUP_LEFT, by=by, about=user, related=(group,), group=group.slug)


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
    """Make an API token good for nothing. Doing so twice changes nothing."""
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


def _account(email: str) -> str:
    # Whatever was typed: it may be a password in the wrong field, so never in clear.
    return hashlib.sha256(User.objects.normalize_email(email).encode()).hexdigest()


def sign_in(*, request: HttpRequest, email: str, password: str) -> User | None:
    """The person with this address and password, or None.

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
        if not isinstance(user, User):
            record(Event.SIGN_IN_REFUSED, by=None, account=account[:16])
            return None
        SignInTry.objects.filter(account=account, address=address).delete()
        record(Event.SIGNED_IN, by=user)
    return user


def forget_old_tries() -> int:
    """Delete counted failures that no longer count; how many there were."""
    gone, _ = SignInTry.objects.filter(at__lt=clock.now() - TRY_WINDOW).delete()
    return gone
