"""What test_schemathesis.py tells schemathesis beyond schemathesis.toml."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.generation.meta import TestPhase


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], **_: object) -> None:
    """Where calls follow from each other, begin at whole lists: by filters that are drawn nothing
    is found, and no link leads on from nothing."""
    of_scenario = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
    if of_scenario and case.method == "GET" and "{" not in case.path:
        case.query = {}
