"""Verbs on groups."""

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.changes.rights import rights_of
from accounts.linked import check_second
from accounts.models import Group, Membership, User
from accounts.permissions import check_administer, check_say_members
from accounts.preconditions import ANYTHING, Expected
from accounts.validation import messages
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput


@transaction.atomic
def create_group(*, by: User | None, slug: str, name: str, is_rota: bool = False) -> Group:
    """Add an empty group; members of a rota are on call. Raises InvalidInput by field, and
    Forbidden."""
    check_administer(by)
    group = Group(slug=slug, name=name, is_rota=is_rota)
    try:
        group.full_clean()
    except ValidationError as error:
        raise InvalidInput(messages(error)) from error
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
def join_group(
    *, by: User | None, user: User, group: Group, proposed_by: User | None = None
) -> None:
    """Make this person a member; once is enough. Of a group that opens something two people do
    (accounts.changes): raises SecondPerson for one."""
    _, created = Membership.objects.get_or_create(user=user, group=group)
    if created:
        check_second(by, proposed_by, wider=by is not None and bool(rights_of(group)))
        record(Event.GROUP_JOINED, by=by, about=user, related=(group,), group=group.slug)


@transaction.atomic
def leave_group(*, by: User | None, user: User, group: Group) -> None:
    """End this person's membership, if there is one."""
    gone, _ = Membership.objects.filter(user=user, group=group).delete()
    if gone:
        record(Event.GROUP_LEFT, by=by, about=user, related=(group,), group=group.slug)


@transaction.atomic
def remove_member(*, by: User, user: User, group: Group, expected: Expected = ANYTHING) -> None:
    """End this person's membership as an owner of the group or an administrator. What they hold
    by it ends with the next sweep. Raises Forbidden and PreconditionFailed."""
    check_say_members(by, group)
    expected.check(_locked(group))
    leave_group(by=by, user=user, group=group)


@transaction.atomic
def name_owner(
    *, by: User | None, group: Group, user: User, proposed_by: User | None = None
) -> None:
    """Let this person say who is in the group. Raises InvalidInput, and SecondPerson as
    `join_group` does."""
    if not user.is_active or user.is_service:
        raise InvalidInput({"owner": "Must be a person whose account is active."})
    if not group.owners.filter(pk=user.pk).exists():
        check_second(by, proposed_by, wider=by is not None and bool(rights_of(group)))
        group.owners.add(user)
        record(Event.GROUP_OWNER_NAMED, by=by, about=group, related=(user,), owner=user.email)


@transaction.atomic
def drop_owner(*, by: User | None, group: Group, user: User, expected: Expected = ANYTHING) -> None:
    """Take that away again. Raises Forbidden and PreconditionFailed."""
    check_administer(by)
    expected.check(_locked(group))
    gone, _ = Group.owners.through.objects.filter(group=group, user=user).delete()
    if gone:
        record(Event.GROUP_OWNER_DROPPED, by=by, about=group, related=(user,), owner=user.email)


def _locked(group: Group) -> Group:
    # Of two who looked at the same members, the second sees what the first did.
    return Group.objects.select_for_update(no_key=True).get(pk=group.pk)
