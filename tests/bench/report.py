"""Where figures go: JSON under build/bench/, and one section each of docs/benchmarks.md."""

import datetime as dt
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Each section is written by `make bench` (the gateway's also by `make bench-gateway`), which keeps
the raw figures in build/bench/. Compare the ratios: the absolute times are one shared machine's.
"""


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; numbers with what precision makes sense."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value}"

    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def few_and_many(what: str, few: dict[str, Any], many: dict[str, Any]) -> str:
    """A table of the same calls with few rows and with many: `p95` in ms, and `queries`."""
    rows = []
    for name, a in few.items():
        b = many[name]
        ratio = f"{b['p95'] / a['p95']:.2f}×"
        found = [round(a["p95"], 1), round(b["p95"], 1), ratio, a["queries"], b["queries"]]
        rows.append([name, *found])
    columns = [what, "p95 few, ms", "p95 many, ms", "ratio", "queries few", "queries many"]
    return table(columns, rows)


def write(name: str, title: str, text: str, raw: dict[str, Any]) -> None:
    """Keep one benchmark's figures, and put its section into docs/benchmarks.md."""
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    machine: dict[str, Any] = {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    (folder / f"{name}.json").write_text(json.dumps(machine | raw, indent=2) + "\n")
    page = PAGE.read_text() if PAGE.exists() else HEAD
    ran = f"Run {machine['at'][:10]}, Python {machine['python']}, {machine['cpus']} CPUs."
    section = f"<!-- {name} -->\n## {title}\n\n{text}\n\n{ran}\n<!-- /{name} -->\n"
    pattern = re.compile(f"<!-- {name} -->.*<!-- /{name} -->\n", re.DOTALL)
    # By a function: a backslash in the text is a backslash.
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else f"{page}\n{section}"
    PAGE.write_text(page)
