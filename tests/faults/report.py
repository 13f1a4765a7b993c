"""What the fault suite found: JSON under build/faults/, and docs/faults.md from it.

python -m tests.faults.report
"""

import datetime as dt
import json
import os
import platform
from typing import Any

from tests.bench.report import ROOT, table

FOLDER = ROOT / "build" / "faults"
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults

<!-- Written by `make test-faults` from what it measured. Words: tests/faults/report.py. -->

`make test-faults` takes half an hour: it kills processes and servers of the broker with SIGKILL,
loses replies on the way, and after each looks at PostgreSQL, OpenBao *and* the target whether

- every credential of an ended grant is gone, by the word of what it opened, and that is on record,
- at most one is alive under each live grant,
- nothing is alive that no row accounts for.

A shorter choice of it runs in `make check`. The raw figures are in `build/faults`. Seconds are one
shared machine's; the bound is 60.

How it's done: `tests/faults/act.py` runs one action in a process of its own, which
`credentials/failpoints.py` kills at the moment that the test names.
`tests/faults/killing.py` looks at what is left. `tests/faults/proxy.py` stands between the broker
and a server and drops, loses, delays or makes up a reply.
"""
ADDED = {
    "servers": (
        "Servers and workers",
        "Seconds from the fault's end until all was on record. A mint in doubt is looked for\n"
        "until it can't land any more: 70 s.",
        "fault",
    ),
    "rotate": (
        "Killed while rotating",
        "A worker is killed at each step of a rotation. Seconds of the next one's work, until the\n"
        "provider refuses the old key and knows no other than the new one.",
        "killed at",
    ),
}
SECTIONS = ("mint", "revoke", "rotate", "servers")


def keep(name: str, title: str, text: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Keep one section's figures until the page is written."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {
        "title": title,
        "text": text,
        "columns": columns,
        "rows": rows,
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


def add(fault: str, outcome: str, seconds: float, *, to: str = "servers") -> None:
    """One more line of a section, in the place of an earlier run's."""
    path = FOLDER / f"{to}.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in known if row[0] != fault] + [[fault, outcome, f"{seconds:.1f}"]]
    title, text, first = ADDED[to]
    keep(to, title, text, [first, "what came of it", "seconds"], sorted(rows))


def write() -> None:
    """docs/faults.md, from what is kept."""
    page = HEAD
    for name in SECTIONS:
        path = FOLDER / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        ran = f"Run {found['at'][:10]}, Python {found['python']}, {found['cpus']} CPUs."
        shown = table(found["columns"], found["rows"])
        title, text, _ = ADDED.get(name, (found["title"], found["text"], ""))
        page += f"\n## {title}\n\n{text}\n\n{shown}\n\n{ran}\n"
    PAGE.write_text(page)


if __name__ == "__main__":
    write()
