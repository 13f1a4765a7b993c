"""Start processes, end them with everything they started, and never end anybody else's.

Each process leads a session of its own, so that Ctrl-C reaches the supervisor alone and a
killed parent's children can be found. It writes a record of itself before it becomes its
program: whoever comes later (the guardian below, or the next start) can tell from it whether
the process that now has that id is still the same one.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# The record is written by the process itself, before exec: there is no moment in which it runs
# unrecorded, even if its starter dies right after fork.
_RECORD_AND_EXEC = """\
umask 077
record=$1 signal=$2 folder=$3
shift 3
read -r boot < /proc/sys/kernel/random/boot_id
read -r stat < "/proc/$$/stat"
printf '%s\\n%s\\n%s\\n%s\\n' "$boot" "$stat" "$signal" "$folder" > "$record" || exit 1
exec "$@"
"""


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/<pid>/stat that tell processes apart."""

    pid: int
    state: str
    group: int
    session: int
    started: int  # clock ticks since boot

    @classmethod
    def parse(cls, line: str) -> "Stat":
        # The name, in brackets, may hold anything, brackets and spaces included.
        head, _, tail = line.rpartition(")")
        rest = tail.split()
        return cls(int(head.split()[0]), rest[0], int(rest[2]), int(rest[3]), int(rest[19]))

    @classmethod
    def of(cls, pid: int | str) -> "Stat | None":
        try:
            return cls.parse(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
        except OSError:
            return None


def _running() -> Iterator[Stat]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := Stat.of(entry.name)) and stat.state not in "ZX":
            yield stat


@dataclass(frozen=True)
class Record:
    """A started process, as its record file tells it."""

    path: Path
    boot: str
    leader: Stat
    stop_signal: signal.Signals
    folder: str  # "" or a folder that no other program's processes have as working folder

    @classmethod
    def read(cls, path: Path) -> "Record | None":
        """The record in `path`, or None if it is incomplete (its process never got to exec)."""
        try:
            boot, stat, number, folder = path.read_text().split("\n")[:4]
            return cls(path, boot, Stat.parse(stat), signal.Signals(int(number)), folder)
        except (OSError, ValueError, IndexError):
            return None

    def leader_runs(self) -> bool:
        """Whether the very process that wrote this record still runs."""
        now = Stat.of(self.leader.pid)
        return (
            now is not None
            and now.state not in "ZX"
            and now.started == self.leader.started
            and self.boot == BOOT_ID.read_text().strip()
        )

    def members(self) -> list[int]:
        """Ids of what is left of the process and of what it started."""
        if self.boot != BOOT_ID.read_text().strip():
            return []
        successor = Stat.of(self.leader.pid)
        if successor and successor.started != self.leader.started:
            # Linux gives an id away again only once no group or session uses it.
            return self._in_folder()
        found = {
            stat.pid
            for stat in _running()
            if stat.session == self.leader.pid and stat.started >= self.leader.started
        }
        return sorted(found.union(self._in_folder()))

    def _in_folder(self) -> list[int]:
        # Each backend of PostgreSQL leads a session of its own, but stays in the data folder.
        if not self.folder:
            return []
        found = []
        for stat in _running():
            with contextlib.suppress(OSError):
                process = Path(f"/proc/{stat.pid}")
                if (
                    str((process / "cwd").readlink()) == self.folder
                    and (process / "exe").readlink().name == "postgres"
                ):
                    found.append(stat.pid)
        return found

    def stop(self, grace: float) -> None:
        """Ask the leader to stop, wait up to `grace` seconds, then kill whatever is left."""
        if self.leader_runs():
            _send(self.leader.pid, self.stop_signal)
            wait_until(lambda: not self.leader_runs(), grace)
        self.kill()

    def kill(self) -> None:
        """Kill the process and everything it started; return when they are gone."""
        deadline = time.monotonic() + 10
        while (left := self.members()) and time.monotonic() < deadline:
            for pid in left:
                _send(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.path.unlink(missing_ok=True)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(met: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Ask `met` every so often until it says yes (True) or `seconds` are over (False)."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


class Process:
    """One running program, its log and its record."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        run_dir: Path,
        rank: int = 0,
        stop_signal: signal.Signals = signal.SIGTERM,
        folder: Path | None = None,
    ) -> None:
        """Start `argv`.

        What has the lower `rank` is ended first when the supervisor died and others clean up.
        `folder` names a working folder that only this program's processes have.
        Raises OSError if it can't be executed.
        """
        self.name = name
        record = run_dir / f"{rank}-{name}.pid"
        self._record_path = record
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    _RECORD_AND_EXEC,
                    "sh",
                    str(record),
                    str(int(stop_signal)),
                    str(folder or ""),
                    *argv,
                ],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stat = Stat.of(self._popen.pid)
        assert stat is not None  # noqa: S101 - not waited for yet, so at least a zombie
        self._record = Record(
            record, BOOT_ID.read_text().strip(), stat, stop_signal, str(folder or "")
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def ended(self) -> int | None:
        """None while it runs, else its exit status (negative: the signal that ended it)."""
        return self._popen.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait up to `seconds`; its exit status, or None if it still runs."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> None:
        """Ask it to stop, wait up to `grace` seconds, kill what is left. Safe to repeat."""
        if self.ended() is None:
            _send(self.pid, self._record.stop_signal)
            self.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill it and everything it started, and return when they are gone."""
        if self.ended() is None:
            _send(self.pid, signal.SIGKILL)
            self.wait(10)
        self._record.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send `number` to the program itself, such as SIGSTOP to make it hang."""
        if self.ended() is None:
            _send(self.pid, number)


def stop_recorded(run_dir: Path, grace: float = 5) -> list[str]:
    """End whatever a dead supervisor left running, in order; the names of what ran."""
    found = []
    for path in sorted(run_dir.glob("*.pid")):
        record = Record.read(path)
        if record is None:
            path.unlink(missing_ok=True)
            continue
        if record.members():
            found.append(path.stem.partition("-")[2])
            record.stop(grace)
        path.unlink(missing_ok=True)
    return found


class Guardian:
    """A fork of the supervisor that outlives its SIGKILL and ends what it started.

    It holds the reading end of a pipe. When the supervisor is gone, however it went, the pipe
    ends; the guardian stops what the records in `run_dir` name, removes `remove` (a temporary
    folder) and exits. It also keeps the supervisor's lock until then, because it inherited it.
    """

    def __init__(self, run_dir: Path, remove: Path | None = None) -> None:
        reading, self._writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            self._guard(reading, run_dir, remove)
        os.close(reading)

    @staticmethod
    def _guard(reading: int, run_dir: Path, remove: Path | None) -> NoReturn:
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            while not select.select([reading], [], [])[0]:
                pass
            stop_recorded(run_dir)
            if remove is not None:
                shutil.rmtree(remove, ignore_errors=True)
        finally:
            os._exit(0)

    def close(self) -> None:
        """Let the guardian finish and wait for it."""
        os.close(self._writing)
        os.waitpid(self.pid, 0)
