"""A PostgreSQL that credentials of the kind `database` open, which tests stop and start alone.

Set up by the very files that operators are given (examples/database).

def test_something(target: Target, world: World) -> None:
    grant = world.grant(profile=target.profile(world))
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert target.opens(out.parts["url"])
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from broker.embedded.keeper import Keeper
from broker.embedded.ports import Ports
from broker.embedded.servers import Postgres
from endpoints.models import AccessProfile
from tests.servers import Servers
from tests.world import World

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "database"
DATABASE = "orders"
ROLE = "orders-reader"
MONITOR = "keyturn-monitor-orders"


class TargetPostgres(Postgres):
    """A second cluster beside the broker's own."""

    name = "target"
    title = "PostgreSQL (target)"


@dataclass
class Target:
    """The target, with a database `orders` in which readers see a table `orders`."""

    servers: Servers
    server: TargetPostgres
    keeper: Keeper

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.server.port}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What a profile says of it."""
        return {
            "role": ROLE,
            "target": f"postgresql://{self.address}/{DATABASE}",
            "monitor": MONITOR,
            "sslmode": "disable",
        } | changes

    def profile(self, world: World, **fields: Any) -> AccessProfile:
        """A profile of an endpoint that is opened directly."""
        endpoint = fields.pop("endpoint", None) or world.endpoint(
            with_key=False,
            dialects=["direct"],
            kind="tool",
            upstream_url=f"postgresql://{self.address}/{DATABASE}",
        )
        usual: dict[str, Any] = {
            "scope": {"operations": [f"CONNECT /{DATABASE}"]},
            "credential_kind": "database",
            "kind_settings": self.settings(),
        }
        return world.profile(endpoint=endpoint, **usual | fields)

    @contextmanager
    def superuser(self, database: str = DATABASE) -> Iterator[psycopg.Connection[Any]]:
        """A login that may do anything at the target."""
        password = self.servers.state.secret_value("postgres-superuser")
        url = f"postgresql://postgres:{password}@{self.address}/{database}?sslmode=disable"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            yield connection

    def rows(self, query: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        """What the target itself says, asked by its superuser."""
        with self.superuser() as connection:
            return connection.execute(query, values).fetchall()

    def users(self) -> set[str]:
        """Everybody at the target with a credential's name."""
        return {name for (name,) in self.rows("SELECT rolname FROM pg_roles") if name[:3] == "kt-"}

    def sessions(self, user: str) -> int:
        """How many are open in the name of this user."""
        query: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        return int(self.rows(query, user)[0][0])

    def opens(self, url: str) -> bool:
        """Whether this opens the target at this moment."""
        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                return connection.execute("SELECT count(*) FROM orders").fetchone() == (3,)
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        """Take it down; connections to it are refused."""
        self.keeper.stop()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections within the block, and answers nothing."""
        processes = self._processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """PostgreSQL's own, the parents first."""
        found = [self.keeper.pid or 0]
        for pid in found:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def start(self) -> None:
        """Have it back, with all it held."""
        self.keeper.start()


def _start(servers: Servers) -> Target:
    server = TargetPostgres(servers.state, Ports.free().postgres, testing=True)
    target = Target(servers, server, Keeper(server, servers.state, restart=False))
    target.start()
    with target.superuser("postgres") as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    password = servers.state.secret_value("target-engine")
    with target.superuser() as connection:
        connection.execute((EXAMPLES / "target.sql").read_bytes())
        connection.execute(f"ALTER ROLE keyturn_engine PASSWORD '{password}'".encode())
        connection.execute("CREATE TABLE orders AS SELECT generate_series(1, 3) AS id")
        connection.execute("GRANT SELECT ON orders TO keyturn_reader")
    _configure(target, password)
    return target


def example(name: str) -> dict[str, Any]:
    """One of the files with what operators write to OpenBao."""
    return dict(json.loads((EXAMPLES / name).read_text()))


def _configure(target: Target, password: str) -> None:
    vault = target.servers.vault
    config = example("config.json") | {"password": password}
    config["connection_url"] = (
        config["connection_url"]
        .replace("db.internal:5432", target.address)
        .replace("sslmode=verify-full", "sslmode=disable")
    )
    vault("POST", f"database/config/{DATABASE}", config)
    vault("POST", f"database/static-roles/{MONITOR}", example("monitor.json"))
    vault("POST", f"database/roles/{ROLE}", example("role.json"))


@pytest.fixture(scope="session")
def target(servers: Servers) -> Iterator[Target]:
    """A PostgreSQL target; a test that stops it starts it again."""
    target = _start(servers)
    yield target
    target.keeper.kill()


@pytest.fixture
def target_down(target: Target) -> Iterator[Target]:
    """The target, down from the beginning of the test and up again after it."""
    target.stop()
    yield target
    target.start()
