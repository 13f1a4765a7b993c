"""Rotators: a module for each provider, found by its name here."""

import pkgutil
from functools import cache
from importlib import import_module

from credentials.rotators.base import Rotator


@cache
def rotators() -> dict[str, Rotator]:
    """Every rotator by its slug: the `ROTATOR` of each module in this folder that has one."""
    found: dict[str, Rotator] = {}
    for entry in pkgutil.iter_modules(__path__, f"{__name__}."):
        rotator: Rotator | None = getattr(import_module(entry.name), "ROTATOR", None)
        if rotator is not None:
            found[rotator.slug] = rotator
    return found
