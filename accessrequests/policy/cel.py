"""Conditions in CEL, the Common Expression Language, with a bound on what each may cost.

Specification: https://github.com/google/cel-spec. What a condition may say is a part of CEL: the
variables, functions and macros below, within the limits below. All that can be refused is refused
when it is saved. Later, an expression that errors or gives anything but true doesn't hold.
"""

import datetime as dt
import difflib
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cel

from endpoints.kinds import Revocation
from endpoints.models import Endpoint

logger = logging.getLogger(__name__)

LONGEST = 1000
MOST_TOKENS = 200
DEEPEST = 10
MOST_MACROS = 4
MOST_LISTS = 10
LONGEST_PATTERN = 200
MOST_REPEATS = 100


class BadExpression(Exception):
    """This can't be an expression of a policy, and says why."""


class Variable(NamedTuple):
    """What an expression may refer to."""

    type: str
    about: str
    values: tuple[str, ...] = ()


# Everything that an expression sees. docs/policies.md shows this table.
VARIABLES: dict[str, dict[str, Variable] | Variable] = {
    "requester": {
        "email": Variable("text", "address of the person or service account that asks"),
        "groups": Variable("list of text", "slugs of the groups that it is a member of"),
        "kind": Variable("text", "", ("person", "service")),
        "on_call": Variable("bool", "whether one of those groups is an on-call rota"),
    },
    "request": {
        "profile": Variable("text", "slug of the access profile"),
        "duration": Variable("duration", "how long the access is to last"),
        "models": Variable("list of text", "the models asked for"),
        "tools": Variable("list of text", "the tools; '*' is any that the client runs"),
        "mcp_hosts": Variable(
            "list of text", "the hosts that the provider may call as MCP servers"
        ),
        "operations": Variable("list of text", "of a plain HTTP endpoint, such as 'GET /api/'"),
        "max_output_tokens": Variable("number", "the most that one answer may have"),
        "requests_per_minute": Variable("number", "the most calls in a minute"),
        "concurrency": Variable("number", "the most calls at once"),
        "token_budget": Variable("number", "the most tokens in all"),
        "cost_budget": Variable("number", "the most US dollars in all, rounded up to whole ones"),
        "ticket": Variable("text", "the ticket, or '' without one"),
        "justification": Variable("text", "the reason in the requester's words"),
        "starts_at": Variable("timestamp", "when it is to start; now, unless scheduled"),
        "scheduled": Variable("bool", "whether the requester chose a start"),
        "extension": Variable("bool", "whether it prolongs a grant"),
        "raises": Variable(
            "bool", "whether it asks for larger budgets of a grant, and no more time"
        ),
        "break_glass": Variable("bool", "whether the access is wanted before a review"),
        "agent": Variable("bool", "whether a service account asks, for somebody or for itself"),
        "on_behalf_of": Variable("text", "address of the person for whom it asks, or ''"),
        "run": Variable("text", "its run, as the service account has it, or ''"),
        "task": Variable("text", "what the service account says that it is about to do, or ''"),
    },
    "behalf": {
        "groups": Variable(
            "list of text", "slugs of the groups of the person for whom it asks; else empty"
        ),
        "on_call": Variable("bool", "whether one of those groups is an on-call rota"),
    },
    "profile": {
        "kind": Variable("text", "what is handed out, such as 'gateway_token' or 'static_secret'"),
        "revocation": Variable("text", "", tuple(Revocation.values)),
    },
    "endpoint": {
        "slug": Variable("text", "slug of the endpoint"),
        "kind": Variable("text", "", tuple(Endpoint.Kind.values)),
        "environment": Variable("text", "", tuple(Endpoint.Environment.values)),
        "risk": Variable("text", "", tuple(Endpoint.Risk.values)),
        "connected_systems": Variable("list of text", "the systems behind it"),
    },
    "now": Variable("timestamp", "this moment"),
}
FUNCTIONS = ("duration", "size", "timestamp")
METHODS = (
    *("contains", "endsWith", "matches", "size", "startsWith"),
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours"),
    *("getMinutes", "getMonth", "getSeconds"),
)
MACROS = ("all", "exists", "exists_one")

# What the library reports as functions of an expression that keeps to the above.
_OPERATORS = {
    *("!_", "-_", "_!=_", "_%_", "_&&_", "_*_", "_+_", "_-_", "_/_", "_<=_", "_<_", "_==_"),
    *("_>=_", "_>_", "_?_:_", "_[_]", "_||_", "@in", "@not_strictly_false"),
}
_EXAMPLES = {
    "duration": "duration('1h30m')",
    "timestamp": "timestamp('2026-01-31T09:00:00Z')",
    "bool": "true or false",
    "number": "a number such as 1000",
    "list of text": "a list such as ['a', 'b']",
    "text": "text such as 'a'",
}


