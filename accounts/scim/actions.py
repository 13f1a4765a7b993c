"""What a directory does to people and groups, by the verbs that everybody uses.

The caller's token is the origin's agent, so it stands on each audit row; the caller also holds
the lock on the row that is changed.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils.text import slugify
from scim2_models import UniquenessException

from accounts.actions import create_group as make_group
from accounts.actions import (
    create_user,
    deactivate_user,
    join_group,
    leave_group,
    reactivate_user,
    set_manager,
)
from accounts.changes import rights_of
from accounts.models import Group, ScimRecord, User
from accounts.scim import resources
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Forbidden, InvalidInput

MOST_MOVES = 1000


def _checked(field: str, text: str, most: int) -> str:
    """`text` without outer blanks. Raises InvalidInput for what isn't a line that can be read."""
    text = text.strip()
    if len(text) > most or not text.isprintable():
        raise InvalidInput({field: f"Must be one line of at most {most} characters."})
    return text


def _record(row: User | Group) -> ScimRecord:
    key = {"user": row} if isinstance(row, User) else {"group": row}
    found, _ = ScimRecord.objects.select_for_update().get_or_create(**key)
    return found


def _checked_names(names: dict[str, Any], email: str) -> tuple[dict[str, Any], str]:
    for field, text in [("displayName", names.get("displayName")), *names.get("name", {}).items()]:
        _checked(field, text or "", 150)
    return names, _checked("displayName", resources.whole_name(names, email), 150)


@transaction.atomic
def create_person(*, said: resources.User[Any]) -> User:
    """Add a person, or let in again one who was deleted by the directory.

    Raises UniquenessException for an address that is taken, InvalidInput and Forbidden.
    """
    email = User.objects.normalize_email(said.user_name)
    user = User.objects.select_for_update().filter(email=email).first()
    if user is not None:
        if user.is_service or (known := _gone(user)) is None:
            raise UniquenessException(detail="Somebody has this userName already.")
        known.gone_at = None
        known.save(update_fields=["gone_at"])
        update_person(user=user, said=said)
        return user
    names, full_name = _checked_names(resources.names_of(said), email)
    zone = said.timezone or "UTC"
    user = create_user(by=None, email=email, full_name=full_name, time_zone=zone)
    update_person(user=user, said=said, names=names)
    return user


def _gone(user: User) -> ScimRecord | None:
    return ScimRecord.objects.filter(user=user, gone_at__isnull=False).first()


@transaction.atomic
def update_person(
    *, user: User, said: resources.User[Any], names: dict[str, Any] | None = None
) -> None:
    """Make of this person what the directory says.

    Of administrators and auditors it says nothing but its own id for them, and that they have
    left. Raises InvalidInput by field and Forbidden.
    """
    special = user.is_administrator or user.is_auditor
    if said.active is False and user.is_active:
        _leave(user)
        if special:
            return
    names, full_name = _checked_names(resources.names_of(said), user.email)
    zone = said.timezone or "UTC"
    known = _record(user)
    external_id = _checked("externalId", said.external_id or "", 255)
    changed: dict[str, Any] = {
        name: value
        for name, value in (("full_name", full_name), ("time_zone", zone))
        if value != getattr(user, name)
    }
    if special and (changed or _manager_of(said) != user.manager):
        raise Forbidden(
            "Administrators and auditors are changed in Keyturn alone; the directory may only "
            "deactivate them."
        )
    if said.active and not user.is_active:
        if known.left_at is None:
            raise Forbidden("Was deactivated in Keyturn, where an administrator reactivates.")
        reactivate_user(by=None, user=user)
        known.left_at = None
    for name, value in changed.items():
        setattr(user, name, value)
    try:
        user.clean_fields(exclude={"password"})
    except ValidationError as error:
        raise InvalidInput(
            {field: " ".join(texts) for field, texts in error.message_dict.items()}
        ) from error
    if changed:
        user.save(update_fields=[*changed])
    if changed or external_id != known.external_id:
        record(Event.USER_CHANGED, by=None, about=user, external_id=external_id, **changed)
    set_manager(by=None, user=user, manager=_manager_of(said))
    known.external_id, known.names, known.changed_at = external_id, names, clock.now()
    known.save()


def _manager_of(said: resources.User[Any]) -> User | None:
    extension = said[resources.EnterpriseUser]
    if extension is None or extension.manager is None:
        return None
    found = people([extension.manager.value])
    if not found:
        raise InvalidInput({"manager": "There is no such person."})
    return found[0]


def people(ids: Iterable[str | None]) -> list[User]:
    """Those of these people that a directory sees."""
    keys = []
    for each in ids:
        try:
            keys.append(uuid.UUID(each))
        except (TypeError, ValueError):
            continue
    return list(visible_people().filter(pk__in=keys))


def visible_people() -> QuerySet[User]:
    """People, but for those that the directory deleted, and no service accounts."""
    return User.objects.filter(owner=None).exclude(scim__gone_at__isnull=False)


def visible_groups() -> QuerySet[Group]:
    """The groups that the directory governs."""
    return Group.objects.filter(scim__isnull=False, scim__gone_at=None)


