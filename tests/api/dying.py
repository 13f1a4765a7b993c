"""The web process, killed when its first call that writes has been done and not answered."""

import os
import signal
from collections.abc import Iterable
from typing import Any

from broker.wsgi import application as real


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """As broker.wsgi, until then."""
    answer: Iterable[bytes] = real(environ, start_response)
    if environ["REQUEST_METHOD"] == "POST":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