class Expression:
    """One compiled condition."""

    def __init__(self, source: str, program: Any) -> None:
        self.source = source
        self._program = program

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether it is true of these facts. An error is False, never an exception."""
        try:
            return self._execute(facts) is True
        except Exception as error:  # noqa: BLE001
            # The error's own words may hold facts, which are no business of a log's.
            logger.warning(
                "A condition failed (%s), so it doesn't hold: %s", type(error).__name__, self.source
            )
            return False

    def _execute(self, facts: Mapping[str, Any]) -> Any:
        return _guarded(self._program.execute, dict(facts))


def _guarded(function: Callable[..., Any], *args: object) -> Any:
    """Call into the library. A panic of its Rust derives from BaseException; here it's an error."""
    try:
        return function(*args)
    except BaseException as error:
        if (type(error).__module__, type(error).__name__) != ("pyo3_runtime", "PanicException"):
            raise
        raise RuntimeError("The library panicked.") from error


@functools.lru_cache(maxsize=1024)
def compile(source: str) -> Expression:
    """Compile a condition. Raises BadExpression, saying what is wrong with it."""
    bound = _check(source)
    program = _parsed(source)
    if unknown := set(program.variables()) - set(VARIABLES) - bound:
        raise BadExpression(_unknown("variable", unknown.pop(), VARIABLES))
    if strange := set(program.functions()) - {*FUNCTIONS, *METHODS, *_OPERATORS}:
        raise BadExpression(f"Conditions may not use {strange.pop()}.")
    expression = Expression(source, program)
    _try_out(expression)
    return expression


def _parsed(source: str) -> Any:
    try:
        return _guarded(cel.compile, source)
    except Exception as error:
        found = re.search(r"<input>:(\d+):(\d+)", str(error))
        if not found:
            raise BadExpression("This isn't CEL.") from error
        line, column = map(int, found.groups())
        rest = (source.splitlines() or [""])[line - 1][column - 1 :].strip()
        where = f"Not understood at line {line}, column {column}"
        raise BadExpression(
            f"{where}, where it says {rest[:20]!r}." if rest else f"{where}: something is missing."
        ) from error


def _try_out(expression: Expression) -> None:
    """Refuse what fails for every sample, and what gives anything but true or false for one."""
    failures = []
    for facts in SAMPLES:
        try:
            given = expression._execute(facts)
        except Exception as error:  # noqa: BLE001
            failures.append(error)
            continue
        if not isinstance(given, bool):
            raise BadExpression(
                f"A condition must be true or false; this gives {_in_words(given)}."
            )
    if len(failures) == len(SAMPLES):
        raise BadExpression(f"This can never hold, because it always fails: {_short(failures[0])}.")


def _in_words(given: object) -> str:
    names = {str: "text", list: "a list", int: "a number", float: "a number", dict: "a record"}
    names |= {dt.timedelta: "a duration", dt.datetime: "a time"}
    return names.get(type(given), "something else")


def _short(error: Exception) -> str:
    text = str(error).split("\n")[0].split(". ")[0].rstrip(".")
    if found := re.match(r"Undefined variable or function: '(\w+)'", text):
        return f"{found[1]} doesn't take what it is given here"
    if text.startswith("No such overload"):
        return "two things are put together that don't go together"
    return text[:100]


