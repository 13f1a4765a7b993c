"""Whether the tests notice when a decision is changed: `make mutation`, into docs/mutation.md.

mutmut makes the mutants. Its own runner starts a test session for each, which here means
PostgreSQL, Valkey and OpenBao; so `tests/mutation/session.py` tries all of one group within one
session, and asks of each function only the tests that call it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Files that decide, and the quickest tests that ask them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "factors": Group(
        ("accounts/factors.py", "accounts/stepup.py", "accounts/tokens.py", "accounts/linked.py"),
        ("tests/accounts", "tests/abuse/test_probing.py"),
    ),
    "permissions": Group(
        ("accessrequests/permissions.py", "endpoints/permissions.py"),
        ("tests/accessrequests/test_permissions.py",),
    ),
    "policy": Group(
        ("accessrequests/policy/effective.py", "accessrequests/policy/facts.py"),
        (
            "tests/policy/test_reading.py",
            "tests/policy/test_page.py",
            "tests/invariants/test_10_strictest_wins.py",
        ),
    ),
    "conditions": Group(("accessrequests/policy/cel.py",), ("tests/policy/test_cel.py",)),
}

TABLES = "tables"  # what tests/mutation/tables.py tries
