"""Changes that widen access: one administrator proposes, another decides.

Each kind of change says itself what it is about, what it shows and what it does (`Kind`). An app
above this one registers its own when it starts.
"""

from accounts.changes.deciding import (
    VALID,
    approve,
    can_decide,
    check_decide,
    deciders,
    expire,
    propose,
    reject,
    stale,
    withdraw,
)
from accounts.changes.kinds import Kind, Line, kind_of, kinds, make_known
from accounts.changes.rights import on_rights, rights_of

__all__ = [
    "VALID",
    "Kind",
    "Line",
    "approve",
    "can_decide",
    "check_decide",
    "deciders",
    "expire",
    "kind_of",
    "kinds",
    "make_known",
    "on_rights",
    "propose",
    "reject",
    "rights_of",
    "stale",
    "withdraw",
]