# What is looked at before the library parses it, which would otherwise recurse as deep as the
# brackets do: on a thread's small stack, that kills the process.

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<comment>//)
    | (?P<text>[rR](?:"[^"\x00-\x1f\x7f]*"|'[^'\x00-\x1f\x7f]*')
             | "(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*" | '(?:[^'\\\x00-\x1f\x7f]|\\[ -~])*')
    | (?P<number>[0-9][0-9a-zA-Z_]*(?:\.[0-9]+)?)
    | (?P<name>[a-zA-Z_][a-zA-Z0-9_]*)
    | (?P<mark>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]])""",
    re.VERBOSE,
)
_PAIRS = {"(": ")", "[": "]"}
_KEYWORDS = ("true", "false", "in")


class _Token(NamedTuple):
    kind: str
    text: str
    column: int

    def is_struct(self) -> bool:
        return isinstance(VARIABLES.get(self.text), dict)


_END = _Token("end", "", 0)


@dataclass
class _Bracket:
    opened: _Token
    bound: str = ""
    lists: int = MOST_LISTS


def _check(source: str) -> set[str]:
    """Refuse what is outside the bounds. Returns the names that its macros bind."""
    if len(source) > LONGEST:
        raise BadExpression(f"Must be at most {LONGEST} characters.")
    tokens = list(_tokens(source))
    if not tokens:
        raise BadExpression("Write a condition, or leave the key out.")
    if len(tokens) > MOST_TOKENS:
        raise BadExpression(f"Too long: at most {MOST_TOKENS} names, values and signs.")
    return _Reading(tokens).check()


def _tokens(source: str) -> Iterator[_Token]:
    at, last = 0, _END
    while at < len(source):
        found = _TOKEN.match(source, at)
        if not found or found.lastgroup is None:
            raise BadExpression(f"{source[at]!r} can't be written in a condition here.")
        token = _Token(found.lastgroup, found[0], at + 1)
        if token.kind == "comment":
            raise BadExpression("A comment belongs in the YAML, not in the expression.")
        # Triple quotes, bytes and other prefixes would be read by CEL otherwise than here.
        if token.kind == "text" and last.kind in ("text", "name") and last.text != "in":
            raise BadExpression(f"An operator is missing before {token.text[:20]}.")
        if token.kind != "space":
            yield token
            last = token
        at = found.end()


def _unknown(what: str, name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    hint = f"Did you mean {prefix}{close[0]}?" if close else f"There are {', '.join(known)}."
    return f"There is no {what} {prefix}{name}. {hint}"


def _value(token: _Token) -> str:
    text: str = _guarded(_parsed(token.text).execute)
    return text


class _Reading:
    """One look over the tokens of an expression, brackets and scopes in mind."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.open: list[_Bracket] = []
        self.bound: set[str] = set()
        self.macros = 0
        self.lists = 0

    def at(self, index: int) -> _Token:
        return self.tokens[index] if 0 <= index < len(self.tokens) else _END

    def check(self) -> set[str]:
        for index, token in enumerate(self.tokens):
            if token.text in _PAIRS:
                self._opens(index)
            elif token.kind == "mark" and token.text in _PAIRS.values():
                if not self.open or _PAIRS[self.open.pop().opened.text] != token.text:
                    raise BadExpression(f"The {token.text!r} at column {token.column} is too many.")
            elif token.kind == "name" and self.at(index - 1).text == ".":
                self._member(index)
            elif token.kind == "name":
                self._root(index)
            elif token.text in ("==", "!="):
                self._comparison(index)
        if self.open:
            opened = self.open[-1].opened
            raise BadExpression(f"The {opened.text!r} at column {opened.column} is never closed.")
        return self.bound

    def _opens(self, index: int) -> None:
        bracket = _Bracket(self.at(index))
        name = self.at(index - 1)
        if bracket.opened.text == "(" and name.text in MACROS and self.at(index - 2).text == ".":
            bracket.bound = self._bind(index, name.text)
            # Looking through a list for each entry of another costs their product.
            bracket.lists = 1 if self.at(index - 3).text == "]" else 0
        self.open.append(bracket)
        if len(self.open) > DEEPEST:
            raise BadExpression(f"Brackets may be {DEEPEST} deep at most.")

    def _bind(self, index: int, macro: str) -> str:
        name, comma = self.at(index + 1), self.at(index + 2)
        if name.kind != "name" or comma.text != ",":
            raise BadExpression(f"Write {macro} as in request.models.{macro}(m, m == 'a').")
        if name.text in (*VARIABLES, *_KEYWORDS):
            raise BadExpression(f"{macro} needs a name of its own instead of {name.text}.")
        if any(bracket.bound for bracket in self.open):
            raise BadExpression(f"{macro} may not stand inside another of {', '.join(MACROS)}.")
        # Only over lists that can't have been made longer by the expression itself.
        field = self._field(index - 4)
        if self.at(index - 3).text != "]" and (field is None or field.type != "list of text"):
            raise BadExpression(
                f"{macro} goes over a list in [ ] or a list that is named, such as "
                "requester.groups or request.models, only."
            )
        self.macros += 1
        if self.macros > MOST_MACROS:
            raise BadExpression(f"At most {MOST_MACROS} of {', '.join(MACROS)}.")
        self.bound.add(name.text)
        return name.text

    def _field(self, dot: int) -> Variable | None:
        """The field before or after which dot stands, as in request.ticket."""
        parts = VARIABLES.get(self.at(dot - 1).text)
        if self.at(dot).text != "." or not isinstance(parts, dict):
            return None
        return parts.get(self.at(dot + 1).text)

    def _member(self, index: int) -> None:
        token, owner = self.at(index), self.at(index - 2)
        if self.at(index + 1).text == "(":
            if token.text not in (*METHODS, *MACROS):
                raise BadExpression(
                    _unknown("function", f"{token.text}()", [*METHODS, *MACROS], ".")
                )
            if token.text == "matches":
                self._pattern(index)
            return
        parts = VARIABLES.get(owner.text)
        if not isinstance(parts, dict):
            raise BadExpression(
                f"Nothing named .{token.text} is there: only {_any_of(_structs())} have parts."
            )
        if token.text not in parts:
            raise BadExpression(_unknown("variable", token.text, parts, f"{owner.text}."))

    def _root(self, index: int) -> None:
        token, after = self.at(index), self.at(index + 1)
        if after.text == "(" and token.text != "in":
            if token.text == "has":
                raise BadExpression("has() is always true here: compare with '' or [] instead.")
            if token.text not in FUNCTIONS:
                raise BadExpression(_unknown("function", f"{token.text}()", FUNCTIONS))
            if token.text != "size":
                self._literal(index)
        elif token.text == "null":
            raise BadExpression("Nothing is ever null here: compare with '' or [] instead.")
        elif token.text in _KEYWORDS or any(b.bound == token.text for b in self.open):
            return
        elif token.text not in VARIABLES:
            raise BadExpression(_unknown("variable", token.text, VARIABLES))
        elif token.is_struct() and (after.text != "." or self.at(index + 2).kind != "name"):
            first = next(iter(VARIABLES[token.text]))
            raise BadExpression(f"Name a part of {token.text}, such as {token.text}.{first}.")
        elif field := self._field(index + 1):
            if self.at(index + 3).text == "in":
                self._values(index, field)
            if field.type == "list of text":
                self._list()

    def _list(self) -> None:
        self.lists += 1
        if self.lists > MOST_LISTS:
            raise BadExpression(f"Lists may be named {MOST_LISTS} times at most.")
        for bracket in self.open:
            bracket.lists -= 1
            if bracket.lists < 0:
                raise BadExpression(
                    f"Inside {', '.join(MACROS)} no list can be looked through again, but for one "
                    "inside ['a', 'b'].exists(g, g in requester.groups)."
                )

    def _literal(self, index: int) -> None:
        name, value = self.at(index).text, self.at(index + 2)
        right = value.kind == "text" and self.at(index + 3).text == ")"
        if right and name == "duration":
            right = bool(re.fullmatch(r"(\d{1,6}(\.\d{1,3})?[hms])+", _value(value)))
        elif right:
            try:
                _guarded(_parsed(f"timestamp({value.text})").execute)
            except Exception:  # noqa: BLE001
                right = False
        if not right:
            raise BadExpression(f"{name} takes text in quotes, as in {_EXAMPLES[name]}.")

    def _pattern(self, index: int) -> None:
        value = self.at(index + 2)
        if value.kind != "text" or self.at(index + 3).text != ")":
            raise BadExpression(
                "matches takes a pattern in quotes, as in .matches('^OPS-[0-9]+$')."
            )
        # Each call compiles its pattern anew.
        if any(bracket.bound for bracket in self.open):
            raise BadExpression(
                f"matches may not stand inside {', '.join(MACROS)}: use startsWith, endsWith or "
                "contains there."
            )
        self.macros += 1
        if self.macros > MOST_MACROS:
            raise BadExpression(f"At most {MOST_MACROS} of matches, {', '.join(MACROS)}.")
        check_pattern(_value(value))

    def _comparison(self, index: int) -> None:
        """CEL finds things of different types merely different; nobody means that."""
        for field, value in (
            (self._field(index - 2), self.at(index + 1)),
            (self._field(index + 2), self.at(index - 1)),
        ):
            if field is None or value.kind not in ("text", "number"):
                continue
            if field.type == value.kind == "number":
                continue
            if field.type != "text" or value.kind != "text":
                raise BadExpression(
                    f"{value.text} is compared with a {field.type}, which it never equals: "
                    f"compare with {_EXAMPLES[field.type]}."
                )
            _check_value(field, value)

    def _values(self, index: int, field: Variable) -> None:
        position = index + 5
        while self.at(position).kind == "text":
            _check_value(field, self.at(position))
            position += 2


