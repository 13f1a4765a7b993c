"""Attacks on conditions: nothing that errors, loops, is huge or reaches outside ever approves."""

import copy
import datetime as dt
import logging
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessrequests.policy import cel
from accessrequests.policy.facts import Facts

FACTS = cel.SAMPLES[1]
LISTS = "requester.groups"


def compiled(source: str) -> cel.Expression:
    """Not by way of the cache."""
    return cel.compile.__wrapped__(source)


def test_the_facts_of_a_request_are_the_variables():
    facts = Facts(
        email="a@example.com",
        groups=frozenset({"a"}),
        is_service=False,
        on_call=False,
        profile="a",
        duration=dt.timedelta(hours=1),
        models=frozenset({"a"}),
        ticket="",
        justification="",
        starts_at=None,
        extension=False,
        break_glass=False,
        endpoint="a",
        kind="inference",
        environment="production",
        risk="low",
        connected_systems=(),
        now=dt.datetime.now(dt.UTC),
    ).for_cel()
    assert _names(facts) == _names(cel.VARIABLES)
    for sample in cel.SAMPLES:
        assert _names(sample) == _names(facts)


def _names(table):
    return {
        name: sorted(parts) if isinstance(parts, dict) else None for name, parts in table.items()
    }


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("true", True),
        ("request.duration <= duration('1h')", True),
        ("request.duration < duration('1h0m0s')", False),
        ("'a-1' in requester.groups && request.ticket != ''", True),
        ("endpoint.risk in ['low', 'elevated'] || requester.on_call", True),
        ("requester.groups.exists(g, g.startsWith('a-'))", True),
        ("['a', 'b'].exists(g, g in requester.groups)", False),
        ("request.models.all(m, m in ['a', 'a-1'])", True),
        ("size(request.models) == 2 && request.models.size() == 2", True),
        (r"request.ticket.matches(r'^A-\d+$')", True),
        ("now.getDayOfWeek() in [1, 2, 3, 4, 5] && now.getHours() > 8", True),
        ("request.starts_at - now <= duration('24h')", True),
        ("now > timestamp('2026-01-31T09:00:00Z')", True),
        ("requester.kind == 'person' ? request.scheduled : false", True),
        ("!request.extension", True),
    ],
)
def test_what_policies_say(source, holds):
    assert compiled(source).holds(FACTS) is holds


