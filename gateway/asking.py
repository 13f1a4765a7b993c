"""Waiting for PostgreSQL and Vault in threads, so that no call waits for another one's question."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from credentials import vault

T = TypeVar("T")


class Unreachable(Exception):
    """PostgreSQL or Vault can't be asked."""


class Ask:
    """`await ask(function, *arguments)` runs it in a thread. Raises Unreachable."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    async def __call__(self, question: Callable[..., T], *arguments: object) -> T:
        def asked() -> T:
            close_old_connections()
            try:
                return question(*arguments)
            except DatabaseError as error:
                # Whatever happened to it, the next question gets a connection that works.
                connection.close()
                raise Unreachable(f"{type(error).__name__}: {error}"[:200]) from error
            except vault.VaultError as error:
                raise Unreachable(str(error)) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, asked)

    def stop(self) -> None:
        """Take no more questions."""
        self._threads.shutdown(wait=False, cancel_futures=True)
