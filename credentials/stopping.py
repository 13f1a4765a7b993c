"""Stopping: an endpoint or everything at once, and opening it again.

A stop is one row. From its commit on nothing is handed out, approved or let through, however many
grants there are; the sweep ends them, batch by batch, by the one path.
"""

import uuid

from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, InvalidInput
from credentials.actions.telling import tell
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.models import EmergencyStop, Endpoint
from endpoints.permissions import check_lift, check_stop

REASON_LENGTH = 500


def purpose(endpoint: Endpoint | None) -> Purpose:
    """What is proved to stop this endpoint, or everything, or to end all that is live there."""
    return Purpose(Action.STOP, str(endpoint.pk) if endpoint is not None else "")


def stop(*, by: User, endpoint: Endpoint | None, reason: str, proofs: Proofs) -> EmergencyStop:
    """Let nothing through to this endpoint, or to any, until the stop is lifted.

    All that is live on it ends. `proofs` are the person's. Raises NotFound, Forbidden, InvalidInput
    for a reason that is missing, StepUpNeeded, and Conflict where it is stopped already.
    """
    return _declare(by, endpoint, reason, proofs, lifted=False)


def end_all(*, by: User, endpoint: Endpoint | None, reason: str, proofs: Proofs) -> EmergencyStop:
    """End all that is live on this endpoint, or on any; all may ask again at once.

    It is a stop that is lifted as it is declared. Raises what `stop` does, but for Conflict.
    """
    return _declare(by, endpoint, reason, proofs, lifted=True)


@transaction.atomic
def _declare(
    by: User,
    endpoint: Endpoint | None,
    reason: str,
    proofs: Proofs,
    *,
    lifted: bool,
) -> EmergencyStop:
    if endpoint is not None:
        endpoint = fetch(Endpoint.objects.visible_to(by), endpoint.pk)
    check_stop(by, endpoint)
    reason = " ".join(reason.split())
    if not reason or len(reason) > REASON_LENGTH or "\x00" in reason:
        raise InvalidInput(
            {"reason": f"Say why, for all whom it hits, in at most {REASON_LENGTH} characters."}
        )
    proofs.check(purpose(endpoint))
    now = clock.now()
    try:
        with transaction.atomic():
            row = EmergencyStop.objects.create(
                endpoint=endpoint,
                reason=reason,
                stopped_at=now,
                stopped_by=by,
                lifted_at=now if lifted else None,
                lifted_by=by if lifted else None,
            )
    except IntegrityError as error:
        # Of two at once the second finds the first one's row.
        raise Conflict(_stopped_already(endpoint)) from error
    record(
        Event.ALL_ENDED if lifted else Event.STOP_DECLARED,
        by=by,
        about=row,
        related=(endpoint,) if endpoint else (),
        reason=reason,
    )
    transaction.on_commit(lambda: _cut(endpoint))
    return row


def _stopped_already(endpoint: Endpoint | None) -> str:
    row = EmergencyStop.objects.in_force().filter(endpoint=endpoint).first()
    return row.in_words if row is not None else "It was stopped by somebody else just now."


def _cut(endpoint: Endpoint | None) -> None:
    """Tell gateways what holds no longer. Should it never happen: they poll."""
    of_it = Q() if endpoint is None else Q(grant__request__profile__endpoint=endpoint)
    rows = Credential.objects.filter(of_it, state=CredentialState.ACTIVE, grant__ended_at=None)
    tell(list(rows.values_list("pk", flat=True)))


@transaction.atomic
def lift(*, by: User, stop_id: uuid.UUID | str, proofs: Proofs) -> EmergencyStop:
    """Lift a stop: all may ask again. What it ended doesn't come back.

    Raises NotFound, Forbidden, StepUpNeeded, and Conflict where it was lifted already.
    """
    row = fetch(EmergencyStop.objects.visible_to(by), stop_id, lock=True)
    check_lift(by, row)
    proofs.check(Purpose(Action.LIFT, str(row.pk)))
    if row.lifted_at is not None:
        raise Conflict(
            f"{row.lifted_by} lifted it at {row.lifted_at:%Y-%m-%d %H:%M:%S} UTC already."
        )
    row.lifted_at, row.lifted_by = clock.now(), by
    row.save(update_fields=["lifted_at", "lifted_by"])
    record(Event.STOP_LIFTED, by=by, about=row, related=(row.endpoint,) if row.endpoint else ())
    return row
