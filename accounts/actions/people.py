"""Verbs on people."""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.models import User
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput


def messages(error: ValidationError) -> dict[str, str]:
    """What was wrong, by field."""
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
        raise InvalidInput(messages(error)) from error
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
def set_roles(
    *,
    by: User | None,
    user: User,
    is_administrator: bool | None = None,
    is_auditor: bool | None = None,
) -> bool:
    """Make a person administrator or auditor, or not any more; whether that is news. None leaves
    it as it is. Giving one takes two administrators: see accounts.changes."""
    row = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    given = {"is_administrator": is_administrator, "is_auditor": is_auditor}
    changed = {
        name: value
        for name, value in given.items()
        if value is not None and value != getattr(row, name)
    }
    if changed:
        for name, value in changed.items():
            setattr(user, name, value)
        User.objects.filter(pk=user.pk).update(**changed)
        record(Event.ROLES_SET, by=by, about=user, roles=changed)
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
