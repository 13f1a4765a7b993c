"""schemathesis over the whole document, against a web process: with all checks and stateful links,
as an administrator's token and as nobody. Its reports are in build/api."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Running
from tests.openapi.conftest import Scene

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
REPORTS = HERE.parent.parent / "build" / "api"


# What follows from what is played by itself, while there are still rows for its links.
PHASES = ("stateful", "examples,coverage,fuzzing")


def play(portal: Running, name: str, auth: str) -> None:
    for phases in PHASES:
        _play(portal, f"{name}-{phases.partition(',')[0]}", auth, phases)


def _play(portal: Running, name: str, auth: str, phases: str) -> None:
    REPORTS.mkdir(parents=True, exist_ok=True)
    path = REPORTS / f"{name}.toml"
    path.write_text((HERE / "schemathesis.toml").read_text() + auth)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(path), "run"),
                *(f"{portal.url}/api/v1/schema/?format=json", "--url", portal.url),
                *("--checks", "all", "--warnings", "off", "--phases", phases),
                *("--report", "junit", "--report-junit-path", str(REPORTS / f"{name}.xml")),
                *("--max-examples", os.environ.get("EXAMPLES", "20")),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPORTS,
            env=os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")},
        )
    finally:
        path.unlink()
    (REPORTS / f"{name}.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_with_a_token(portal: Running, scene: Scene) -> None:
    play(portal, "token", f'[auth.openapi.apiToken]\nbearer = "{scene.token}"\n')


@pytest.mark.usefixtures("scene")
def test_as_nobody(portal: Running) -> None:
    play(portal, "nobody", "")
