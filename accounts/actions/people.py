"""Verbs on people and service accounts."""

import datetime as dt
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F

from accounts import telling
from accounts.actions.agents import forget_consents
from accounts.actions.groups import drop_owner, leave_group
from accounts.actions.tokens import revoke_token
from accounts.linked import check_second
from accounts.models import ApiToken, Group, Invitation, ScimRecord, Session, User
from accounts.permissions import check_administer, check_answer_for
from accounts.stepup import NONE, Action, Proofs, Purpose
from accounts.validation import messages
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, Forbidden, InvalidInput

SERVICE_LIFE = dt.timedelta(days=366)  # at most, from today; then its owner says so anew
WARNED = dt.timedelta(days=14)


def check_proved(by: User | None, proofs: Proofs, about: User | Group | None = None) -> None:
    """Raise StepUpNeeded unless this person has just proved themself for this; an operator at
    the host (None) needn't."""
    if by is not None:
        proofs.check(Purpose(Action.PEOPLE, "" if about is None else str(about.pk)))


@transaction.atomic
def create_user(
    *,
    by: User | None,
    email: str,
    full_name: str,
    password: str | None = None,
    proofs: Proofs = NONE,
    **fields: Any,
) -> User:
    """Add a person. Without a password nobody can sign in as them yet.

    Raises InvalidInput by field; for a person who isn't an operator Forbidden and StepUpNeeded.
    """
    check_administer(by)
    check_proved(by, proofs)
    if by is not None and (fields.get("is_administrator") or fields.get("is_auditor")):
        raise Forbidden("A role is given by two administrators: propose it on the person’s page.")
    return _create(by=by, email=email, full_name=full_name, password=password, **fields)


def _create(
    *, by: User | None, email: str, full_name: str, password: str | None, **fields: Any
) -> User:
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
    related = () if user.owner is None else (user.owner,)
    record(Event.USER_CREATED, by=by, about=user, related=related, email=user.email)
    return user


@transaction.atomic
def create_service(
    *,
    by: User | None,
    email: str,
    full_name: str,
    owner: User,
    ends_at: dt.datetime,
    proofs: Proofs = NONE,
) -> User:
    """Add a service account for which this person answers, until then at the latest.

    Raises InvalidInput by field, Forbidden, StepUpNeeded.
    """
    check_administer(by)
    check_proved(by, proofs)
    _check_end(ends_at)
    if not owner.is_active or owner.is_service:
        raise InvalidInput({"owner": "Must be a person whose account is active."})
    return _create(
        by=by, email=email, full_name=full_name, password=None, owner=owner, ends_at=ends_at
    )


def _check_end(ends_at: dt.datetime) -> None:
    now = clock.now()
    if not now < ends_at <= now + SERVICE_LIFE:
        raise InvalidInput({"ends_at": "Must be in the future, and at most a year from now."})


@transaction.atomic
def extend_service(
    *, by: User | None, service: User, ends_at: dt.datetime, proofs: Proofs = NONE
) -> None:
    """Let a service account go on until then. Raises InvalidInput, Forbidden, StepUpNeeded, and
    Conflict for one that has ended."""
    check_answer_for(by, service)
    check_proved(by, proofs, service)
    _check_end(ends_at)
    rows = User.objects.filter(pk=service.pk, is_active=True, owner__isnull=False)
    if not rows.update(ends_at=ends_at):
        raise Conflict("This service account was deactivated; reactivate it first.")
    related = () if service.owner is None else (service.owner,)
    record(Event.USER_EXTENDED, by=by, about=service, related=related, ends_at=ends_at.isoformat())


@transaction.atomic
def change_profile(*, by: User, full_name: str, time_zone: str) -> bool:
    """Change one's own name and time zone; whether that is news. Raises InvalidInput."""
    user = User.objects.select_for_update().get(pk=by.pk)
    before = user.full_name, user.time_zone
    user.full_name, user.time_zone = full_name.strip(), time_zone
    try:
        user.clean_fields(exclude={"password"})
    except ValidationError as error:
        raise InvalidInput(messages(error)) from error
    if before == (user.full_name, user.time_zone):
        return False
    user.save(update_fields=["full_name", "time_zone"])
    record(Event.USER_CHANGED, by=by, about=user, name_before=before[0], name=user.full_name)
    return True


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
    proposed_by: User | None = None,
) -> bool:
    """Make a person administrator or auditor, or not any more; whether that is news. None leaves
    it as it is. Giving one takes two people (accounts.changes): raises SecondPerson for one."""
    row = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    given = {"is_administrator": is_administrator, "is_auditor": is_auditor}
    changed = {
        name: value
        for name, value in given.items()
        if value is not None and value != getattr(row, name)
    }
    if changed:
        check_second(by, proposed_by, wider=any(changed.values()))
        for name, value in changed.items():
            setattr(user, name, value)
        User.objects.filter(pk=user.pk).update(**changed)
        record(Event.ROLES_SET, by=by, about=user, roles=changed)
    return bool(changed)


