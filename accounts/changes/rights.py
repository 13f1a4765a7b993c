"""What a group opens: apps above this one say what theirs it does."""

from collections.abc import Callable, Iterable

from accounts.models import Group

Rights = Callable[[Group], Iterable[str]]
_rights: list[Rights] = []


def on_rights(rights: Rights) -> None:
    """Register what says, in words, what being in a group lets somebody do."""
    if rights not in _rights:
        _rights.append(rights)


def rights_of(group: Group) -> list[str]:
    """What being in this group lets somebody do, in words; empty where that's nothing."""
    found = [right for rights in _rights for right in rights(group)]
    return ["be on call", *found] if group.is_rota else found
