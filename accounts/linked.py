"""Whose decision would be whose own."""

from accounts.models import User
from broker.errors import SecondPerson


def are_linked(reviewer: User, requester: User) -> bool:
    """Whether one acts for the other."""
    return requester.pk == reviewer.pk or requester.owner_id == reviewer.pk


def check_second(by: User | None, proposed_by: User | None, *, wider: bool) -> None:
    """Raise SecondPerson where this lets anybody do more and one person alone is for it, by
    whatever route they come. An operator at the host (None) needs nobody."""
    if by is None or not wider:
        return
    if proposed_by is None or are_linked(by, proposed_by) or are_linked(proposed_by, by):
        raise SecondPerson("It lets somebody do more than before: a second administrator decides.")
