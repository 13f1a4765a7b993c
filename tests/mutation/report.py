"""What came of the mutants: JSON under build/mutation/, and docs/mutation.md from it."""

import json
import textwrap
from collections import defaultdict
from typing import Any

from tests.bench.report import ROOT, table
from tests.mutation import GROUPS, TABLES
from tests.mutation.explained import EXPLAINED

FOLDER = ROOT / "build" / "mutation"
PAGE = ROOT / "docs" / "mutation.md"
WANTED = 85  # percent
HEAD = f"""# Mutation testing

<!-- Written by `make mutation` from what it found. Words: tests/mutation/report.py. -->

`make mutation` changes the code that decides, one place at a time, and looks whether a test
notices. At least {WANTED} % of each file's changes are to be noticed; each that isn't stands below.
[mutmut](https://mutmut.readthedocs.io/) makes the changes; what only rewords a sentence isn't one.
Its own runner would start PostgreSQL, Valkey and OpenBao for each, so `tests/mutation/session.py`
tries all of a group in one session, and asks only tests that call the changed function, the
quickest first, for at most 10 seconds. `make check` asks more, so it may still notice what stands
here. Tables of moves are changed by `tests/mutation/tables.py`.
"""


def keep(name: str, found: dict[str, Any]) -> None:
    """Keep what came of a group until the page is written."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def _code(change: str) -> str:
    return "<br>".join(f"`` {line} ``".replace("|", "\\|") for line in change.splitlines())


def write() -> dict[str, str]:
    """Write docs/mutation.md of what is kept. Returns how much of each file is noticed."""
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in (*GROUPS, TABLES):
        path = FOLDER / f"{name}.json"
        if path.exists():
            for mutant in json.loads(path.read_text())["mutants"]:
                by_file[mutant["place"].partition(":")[0]].append(mutant)
    rows, sections, shares = [], "", {}
    for file, mutants in sorted(by_file.items()):
        left = [mutant for mutant in mutants if not mutant["by"]]
        noticed = len(mutants) - len(left)
        shares[file] = f"{100 * noticed / len(mutants):.1f} %"
        rows.append([f"`{file}`", len(mutants), noticed, shares[file]])
        if left:
            told = [
                [
                    f"`{mutant['place'].partition(':')[2]}`",
                    _code(mutant["change"]),
                    EXPLAINED.get((mutant["place"], mutant["change"]), "a gap in the tests"),
                ]
                for mutant in left
            ]
            sections += f"\n## {file}\n\n{table(['in', 'change', 'why unnoticed'], told)}\n"
    untried = [
        f"`{file}`"
        for name, group in GROUPS.items()
        if not (FOLDER / f"{name}.json").exists()
        for file in group.files
    ]
    if untried:
        missing = textwrap.fill(f"Not tried yet: {', '.join(untried)}.", 100)
        sections = f"\n{missing}\n{sections}"
    PAGE.write_text(f"{HEAD}\n{table(['file', 'changes', 'noticed', 'share'], rows)}\n{sections}")
    return shares
