"""Starts PostgreSQL, Valkey and OpenBao for a test run, before Django reads its settings.

Loaded as `-p tests.servers` (pyproject.toml). The servers are the ones that `manage.py up` runs,
set up by the same code, on free ports, in a temporary folder. They end with the test run, and
also if pytest itself is killed.
"""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.errors import StartError
from broker.embedded.keeper import Keeper
from broker.embedded.ports import Ports
from broker.embedded.processes import Guardian
from broker.embedded.servers import OpenBao, Postgres, Valkey
from broker.embedded.state import State

# What no installation has: a login that may do anything. Tests seal OpenBao with it, and look
# from outside at what the broker did.
OPERATOR = """
initialize "operator" {
  request "policy" {
    operation = "update"
    path      = "sys/policies/acl/operator"
    data = {
      policy = "path \\"*\\" { capabilities = [\\"create\\", \\"read\\", \\"update\\", \\"delete\\", \\"list\\", \\"scan\\", \\"patch\\", \\"sudo\\"] }"
    }
  }
  request "mount" {
    operation = "update"
    path      = "sys/auth/approle"
    data      = { type = "approle" }
  }
  request "role" {
    operation = "update"
    path      = "auth/approle/role/operator"
    data      = { token_policies = ["operator"] }
  }
  request "role-id" {
    operation = "update"
    path      = "auth/approle/role/operator/role-id"
    data      = { role_id = "operator" }
  }
  request "secret-id" {
    operation = "update"
    path      = "auth/approle/role/operator/custom-secret-id"
    data = {
      secret_id = { eval_type = "string", eval_source = "file", path = "secrets/vault-operator" }
    }
  }
}
"""  # noqa: E501


@dataclass
class Servers:
    """The servers of this test run. A test that stops one starts it again."""

    state: State
    postgres: Keeper
    valkey: Keeper
    openbao: Keeper
    bao: OpenBao
    pg: Postgres
    database_url: str
    redis_url: str
    vault_addr: str
    vault_namespace: str = OpenBao.namespace
    _operator: str = field(default="", repr=False)

    @property
    def folder(self) -> Path:
        """The temporary folder: logs/, secrets/, openbao/audit.log."""
        return self.state.folder

    def superuser_url(self, database: str) -> str:
        """A login that may do anything in PostgreSQL, for what stands outside of the broker."""
        password = self.state.secret_value("postgres-superuser")
        return f"postgresql://postgres:{password}@127.0.0.1:{self.pg.port}/{database}"

    def vault_secret_id_file(self, role: str) -> Path:
        """The file with the AppRole secret id of web, worker or gateway."""
        return self.bao.secret_id_file(role)

    def vault_secret_id(self, role: str) -> str:
        """The AppRole secret id of web, worker or gateway."""
        return self.vault_secret_id_file(role).read_text()

    def vault_token(self, role: str) -> str:
        """A new login of web, worker or gateway."""
        return self.bao.login(role)

    def operator_token(self) -> str:
        """A login that may do anything in any namespace, which only tests have."""
        if not self._operator:
            answer = self.bao.request(
                "POST",
                "auth/approle/login",
                {
                    "role_id": "operator",
                    "secret_id": self.state.secret_value("vault-operator"),
                },
                namespace="",
            )
            self._operator = answer["auth"]["client_token"]
        return self._operator

    def vault(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: str | None = None,
        namespace: str = OpenBao.namespace,
    ) -> dict[str, Any]:
        """Call OpenBao's API, as the operator if no token is given.

        Raises urllib.error.HTTPError for any answer but a success.
        """
        use = self.operator_token() if token is None else token
        return self.bao.request(method, path, body, token=use, namespace=namespace)

    def seal(self) -> None:
        """Seal OpenBao, as an operator would in an emergency. `unseal` ends it."""
        self.vault("PUT", "sys/seal", {}, namespace="")

    def unseal(self) -> None:
        """Restart OpenBao: with a seal key of its own that is how it unseals."""
        self.openbao.stop()
        self.openbao.start()

    def pause(self, keeper: Keeper) -> None:
        """Make a server hang: connections are taken, nothing is answered. `resume` ends it."""
        keeper.signal(signal.SIGSTOP)

    def resume(self, keeper: Keeper) -> None:
        """Let a paused server go on."""
        keeper.signal(signal.SIGCONT)

    def flush_redis(self) -> None:
        """Lose everything in Valkey, with its connections."""
        self.valkey.kill()
        self.valkey.start()


