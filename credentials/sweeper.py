"""What needs nobody to ring: each worker sweeps and looks around by itself."""

from audit.ticker import Ticker
from credentials.actions import sweep
from credentials.actions.reconciling import reconcile_if_due

# The advisory locks of whoever is at it at this moment.
SWEEPING = 0x4B45_5954  # "KEYT"
RECONCILING = 0x4B45_5952


def tickers() -> tuple[Ticker, Ticker]:
    """One sweeps each second, one looks around each minute, unless another worker's is at it."""
    return (
        Ticker("sweeper", lock=SWEEPING, every=1.0, work=sweep),
        Ticker("reconciler", lock=RECONCILING, every=60.0, work=reconcile_if_due),
    )
