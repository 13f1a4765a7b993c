"""What a worker asks a PostgreSQL target: who is there, and to end one.

By the login of a monitor, which may do that and nothing more (examples/database/target.sql).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg

from credentials import vault
from credentials.kinds.base import TargetDown

PATIENCE = 4  # seconds to connect, and for each answer
# Sessions whose user was dropped while they began: nobody's, and open all the same.
OWNERLESS = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles)
)
"""


def place(target: str) -> str:
    """host:port/database, as people name it."""
    url = urlsplit(target)
    return f"{url.hostname}:{url.port or 5432}{url.path}"


@contextmanager
def _monitoring(settings: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """The monitor's connection to the target that these settings of a `database` name."""
    where = place(settings["target"])
    url = urlsplit(settings["target"])
    user, password = vault.static_login(settings["mount"], settings["monitor"])
    try:
        with psycopg.connect(
            host=url.hostname,
            port=url.port or 5432,
            dbname=url.path[1:],
            user=user,
            password=password,
            sslmode=settings["sslmode"],
            application_name="keyturn",
            connect_timeout=PATIENCE,
            tcp_user_timeout=PATIENCE * 1000,
            options=f"-c statement_timeout={PATIENCE}s",
            autocommit=True,
        ) as connection:
            yield connection
    except psycopg.Error as error:
        first = (str(error).splitlines() or [""])[0]
        raise TargetDown(where, f"{where}: {type(error).__name__}: {first[:150]}") from error


@dataclass(frozen=True)
class There:
    """Who is at a target: `users` with a credential's name, and whether sessions are open whose
    user was dropped, so that nobody can tell whose they were."""

    users: frozenset[str]
    ownerless: bool

    def named(self, name: str) -> str:
        """The user whose name begins with this credential's; empty if there is none."""
        return next((user for user in self.users if user.startswith(name)), "")


def look(settings: dict[str, Any]) -> There:
    """Who is at the target that these settings name. Raises VaultError and TargetDown."""
    with _monitoring(settings) as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'kt-%'")
        users = frozenset(str(name) for (name,) in rows)
        # Asked second: by then a dropped user's last session shows.
        row = connection.execute(OWNERLESS).fetchone()
        return There(users, row is None or bool(row[0]))


def end(settings: dict[str, Any], name: str) -> None:
    """End a user who bears a credential's name, with all sessions; one who isn't there is fine.

    Raises TargetDown, also where something that the user left behind keeps the role there.
    """
    with _monitoring(settings) as connection:
        row = connection.execute("SELECT keyturn.end_user(%s)", [name]).fetchone()
    if row and row[0]:
        # Not in the name of the target: others there can be ended.
        raise TargetDown(name, f"{name} can't log in any more, but can't be dropped: {row[0]}")