_servers: Servers | None = None


def _start(folder: Path) -> Servers:
    state = State(folder)
    state.create()
    ports = Ports.free()
    operator = folder / "operator.hcl"
    operator.write_text(OPERATOR)
    state.secret("vault-operator")
    postgres = Postgres(state, ports.postgres, testing=True)
    valkey = Valkey(state, ports.valkey)
    openbao = OpenBao(state, ports.openbao, self_init=[operator])
    keepers = (
        Keeper(postgres, state, restart=False),
        Keeper(valkey, state, restart=False),
        Keeper(openbao, state, restart=False),
    )
    for keeper in keepers:
        keeper.begin()
    try:
        for keeper in keepers:
            try:
                keeper.wait_ready()
            except StartError:
                # On a busy machine OpenBao's first start can find its KV mount not ready yet.
                # `make up` starts it again; what failed half-way is wiped.
                keeper.kill()
                keeper.start()
    except BaseException:
        for keeper in keepers:
            keeper.kill()
        raise
    return Servers(
        state,
        *keepers,
        bao=openbao,
        pg=postgres,
        database_url=postgres.url,
        redis_url=valkey.url,
        vault_addr=openbao.url,
    )


def _wanted(options: Any) -> bool:
    """Whether tests will run, rather than be listed or explained."""
    asks = ("help", "version", "collectonly", "markers", "showfixtures", "show_fixtures_per_test")
    # With `-n` each process that runs tests has servers of its own; the one that deals them none.
    deals = getattr(options, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    return not deals and not any(getattr(options, name, False) for name in asks)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Before pytest-django loads the settings, which it does in its own part of this hook."""
    global _servers
    os.environ["KEYTURN_STATE_DIR"] = "/nonexistent"  # not the one of a `make up` that may run
    if _wanted(early_config.known_args_namespace):
        os.environ.setdefault("KEYTURN_SECRET_KEY", secrets.token_urlsafe(50))
        folder = Path(tempfile.mkdtemp(prefix="keyturn-tests-"))
        run = State(folder)
        run.create()
        guardian = Guardian(run.run, remove=folder)
        early_config.add_cleanup(guardian.close)
        begun = time.monotonic()
        servers = _servers = _start(folder)
        early_config.add_cleanup(lambda: _stop(servers))
        os.environ |= {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "VAULT_ADDR": servers.vault_addr,
            "VAULT_NAMESPACE": servers.vault_namespace,
            "VAULT_ROLE_ID": "web",
            "VAULT_SECRET_ID_FILE": str(servers.vault_secret_id_file("web")),
            "KEYTURN_STATE_DIR": str(folder),
            # Counted as always, but all of a run's callers come from one address.
            "KEYTURN_API_READS_PER_MINUTE": "1000000",
            "KEYTURN_API_WRITES_PER_MINUTE": "1000000",
            # Upstreams and providers of the tests are on loopback.
            "KEYTURN_OUTGOING_NETWORKS": "public,private,127.0.0.0/8",
            "KEYTURN_WEBHOOK_NETWORKS": "public,private,127.0.0.0/8",
        }
        early_config.stash[_started] = time.monotonic() - begun
    return (yield)


_started = pytest.StashKey[float]()


def pytest_report_header(config: pytest.Config) -> str | None:
    took = config.stash.get(_started, None)
    if took is None:
        return None
    return f"servers: PostgreSQL, Valkey and OpenBao in {took:.1f} s"


def _stop(servers: Servers) -> None:
    for keeper in (servers.valkey, servers.openbao, servers.postgres):
        keeper.signal(signal.SIGCONT)
        keeper.kill()
    shutil.rmtree(servers.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers() -> Servers:
    """PostgreSQL, Valkey and OpenBao of this test run."""
    assert _servers is not None
    return _servers
