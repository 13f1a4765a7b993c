"""Laws of scope, against generated input."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput
from endpoints.scope import MODEL_NAME_LENGTH, Scope

names = st.text(min_size=1, max_size=30) | st.sampled_from(["demo-small", "demo-large", "*", " "])
scopes = st.frozensets(names, min_size=1, max_size=8).map(Scope)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
nearly = st.fixed_dictionaries({"models": anything}) | st.dictionaries(
    st.sampled_from(["models", "tools", "Models", "models "]), anything, max_size=3
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
    assert set(data) == {"models"}
    assert scope.models == set(data["models"])
    assert scope.models, "an empty scope is none"
    assert all(0 < len(name) <= MODEL_NAME_LENGTH for name in scope.models)


@given(scopes, scopes)
def test_beyond_is_what_the_ceiling_does_not_hold(scope: Scope, ceiling: Scope) -> None:
    beyond = scope.beyond(ceiling)
    assert beyond <= scope.models
    assert not beyond & ceiling.models
    assert (not beyond) == (scope.models <= ceiling.models)


@given(scopes)
def test_nothing_is_beyond_itself(scope: Scope) -> None:
    assert scope.beyond(scope) == frozenset()


@given(scopes, scopes, scopes)
def test_within_what_is_within_is_within(one: Scope, two: Scope, three: Scope) -> None:
    """Profile, request, grant: each within the one before, so the last within the first."""
    wide = Scope(one.models | two.models | three.models)
    middle = Scope(one.models | two.models)
    assert not middle.beyond(wide)
    assert not one.beyond(middle)
    assert not one.beyond(wide)


@given(scopes, scopes, names)
def test_a_wider_ceiling_never_refuses_more(scope: Scope, ceiling: Scope, name: str) -> None:
    wider = Scope(ceiling.models | {name})
    assert scope.beyond(wider) <= scope.beyond(ceiling)


@pytest.mark.parametrize("key", ["tools", "Models", "models ", "mödels", ""])
def test_a_narrowing_that_is_not_understood_is_not_taken_for_none(key: str) -> None:
    with pytest.raises(InvalidInput, match="Unknown"):
        Scope.parse({"models": ["demo-small"], key: []})
