"""Having what is still to be taken back tried at once, rather than at its next turn."""

import uuid

from django.db import transaction

from accounts.door import fetch
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import Entry, record, record_many
from broker.errors import Conflict, Forbidden, NotFound
from credentials.actions.revoking import concerned
from credentials.actions.telling import tell_on_commit
from credentials.models import Credential
from credentials.standing import of_target
from credentials.states import CredentialState


@transaction.atomic
def try_now(*, by: User, credential_id: uuid.UUID | str) -> Credential:
    """Have the revocation of this credential tried at once.

    Raises NotFound, Forbidden for all but administrators, and Conflict where nothing is to be
    revoked: it's gone already, or its time hasn't come.
    """
    rows = Credential.objects.visible_to(by).select_related("grant__request__profile")
    credential = fetch(rows, credential_id, lock=True)
    _check_administrator(by)
    if credential.state == CredentialState.REVOKED:
        raise Conflict(
            f"It’s gone since {credential.revoked_at:%Y-%m-%d %H:%M:%S} UTC: {credential.proof}."
        )
    if credential.state != CredentialState.REVOKING:
        raise Conflict("Nothing is to be revoked: it isn’t ending. End its grant first.")
    credential.next_attempt_at = clock.now()
    credential.save(update_fields=["next_attempt_at"])
    record(Event.CREDENTIAL_TRIED, by=by, about=credential, related=concerned(credential))
    tell_on_commit([credential.pk])
    return credential


@transaction.atomic
def try_target_now(*, by: User, kind: str, target: str) -> int:
    """Have all that waits for its next try at this target tried at once; how many.

    Raises NotFound for who may not see them all, Forbidden for all but administrators, and
    Conflict where nothing of it is ending any more.
    """
    if not by.sees_everything:
        raise NotFound
    _check_administrator(by)
    ending = of_target(kind, target)
    moment = clock.now()
    rows = list(
        ending.select_for_update(of=("self",), skip_locked=True)
        .select_related("grant__request__profile")
        .filter(next_attempt_at__gt=moment)
        .order_by("pk")
    )
    if not rows and not ending.exists():
        raise Conflict("Nothing of it is ending any more.")
    Credential.objects.filter(pk__in=[row.pk for row in rows]).update(next_attempt_at=moment)
    record_many(
        Event.CREDENTIAL_TRIED,
        by=by,
        entries=[Entry(row, concerned(row), {"target": target}) for row in rows],
    )
    # One is enough to ring for: gateways have been told of them all when they began to end.
    tell_on_commit([row.pk for row in rows[:1]])
    return len(rows)


def _check_administrator(by: User) -> None:
    if not by.is_administrator:
        raise Forbidden("Only administrators have a revocation tried again.")
