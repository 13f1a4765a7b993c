"""The sweep that needs nobody to ring: each worker has a ticker for it."""

from audit.ticker import Ticker
from credentials.actions import sweep

LOCK = 0x4B45_5954  # "KEYT": the advisory lock of whoever sweeps at this moment


def sweeper() -> Ticker:
    """Sweeps each second, unless another worker's sweeper is at it."""
    return Ticker("sweeper", lock=LOCK, every=1.0, work=sweep)
