"""PostgreSQL's scope_within and scope_opens_something mean what Scope means."""

import json
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings

from endpoints.scope import KNOWN, LIMITS, LISTS, Scope
from tests.endpoints.test_scope import scopes

pytestmark = pytest.mark.django_db

# NUL is refused by jsonb itself.
plain = scopes.filter(lambda scope: "\\u0000" not in json.dumps(scope.as_json()))
in_database = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)


def asked(function: str, *scopes: Any) -> Any:
    marks = ", ".join(["%s::jsonb"] * len(scopes))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}({marks})", [json.dumps(each) for each in scopes])
        return cursor.fetchone()[0]


@in_database
@given(plain, plain)
def test_within_is_what_is_not_beyond(one: Scope, two: Scope) -> None:
    for narrow, wide in ((one, two), (one & two, two), (one.limited_by(two), two), (one, one)):
        within = asked("scope_within", narrow.as_json(), wide.as_json())
        assert within == (not narrow.beyond(wide))


@in_database
@given(plain, plain)
def test_what_opens_something(one: Scope, two: Scope) -> None:
    both = one & two
    assert asked("scope_opens_something", both.as_json()) == both.opens_something


@pytest.mark.parametrize(
    "narrow",
    [
        *[{"models": ["m"], key: "x"} for key in LISTS if key != "models"],
        *[{key: [["m"]]} for key in LISTS],
        {"models": {"m": 1}},
        {"models": None},
        {"models": ["m"], "anything": 1},
        {"models": ["m", 5]},
        ["models"],
        "models",
        None,
        5,
    ],
)
def test_what_cannot_be_read_is_within_nothing(narrow: Any) -> None:
    wide = {key: ["m", "x", "*"] for key in LISTS} | {"anything": 1}
    assert asked("scope_within", narrow, wide) is False
    if not isinstance(narrow, dict):
        assert asked("scope_within", {"models": ["m"]}, narrow) is False


@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_is_compared_as_a_number(key: str) -> None:
    def held(limit: Any) -> dict[str, Any]:
        return {"models": ["m"], key: limit}

    assert asked("scope_within", held("9"), held("10")) is True
    assert asked("scope_within", held("10"), held("9.99")) is False
    assert asked("scope_within", held("NaN"), held("9")) is False
    assert asked("scope_within", held(None), held("9")) is False
    assert asked("scope_within", held("9"), held(None)) is True


def test_all_of_a_scope_is_known_to_sql() -> None:
    whole = {key: ["m"] if key in LISTS else 1 for key in KNOWN}
    assert asked("scope_within", whole, whole) is True
