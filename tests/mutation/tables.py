"""Mutants of tables of legal moves, which are no functions: each move left out, or turned round.

The tables become triggers of PostgreSQL by migrations; so `makemigrations --check`, a part of
`make check`, has to notice. tests/accessrequests/test_states.py holds the triggers to them.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.mutation.mutants import ROOT, Mutant, module_of

FILES = ("accessrequests/states.py", "credentials/states.py")
PROGRAM = """
import importlib.util, runpy, sys, warnings
from importlib.abc import InspectLoader, MetaPathFinder

warnings.simplefilter("ignore")
name, path, source = sys.argv[1:]

class Mutated(MetaPathFinder, InspectLoader):
    def find_spec(self, wanted, *_):
        if wanted == name:
            return importlib.util.spec_from_file_location(name, path, loader=self)

    def get_source(self, _):
        return source

sys.meta_path.insert(0, Mutated())
sys.argv = ["manage.py", "makemigrations", "--check", "--dry-run"]
runpy.run_path("manage.py", run_name="__main__")
"""


def mutate(file: str) -> Iterator[tuple[Mutant, str]]:
    """The mutants of this file's tables, each with the whole source that it makes."""
    tree = ast.parse((ROOT / file).read_text())
    for table in tree.body:
        if not (isinstance(table, ast.Assign) and isinstance(table.value, ast.Tuple)):
            continue
        moves = table.value.elts
        name = f"x_{ast.unparse(table.targets[0])}__mutmut_0"
        for at, move in enumerate(moves):
            if not isinstance(move, ast.Call):
                continue
            source, target, *_ = move.args
            was, turned = (
                f"{ast.unparse(a)} → {ast.unparse(b)}"
                for a, b in ((source, target), (target, source))
            )
            del moves[at]
            yield Mutant(module_of(file), name, f"- {was}"), ast.unparse(tree)
            moves.insert(at, move)
            move.args[:2] = target, source
            yield Mutant(module_of(file), name, f"- {was}\n+ {turned}"), ast.unparse(tree)
            move.args[:2] = source, target


def is_noticed(module: str, source: str) -> bool:
    """Whether migrations no longer fit, with this source for this module."""
    path = module.replace(".", "/") + ".py"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, path, source],
        cwd=ROOT,
        env=os.environ | {"KEYTURN_SECRET_KEY": "x" * 50, "KEYTURN_STATE_DIR": "/nonexistent"},
        capture_output=True,
        check=False,
    )
    return done.returncode != 0


def run() -> list[dict[str, object]]:
    """What came of each mutant of all tables."""
    found: list[dict[str, object]] = []
    for file in FILES:
        if is_noticed(module_of(file), (ROOT / file).read_text()):
            raise SystemExit(f"{file} fails without any mutant")
        for mutant, source in mutate(file):
            by = "makemigrations --check" if is_noticed(mutant.module, source) else ""
            found.append({"place": mutant.place, "change": mutant.change, "by": by, "asked": True})
    return found
