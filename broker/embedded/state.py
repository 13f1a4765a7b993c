"""The state folder: data, logs, generated secrets, records of what runs, and the lock."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from broker.embedded.errors import StartError
from broker.embedded.processes import BOOT_ID, Stat, wait_until

LOG_LIMIT = 5_000_000  # bytes; a longer log is set aside when its process starts
ROLES = ("web", "worker", "gateway")  # each has an AppRole of its own in OpenBao


class State:
    """A folder that belongs to one supervisor at a time.

    Everything secret in it is in files of mode 0600, in folders of mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.secrets = self.folder / "secrets"
        self.run = self.folder / "run"
        self.logs = self.folder / "logs"
        self.scratch = self.folder / "scratch"
        self._lock: int | None = None

    def create(self) -> None:
        """Make the folders that are missing.

        Raises StartError if that isn't allowed or the folder belongs to somebody else.
        """
        try:
            for folder in (self.folder, self.secrets, self.run, self.logs, self.scratch):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.folder.stat().st_uid
            if owner != os.geteuid():
                raise StartError(
                    f"{self.folder} belongs to user id {owner}, and you are {os.geteuid()}. "
                    "Use the same user as before, or another folder (KEYTURN_STATE_DIR)."
                )
        except OSError as error:
            raise StartError(
                f"{self.folder} can't be used ({error.strerror}). "
                "Name another folder with KEYTURN_STATE_DIR."
            ) from error

    def lock(self, patience: float = 20) -> None:
        """Become the only supervisor of this folder.

        Waits up to `patience` seconds for the guardian of a killed supervisor to finish.
        Raises StartError if another one runs.
        """
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)

        def taken() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        while not taken():
            holder = os.pread(descriptor, 200, 0).decode().split()
            runs = len(holder) == 3 and self._runs(*holder)
            if runs or not wait_until(taken, patience, every=0.1):
                os.close(descriptor)
                who = f" (process {holder[0]})" if holder else ""
                raise StartError(
                    f"Keyturn is already running on {self.folder}{who}. Stop that one first, or "
                    "give this one another folder and other ports: --state-dir and --free-ports."
                )
            break
        me = Stat.of(os.getpid())
        assert me is not None  # noqa: S101 - this process runs
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{me.pid} {me.started} {BOOT_ID.read_text()}".encode(), 0)
        self._lock = descriptor

    @staticmethod
    def _runs(pid: str, started: str, boot: str) -> bool:
        now = Stat.of(pid)
        return (
            now is not None
            and now.state not in "ZX"
            and str(now.started) == started
            and boot == BOOT_ID.read_text().strip()
        )

    def unlock(self) -> None:
        """Let another supervisor have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secret(self, name: str, *, size: int | None = None) -> Path:
        """The file of a secret, generated when it is first asked for.

        43 URL-safe characters (256 bits) without a line end, or `size` random bytes.
        """
        path = self.secrets / name
        if not path.exists():
            value = secrets.token_bytes(size) if size else secrets.token_urlsafe(32).encode()
            write_private(path, value)
        return path

    def secret_value(self, name: str) -> str:
        """The value of `secret(name)`."""
        return self.secret(name).read_text()

    def log(self, name: str) -> Path:
        """The log of a process, set aside first if it has grown long."""
        path = self.logs / f"{name}.log"
        set_aside(path)
        path.touch(mode=0o600)
        return path

    def write_env(self, values: Mapping[str, str]) -> None:
        """Write `env`, from which broker.settings takes what the environment doesn't say."""
        lines = [
            "# Written by `manage.py up`: how other commands reach what it runs.",
            *(f"{key}={value}" for key, value in values.items()),
        ]
        write_private(self.folder / "env", ("\n".join(lines) + "\n").encode())


def set_aside(log: Path) -> None:
    """Rename a log that is longer than LOG_LIMIT, replacing the one set aside before."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
