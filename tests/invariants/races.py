"""Real races: threads, each with a database connection of its own, let go by one barrier."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection

PATIENCE = 120  # seconds until a race that hangs is a failure


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each of these calls returned or raised, all begun at the same moment."""
    outcomes: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(number: int) -> None:
        try:
            # Connecting takes longer than what is raced for: it must lie before the barrier.
            connection.ensure_connection()
            with connection.cursor() as cursor:
                # As many threads in one interpreter are slower than as many requests: those at the
                # end of the queue for a lock aren't to be sent away, which is another test's.
                for timeout in ("lock", "statement", "idle_in_transaction_session"):
                    cursor.execute(f"SET {timeout}_timeout = '{PATIENCE}s'")
            barrier.wait(PATIENCE)
            outcomes[number] = calls[number]()
        except Exception as error:  # noqa: BLE001 -- the test looks at each of them
            outcomes[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "the race hangs"
    return outcomes


def apart(call: Callable[[], Any]) -> Any:
    """The same for one call: another thread, so another connection and another login to Vault."""
    (outcome,) = at_once([call])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
