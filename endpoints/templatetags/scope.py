"""Filters that show a scope."""

from collections.abc import Mapping
from typing import Any

from django import template

from endpoints import wording
from endpoints.scope import OPENING, Scope

register = template.Library()


@register.filter
def in_words(scope: Scope | Mapping[str, Any]) -> dict[str, Any]:
    """A scope, or its JSON, as components/scope.html shows it."""
    parts = wording.in_words(scope if isinstance(scope, Scope) else Scope.parse(scope))
    return {
        "lists": [part for part in parts if part.names],
        "limits": [part.text for part in parts if part.text],
    }


@register.filter
def opened(scope: Scope | Mapping[str, Any]) -> list[str]:
    """The models and operations of a scope alone, for where there is little room."""
    given = scope.as_json() if isinstance(scope, Scope) else scope
    return [name for key in OPENING for name in given.get(key, [])]
