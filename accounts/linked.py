"""Whose decision would be whose own."""

from accounts.models import User


def are_linked(reviewer: User, requester: User) -> bool:
    """Whether one acts for the other."""
    return requester.pk == reviewer.pk or requester.owner_id == reviewer.pk