@transaction.atomic
def set_password(*, by: User | None, user: User, password: str) -> None:
    """Give a person a new password; their sessions end by it, and they're told where they had one.

    Raises InvalidInput.
    """
    had_one = user.has_usable_password()
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput({"password": " ".join(error.messages)}) from error
    user.set_password(password)
    user.save(update_fields=["password"])
    Session.objects.filter(person=user).delete()
    record(Event.PASSWORD_SET, by=by, about=user)
    if had_one:
        telling.password_changed(user)


@transaction.atomic
def deactivate_user(*, by: User | None, user: User, proofs: Proofs = NONE) -> None:
    """Close an account, and take everything with it.

    Sessions, API tokens, group memberships, what they own, roles, invitations and their service
    accounts go in this transaction. The sweep ends their grants and withdraws their requests, and
    gateways refuse them within a second. Raises Forbidden and StepUpNeeded.
    """
    if user.is_service:
        check_answer_for(by, user)
    else:
        check_administer(by)
    check_proved(by, proofs, user)
    if by is not None and by.pk == user.pk:
        raise Forbidden("Nobody deactivates themself; another administrator does.")
    _deactivate(by, user)


def _deactivate(by: User | None, user: User) -> None:
    row = User.objects.select_for_update().filter(pk=user.pk, is_active=True).first()
    if row is None:
        return
    roles = [name for name in ("administrator", "auditor") if getattr(row, f"is_{name}")]
    User.objects.filter(pk=row.pk).update(
        is_active=False,
        is_administrator=False,
        is_auditor=False,
        session_epoch=F("session_epoch") + 1,
    )
    user.is_active = user.is_administrator = user.is_auditor = False
    record(
        Event.USER_DEACTIVATED,
        by=by,
        about=user,
        related=() if row.owner is None else (row.owner,),
        roles=roles,
        **_strip(by, user),
    )
    for service in User.objects.filter(owner=user, is_active=True):
        _deactivate(by, service)


def _strip(by: User | None, user: User) -> dict[str, int]:
    """Take away what an account holds here; how much there was of what."""
    sessions, _ = Session.objects.filter(person=user).delete()
    Invitation.objects.filter(person=user, used_at=None).delete()
    tokens = ApiToken.objects.filter(owner=user, revoked_at=None).select_related("owner")
    groups, owned = user.member_of.all(), user.owns_groups.all()
    found = {"sessions": sessions, "tokens": len(tokens), "groups": len(groups)}
    if consents := forget_consents(by=by, user=user):
        found["agent_consents"] = consents
    for token in tokens:
        revoke_token(by=by, token=token)
    for group in groups:
        leave_group(by=by, user=user, group=group)
    for group in owned:
        drop_owner(by=by, group=group, user=user)
    return found


@transaction.atomic
def reactivate_user(*, by: User | None, user: User, proofs: Proofs = NONE) -> None:
    """Open an account again, empty: no session, API token, membership, role or password of
    before comes back. Raises Forbidden, StepUpNeeded, and Conflict for a service account without
    an owner or whose time is over."""
    check_administer(by)
    check_proved(by, proofs, user)
    row = User.objects.select_for_update().get(pk=user.pk)
    if row.is_active:
        return
    if row.owner is not None and not row.owner.is_active:
        raise Conflict("Its owner is deactivated: nobody would answer for it.")
    if row.ends_at is not None and row.ends_at <= clock.now():
        row.ends_at = clock.now() + dt.timedelta(days=90)
    # What was given in the moment of the deactivation, if anything was.
    _strip(by, row)
    row.is_active, row.last_login = True, None
    row.session_epoch += 1
    row.set_unusable_password()
    row.save()
    # Whoever deactivates them next says who may have them back.
    ScimRecord.objects.filter(user=row).update(left_at=None)
    user.is_active = True
    record(Event.USER_REACTIVATED, by=by, about=row)


def deactivate_ended() -> int:
    """Deactivate service accounts whose time is over; how many."""
    due = User.objects.filter(is_active=True, owner__isnull=False, ends_at__lte=clock.now())
    rows = list(due.select_related("owner")[:100])
    for service in rows:
        with transaction.atomic():
            _deactivate(None, service)
            telling.service_ends(service, "ended")
    return len(rows)


@transaction.atomic
def warn_of_ends() -> None:
    """Tell owners of the service accounts that end within 14 days; each once."""
    due = User.objects.active().filter(owner__isnull=False, ends_at__lte=clock.now() + WARNED)
    for service in due.select_related("owner"):
        telling.service_ends(service, "ends")
