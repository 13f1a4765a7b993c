"""Where the CPU of a call goes, by py-spy."""

import re
import subprocess
import threading
from collections import Counter
from pathlib import Path

from tests.bench.contestants import VENV, Contestant
from tests.bench.load import wrk

# From the innermost frame outwards: the first that is one of these has spent the time.
PLACES = (
    (
        re.compile(r"\((psycopg|django)/|gateway/(recording|books)\.py"),
        "PostgreSQL: records, leases",
    ),
    (re.compile(r"\(aiohttp/"), "aiohttp, to the upstream"),
    (re.compile(r"\(uvicorn/"), "uvicorn, to the client"),
    (re.compile(r"\((gateway)/(\w+)"), ""),
    (re.compile(r"\(tests/"), "the pass-through itself"),
)
REST = "the event loop"


def shares(contestant: Contestant, folder: Path) -> dict[str, float]:
    """The share of each place in a loaded process' CPU; empty where py-spy may not look."""
    file = folder / f"{contestant.name}.txt"
    load = threading.Thread(target=wrk, args=(contestant,), kwargs={"clients": 64, "seconds": 7})
    load.start()
    argv = [str(VENV / "bin" / "py-spy"), "record", "--pid", str(contestant.pid), "--duration=5"]
    argv += ["--rate=200", "--gil", "--format=raw", "--output", str(file)]
    ran = subprocess.run(argv, capture_output=True, check=False)
    load.join()
    if ran.returncode or not file.exists():
        return {}
    found: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        found[_place(stack.split(";"))] += int(count)
    return {place: count / found.total() for place, count in found.most_common()}


def _place(stack: list[str]) -> str:
    for frame in reversed(stack):
        for pattern, name in PLACES:
            if match := pattern.search(frame):
                return name or f"gateway/{match[2]}"
    return REST
