"""A machine whose clock is five minutes off: no process of the broker starts there."""

import subprocess
import sys
import time

import pytest

from audit import clock
from tests.conftest import free_port, process_environment
from tests.servers import Servers

pytestmark = pytest.mark.usefixtures("committed")

# Django reads the clock by this module's name, as do we: so the process has another clock.
SKEWED = """
import runpy, sys, time
real = time.time
time.time = lambda: real() + {off}
sys.argv[:] = {argv}
runpy.run_module({argv}[0], run_name="__main__")
"""
GATEWAY = ["gateway", "--no-access-log"]
WORKER = ["celery", "--app=broker", "worker", "--concurrency=1"]


@pytest.mark.parametrize(
    ("role", "argv"),
    [
        pytest.param("web", None, marks=pytest.mark.slow),
        ("gateway", GATEWAY),
        pytest.param("worker", WORKER, marks=pytest.mark.slow),
    ],
)
def test_no_process_starts_on_a_machine_whose_clock_is_off(
    role: str, argv: list[str] | None, servers: Servers
) -> None:
    if argv is None:
        script = SKEWED.partition("sys.argv[:]")[0].format(off=-300) + "import broker.wsgi"
        said = "300.0 s behind PostgreSQL's"
    else:
        said = "300.0 s ahead of PostgreSQL's"
        port = ["--port", str(free_port())] if role == "gateway" else []
        script = SKEWED.format(off=300, argv=[*argv, *port])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=process_environment(servers, role),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr


def test_a_clock_within_two_seconds_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    for off in (-1.9, 0, 1.9):
        monkeypatch.setattr(time, "time", lambda off=off: real() + off)
        clock.check_skew()
    monkeypatch.setattr(time, "time", lambda: real() + 3)
    with pytest.raises(clock.Skewed, match="NTP"):
        clock.check_skew()
