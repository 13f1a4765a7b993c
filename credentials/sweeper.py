"""What needs nobody to ring: each worker sweeps, rotates, looks around and raises alarm by
itself."""

from audit.ticker import Ticker
from credentials.actions import rotate_due, sweep
from credentials.actions.alerting import alert_stuck
from credentials.actions.reconciling import reconcile_if_due

# The advisory locks of whoever is at it at this moment.
SWEEPING = 0x4B45_5954  # "KEYT"
RECONCILING = 0x4B45_5952
ALERTING = 0x4B45_5953
ROTATING = 0x4B45_524F


def tickers() -> tuple[Ticker, ...]:
    """One sweeps and one rotates each second, one looks around each minute, one tells of what is
    stuck, unless another worker's is at it.

    That one is apart from the sweep, which may be waiting for the very thing that is down.
    """
    return (
        Ticker("sweeper", lock=SWEEPING, every=1.0, work=sweep),
        Ticker("rotations", lock=ROTATING, every=1.0, work=rotate_due),
        Ticker("reconciler", lock=RECONCILING, every=60.0, work=reconcile_if_due),
        Ticker("alerter", lock=ALERTING, every=5.0, work=alert_stuck),
    )
