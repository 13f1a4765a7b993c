"""Users at a PostgreSQL database, made and ended by Vault's database engine."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field
from ulid import ULID

from credentials import vault
from credentials.kinds import base, leases, postgres
from credentials.kinds.base import Minted, Stray, TargetDown
from credentials.models import Credential

HOST = "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
DATABASE = "[A-Za-z0-9_-]{1,63}"
NAME_LENGTH = len("kt-") + 26


def _has_port(url: str) -> str:
    if urlsplit(url).port == 0:  # raises ValueError where it's too high
        raise ValueError("Port 0 is none")
    return url


class Settings(base.Settings):
    """What a profile says of its database. docs/credential-kinds.md explains each."""

    mount: leases.Mount = "database"
    role: leases.Name
    target: Annotated[
        str,
        Field(pattern=rf"^postgresql://{HOST}(:[0-9]{{1,5}})?/{DATABASE}$"),
        AfterValidator(_has_port),
    ]
    # By this prefix the policies know it from other logins that the engine rotates.
    monitor: Annotated[str, Field(pattern=r"^keyturn-monitor[a-z0-9-]{0,40}$")]
    sslmode: Literal["verify-full", "verify-ca", "require", "disable"] = "verify-full"


class Database(leases.Leases):
    slug = "database"
    label = "Database user"
    Settings = Settings

    def describe(self, settings: Mapping[str, Any]) -> str:
        return (
            f"A user of one's own at the database {urlsplit(settings['target']).path[1:]}, with "
            f"the rights of the role {settings['role']}. Its end drops the user and closes all "
            "open sessions."
        )

    def path(self, settings: Mapping[str, Any]) -> str:
        return f"{settings['mount']}/creds/{settings['role']}"

    def target(self, credential: Credential) -> str:
        return postgres.place(credential.settings["target"])

    def take(self, credential: Credential, lease: vault.Lease, minted: Minted) -> None:
        username, password = lease.data["username"], lease.data["password"]
        minted.handles["username"] = username
        if not username.startswith(credential.name):
            raise vault.VaultInvalid(
                "the engine's username_template doesn't begin with the credential's name"
            )
        if lease.seconds > vault.UNCONFIRMED_TTL or not lease.renewable:
            raise vault.VaultInvalid(
                "the engine's role must give renewable leases of 60 s (default_ttl)"
            )
        url = urlsplit(credential.settings["target"])
        host, port, dbname = str(url.hostname), str(url.port or 5432), url.path[1:]
        minted.parts |= {
            "secret": password,
            "url": f"postgresql://{quote(username, safe='')}:{quote(password, safe='')}"
            f"@{host}:{port}/{dbname}?sslmode={credential.settings['sslmode']}",
            "username": username,
            "password": password,
            "host": host,
            "port": port,
            "dbname": dbname,
        }

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        """The user at the target too, by the name that it begins with."""
        lost = self.lost(credentials)
        found = super().find(lost)
        for settings, rows in _by_target(lost):
            there = postgres.look(settings)
            for row in rows:
                if user := there.named(row.name):
                    found.setdefault(str(row.pk), {})["username"] = user
        return found

    def revoke(self, credential: Credential) -> None:
        """Vault drops the user. Where that didn't do, the target is asked itself."""
        try:
            super().revoke(credential)
        finally:
            if credential.attempts > 1 or "lease" not in credential.handles:
                username = credential.handles.get("username")
                # Vault may have died between making the user and naming them to anybody.
                if username is None:
                    username = postgres.look(credential.settings).named(credential.name)
                if username:
                    postgres.end(credential.settings, username)

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        found: dict[str, str] = {}
        for settings, rows in _by_target(self.gone_from_vault(credentials)):
            there = postgres.look(settings)
            if there.ownerless:
                continue
            found |= {
                str(row.pk): f"neither lease nor token, and no user {row.name}… "
                f"at {postgres.place(settings['target'])}"
                for row in rows
                if not there.named(row.name)
            }
        return found

    def strays(self) -> Iterable[Stray]:
        """Leases in Vault and users at the targets. What can be reached comes first."""
        yield from super().strays()
        down: TargetDown | None = None
        for settings in {_monitor(each): each for each in self.settings_in_use()}.values():
            try:
                there = postgres.look(settings).users
            except TargetDown as error:
                down = error
                continue
            for name in there:
                key = json.dumps({"user": name, "settings": settings})
                yield Stray(postgres.place(settings["target"]), name, _credential(name), key)
        if down is not None:
            raise down

    def end_stray(self, stray: Stray) -> None:
        key = json.loads(stray.key)
        if "user" in key:
            postgres.end(key["settings"], key["user"])
        else:
            super().end_stray(stray)


def _monitor(settings: Mapping[str, Any]) -> tuple[str, str, str]:
    return settings["target"], settings["mount"], settings["monitor"]


def _by_target(
    credentials: Iterable[Credential],
) -> Iterable[tuple[dict[str, Any], list[Credential]]]:
    """Credentials whose targets the same monitor can be asked about, with its settings."""
    found: dict[tuple[str, str, str], list[Credential]] = {}
    for row in credentials:
        found.setdefault(_monitor(row.settings), []).append(row)
    return [(rows[0].settings, rows) for rows in found.values()]


def _credential(name: str) -> str:
    """The id of the credential whose name a user's name begins with; empty if it's none."""
    try:
        return str(ULID.from_str(name[3:NAME_LENGTH].upper()).to_uuid())
    except ValueError:
        return ""


KIND = Database()
