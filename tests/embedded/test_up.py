"""`manage.py up` as people run it: a process of its own, with real servers under it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import django
import httpx
import pytest

from broker.embedded.processes import Stat, wait_until
from broker.embedded.servers import BASE_DIR, http_status
from broker.embedded.supervisor import CHILDREN, own_environment, pids_of


class Up:
    """A running `manage.py up`."""

    def __init__(
        self,
        state: Path,
        *arguments: str,
        command: tuple[str, ...] = (sys.executable,),
        env: Mapping[str, str] = {},
    ) -> None:
        self.state = state
        self.begun = time.monotonic()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *command,
                str(BASE_DIR / "manage.py"),
                "up",
                *arguments,
            ],
            # Not the servers of this test run.
            env=own_environment() | {"KEYTURN_STATE_DIR": str(state)} | dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, seconds: float) -> None:
        found = wait_until(lambda: text in self.said or self.process.poll() is not None, seconds)
        if self.process.poll() is not None:
            self._reader.join(5)
        assert found, f"no {text!r} in {seconds} s:\n{self.said}"
        assert text in self.said, self.said

    def url(self, label: str) -> str:
        found = re.search(rf"^  {label} +(http\S+?)/?$", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    def ended(self, seconds: float) -> int:
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status


@contextmanager
def running(
    state: Path,
    *arguments: str,
    command: tuple[str, ...] = (sys.executable,),
    env: Mapping[str, str] = {},
) -> Iterator[Up]:
    # With setproctitle, which mutmut brings, granian writes its title over what /proc shows of its
    # environment.
    up = Up(state, *arguments, command=command, env={"SPT_NOENV": "1", **env})
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGINT)
            try:
                up.process.wait(40)
            except subprocess.TimeoutExpired:
                up.process.kill()
                raise


def alive(pid: int) -> bool:
    stat = Stat.of(pid)
    return stat is not None and stat.state not in "ZX"


def in_session_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        stat = Stat.of(entry.name) if entry.name.isdigit() else None
        if stat and stat.session == pid and stat.state not in "ZX":
            found.append(stat.pid)
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    state = tmp_path_factory.mktemp("up") / "state"
    with running(state, "--free-ports") as up:
        up.wait_for("Keyturn is ready.", 90)
        up.wait_for("Ctrl-C stops everything.", 5)
        yield up


def test_says_where_to_go_and_who_to_be(up: Up) -> None:
    assert http_status(up.url("Portal") + "/healthz/") == 200
    assert http_status(up.url("Gateway") + "/healthz") == 200
    assert "Sign in as" in up.said
    invited = re.search(r"^    http\S+(/welcome/kt_inv_\w{43}/)$", up.said, re.MULTILINE)
    assert invited, up.said
    assert httpx.get(up.url("Portal") + invited[1]).status_code == 302
    for log in (up.state / "logs").iterdir():
        assert b"kt_inv_" not in log.read_bytes(), log
    for title in ("PostgreSQL", "Valkey", "OpenBao", "Worker", "Beat", "Demo upstream"):
        assert f"{title} ready after" in up.said
    assert "\x1b[" not in up.said, "colour is for terminals"


@pytest.mark.parametrize("name", CHILDREN)
def test_killed_child_is_back_within_10_seconds(up: Up, name: str) -> None:
    before = pids_of(up.state)[name]
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()

    def is_back() -> bool:
        now = pids_of(up.state).get(name, before)
        # The portal's health takes in PostgreSQL, so that it tells when both are back.
        return (
            now != before
            and alive(now)
            and http_status(up.url("Portal") + "/healthz/") == 200
            and http_status(up.url("Gateway") + "/healthz") == 200
            and up.said.count("is back after") > backs
        )

    backs = up.said.count("is back after")
    assert wait_until(is_back, 10), up.said
    assert time.monotonic() - killed < 10
    assert in_session_of(before) == [], "what the killed process had started is left over"


def test_second_up_on_the_same_folder_is_refused(up: Up) -> None:
    with running(up.state, "--free-ports") as second:
        assert second.ended(30) == 1
    assert "already running" in second.said
    assert str(up.process.pid) in second.said
    assert http_status(up.url("Portal") + "/healthz/") == 200


def test_only_the_owner_reads_the_state_folder(up: Up) -> None:
    assert up.state.stat().st_mode & 0o077 == 0
    shared = [
        path
        for path in [*up.state.rglob("*")]
        if not path.is_symlink() and path.stat().st_mode & 0o077 and path.parent == up.state
    ]
    assert shared == []
    for secret in [*(up.state / "secrets").iterdir(), up.state / "env"]:
        assert secret.stat().st_mode & 0o177 == 0, secret


def test_no_secret_in_logs_or_command_lines(up: Up) -> None:
    found = {
        path.name: path.read_bytes()
        for path in (up.state / "secrets").iterdir()
        if path.name != "openbao-seal"
    }
    assert {"secret-key", "vault-web", "vault-worker", "vault-gateway", "valkey"} <= found.keys()
    places = [*(up.state / "logs").iterdir(), up.state / "openbao" / "audit.log"]
    for pid in [up.process.pid, *pids_of(up.state).values()]:
        places.append(Path(f"/proc/{pid}/cmdline"))
    for place in places:
        content = place.read_bytes()
        assert [name for name, value in found.items() if value in content] == [], place


def test_no_process_has_the_login_of_another(up: Up) -> None:
    pids = pids_of(up.state)
    for name, role in (
        ("web", b"vault-web"),
        ("gateway", b"vault-gateway"),
        ("worker", b"vault-worker"),
    ):
        environ = Path(f"/proc/{pids[name]}/environ").read_bytes().split(b"\0")
        logins = [entry for entry in environ if entry.startswith(b"VAULT_SECRET_ID")]
        assert len(logins) == 1
        assert logins[0].endswith(b"/" + role)


@pytest.mark.slow
def test_killed_supervisor_takes_all_along_and_the_next_finds_the_data(up: Up) -> None:
    """Last of those that share `up`, as it ends it."""
    secret = (up.state / "secrets" / "secret-key").read_text()
    pids = pids_of(up.state)
    up.process.kill()
    up.ended(5)
    # At once: it waits for what is still being cleaned up. Nothing but that ends the others.
    with running(up.state, "--free-ports", "--no-beat") as again:
        again.wait_for("PostgreSQL ready after", 40)
        assert [name for name, pid in pids.items() if alive(pid)] == []
        cleaned_up = time.monotonic()
        again.wait_for("Ctrl-C stops everything.", 30)
        assert time.monotonic() - cleaned_up < 10 * _slowness()
        assert (up.state / "secrets" / "secret-key").read_text() == secret

        pids = pids_of(up.state)
        assert "beat" not in pids
        again.process.send_signal(signal.SIGTERM)
        assert again.ended(30) == 0
    assert again.lines[-1] == "Stopped"
    assert [name for name, pid in pids.items() if alive(pid)] == []
    assert pids_of(up.state) == {}
    log = (up.state / "logs" / "postgres.log").read_text()
    assert log.rstrip().endswith("database system is shut down")


def _slowness() -> float:
    """How much slower than alone this shared machine is now, by its load per core."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        pytest.param("KEYTURN_WEB_PORT", "portal and REST API", marks=pytest.mark.slow),
        ("KEYTURN_POSTGRES_PORT", "PostgreSQL"),
        pytest.param("KEYTURN_OPENBAO_PORT", "OpenBao", marks=pytest.mark.slow),
    ],
)
def test_busy_port_is_named_with_the_setting_that_changes_it(
    tmp_path: Path, setting: str, part: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        elsewhere = f"--state-dir={tmp_path / 'state'}"
        with running(tmp_path / "not-this", elsewhere, env={setting: str(port)}) as up:
            assert up.ended(30) == 1
    assert f"port {port} ({part}) is in use" in up.said
    assert setting in up.said
    assert not (tmp_path / "state" / "postgres").exists(), "something was started"
    assert pids_of(tmp_path / "state") == {}


def test_interrupted_while_starting_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state, "--free-ports") as up:
        assert wait_until(lambda: "openbao" in pids_of(state), 30), up.said
        pids = pids_of(state)
        up.process.send_signal(signal.SIGINT)
        assert up.ended(30) == 0
    assert not any(map(alive, pids.values()))
    assert pids_of(state) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_works_as_an_ordinary_user() -> None:
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    packages = str(Path(django.__file__).parent.parent)
    # By way of a shell, as the supervisor does it: the first exec still has root's rights.
    attempt = (*become, "/bin/sh", "-c", 'exec "$0" -c "import django, redis"')
    usable = [
        python
        for python in (sys.executable, "/usr/bin/python3")
        if not subprocess.run([*attempt, python], env={"PYTHONPATH": packages}).returncode
    ]
    if not usable:
        pytest.skip("another user can't run this Python")
    home = Path(f"/tmp/keyturn-user-{os.getpid()}")
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    try:
        with running(
            home / "state",
            "--free-ports",
            command=(*become, usable[0]),
            env={"HOME": str(home), "PYTHONPATH": packages},
        ) as up:
            up.wait_for("Keyturn is ready.", 90)
            assert http_status(up.url("Portal") + "/healthz/") == 200
            assert Stat.of(pids_of(up.state)["postgres"]) is not None
            assert (up.state / "postgres").stat().st_uid == 65534
    finally:
        shutil.rmtree(home)
