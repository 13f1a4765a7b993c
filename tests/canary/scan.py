"""Looks for secrets wherever one could come to rest."""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import redis
from django.db import connection

from accounts.models import Session


def spellings(secret: str) -> set[str]:
    """The secret, and what it looks like quoted, in hex, or anywhere within base64."""
    raw = secret.encode()
    found = {secret, quote(secret, safe=""), raw.hex()}
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        # The first and the last characters depend on the neighbours.
        found |= {text[4:-2], text[4:-2].replace("+", "-").replace("/", "_")}
    return found


def seen(secrets: dict[str, str], places: dict[str, str]) -> list[str]:
    """Which secret is in which place, by name."""
    return [
        f"{name} in {place}"
        for name, secret in secrets.items()
        for place, text in places.items()
        if any(spelling in text for spelling in spellings(secret))
    ]


def postgresql() -> dict[str, str]:
    """Every row of every table as text, and what sessions hold, decoded."""
    places = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT t::text FROM {table} t")  # noqa: S608
            places[table] = "\n".join(row for (row,) in cursor.fetchall())
    places["sessions"] = "\n".join(str(each.get_decoded()) for each in Session.objects.all())
    return places


def valkey(url: str) -> dict[str, str]:
    """Every key with what it holds."""
    client = redis.Redis.from_url(url)
    places = {}
    for key in client.scan_iter():
        kind = client.type(key)
        value: Any = client.dump(key)
        match kind:
            case b"string":
                value = client.get(key)
            case b"hash":
                value = client.hgetall(key)
            case b"list":
                value = client.lrange(key, 0, -1)
            case b"set":
                value = client.smembers(key)
            case b"zset":
                value = client.zrange(key, 0, -1, withscores=True)
        places[f"Valkey {key!r}"] = f"{key!r} {value!r}"
    client.close()
    return places


def files(folder: Path) -> dict[str, str]:
    """Every file below, as text."""
    return {
        str(path.relative_to(folder)): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def listening(url: str) -> Iterator[list[str]]:
    """Every command that anybody sends to Valkey in the block: messages and tasks too, which are
    gone before anybody could look for them."""
    heard: list[str] = []
    address = urlsplit(url)
    # Past redis-py, whose monitor gives up at the first binary command.
    with socket.create_connection((address.hostname or "", address.port or 0)) as wire:
        if address.password:
            wire.sendall(f"AUTH {address.password}\r\n".encode())
            assert wire.recv(100).startswith(b"+OK")
        wire.sendall(b"MONITOR\r\n")
        assert wire.recv(5).startswith(b"+OK")

        def listen() -> None:
            while data := wire.recv(65536):
                heard.append(data.decode(errors="replace"))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield heard
        wire.shutdown(socket.SHUT_RDWR)
        thread.join(5)
