"""Credential kinds: a module each, found by its name here. docs/credential-kinds.md says how one
is added."""

import pkgutil
from functools import cache
from importlib import import_module

from credentials.kinds.base import Kind, Recognised


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by its slug: the `KIND` of each module in this folder that has one."""
    found: dict[str, Kind] = {}
    for entry in pkgutil.iter_modules(__path__, f"{__name__}."):
        kind: Kind | None = getattr(import_module(entry.name), "KIND", None)
        if kind is not None:
            found[kind.slug] = kind
    return found


def kind_of(slug: str) -> Kind:
    """The kind that a credential is of."""
    return kinds()[slug]


def recognise(secret: str) -> Recognised | None:
    """Which credential this secret is of, of whichever kind; None for what is no secret of ours.

    Raises VaultError, which says nothing of the secret.
    """
    for kind in kinds().values():
        found = kind.recognise(secret)
        if found is not None:
            return found
    return None
