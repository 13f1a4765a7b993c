"""Who may do what with people and groups. What the state of things allows is said by actions."""

from accounts.models import Group, User
from broker.errors import Forbidden


def can_administer(user: User) -> bool:
    """Whether this person administers people, groups and service accounts."""
    return user.is_active and user.is_administrator


def check_administer(user: User | None) -> None:
    """Raise Forbidden unless this person administers people; an operator (None) does."""
    if user is not None and not can_administer(user):
        raise Forbidden("Only administrators do this.")


def can_answer_for(user: User, service: User) -> bool:
    """Whether this person answers for this service account: its owner, administrators."""
    return user.is_active and (user.is_administrator or service.owner_id == user.pk)


def check_answer_for(user: User | None, service: User) -> None:
    """Raise Forbidden unless this person answers for this service account."""
    if user is not None and not can_answer_for(user, service):
        raise Forbidden("Only its owner and administrators do this.")


def can_say_members(user: User, group: Group) -> bool:
    """Whether this person says who is in this group: its owners, administrators."""
    return user.is_active and (
        user.is_administrator or group.owners.filter(pk=user.pk, is_active=True).exists()
    )


def check_say_members(user: User | None, group: Group) -> None:
    """Raise Forbidden unless this person says who is in this group."""
    if user is not None and not can_say_members(user, group):
        raise Forbidden("Only its owners and administrators say who is in a group.")
