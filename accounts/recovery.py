"""Recovery codes: ten on paper, each of which stands in for a second factor once.

A code has 120 random bits, which no guess finds, so a keyed digest of it is stored rather than a
slow hash: by an equal digest it is found and used up in one statement (ASVS 5.0, 6.5.2).
"""

import datetime as dt
import hashlib
import hmac
import secrets

from django.conf import settings
from django.db import transaction

from accounts import factors
from accounts.models import RecoveryCode, User
from accounts.stepup import NONE, Proofs
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, InvalidInput

CODES = 10
FEW = 3  # from so many left on, the person is warned
GROUPS, GROUP = 4, 6  # of characters in a code
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing in it looks like another
_LOOKS_LIKE = str.maketrans("OIL", "011")


def left(user: User) -> int:
    """How many codes of this person are unused."""
    return RecoveryCode.objects.filter(person=user, used_at=None).count()


@transaction.atomic
def make(*, by: User, proofs: Proofs = NONE) -> list[str]:
    """Ten new codes; the old ones end. They are in the answer and nowhere else.

    Raises StepUpNeeded, and Conflict without a second factor.
    """
    User.objects.select_for_update().get(pk=by.pk)
    if not factors.has_factor(by):
        raise Conflict("Recovery codes stand in for a second factor. Set one up first.")
    # The first ones too: a session that was found open makes none for somebody who has none.
    factors.check_may_change(by, proofs)
    replaced, _ = RecoveryCode.objects.filter(person=by).delete()
    codes = [_new() for _ in range(CODES)]
    RecoveryCode.objects.bulk_create(
        RecoveryCode(person=by, digest=_digest(code)) for code in codes
    )
    record(Event.CODES_MADE, by=by, replaced=bool(replaced))
    if replaced:
        factors.tell(by, "given new recovery codes; the old ones have ended")
    return codes


def use(*, by: User, code: str) -> dt.datetime:
    """Take a recovery code of this person; when it was taken. The person is told.

    Raises InvalidInput for a wrong or used one.
    """
    with transaction.atomic():
        now = clock.now()
        # Of two that bring the same code at once, one finds it unused.
        taken = RecoveryCode.objects.filter(person=by, digest=_digest(code), used_at=None).update(
            used_at=now
        )
        if taken:
            remaining = left(by)
            record(Event.CODE_USED, by=by, left=remaining)
            factors.tell(by, f"proved by a recovery code; {remaining} are left")
        else:
            record(Event.STEP_UP_REFUSED, by=by, recovery=True)
    # After the commit, which has to keep the failure on record.
    if not taken:
        raise InvalidInput({"recovery": "This code is wrong or was used already."})
    return now


def _new() -> str:
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS))


def _digest(code: str) -> str:
    written = "".join(filter(str.isalnum, code[:200])).upper().translate(_LOOKS_LIKE)
    key = hashlib.sha256(b"keyturn.recovery_code:" + settings.SECRET_KEY.encode()).digest()
    return hmac.digest(key, written.encode(), "sha256").hex()
