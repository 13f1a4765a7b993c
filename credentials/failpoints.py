"""Where tests kill a process. In production nothing names one, and `reached` compares two strings.

Each name is a moment between two steps of minting, revoking or rotating, at which a crash leaves
something behind. tests/faults kills at every one of them.
"""

import os
import signal
from typing import Final, Literal, get_args

Failpoint = Literal[
    "mint:before-intent",
    "mint:after-intent",
    "mint:token-made",
    "mint:made",
    "mint:recorded",
    "mint:confirmed",
    "mint:wrapped",
    "revoke:intended",
    "revoke:claimed",
    "revoke:found",
    "revoke:lease-ended",
    "revoke:done",
    "revoke:proven",
    "revoke:closed",
    "rotate:begun",
    "rotate:created",
    "rotate:stored",
    "rotate:tried",
    "rotate:published",
    "rotate:retired",
    "rotate:destroyed",
]
FAILPOINTS: Final = get_args(Failpoint)
_named: Final = os.environ.get("KEYTURN_FAILPOINT", "")


def reached(name: Failpoint) -> None:
    """Die here without a word, if a test asked for it."""
    if name == _named:
        os.kill(os.getpid(), signal.SIGKILL)
