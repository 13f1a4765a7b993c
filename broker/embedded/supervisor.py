"""Runs all of Keyturn on this host: starts it in order, keeps it running, stops it in order.

    with Supervisor(Path("/tmp/x"), ports=Ports.free(), say=print) as keyturn:
        keyturn.base_url, keyturn.gateway_url
        keyturn.stop_child("worker")
        keyturn.start_child("worker")

Everything is stopped when the block ends, and also when this process is killed.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import dotenv

from broker.embedded.application import Application
from broker.embedded.commands import argv
from broker.embedded.errors import StartError
from broker.embedded.keeper import Keeper, tail
from broker.embedded.ports import Ports, refuse_busy
from broker.embedded.processes import Guardian, Process, stop_recorded
from broker.embedded.servers import BASE_DIR, OpenBao, Postgres, Server, Valkey
from broker.embedded.state import State

# Each server, and the variable that names another one to use in its place.
REPLACED_BY = {"postgres": "DATABASE_URL", "valkey": "REDIS_URL", "openbao": "VAULT_ADDR"}
APPLICATION = ("web", "gateway", "worker", "beat", "upstream")
CHILDREN = (*REPLACED_BY, *APPLICATION)

# Which login to OpenBao a process has. The demo upstream has none.
VAULT_ROLE = {
    "manage": "web",
    "web": "web",
    "gateway": "gateway",
    "worker": "worker",
    "beat": "worker",
}


def own_environment() -> dict[str, str]:
    """What this process was started with, and .env beside manage.py for what that leaves out.

    Not os.environ: Django's settings add to it what an earlier `up` left in its state folder,
    and that would look like a DATABASE_URL which somebody asked for.
    """
    started_with = Path("/proc/self/environ").read_bytes().decode(errors="surrogateescape")
    pairs = (entry.partition("=") for entry in started_with.split("\0") if "=" in entry)
    file = dotenv.dotenv_values(BASE_DIR / ".env")
    return {key: value for key, value in file.items() if value is not None} | {
        key: value for key, _, value in pairs
    }


class Supervisor:
    """All of Keyturn on one host. A context manager: starts on entry, stops on exit."""

    def __init__(
        self,
        folder: Path,
        *,
        ports: Ports | None = None,
        say: Callable[[str], None] | None = None,
        without: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        temporary: bool = False,
    ) -> None:
        """Prepare to run on the state folder `folder`; nothing is started or written yet.

        `say` gets a line for people at each step, from any thread. `without` names children
        not to start (they can be started later). `temporary` removes the folder at the end,
        even if this process is killed.
        """
        self.state = State(folder)
        self.ports = ports or Ports()
        self.say = say or (lambda _line: None)
        self._environ = dict(own_environment() if environ is None else environ)
        self._temporary = temporary
        self._guardian: Guardian | None = None
        self._without = set(without)
        if unknown := self._without.difference(CHILDREN):
            raise ValueError(f"no such child: {', '.join(sorted(unknown))}")
        self.postgres = Postgres(self.state, self.ports.postgres)
        self.valkey = Valkey(self.state, self.ports.valkey)
        self.openbao = OpenBao(self.state, self.ports.openbao)
        servers: tuple[Server, ...] = (self.postgres, self.valkey, self.openbao)
        self._servers = {
            server.name: Keeper(server, self.state, say=self.say)
            for server in servers
            if not self._environ.get(REPLACED_BY[server.name])
        }
        web = f"http://127.0.0.1:{self.ports.web}/healthz/"
        gateway = f"http://127.0.0.1:{self.ports.gateway}/healthz"
        upstream = f"http://127.0.0.1:{self.ports.upstream}/healthz"
        self._application = {
            "web": self._keep("web", health=web),
            "gateway": self._keep("gateway", health=gateway),
            "worker": self._keep("worker", says="ready."),
            "beat": self._keep("beat", says="is starting"),
            "upstream": self._keep("upstream", health=upstream),
        }

    def _keep(self, name: str, *, health: str = "", says: str = "") -> Keeper:
        what = Application(
            name,
            self.state,
            lambda: self.environment(name),
            health=health,
            says=says,
        )
        return Keeper(what, self.state, say=self.say)

    # What it is called, and what it tells the processes

    @property
    def base_url(self) -> str:
        """Where people find the portal."""
        return self._environ.get("KEYTURN_BASE_URL") or f"http://localhost:{self.ports.web}"

    @property
    def gateway_url(self) -> str:
        """Where clients find the gateway."""
        return self._environ.get("KEYTURN_GATEWAY_URL") or f"http://localhost:{self.ports.gateway}"

    @property
    def upstream_url(self) -> str:
        """Where the demo upstream listens."""
        return f"http://127.0.0.1:{self.ports.upstream}"

    @property
    def database_url(self) -> str:
        """PostgreSQL, with its password."""
        return self._environ.get("DATABASE_URL") or self.postgres.url

    @property
    def redis_url(self) -> str:
        """Valkey or Redis, with its password."""
        return self._environ.get("REDIS_URL") or self.valkey.url

    @property
    def vault_addr(self) -> str:
        """OpenBao or Vault."""
        return self._environ.get("VAULT_ADDR") or self.openbao.url

    def _settings(self, role: str) -> dict[str, str]:
        """The variables of one process: what is the same for all, and its own login."""
        found = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "VAULT_ADDR": self.vault_addr,
            "VAULT_NAMESPACE": self._environ.get("VAULT_NAMESPACE") or OpenBao.namespace,
            "KEYTURN_BASE_URL": self.base_url,
            "KEYTURN_GATEWAY_URL": self.gateway_url,
            "KEYTURN_DEMO": self._environ.get("KEYTURN_DEMO") or "true",
            "KEYTURN_DEMO_UPSTREAM_URL": self.upstream_url,
            # Everything of it is on loopback, the demo upstream too.
            "KEYTURN_OUTGOING_NETWORKS": self._environ.get("KEYTURN_OUTGOING_NETWORKS")
            or "public,private,127.0.0.0/8",
            "KEYTURN_WEBHOOK_NETWORKS": self._environ.get("KEYTURN_WEBHOOK_NETWORKS")
            or "public,private,127.0.0.0/8",
        }
        self._secret(found, "KEYTURN_SECRET_KEY", "secret-key")
        self._secret(found, "KEYTURN_DEMO_UPSTREAM_KEY", "demo-upstream-key")
        if vault_role := VAULT_ROLE.get(role):
            found["VAULT_ROLE_ID"] = self._environ.get("VAULT_ROLE_ID") or vault_role
            self._secret(found, "VAULT_SECRET_ID", f"vault-{vault_role}")
        return found

    def _secret(self, found: dict[str, str], variable: str, name: str) -> None:
        """Point at the generated secret, unless the caller's environment has one."""
        own = self._environ.get(f"{variable}_FILE")
        if own or not self._environ.get(variable):
            found[f"{variable}_FILE"] = own or str(self.state.secret(name))
        else:
            found[variable] = self._environ[variable]

    def environment(self, role: str = "manage") -> dict[str, str]:
        """The environment of a child, or of a management command ("manage")."""
        found = {
            **self._environ,
            "KEYTURN_STATE_DIR": str(self.state.folder),
            "PYTHONUNBUFFERED": "1",
        }
        if role not in VAULT_ROLE:
            found.pop("VAULT_SECRET_ID", None)
        found |= self._settings(role)
        if role == "web":
            found |= {"GRANIAN_HOST": "127.0.0.1", "GRANIAN_PORT": str(self.ports.web)}
        elif role == "gateway":
            found |= {"UVICORN_HOST": "127.0.0.1", "UVICORN_PORT": str(self.ports.gateway)}
        elif role == "upstream":
            found["KEYTURN_DEMO_UPSTREAM_PORT"] = str(self.ports.upstream)
        return found

    # Children

    def child(self, name: str) -> Keeper:
        """The child of that name. Raises KeyError."""
        return (self._servers | self._application)[name]

    def pids(self) -> dict[str, int]:
        """Ids of the children that run now, by name."""
        keepers = (self._servers | self._application).values()
        return {keeper.name: keeper.pid for keeper in keepers if keeper.pid is not None}

    def stop_child(self, name: str) -> None:
        """Stop one child and keep it stopped, until `start_child`."""
        self.child(name).stop()

    def start_child(self, name: str) -> None:
        """Start one child and wait until it serves. Raises StartError."""
        self.child(name).start()

    def kill_child(self, name: str) -> None:
        """Kill one child as if it had crashed: it's started again."""
        self.child(name).signal(signal.SIGKILL)

    def manage(self, *arguments: str, name: str = "manage") -> str:
        """Run `manage.py` with `arguments`; what it printed. Raises StartError if it fails."""
        return self._run(name, [*argv("migrate", scratch="")[:2], *arguments])

    def ask(self, *arguments: str) -> str:
        """What `manage.py` with `arguments` prints, where no log may have it; empty if it fails."""
        done = subprocess.run(
            [*argv("migrate", scratch="")[:2], *arguments],
            env=self.environment("manage"),
            cwd=BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return "" if done.returncode else done.stdout.strip()

    # From start to stop

    def start(self) -> None:
        """Start everything in order. Raises StartError, with nothing left running."""
        self.state.create()
        self.state.lock()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        if left := stop_recorded(self.state.run):
            self.say(f"Ended what a killed run had left behind: {', '.join(left)}")
        refuse_busy(self.ports, [*self._servers, "web", "gateway", "upstream"])
        remove = self.state.folder if self._temporary else None
        self._guardian = Guardian(self.state.run, remove=remove)
        # Generated before threads ask for them at the same time.
        self.state.write_env(self._settings("manage"))
        for name in REPLACED_BY:
            if name not in self._servers:
                self.say(f"Using {REPLACED_BY[name]} of the environment")
        self._begin(self._servers.values())
        self._once("migrate", "Migrations")
        self._once("demo-data", "Demo data")
        self._begin(
            keeper for name, keeper in self._application.items() if name not in self._without
        )

    def _begin(self, keepers: Iterable[Keeper]) -> None:
        begun = list(keepers)
        for keeper in begun:
            keeper.begin()
        started = said = time.monotonic()
        while begun := [keeper for keeper in begun if not keeper.wait_ready(0.1)]:
            now = time.monotonic()
            if now - said >= 5:
                said = now
                names = ", ".join(keeper.what.title for keeper in begun)
                self.say(f"Waiting for {names} ({now - started:.0f} s)")

    def _once(self, name: str, title: str) -> None:
        begun = time.monotonic()
        self._run(name, argv(name, scratch=str(self.state.scratch)))
        self.say(f"{title} done after {time.monotonic() - begun:.1f} s")

    def _run(self, name: str, command: Sequence[str]) -> str:
        log = self.state.log(name)
        before = log.stat().st_size
        process = Process(
            name,
            command,
            env=self.environment("manage"),
            cwd=BASE_DIR,
            log=log,
            run_dir=self.state.run,
        )
        try:
            while (status := process.wait(1)) is None:
                pass
        finally:
            process.stop(5)
        if status:
            shown = " ".join(command[1:])
            raise StartError(
                f"`{shown}` failed with status {status}. The end of {log}:\n{tail(log, before)}"
            )
        return log.read_bytes()[before:].decode(errors="replace")

    def stop(self) -> None:
        """Stop everything: the application, then Valkey and OpenBao, then PostgreSQL.

        A second Ctrl-C while it works kills what is left. Safe to repeat.
        """
        stages = (
            list(self._application.values()),
            [keeper for name, keeper in self._servers.items() if name != "postgres"],
            [keeper for name, keeper in self._servers.items() if name == "postgres"],
        )
        try:
            for stage in stages:
                for keeper in stage:
                    keeper.ask_to_stop()
                for keeper in stage:
                    keeper.stop()
        except KeyboardInterrupt:
            for stage in stages:
                for keeper in stage:
                    keeper.kill()
            raise
        finally:
            if self._guardian is not None:
                self._guardian.close()
                self._guardian = None
            self.state.unlock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def pids_of(folder: Path) -> dict[str, int]:
    """Ids of what runs on the state folder `folder`, by name; for tests and for people."""
    found = {}
    for path in (folder / "run").glob("*.pid"):
        try:
            stat = path.read_text().split("\n")[1:2]
        except FileNotFoundError:  # between the listing and the reading it ended
            continue
        if stat:
            found[path.stem.partition("-")[2]] = int(stat[0].split()[0])
    return found


__all__ = ["CHILDREN", "Ports", "StartError", "Supervisor", "own_environment", "pids_of"]