def _check_value(field: Variable, value: _Token) -> None:
    if field.values and _value(value) not in field.values:
        raise BadExpression(f"{value.text} isn't one of {', '.join(field.values)}.")


def _structs() -> list[str]:
    return [name for name, parts in VARIABLES.items() if isinstance(parts, dict)]


def _any_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


# Facts as they might be, on which each expression is tried before it is accepted.

_MOMENT = dt.datetime(2026, 3, 4, 10, 30, tzinfo=dt.UTC)


def _sample(number: int, *, now: dt.datetime) -> dict[str, Any]:
    odd = number % 2 == 1
    service = number == 3
    words = [f"a-{n}" for n in range(1, number + 1)]
    return {
        "requester": {
            "email": f"a{number}@example.com",
            "groups": words,
            "kind": "service" if service else "person",
            "on_call": odd,
        },
        "request": {
            "profile": "a",
            "duration": dt.timedelta(minutes=30) * (number + 1),
            "models": [*words, "a"],
            "tools": words,
            "mcp_hosts": words,
            "operations": words,
            "max_output_tokens": 1000 * (number + 1),
            "requests_per_minute": 30 * (number + 1),
            "concurrency": number + 1,
            "token_budget": 100_000 * (number + 1),
            "cost_budget": 10 * (number + 1),
            "ticket": "A-1" if odd else "",
            "justification": "Words.",
            "starts_at": now + dt.timedelta(days=number),
            "scheduled": number > 0,
            "extension": number == 2,
            "raises": number == 1,
            "break_glass": number == 3,
            "agent": service,
            "on_behalf_of": "a0@example.com" if service else "",
            "run": "run-1" if service else "",
            "task": "Words." if service else "",
        },
        "behalf": {"groups": words if service else [], "on_call": service},
        "profile": {
            "kind": ("gateway_token", "static_secret", "jwt", "database")[number],
            "revocation": ("immediate", "by_rotation", "by_expiry", "immediate")[number],
        },
        "endpoint": {
            "slug": "a",
            "kind": Endpoint.Kind.values[number % len(Endpoint.Kind.values)],
            "environment": Endpoint.Environment.values[number % len(Endpoint.Environment.values)],
            "risk": Endpoint.Risk.values[number % len(Endpoint.Risk.values)],
            "connected_systems": words,
        },
        "now": now,
    }


