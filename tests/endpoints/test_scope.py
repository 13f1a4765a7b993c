"""Laws of scope, against generated input."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput
from endpoints.scope import COUNTS, KNOWN, LIMITS, LISTS, NAME_LENGTH, Scope

names = st.text(min_size=1, max_size=30) | st.sampled_from(
    ["demo-small", "demo-large", "*", " ", "server:web_search"]
)
few = st.frozensets(names, max_size=5)
limit = st.none() | st.integers(1, 50)
scopes = st.builds(
    Scope,
    models=few.filter(bool),
    tools=few,
    mcp_hosts=st.frozensets(st.sampled_from(["a.test", "b.test:8443"])),
    operations=st.frozensets(st.sampled_from(["GET /", "POST /api/", "* /v"])),
    **dict.fromkeys(COUNTS, limit),
    cost_budget=st.none() | st.integers(1, 5000).map(lambda n: Decimal(n) / 100),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
nearly = st.fixed_dictionaries({"models": anything}) | st.dictionaries(
    st.sampled_from([*KNOWN, "Models", "models "]), anything, max_size=3
)


@given(scopes)
def test_what_is_stored_is_read_as_the_same(scope: Scope) -> None:
    assert Scope.parse(scope.as_json()) == scope


@given(anything | nearly)
def test_anything_is_a_scope_or_is_refused_and_nothing_is_dropped(data: Any) -> None:
    try:
        scope = Scope.parse(data)
    except InvalidInput:
        return
    assert set(data) <= set(KNOWN)
    assert scope.opens_something, "an empty scope is none"
    for key in LISTS:
        assert getattr(scope, key) == set(data.get(key, []))
        assert all(0 < len(name) <= NAME_LENGTH for name in getattr(scope, key))
    for key in LIMITS:
        assert (getattr(scope, key) is None) == (data.get(key) is None)


@pytest.mark.parametrize(
    "bad",
    [
        {"models": []},
        {"models": ["m"], "token_budget": 0},
        {"models": ["m"], "token_budget": True},
        {"models": ["m"], "concurrency": 1.5},
        {"models": ["m"], "cost_budget": "NaN"},
        {"models": ["m"], "cost_budget": "Infinity"},
        {"models": ["m"], "cost_budget": "0.00001"},
        {"models": ["m"], "mcp_hosts": ["https://mcp.example.com"]},
        {"operations": ["/api/"]},
        {"operations": ["GET api"]},
        {"operations": ["GET //x"]},
        {"operations": ["GET /a/../b"]},
        {"operations": ["TRACE /"]},
    ],
)
def test_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Scope.parse(bad)


@given(scopes)
def test_nothing_is_beyond_itself(scope: Scope) -> None:
    assert not scope.beyond(scope)


@given(scopes, scopes)
def test_what_both_hold_is_within_both(one: Scope, two: Scope) -> None:
    both = one & two
    assert both == two & one
    assert not both.beyond(one)
    assert not both.beyond(two)


@given(scopes, scopes)
def test_what_is_within_is_left_as_it_is(scope: Scope, ceiling: Scope) -> None:
    if not scope.beyond(ceiling):
        both = scope & ceiling
        assert not both.beyond(scope)
        # It may be said in more words: beside `*`, other names add nothing.
        assert not scope.beyond(both)


@given(scopes, scopes, scopes)
def test_within_what_is_within_is_within(one: Scope, two: Scope, three: Scope) -> None:
    """Profile, request, grant: each within the one before, so the last within the first."""
    middle = one & two
    last = middle & three
    assert not last.beyond(one)


@given(scopes, scopes, names)
def test_a_tool_of_a_narrower_scope_is_in_the_wider(one: Scope, two: Scope, tool: str) -> None:
    if (one & two).holds_tool(tool):
        assert one.holds_tool(tool)
        assert two.holds_tool(tool)
    if not one.beyond(two) and one.holds_tool(tool):
        assert two.holds_tool(tool)


@given(scopes, scopes)
def test_a_limit_is_only_added(scope: Scope, ceiling: Scope) -> None:
    limited = scope.limited_by(ceiling)
    assert not any(key in limited.beyond(ceiling) for key in LIMITS if getattr(scope, key) is None)
    assert not limited.beyond(scope)
