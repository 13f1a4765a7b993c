"""The sweep that needs nobody to ring: a thread in each worker.

Celery's beat and the doorbell only make a sweep come sooner. With beat dead, two beats or Redis
gone, this one goes on, by PostgreSQL alone.
"""

import logging
import threading
import time
import uuid

from django.db import Error as DatabaseError
from django.db import connection

from audit.context import Origin, working_for
from credentials.actions import sweep

logger = logging.getLogger(__name__)
EVERY = 1.0  # seconds
LOCK = 0x4B45_5954  # "KEYT": the advisory lock of whoever sweeps at this moment


class Sweeper(threading.Thread):
    """Sweeps each second, unless another worker's sweeper is at it."""

    def __init__(self) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the sweep at hand."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self.tick()
            except DatabaseError as error:
                logger.warning("can't sweep: %s", type(error).__name__)
            finally:
                # Closing gives the lock back, and leaves nothing open for a fork to inherit.
                connection.close()
            self._stopping.wait(max(0.0, EVERY - (time.monotonic() - began)))

    def tick(self) -> None:
        """One sweep, if nobody else's sweeper is at it."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
            (mine,) = cursor.fetchone()
        if mine:
            with working_for(Origin(via="worker", trace=uuid.uuid4())):
                sweep()
