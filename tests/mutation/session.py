"""A test session that tries every mutant of a group: `pytest -p tests.mutation.session`.

KEYTURN_MUTATION_GROUP names it. What came out is JSON in build/mutation/<group>.json.
"""

import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections import defaultdict
from typing import Any

import mutmut.mutation.trampoline
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation import GROUPS, mutants, report
from tests.mutation.mutants import ROOT, Mutant, module_of, mutate

NAME = os.environ["KEYTURN_MUTATION_GROUP"]
ONLY = os.environ.get("KEYTURN_MUTATION_FILE", "")
PATIENCE = 600.0  # seconds for a test, the first of which starts all servers
LONGEST = 10.0  # seconds of the processor for the tests that one mutant is asked by

setattr(mutmut.mutation.trampoline, "wrap_in_trampoline", mutants.trampoline)  # noqa: B010
sources: dict[str, tuple[str, list[Mutant]]] = {
    module_of(file): mutate(file) for file in GROUPS[NAME].files if ONLY in file
}


class Stuck(BaseException):
    """A mutant took so long that it counts as noticed."""


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the mutated files instead of those that they were made from."""

    def find_spec(self, name: str, *_: Any) -> Any:
        """The spec of a mutated file."""
        if name not in sources:
            return None
        path = ROOT / f"{name.replace('.', '/')}.py"
        return importlib.util.spec_from_file_location(name, path, loader=self)

    def get_source(self, fullname: str) -> str:
        """What is run."""
        return sources[fullname][0]


sys.meta_path.insert(0, Mutated())


def _forget() -> None:
    """Empty the caches of the project: what a mutant left there would count for the next."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in {"accounts", "accessrequests", "endpoints", "credentials"}:
            for value in vars(module).values():
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


class Runner:
    """Runs tests of one session again and again."""

    def __init__(self, session: pytest.Session) -> None:
        self.session = session
        self.hits: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
        self.seconds: dict[pytest.Item, float] = {}
        self.killers: dict[tuple[str, str], pytest.Item] = {}

    def passes(self, item: Any, patience: float) -> bool:
        """Whether this test passes within so many seconds."""
        state: Any = self.session._setupstate
        state.teardown_exact(item.parent)
        item._initrequest()
        signal.setitimer(signal.ITIMER_REAL, patience)
        try:
            # As if another test of the same file came next: what's made once a file stays.
            reports = runtestprotocol(item, log=False, nextitem=item.parent)
        except Stuck:
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return all(not report.failed for report in reports)

    def learn(self) -> None:
        """Run all once, unmutated: which functions each calls, and for how long it runs."""
        self.passes(self.session.items[0], PATIENCE)  # which starts the servers
        for item in self.session.items:
            _forget()
            mutants.hits.clear()
            began = time.process_time()
            if not self.passes(item, PATIENCE):
                pytest.exit(f"{item.nodeid} fails without any mutant", 3)
            self.seconds[item] = time.process_time() - began
            for hit in mutants.hits:
                self.hits[hit].append(item)

    def noticed_by(self, mutant: Mutant) -> str:
        """The test that fails by this mutant; empty if none does."""
        key = (mutant.module, mutant.function)
        tests = sorted(self.hits[key], key=lambda item: self.seconds[item])
        left, chosen = LONGEST, list[pytest.Item]()
        for item in tests:
            left -= self.seconds[item]
            if left > 0 or not chosen:
                chosen.append(item)
        if (killer := self.killers.get(key)) in chosen:
            chosen.insert(0, killer)
        mutants.activate(mutant)
        try:
            for item in chosen:
                _forget()
                if not self.passes(item, 60 + 10 * self.seconds[item]):
                    self.killers[key] = item
                    return item.nodeid
        finally:
            mutants.activate(None)
            _forget()
        return ""


def _stuck(*_: object) -> None:
    raise Stuck


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Every mutant, instead of every test once."""
    signal.signal(signal.SIGALRM, _stuck)
    runner, found = Runner(session), []
    runner.learn()
    every = [mutant for _, of_file in sources.values() for mutant in of_file]
    for number, mutant in enumerate(every):
        by = runner.noticed_by(mutant)
        asked = bool(runner.hits[mutant.module, mutant.function])
        found.append({"place": mutant.place, "change": mutant.change, "by": by, "asked": asked})
        if not by or not number % 50:
            sys.stderr.write(f"{number}/{len(every)} {mutant.place} {by or mutant.change!r}\n")
    # What the mutants left behind must not be what made tests fail.
    broken = [item.nodeid for item in session.items if not runner.passes(item, PATIENCE)]
    report.keep(NAME, {"broken": broken, "mutants": found})
    session._setupstate.teardown_exact(None)
    return True
