"""Verbs on credentials, and the one path by which a grant ends.

No transaction here holds a network call: intent is committed, Vault is called, the outcome is
committed. A crash between any two leaves rows that the sweep finds due.
"""

from credentials.actions.alerting import alert_stuck
from credentials.actions.checking_out import WRAPPED_FOR, CheckedOut, check_out
from credentials.actions.ending import end_denied, end_due_grants, end_grant
from credentials.actions.refreshing import refresh
from credentials.actions.revoking import doubt_old_mints, revoke_due
from credentials.actions.rotating import rotate_due
from credentials.actions.rotations import confirm_retired, enter_key, report_leak, rotate
from credentials.actions.sweeping import sweep
from credentials.actions.taking_back import take_back
from credentials.actions.trying import try_now, try_target_now
from credentials.actions.unwrapping import unwrap
from credentials.actions.upstream_keys import (
    set_rotator,
    store_rotator_key,
    store_upstream_key,
)

__all__ = [
    "WRAPPED_FOR",
    "CheckedOut",
    "alert_stuck",
    "check_out",
    "confirm_retired",
    "doubt_old_mints",
    "end_denied",
    "end_due_grants",
    "end_grant",
    "enter_key",
    "refresh",
    "report_leak",
    "revoke_due",
    "rotate",
    "rotate_due",
    "set_rotator",
    "store_rotator_key",
    "store_upstream_key",
    "sweep",
    "take_back",
    "try_now",
    "try_target_now",
    "unwrap",
]
