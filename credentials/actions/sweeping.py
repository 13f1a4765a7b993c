"""Everything that is due, by whoever comes by."""

import time

from accessrequests.actions import chase
from accounts.actions import deactivate_ended
from credentials.actions.ending import end_due_grants
from credentials.actions.revoking import doubt_old_mints, revoke_due

# After so long the ticker or the task begins anew: a task has 45 seconds.
LONGEST = 30.0


def sweep() -> int:
    """Everything that is due at this moment, whoever else may be doing the same; how much.

    The queue is the rows themselves: what a lost message, a flushed Redis or a dead worker left
    behind is found by the next sweep. Batches of ends and of revocations take turns, so that of
    thousands that end together the first are gone before the last has ended. Revocations begin:
    they go on where a full disk lets nothing be written.
    """
    began, count, done = time.monotonic(), deactivate_ended(), 1
    while done and time.monotonic() - began < LONGEST:
        done = revoke_due() + end_due_grants() + doubt_old_mints()
        count += done
    return count + chase()