@pytest.mark.parametrize(
    ("source", "says"),
    [
        # no CEL
        ("", "Write a condition"),
        ("1 +", "something is missing"),
        ("true true", "Not understood at line 1, column 6, where it says 'true'"),
        ("true &&\n  +", "line 2, column 3"),
        ("((true)", "'(' at column 1 is never closed"),
        ("true)", "')' at column 5 is too many"),
        ("(true]", "']' at column 6 is too many"),
        # outside the variables
        ("requst.ticket == ''", "There is no variable requst. Did you mean request?"),
        ("request.durration < duration('1h')", "no variable request.durration. Did you mean"),
        ("false && request.nope == ''", "no variable request.nope. There are profile,"),
        ("request == request", "Name a part of request"),
        ("request['ticket'] == ''", "Name a part of request"),
        ("request.ticket.length == 1", "Nothing named .length"),
        (".request.ticket == ''", "Nothing named .request"),
        ("g == 'a' || requester.groups.exists(g, g == 'a')", "no variable g"),
        ("requester.groups.exists(request, true)", "needs a name of its own"),
        ("optional.of(true).hasValue()", "no variable optional"),
        ("google.protobuf.Timestamp == 1", "no variable google"),
        # outside the functions
        ("system('ls')", "There is no function system()"),
        ("request.ticket.lower() == ''", "There is no function .lower()"),
        ("request.models.map(m, m) == []", "There is no function .map()"),
        ("request.models.filter(m, true) == []", "There is no function .filter()"),
        ("has(request.ticket)", "has() is always true"),
        ("string(request.ticket) == ''", "There is no function string()"),
        ("{'a': true}.a", "'{' can't be written"),
        ("Foo{}", "'{' can't be written"),
        ("true // and false", "A comment belongs"),
        ("'''a' == request.nope || 'b'''", "An operator is missing"),
        ("b'a' == b'a'", "An operator is missing"),
        ("'\x00' == request.ticket", "can't be written"),
        ("'\ud800' == request.ticket", "This isn't CEL"),
        # never what was meant
        ("request.ticket", "gives text"),
        ("size(request.models)", "gives a number"),
        ("requester.groups", "gives a list"),
        ("now", "gives a time"),
        ("request.scheduled ? true : 'no'", "gives text"),
        ("request.duration == 3600", "compare with duration('1h30m')"),
        ("'PT1H' != request.duration", "compare with duration('1h30m')"),
        ("requester.on_call == 'true'", "compare with true or false"),
        ("request.ticket == null", "Nothing is ever null"),
        ("endpoint.risk == 'hgih'", "'hgih' isn't one of low, elevated, critical"),
        ("endpoint.risk in ['low', 'medium']", "'medium' isn't one of"),
        ("duration('PT1H') < request.duration", "as in duration('1h30m')"),
        ("duration(request.ticket) < request.duration", "as in duration('1h30m')"),
        ("now < timestamp('99999-01-01T00:00:00Z')", "as in timestamp('2026"),
        ("now < timestamp('2026-02-30T00:00:00Z')", "as in timestamp('2026"),
        # always fails
        ("1 / 0 == 1", "always fails: division by zero"),
        ("9223372036854775807 + 1 > 0", "always fails: Arithmetic overflow"),
        ("request.ticket < 1", "always fails: two things"),
        ("request.ticket.startsWith(1)", "startsWith doesn't take"),
        ("request.models[99] == ''", "always fails: index out of bounds"),
        # costs
        ("x" * 1001, "at most 1000 characters"),
        ("!" * 300 + "true", "at most 200 names"),
        ("(" * 500 + ")" * 500, "at most 200 names"),
        ("(" * 11 + "true" + ")" * 11, "10 deep"),
        ("['a'].all(a, ['b'].all(b, a == b))", "may not stand inside another"),
        (f"{LISTS}.all(a, a in {LISTS})", "no list can be looked through again"),
        (f"['a'].all(a, a in {LISTS} || a in request.models)", "no list can be looked"),
        (f"({LISTS} + {LISTS}).all(a, true)", "goes over a list in"),
        ("&&".join([f"{LISTS}.all(a, true)"] * 5), "At most 4"),
        (f"size({'+'.join([LISTS] * 11)}) > 0", "10 times at most"),
        (f"{LISTS}.all(a, a.matches('a'))", "may not stand inside"),
        ("&&".join(["request.ticket.matches('a')"] * 5), "At most 4"),
        # patterns
        ("request.ticket.matches(request.justification)", "takes a pattern in quotes"),
        ("request.ticket.matches('(')", "No pattern: unclosed group"),
        ("request.ticket.matches('(a{90}){90}')", "may not follow a group"),
        ("request.ticket.matches('a{101}')", "add up to at most 100"),
        ("request.ticket.matches('a{60}b{2,60}')", "add up to at most 100"),
        (r"request.ticket.matches('\\w+')", "instead of \\w"),
        ("request.ticket.matches('(?x)a')", "only (?: and (?i)"),
        (f"request.ticket.matches('{'a' * 201}')", "at most 200 characters"),
    ],
)
def test_what_is_refused_when_saved(source, says):
    with pytest.raises(cel.BadExpression) as refused:
        compiled(source)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".") or str(refused.value).endswith("?")


@pytest.mark.parametrize(
    "source",
    [
        "request.models[1] == 'a'",
        "1 / (size(request.models) - 1) > 0 || true == (1 / (size(request.models) - 1) > 0)",
        "(2 - size(request.models)) * 9223372036854775807 + size(request.models) > 0",
        "now + duration('999999h999999h') > now && request.models[3] == ''",
    ],
)
def test_an_error_later_does_not_hold_and_is_logged_without_the_facts(source, caplog):
    expression = compiled(source)
    facts = copy.deepcopy(FACTS)
    facts["request"]["models"] = ["s3cret"]
    with caplog.at_level(logging.WARNING):
        assert expression.holds(facts) is False
    assert "doesn't hold" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"request": None},
        {"request": {"ticket": 1}},
        {"request": {"ticket": object()}},
        {"request": {"ticket": "\ud800"}},
        {"request": {"ticket": {"a": [dt.timedelta.max]}}},
    ],
)
def test_facts_that_are_not_as_promised_never_approve(facts):
    assert compiled("request.ticket == 'A-1'").holds(facts) is False


def test_what_is_not_bool_is_not_true(caplog):
    class Program:
        def execute(self, _facts):
            return 1

    assert cel.Expression("1", Program()).holds({}) is False


def test_a_panic_of_the_library_is_an_error_and_an_interrupt_is_not():
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    class Program:
        raises = panic

        def execute(self, _facts):
            raise self.raises

    assert cel.Expression("a", Program()).holds({}) is False
    Program.raises = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        cel.Expression("a", Program()).holds({})


