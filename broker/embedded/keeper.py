"""Keep one process running: start it, wait until it serves, start it again when it dies."""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from broker.embedded.errors import StartError
from broker.embedded.processes import Process
from broker.embedded.state import State


def _silent(_line: str) -> None:
    """Tell nobody."""


class Keepable(Protocol):
    """What can be kept running: a server, or a process of the application."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    @property
    def start_seconds(self) -> float: ...
    @property
    def folder(self) -> Path | None: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def cwd(self) -> Path: ...

    def prepare(self) -> None: ...
    def argv(self) -> Sequence[str]: ...
    def ready(self) -> bool: ...


class Keeper:
    """Runs one program in a thread of its own until told to stop."""

    first_pause = 0.2  # seconds before a dead process is started again
    longest_pause = 5.0  # the pause doubles up to this while it keeps dying
    steady_after = 20.0  # seconds of running after which the pause is short again

    def __init__(
        self,
        what: Keepable,
        state: State,
        *,
        say: Callable[[str], None] = _silent,
        restart: bool = True,
    ) -> None:
        """`say` gets a line for people. Without `restart` a process that dies stays dead."""
        self.what = what
        self._state = state
        self._say = say
        self._restart = restart
        self._process: Process | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._serving = threading.Event()
        self._settled = threading.Event()  # serves, or has failed to
        self._failure: StartError | None = None

    @property
    def name(self) -> str:
        return self.what.name

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now, if one does."""
        process = self._process
        return process.pid if process and process.ended() is None else None

    def begin(self) -> None:
        """Start it and return at once. `wait_ready` tells how it went."""
        if self._thread is not None:
            return
        self._stopping.clear()
        self._serving.clear()
        self._settled.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._keep, name=f"keep-{self.name}", daemon=True)
        self._thread.start()

    def wait_ready(self, seconds: float | None = None) -> bool:
        """Return True when it serves, False if that isn't known after `seconds`.

        Raises StartError, with the end of its log, if it doesn't start.
        """
        settled = self._settled.wait(seconds)
        if self._failure is not None:
            raise self._failure
        return settled

    def start(self) -> None:
        """`begin` and `wait_ready`."""
        self.begin()
        self.wait_ready()

    def ask_to_stop(self) -> None:
        """Ask it to stop for good and return at once; `stop` waits."""
        self._stopping.set()
        self.signal(self.what.stop_signal)

    def stop(self, grace: float = 20) -> None:
        """Stop it for good: asked to first, killed after `grace` seconds. Safe to repeat."""
        self._end(lambda process: process.stop(grace))

    def kill(self) -> None:
        """Kill it with all it started, and don't start it again."""
        self._end(lambda process: process.kill())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program, which is started again if it dies of it."""
        if self._process is not None:
            self._process.signal(number)

    def _end(self, how: Callable[[Process], None]) -> None:
        self._stopping.set()
        process = self._process
        if process is not None:
            how(process)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        # The thread may have started another one between the two lines above.
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._settled.set()

    def _keep(self) -> None:
        pause = self.first_pause
        first = True
        while not self._stopping.is_set():
            begun = time.monotonic()
            ready = self._run_once(first=first)
            if self._stopping.is_set() or (first and not ready) or not self._restart:
                return
            first = False
            if time.monotonic() - begun > self.steady_after:
                pause = self.first_pause
            self._stopping.wait(pause)
            pause = min(pause * 2, self.longest_pause)

    def _run_once(self, *, first: bool) -> bool:
        """Run it until it ends; whether it ever served."""
        begun = time.monotonic()
        try:
            self.what.prepare()
            log = self._state.log(self.name)
            before = log.stat().st_size
            process = self._process = Process(
                self.name,
                self.what.argv(),
                env=self.what.env,
                cwd=self.what.cwd,
                log=log,
                run_dir=self._state.run,
                rank=self.what.rank,
                stop_signal=self.what.stop_signal,
                folder=self.what.folder,
            )
        except (StartError, OSError) as error:
            self._fail(first, error if isinstance(error, StartError) else StartError(str(error)))
            return False
        status: int | None = None
        while status is None and not self._stopping.is_set():
            if self.what.ready():
                self._serving.set()
                self._settled.set()
                took = time.monotonic() - begun
                self._say(f"{self.what.title} {'ready' if first else 'is back'} after {took:.1f} s")
                break
            if time.monotonic() - begun > self.what.start_seconds:
                process.kill()
            status = process.wait(0.05)
        served = self._serving.is_set()
        while status is None and not self._stopping.is_set():
            status = process.wait(0.2)
        self._serving.clear()
        if self._stopping.is_set():
            return served
        # What it started may still hold its port.
        process.kill()
        how = _ending(status)
        if served and self._restart:
            self._say(f"{self.what.title} {how}: starting it again")
        elif not served:
            self._fail(
                first,
                StartError(f"{self.what.title} {how}. The end of {log}:\n{tail(log, before)}"),
            )
        return served

    def _fail(self, first: bool, error: StartError) -> None:
        if first:
            self._failure = error
            self._settled.set()
        else:
            self._say(f"{self.what.title} doesn't start: {str(error).splitlines()[0]}")


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def tail(log: Path, start: int, lines: int = 15) -> str:
    """The last lines of a log after byte `start`, indented."""
    with log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in said[-lines:]) or "  (it said nothing)"