SAMPLES = tuple(
    _sample(number, now=_MOMENT + dt.timedelta(days=number, hours=4 * number))
    for number in range(4)
)


# Patterns: Rust's regular expressions, in time linear to the text. Python's own backtrack: a
# hostile text could take for ever.

_MATCHES = cel.compile("text.matches(pattern)")


def check_pattern(pattern: str) -> None:
    """Raise BadExpression unless this is a pattern that costs little."""
    if len(pattern) > LONGEST_PATTERN:
        raise BadExpression(f"A pattern may have at most {LONGEST_PATTERN} characters.")
    counts = re.findall(r"(\)?)\{([0-9]+)(?:,([0-9]*))?\}", pattern)
    if any(group for group, _, _ in counts):
        raise BadExpression("In a pattern, a count such as {3} may not follow a group in ( ).")
    if sum(max(int(low), int(high or 0)) for _, low, high in counts) > MOST_REPEATS:
        raise BadExpression(f"The counts in a pattern may add up to at most {MOST_REPEATS}.")
    if set(re.findall(r"\\(.)", pattern, re.DOTALL)) & {*"wWpPD"}:
        raise BadExpression(
            r"In a pattern, write [A-Za-z0-9_] or [^0-9] instead of \w, \W, \D, \p or \P."
        )
    if re.search(r"\(\?(?!:|i\))", pattern):
        raise BadExpression(
            "In a pattern, of groups that begin with (? only (?: and (?i) are known."
        )
    try:
        # By itself too: `a)|(?:b` is one only with what is put around it.
        for text in (pattern, _whole(pattern)):
            _guarded(_MATCHES.execute, {"text": "", "pattern": text})
    except Exception as error:
        why = re.findall(r"^error: (.+)$", str(error), re.MULTILINE)
        raise BadExpression(
            f"No pattern: {why[0].split('. ')[0]}." if why else "The pattern is too large."
        ) from error


def matches(text: str, pattern: str) -> bool:
    """Whether the whole text matches the pattern. What is no pattern is matched by nothing."""
    return Expression("matches", _MATCHES).holds({"text": text, "pattern": _whole(pattern)})


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"
