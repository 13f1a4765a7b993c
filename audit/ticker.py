"""What must go on although nobody rings: a thread in each worker that works at each tick.

Celery's beat and the doorbell only make work come sooner. With beat dead, two beats or Redis gone
this goes on, by PostgreSQL alone.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable

from django.db import Error as DatabaseError
from django.db import connection

from audit.context import Origin, working_for

logger = logging.getLogger(__name__)


class Ticker(threading.Thread):
    """Calls `work` every so many seconds, unless another worker's ticker is at it.

    `lock` is the number of the advisory lock of whoever is at it at this moment.
    """

    def __init__(self, name: str, *, lock: int, every: float, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._lock, self._every, self._work = lock, every, work
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the tick at hand."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self.tick()
            except DatabaseError as error:
                logger.warning("%s can't work: %s", self.name, type(error).__name__)
            except Exception:
                # Whatever one row did to it: a thread that ended would never work again.
                logger.exception("%s went wrong", self.name)
            finally:
                # Closing gives the lock back, and leaves nothing open for a fork to inherit.
                connection.close()
            self._stopping.wait(max(0.0, self._every - (time.monotonic() - began)))

    def tick(self) -> None:
        """Work once, if nobody else's ticker is at it."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [self._lock])
            (mine,) = cursor.fetchone()
        if mine:
            with working_for(Origin(via="worker", trace=uuid.uuid4())):
                self._work()