def _leave(user: User) -> None:
    deactivate_user(by=None, user=user)
    user.refresh_from_db()
    known = _record(user)
    known.left_at = known.changed_at = clock.now()
    known.save(update_fields=["left_at", "changed_at"])


@transaction.atomic
def remove_person(*, user: User) -> None:
    """Deactivate a person and show them to the directory no more. Their row stays: the record
    tells of them."""
    if user.is_active:
        _leave(user)
    known = _record(user)
    known.gone_at = clock.now()
    known.save(update_fields=["gone_at"])


@transaction.atomic
def create_group(*, said: resources.Group) -> Group:
    """Add a group that the directory governs, or take up one that it deleted.

    Raises UniquenessException for a name that is taken: two groups that look the same are one
    mistake away from each other.
    """
    name = _checked("displayName", said.display_name or "", 100)
    group = Group.objects.select_for_update().filter(name__iexact=name).first()
    known = None
    if group is not None:
        known = ScimRecord.objects.filter(group=group, gone_at__isnull=False).first()
        if known is None:
            raise UniquenessException(
                detail="A group has this name already; an operator can have it governed."
            )
        known.gone_at = None
        known.save(update_fields=["gone_at"])
    else:
        group = make_group(by=None, slug=_slug(name), name=name)
        _record(group)
        record(Event.GROUP_GOVERNED, by=None, about=group, may_widen=False)
    update_group(group=group, said=said)
    return group


def _slug(name: str) -> str:
    base = slugify(name)[:40].strip("-") or "group"
    taken = set(Group.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    tries = (base if n == 1 else f"{base}-{n}" for n in range(1, len(taken) + 2))
    return next(slug for slug in tries if slug not in taken)


@transaction.atomic
def update_group(*, group: Group, said: resources.Group) -> None:
    """Make of this group what the directory says.

    A group that lets its members do something takes nobody new and no other name, unless an
    operator has said so (`govern_group`). Raises InvalidInput and Forbidden.
    """
    known = _record(group)
    name = _checked("displayName", said.display_name or "", 100)
    if not name:
        raise InvalidInput({"displayName": "Must not be empty."})
    external_id = _checked("externalId", said.external_id or "", 255)
    wanted = {user.pk: user for user in _members_of(said)}
    there = {user.pk: user for user in members(group)}
    join, leave = wanted.keys() - there.keys(), there.keys() - wanted.keys()
    if len(join) + len(leave) > MOST_MOVES:
        raise InvalidInput({"members": f"At most {MOST_MOVES} come and go in one call."})
    if (join or name != group.name) and not known.may_widen and rights_of(group):
        raise Forbidden(
            "This group lets its members do something, so that an operator must say that the "
            "directory may add to it: `manage.py scim_group govern`."
        )
    if name != group.name:
        if Group.objects.filter(name__iexact=name).exclude(pk=group.pk).exists():
            raise UniquenessException(detail="A group has this name already.")
        was, group.name = group.name, name
        group.save(update_fields=["name"])
        record(Event.GROUP_RENAMED, by=None, about=group, was=was)
    # In one order, so that two calls wait for each other rather than both for ever.
    for pk in sorted(join):
        join_group(by=None, user=wanted[pk], group=group)
    for pk in sorted(leave):
        leave_group(by=None, user=there[pk], group=group)
    if external_id != known.external_id:
        record(Event.GROUP_GOVERNED, by=None, about=group, external_id=external_id)
    known.external_id, known.changed_at = external_id, clock.now()
    known.save()


def members(group: Group) -> list[User]:
    """Those in this group whom the directory sees; it neither sees nor moves others."""
    return list(visible_people().filter(memberships__group=group).order_by("pk"))


def _members_of(said: resources.Group) -> list[User]:
    asked = {member.value for member in said.members or []}
    found = people(asked)
    lost = asked - {str(user.pk) for user in found}
    if lost:
        raise InvalidInput({"members": f"There is no such person: {str(min(map(str, lost)))!r}."})
    return found


@transaction.atomic
def remove_group(*, group: Group) -> None:
    """Empty a group and show it to the directory no more. Its row stays, so that nothing new
    gets its name where policies have it."""
    known = _record(group)
    for user in members(group):
        leave_group(by=None, user=user, group=group)
    known.gone_at, known.may_widen = clock.now(), False
    known.save(update_fields=["gone_at", "may_widen"])
    record(Event.GROUP_RELEASED, by=None, about=group)


@transaction.atomic
def govern_group(*, group: Group) -> None:
    """Let the directory say who is in this group, whatever it opens. An operator does this."""
    known = _record(group)
    known.may_widen, known.gone_at, known.changed_at = True, None, clock.now()
    known.save(update_fields=["may_widen", "gone_at", "changed_at"])
    record(Event.GROUP_GOVERNED, by=None, about=group, may_widen=True)


@transaction.atomic
def release_group(*, group: Group) -> None:
    """Let the directory say no more who is in this group; whoever is in it stays."""
    gone, _ = ScimRecord.objects.filter(group=group).delete()
    if gone:
        record(Event.GROUP_RELEASED, by=None, about=group)
