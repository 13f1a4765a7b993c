"""What people do about upstream secrets: rotate now, report a leak, enter a new key."""

import contextlib
import uuid

from django.db import transaction

from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from audit.redaction import redact
from broker.errors import Conflict, InvalidInput, Unavailable
from credentials import rotation_notices, vault
from credentials.actions.rotating import make_due
from credentials.actions.upstream_keys import (
    ring_on_commit,
    rotator_of,
    secret_of,
    store_upstream_key,
)
from credentials.models import Rotation, UpstreamSecret, Use
from credentials.rotators.manual import ROTATOR as MANUAL
from credentials.states import RotationReason, RotationState
from credentials.stopping import purpose as stopping_of
from credentials.stopping import stop
from endpoints.models import EmergencyStop, Endpoint
from endpoints.permissions import check_rotate, check_stop

NOTE_LENGTH = 500


def _text(said: str, *, required: bool) -> str:
    # Whoever reports a leak has the key at hand, and may paste it all the same.
    text = redact(" ".join(said.split()))
    if (required and not text) or len(text) > NOTE_LENGTH or "\x00" in text:
        raise InvalidInput({"reason": f"Say what happened, in at most {NOTE_LENGTH} characters."})
    return text


def purpose(endpoint: Endpoint) -> Purpose:
    """What is proved to rotate this endpoint's keys, to enter one, or to say that one is gone."""
    return Purpose(Action.ROTATE, str(endpoint.pk))


def _visible(by: User, endpoint: Endpoint) -> Endpoint:
    return fetch(Endpoint.objects.visible_to(by).select_related("owner"), endpoint.pk)


def rotate(
    *,
    by: User | None,
    endpoint: Endpoint,
    use: Use = Use.UPSTREAM,
    reason: str = "",
    proofs: Proofs = stepup.NONE,
) -> Rotation:
    """Make a rotation of this endpoint's secret due now; by an operator (`by` None) without a
    second factor.

    Raises NotFound, Forbidden, StepUpNeeded, InvalidInput, Conflict where one is under way or
    nothing is stored, and Unavailable where Vault must be asked for it and can't be.
    """
    if by is not None:
        endpoint = _visible(by, endpoint)
        check_rotate(by, endpoint)
        proofs.check(purpose(endpoint))
    reason = _text(reason, required=False)
    if endpoint.key_header == "none" and use == Use.UPSTREAM:
        raise Conflict(f"{endpoint} takes no key.")
    try:
        secret = secret_of(endpoint, use)
    except vault.VaultError as error:
        raise Unavailable("Vault can’t be asked at the moment.") from error
    with transaction.atomic():
        secret = _locked(secret)
        rotation = secret.rotations.open().first()
        if rotation is not None:
            raise Conflict(
                f"It is being rotated since {rotation.due_at:%Y-%m-%d %H:%M:%S} UTC already."
            )
        if not secret.version and not rotator_of(secret).by_itself:
            raise Conflict(f"No key is stored for {endpoint} that could be replaced.")
        rotation = make_due(secret, RotationReason.REQUEST, by=by, note=reason)
        ring_on_commit()
    return rotation


def _locked(secret: UpstreamSecret) -> UpstreamSecret:
    return (
        UpstreamSecret.objects.select_for_update(of=("self",))
        .select_related("endpoint__owner")
        .get(pk=secret.pk)
    )


def report_leak(
    *,
    by: User,
    endpoint: Endpoint,
    reason: str,
    use: Use = Use.UPSTREAM,
    stop_it: bool = False,
    proofs: Proofs = stepup.NONE,
) -> UpstreamSecret:
    """Say that an endpoint's secret is where it shouldn't be: it's rotated at once.

    For everybody who sees the endpoint, without a second factor: an alarm must be easy. `stop_it`
    stops the endpoint too, for those who may. Raises NotFound, InvalidInput for a reason that is
    missing, and what `stop` does.
    """
    endpoint = _visible(by, endpoint)
    reason = _text(reason, required=True)
    if stop_it:
        check_stop(by, endpoint)
        proofs.check(stopping_of(endpoint))
    with contextlib.suppress(vault.VaultError):
        # What can't be asked now is asked by the worker, which then makes it due.
        secret_of(endpoint, use)
    with transaction.atomic():
        secret = _locked(UpstreamSecret.objects.get(endpoint=endpoint, use=use))
        now = clock.now()
        secret.leaked_at = now
        secret.save(update_fields=["leaked_at"])
        record(
            Event.SECRET_LEAKED,
            by=by,
            about=endpoint,
            reason=reason,
            use=use,
            version=secret.version,
            stopped=stop_it,
        )
        rotation = secret.rotations.open().select_for_update(of=("self",)).first()
        if rotation is None and secret.version:
            rotation = make_due(secret, RotationReason.LEAK, by=by, note=reason)
        elif rotation is not None and rotation.state != RotationState.PUBLISHED:
            _hurry(rotation, secret)
        rotation_notices.leaked(secret, by, reason, stopped=stop_it)
        if stop_it and not EmergencyStop.objects.in_force().filter(endpoint=endpoint).exists():
            stop(by=by, endpoint=endpoint, reason=reason, proofs=proofs)
        ring_on_commit()
    return secret


def _hurry(rotation: Rotation, secret: UpstreamSecret) -> None:
    """It was due for another reason; now it's due for this one."""
    rotation.why, rotation.next_attempt_at = RotationReason.LEAK, clock.now()
    if rotation.deadline is not None:
        urgent = rotation.next_attempt_at + MANUAL.time_for(secret.settings, urgent=True)
        rotation.deadline = min(rotation.deadline, urgent)
    rotation.save(update_fields=["why", "next_attempt_at", "deadline"])


def enter_key(
    *,
    by: User,
    endpoint: Endpoint,
    key: str,
    use: Use = Use.UPSTREAM,
    proofs: Proofs,
) -> int:
    """Store a new key for an endpoint, as its owner or an administrator; its version.

    Raises NotFound, Forbidden, StepUpNeeded, and what `store_upstream_key` does.
    """
    endpoint = _visible(by, endpoint)
    check_rotate(by, endpoint)
    proofs.check(purpose(endpoint))
    if endpoint.key_header == "none" and use == Use.UPSTREAM:
        raise Conflict(f"{endpoint} takes no key.")
    return store_upstream_key(by=by, endpoint=endpoint, key=key, use=use)


@transaction.atomic
def confirm_retired(*, by: User, rotation_id: uuid.UUID | str, proofs: Proofs) -> Rotation:
    """Say that the old key was deleted at its provider; Keyturn tries it, and then believes it.

    Raises NotFound, Forbidden, StepUpNeeded, and Conflict where nobody waits for that.
    """
    rows = Rotation.objects.select_related("secret__endpoint__owner")
    rotation = fetch(rows.visible_to(by), rotation_id, lock=True)
    check_rotate(by, rotation.secret.endpoint)
    proofs.check(purpose(rotation.secret.endpoint))
    if rotation.state != RotationState.PUBLISHED:
        raise Conflict("There is no old key to be deleted yet, or it is gone already.")
    rotation.confirmed_at = rotation.next_attempt_at = clock.now()
    rotation.save(update_fields=["confirmed_at", "next_attempt_at"])
    record(
        Event.ROTATION_CONFIRMED,
        by=by,
        about=rotation,
        related=(rotation.secret.endpoint,),
        version=rotation.old_version,
    )
    ring_on_commit()
    return rotation
