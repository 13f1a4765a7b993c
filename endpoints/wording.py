"""A scope in words, the same wherever it is shown."""

from dataclasses import dataclass
from decimal import Decimal

from endpoints.scope import ANY_TOOL, BUDGETS, LIMITS, LISTS, SERVER_SIDE, Scope

LABELS = {
    "models": "Models",
    "tools": "Tools",
    "mcp_hosts": "MCP hosts",
    "operations": "Operations",
    "max_output_tokens": "Tokens in each answer",
    "requests_per_minute": "Calls a minute",
    "concurrency": "Calls at once",
    "token_budget": "Tokens in all",
    "cost_budget": "US dollars in all",
}
_UNITS = {
    "max_output_tokens": ("token in each answer", "tokens in each answer"),
    "requests_per_minute": ("call a minute", "calls a minute"),
    "concurrency": ("call at once", "calls at once"),
    "token_budget": ("token in all", "tokens in all"),
    "cost_budget": ("in all", "in all"),
}


@dataclass(frozen=True)
class Part:
    """One part of a scope: what it names, or a limit in words."""

    key: str
    label: str
    names: list[str]
    text: str


def amount(key: str, limit: int | Decimal) -> str:
    """A limit as it's read: 200,000 or $12.50."""
    if key != "cost_budget":
        return f"{limit:,}"
    return f"${limit:,.2f}" if limit == round(limit, 2) else f"${limit:,}"


def limit_words(key: str, limit: int | Decimal) -> str:
    """A limit with its unit, such as `12 calls a minute`."""
    return f"{amount(key, limit)} {_UNITS[key][limit != 1]}"


def name_words(key: str, name: str) -> str:
    """A name in a scope as it's read."""
    if key == "tools" and name == ANY_TOOL:
        return "any that the client runs"
    if key == "tools" and name.startswith(SERVER_SIDE):
        return f"{name.removeprefix(SERVER_SIDE)} (run by the provider)"
    return name


def in_words(scope: Scope) -> list[Part]:
    """What a scope holds and how much of it, in a fixed order."""
    found = [
        Part(key, LABELS[key], [name_words(key, name) for name in sorted(names)], "")
        for key in LISTS
        if (names := getattr(scope, key))
    ]
    found += [
        Part(key, LABELS[key], [], limit_words(key, limit))
        for key in LIMITS
        if (limit := getattr(scope, key)) is not None
    ]
    return found


def budgets_in_words(scope: Scope) -> list[str]:
    """The budgets of a scope: `200,000 tokens` and `$12.50`."""
    return [
        f"{amount(key, limit)}{'' if key == 'cost_budget' else ' tokens'}"
        for key in BUDGETS
        if (limit := getattr(scope, key)) is not None
    ]


def raised(scope: Scope, before: Scope) -> list[str]:
    """The budgets that a raise makes larger, in words."""
    return _limits(scope, before, "")


def differences(asked: Scope, usual: Scope) -> list[str]:
    """How a scope differs from what is given by default, in words; empty if it doesn't."""
    found = []
    more, fewer = asked.beyond(usual), usual.beyond(asked)
    for key in LISTS:
        what = LABELS[key] if key == "mcp_hosts" else LABELS[key].lower()
        if key in more:
            found.append(f"more {what} than the default: {_names(key, more[key])}")
        if key in fewer:
            found.append(f"fewer {what} than the default: without {_names(key, fewer[key])}")
    return found + _limits(asked, usual, "the default’s ")


def left_out(less: Scope, asked: Scope) -> list[str]:
    """What of a scope that was asked for wasn't approved, in words; empty if nothing."""
    found = []
    for key, names in asked.beyond(less).items():
        if key not in LISTS:
            continue
        if instead := sorted(getattr(less, key) - getattr(asked, key)):
            found.append(f"only the {LABELS[key].lower()} {_names(key, instead)}")
        else:
            found.append(f"without {_names(key, names)}")
    return found + _limits(less, asked, "")


def _names(key: str, names: list[str]) -> str:
    return ", ".join(name_words(key, name) for name in names)


def _limits(one: Scope, other: Scope, whose: str) -> list[str]:
    found = []
    for key in LIMITS:
        limit, before = getattr(one, key), getattr(other, key)
        if limit == before:
            continue
        if limit is None:
            found.append(f"no limit instead of {whose}{limit_words(key, before)}")
        else:
            instead = "no limit" if before is None else f"{whose}{amount(key, before)}"
            found.append(f"{limit_words(key, limit)} instead of {instead}")
    return found
