"""Try all mutants, or those of the groups that are named, and write docs/mutation.md.

python -m tests.mutation [GROUP ...]
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutation import GROUPS, TABLES, report, tables

AT_ONCE = int(os.environ.get("JOBS", "2"))


def try_group(name: str) -> int:
    """The exit code of this group's session."""
    if name == TABLES:
        report.keep(name, {"broken": [], "mutants": tables.run()})
        return 0
    command = [sys.executable, "-m", "pytest", "-p", "tests.mutation.session", "-p"]
    command += ["no:cacheprovider", "-q", "-m", "not slow and not browser"]
    command += ["--hypothesis-profile=same", *GROUPS[name].tests]
    return subprocess.run(
        command, env=os.environ | {"KEYTURN_MUTATION_GROUP": name}, check=False
    ).returncode


with ThreadPoolExecutor(AT_ONCE) as pool:
    codes = list(pool.map(try_group, sys.argv[1:] or [*GROUPS, TABLES]))
print(json.dumps(report.write(), indent=2))  # noqa: T201
sys.exit(max(codes))
