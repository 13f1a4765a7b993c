"""From what is named of a scope to the scope that is asked for or approved."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.errors import InvalidInput
from endpoints.scope import BUDGETS, KNOWN, LISTS, Scope, named
from endpoints.wording import limit_words


def chosen_scope(
    models: list[str] | None,
    scope: Mapping[str, Any] | None,
    *,
    ceiling: Scope,
    usual: Scope,
    of: str,
) -> Scope:
    """What is usual, but for what is named. Raises InvalidInput for what is beyond the ceiling;
    `of` says whose it is."""
    if not ceiling.opens_something:
        raise InvalidInput(
            {"models": "This profile gives none of what the grant holds any more: ask anew."}
        )
    chosen, where = chosen_parts(models, scope)
    asked = replace(usual, **chosen)
    if not asked.opens_something:
        name = "models" if ceiling.models else "operations"
        raise InvalidInput({where[name]: f"Choose at least one {name.removesuffix('s')}."})
    errors = {}
    for key, beyond in asked.beyond(ceiling).items():
        most = getattr(ceiling, key)
        if key in LISTS:
            offered = f"It offers: {', '.join(sorted(most)) or 'none'}."
            errors[where[key]] = f"Not in this {of}: {', '.join(beyond)}. {offered}"
        else:
            errors[where[key]] = f"This {of} gives at most {limit_words(key, most)}."
    if errors:
        raise InvalidInput(errors)
    return asked


def chosen_parts(
    models: list[str] | None, scope: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The parts of a scope that are named, and by which field each is to be spoken of.

    Raises InvalidInput for what can't be understood, and for models that are named twice.
    """
    errors: dict[str, str] = {}
    where = {key: f"scope.{key}" for key in KNOWN}
    chosen: dict[str, Any] = {}
    if scope is not None:
        try:
            chosen = named(scope)
        except InvalidInput as error:
            errors |= error.errors
    if models is not None:
        where["models"] = "models"
        if "models" in chosen:
            errors["models"] = "Name them here or in the scope, not in both."
        try:
            chosen |= named({"models": models})
        except InvalidInput as error:
            errors["models"] = error.errors["scope.models"]
    if errors:
        raise InvalidInput(errors)
    return chosen, where


def room(held: Scope, ceiling: Scope) -> dict[str, Any]:
    """By budget that a grant has, the most that it could be raised to; None is without a limit."""
    found = {key: getattr(ceiling, key) for key in BUDGETS if getattr(held, key) is not None}
    return {key: most for key, most in found.items() if most is None or most > getattr(held, key)}


def raised_scope(
    held: Scope, models: list[str] | None, scope: Mapping[str, Any] | None, *, ceiling: Scope
) -> Scope:
    """What is held, with the larger budgets that are named. Raises InvalidInput for none, for less
    than is held, for more than the ceiling, and for anything but budgets."""
    chosen, where = chosen_parts(models, scope)
    errors = {where[key]: "Only budgets can be raised." for key in chosen if key not in BUDGETS}
    possible = room(held, ceiling)
    for key in BUDGETS:
        if key not in chosen or where[key] in errors:
            continue
        before, most = getattr(held, key), getattr(ceiling, key)
        if before is None:
            errors[where[key]] = "The grant has no such budget to raise."
        elif chosen[key] < before:
            errors[where[key]] = f"It has {limit_words(key, before)} already: that can only grow."
        elif most is not None and chosen[key] > most:
            errors[where[key]] = f"This profile gives at most {limit_words(key, most)}."
    asked = replace(held, **chosen)
    if not errors and not possible:
        errors["raises"] = "It has no budget that its profile could raise."
    elif not errors and asked == held:
        named = " or ".join(possible)
        errors["scope"] = f"Name the whole that it is to have: a larger {named}."
    if errors:
        raise InvalidInput(errors)
    return asked