def compiled_or_refused(source):
    try:
        expression = compiled(source)
    except cel.BadExpression as error:
        assert str(error)  # noqa: PT017 -- either is right
    else:
        assert expression.holds(FACTS) in (True, False)


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused_with_words(source):
    compiled_or_refused(source)


PIECES = [
    *("request", "requester", "endpoint", "now", ".", "ticket", "groups", "models", "(", ")"),
    *("[", "]", "'a'", "1", "==", "&&", "||", "!", "?", ":", "in", "exists", "g", ",", "true"),
    *("matches", "duration", "'1h'", "+", "-", "null", "has", "map", "r'\\'", "'''", "//", "{"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=25))
def test_any_pieces_are_compiled_or_refused_with_words(pieces):
    compiled_or_refused(" ".join(pieces))


# What each may cost

LARGE = copy.deepcopy(FACTS)
LARGE["requester"]["groups"] = [f"group-{number:04}{'x' * 40}" for number in range(300)]
LARGE["request"]["models"] = [f"model-{number:04}{'x' * 180}" for number in range(200)]
LARGE["request"]["justification"] = "a" * 2000
JUSTIFICATION = "request.justification"
WORST = [
    "&&".join([f"{LISTS}.all(g, size(g+g+g+g+g+g+g+g) > 0)"] * 4),
    "&&".join([f"{LISTS}.all(g, {JUSTIFICATION}.contains(g + 'a') || true)"] * 4),
    "&&".join([f"[{','.join(['1'] * 16)}].all(g, !(g in {LISTS}))"] * 4),
    f"{LISTS}.all(g, {'&&'.join(['g != 1'] * 45)})",
    f"size({'+'.join([LISTS] * 10)}) > 0",
    f"size({'+'.join([JUSTIFICATION] * 40)}) > 0",
    "&&".join([rf"!{JUSTIFICATION}.matches('\\d{{100}}b')"] * 4),
    "&&".join([f"!{JUSTIFICATION}.matches('.*a.{{99}}b')"] * 4),
    "&&".join([f"{JUSTIFICATION}.matches('^(a|aa)+$')"] * 4),
    "&&".join([f"!{JUSTIFICATION}.matches('{'(a*)*' * 20}b')"] * 4),
    "+".join(["1"] * 99) + " > 0",
    "!" * 199 + "true",
]


@pytest.mark.parametrize("source", WORST, ids=lambda source: source[:30])
def test_the_worst_that_is_accepted_costs_milliseconds(source):
    expression = compiled(source)
    began = time.perf_counter()
    expression.holds(LARGE)
    assert time.perf_counter() - began < 0.5


DEEP = """
import sys, threading
import django
django.setup()
from accessrequests.policy import cel
sources = [
    "(" * 1000, "(" * 10 + "!" * 170 + "true" + ")" * 10, "+".join(["1"] * 99) + " > 0",
    "[1]" + "[0]" * 60 + " == 1", "request.models" + ".size()" * 45 + " > 0", "[" * 400,
    "true" + " ? true : true" * 45, "!(" * 300 + "true" + ")" * 300, "&&".join(["true"] * 99),
]
def run():
    for source in sources:
        try:
            cel.compile(source).holds(cel.SAMPLES[0])
        except cel.BadExpression:
            pass
    print("alive")
threading.stack_size(256 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_nothing_overflows_the_stack_of_a_small_thread():
    # In a process of its own: an overflow ends it, and no handler runs.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DEEP], capture_output=True, text=True, check=False
    )
    assert done.stdout == "alive\n", done.stderr


# Patterns of tickets


@pytest.mark.parametrize(
    ("text", "matches"),
    [("OPS-1", True), ("OPS-", False), ("xOPS-1", False), ("OPS-1\n", False), ("OPS-1\nx", False)],
)
def test_the_whole_ticket_must_match(text, matches):
    assert cel.matches(text, "OPS-[0-9]+") is matches


def test_an_alternative_is_held_to_the_whole_too():
    assert not cel.matches("OPS-1 and more", "OPS-1|ABC")


@pytest.mark.parametrize("pattern", ["(", "a)|(?:b", "*", "[", "a{1001}", "(?i", "(?m)^a$", "\\"])
def test_what_is_no_pattern_is_refused_and_matches_nothing(pattern):
    with pytest.raises(cel.BadExpression):
        cel.check_pattern(pattern)
    if pattern not in ("a)|(?:b", "(?m)^a$", "a{1001}"):
        assert not cel.matches("a", pattern)


def test_a_hostile_ticket_takes_no_longer():
    began = time.perf_counter()
    assert not cel.matches("a" * 100_000 + "!", "(a+)+")
    assert time.perf_counter() - began < 0.5
