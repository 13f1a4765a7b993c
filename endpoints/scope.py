"""Scope: how much of an endpoint a profile may give, a request asks for, a grant holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from broker.errors import InvalidInput

NAME_LENGTH = 200
MOST_NAMES = 200
ANY_TOOL = "*"
SERVER_SIDE = "server:"

LISTS = ("models", "tools", "mcp_hosts", "operations")
OPENING = ("models", "operations")  # without any of these nothing can be done
COUNTS = ("max_output_tokens", "requests_per_minute", "concurrency", "token_budget")
BUDGETS = ("token_budget", "cost_budget")  # in all, while the other limits are at a time
LIMITS = (*COUNTS, "cost_budget")
KNOWN = (*LISTS, *LIMITS)

MOST = 1_000_000_000_000
MOST_COST = Decimal(10_000_000)

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")
_OPERATION = re.compile(
    r"(?P<method>GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|WEBSOCKET|\*) (?P<path>/[!-~]*)"
)


def _names(key: str, value: object) -> frozenset[str]:
    if (
        not isinstance(value, list)
        or len(value) > MOST_NAMES
        or not all(isinstance(n, str) and 0 < len(n) <= NAME_LENGTH for n in value)
    ):
        raise InvalidInput(
            {
                f"scope.{key}": f"Must be a list of at most {MOST_NAMES} names of "
                f"1 to {NAME_LENGTH} characters."
            }
        )
    names = frozenset(value)
    if key == "mcp_hosts" and (bad := sorted(n for n in names if not _HOST.fullmatch(n))):
        raise InvalidInput(
            {"scope.mcp_hosts": f"Name hosts, such as mcp.example.com, not {bad[0]!r}."}
        )
    if key == "operations":
        for name in sorted(names):
            found = _OPERATION.fullmatch(name)
            if not found or "//" in found["path"] or "/../" in f"{found['path']}/":
                raise InvalidInput(
                    {
                        "scope.operations": "Name a method and a path prefix each, such as "
                        f'"GET /api/" or "* /", not {name!r}.'
                    }
                )
    return names


def _count(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise InvalidInput({f"scope.{key}": f"Must be a whole number from 1 to {MOST}."})
    return value


def _cost(value: object) -> Decimal:
    try:
        cost = Decimal(str(value)[:30])
    except InvalidOperation:
        cost = Decimal(0)
    if not cost.is_finite() or not 0 < cost <= MOST_COST or cost != round(cost, 4):
        raise InvalidInput(
            {"scope.cost_budget": 'Must be an amount in US dollars above 0, such as "12.50".'}
        )
    return cost


def named(data: object) -> dict[str, Any]:
    """The fields of a scope that this JSON object names; a limit that is null isn't named.

    Raises InvalidInput by field, such as `scope.tools`, for all that is wrong with it. An unknown
    key is refused rather than dropped: a narrowing that isn't understood must not be taken for
    none.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput({"scope": 'Must be an object such as {"models": ["small"]}.'})
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    if unknown := sorted(str(key) for key in data.keys() - set(KNOWN)):
        errors["scope"] = f"Unknown: {', '.join(unknown)}. Known: {', '.join(KNOWN)}."
    for key in KNOWN:
        if key not in data or (data[key] is None and key in LIMITS):
            continue
        try:
            found[key] = _read(key, data[key])
        except InvalidInput as error:
            errors |= error.errors
    if errors:
        raise InvalidInput(errors)
    return found


def _read(key: str, value: object) -> frozenset[str] | int | Decimal:
    if key in LISTS:
        return _names(key, value)
    return _cost(value) if key == "cost_budget" else _count(key, value)


@dataclass(frozen=True)
class Scope:
    """Names are exact, and what isn't named isn't held; a limit that is None doesn't limit.

    `models`: as the upstream knows them. `tools`: functions that the model may be offered and may
    call; `server:<type>` is one that the provider runs itself; `*` stands for any that the client
    runs. `mcp_hosts`: servers that the provider may call on the model's behalf. `operations`: for
    plain HTTP endpoints, a method and a path prefix each; `CONNECT /<database>` for what is opened
    directly. `max_output_tokens` is per call, the
    budgets per grant; `cost_budget` is in US dollars.
    """

    models: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    mcp_hosts: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    max_output_tokens: int | None = None
    requests_per_minute: int | None = None
    concurrency: int | None = None
    token_budget: int | None = None
    cost_budget: Decimal | None = None

    @classmethod
    def parse(cls, data: object) -> Self:
        """The scope in this JSON object. Raises InvalidInput, naming what is wrong with it."""
        scope = cls(**named(data))
        if not scope.opens_something:
            raise InvalidInput(
                {"scope": "Name at least one model (or operation, of a plain HTTP endpoint)."}
            )
        return scope

    @property
    def opens_something(self) -> bool:
        """Whether anything at all can be done with it."""
        return bool(self.models or self.operations)

    def as_json(self) -> dict[str, Any]:
        """What is stored and shown: lists in a fixed order, an amount as text, no empty keys."""
        found: dict[str, Any] = {key: sorted(getattr(self, key)) for key in LISTS}
        found |= {key: getattr(self, key) for key in COUNTS}
        found["cost_budget"] = None if self.cost_budget is None else f"{self.cost_budget:f}"
        return {key: value for key, value in found.items() if value}

    def spelled_out(self) -> dict[str, Any]:
        """The same with its empty lists, so that whoever reads it adds no defaults to it."""
        return {key: [] for key in LISTS} | self.as_json()

    def beyond(self, ceiling: "Scope") -> dict[str, list[str]]:
        """By field, what the ceiling doesn't hold; empty when this is within it."""
        found: dict[str, list[str]] = {}
        for key in LISTS:
            if extra := getattr(self, key) - getattr(ceiling, key):
                found[key] = sorted(extra)
        if beyond := [tool for tool in found.pop("tools", []) if not ceiling.holds_tool(tool)]:
            found["tools"] = beyond
        for key in LIMITS:
            own, most = getattr(self, key), getattr(ceiling, key)
            if most is not None and (own is None or own > most):
                found[key] = ["no limit" if own is None else str(own)]
        return found

    def limited_by(self, ceiling: "Scope") -> "Scope":
        """The same, with the ceiling's limit wherever this one names none."""
        missing = {key: getattr(ceiling, key) for key in LIMITS if getattr(self, key) is None}
        return replace(self, **missing)

    def __and__(self, other: "Scope") -> "Scope":
        """What both hold. May be empty, which opens nothing."""
        found: dict[str, Any] = {key: getattr(self, key) & getattr(other, key) for key in LISTS}
        for one, two in ((self, other), (other, self)):
            if ANY_TOOL in one.tools:
                found["tools"] |= {t for t in two.tools if not t.startswith(SERVER_SIDE)}
        for key in LIMITS:
            limits = [n for n in (getattr(self, key), getattr(other, key)) if n is not None]
            found[key] = min(limits, default=None)
        return Scope(**found)

    def holds_tool(self, name: str) -> bool:
        """Whether a function of this name may be offered, or `server:<type>` be used."""
        return name in self.tools or (ANY_TOOL in self.tools and not name.startswith(SERVER_SIDE))
