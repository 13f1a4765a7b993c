"""Conditions in CEL, the Common Expression Language, with a bound on what each may cost.

Specification: https://github.com/google/cel-spec. An expression that errors, or gives anything
but true, doesn't hold.
"""

import functools
from collections.abc import Mapping
from typing import Any

import cel


class BadExpression(Exception):
    """This can't be an expression of a policy, and says why."""


class Expression:
    """One compiled condition."""

    def __init__(self, source: str, program: Any) -> None:
        self.source = source
        self._program = program

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it is true of these facts. An error is False, never an exception."""
        try:
            return self._program.execute(dict(facts)) is True
        except Exception:  # noqa: BLE001
            return False


@functools.lru_cache(maxsize=1024)
def compile(source: str) -> Expression:
    """Compile a condition. Raises BadExpression, saying what is wrong with it."""
    try:
        return Expression(source, cel.compile(source))
    except ValueError as error:
        raise BadExpression(str(error)) from error


def matches(text: str, pattern: str) -> bool:
    """Whether the whole text matches the pattern, in time linear to its length.

    Python's own expressions backtrack: a hostile text could take for ever. Raises BadExpression
    for what is no pattern.
    """
    try:
        found: bool = _MATCHES.execute({"text": text, "pattern": f"^(?:{pattern})$"})
    except Exception as error:
        raise BadExpression(str(error)) from error
    return found


_MATCHES = cel.compile("text.matches(pattern)")
