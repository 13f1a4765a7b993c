"""Verbs on credentials, and the one path by which a grant ends.

No transaction here holds a network call: intent is committed, Vault is called, the outcome is
committed. A crash between any two leaves rows that the sweep finds due.
"""

import datetime as dt
import logging
import random
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from accessrequests.actions import chase, check_grant_authority, check_not_stopped, close_grant
from accessrequests.actions.granting import followers
from accessrequests.models import Grant
from accessrequests.permissions import check_end, check_hold
from accessrequests.states import EndReason
from accounts.door import fetch
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from audit.record import record
from broker.errors import CheckoutInProgress, Conflict, InvalidInput, NotLive, Unavailable
from credentials import push, vault
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason
from endpoints.models import EmergencyStop, Endpoint

logger = logging.getLogger(__name__)

# A mint that hasn't been confirmed within this is in doubt: longer than Vault's time-out for the
# two calls, shorter than an unconfirmed token lives.
DOUBT_AFTER = dt.timedelta(seconds=15)
# How long a worker has for one credential before another may claim it.
CLAIM = dt.timedelta(seconds=30)
LONGEST_PAUSE = 60.0  # seconds between two tries
BATCH = 200


@dataclass(frozen=True)
class CheckedOut:
    """`secret` is for the one response that hands it over, and for nothing else."""

    credential: Credential
    secret: str

    def __repr__(self) -> str:
        return f"CheckedOut({self.credential.name})"


def check_out(*, by: User, grant_id: uuid.UUID | str) -> CheckedOut:
    """Mint a credential under a live grant and hand it over. Checking out again replaces.

    Raises NotFound, Forbidden, NotLive, AuthorityLost, CheckoutInProgress, Conflict where it was
    taken back while being made, and Unavailable when Vault can't be reached; whatever was minted
    in doubt is revoked.
    """
    credential = _begin(by=by, grant_id=grant_id)
    grant = credential.grant
    lifetime = int((grant.ends_at - clock.now()).total_seconds())
    minted: vault.Minted | None = None
    try:
        if lifetime < 1:
            raise NotLive("This grant is in its last second.")
        minted = vault.mint(
            name=credential.name,
            meta={
                "credential": str(credential.pk),
                "grant": str(grant.pk),
                "request": str(grant.request_id),
            },
            lifetime=lifetime,
        )
        _confirm(credential, minted.accessor, by)
        vault.raise_ttl(minted.accessor, lifetime)
    except Exception as error:
        # Whatever went wrong, a token may be alive that nobody will be told about.
        _doubt(credential, minted.accessor if minted else "")
        if isinstance(error, vault.VaultInvalid) and minted is not None:
            raise Conflict("This credential was taken back while it was being made.") from error
        if isinstance(error, vault.VaultError):
            logger.warning("check-out of %s failed: %s", credential.name, error)
            raise Unavailable(
                "Vault can't mint a credential at the moment. Your grant is unharmed: try again "
                "in a few seconds."
            ) from error
        raise
    return CheckedOut(credential, minted.token)


@transaction.atomic
def _begin(*, by: User, grant_id: uuid.UUID | str) -> Credential:
    """First phase: everything is checked anew under lock, and the name is on record."""
    grant = fetch(Grant.objects.visible_to(by), grant_id, lock=True)
    check_hold(by, grant)
    moment = clock.now()
    if not grant.is_live(moment):
        raise NotLive(_why_not_live(grant, moment))
    check_grant_authority(grant)
    for old in grant.credentials.select_for_update().filter(
        state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
    ):
        if old.state == CredentialState.ISSUING and moment - old.created_at < DOUBT_AFTER:
            raise CheckoutInProgress
        _start_revoking(old, RevokeReason.SUPERSEDED, by)
    credential = Credential.objects.create(grant=grant, kind=grant.request.profile.credential_kind)
    record(Event.CREDENTIAL_ISSUING, by=by, about=credential, related=_concerned(credential))
    return credential


def _why_not_live(grant: Grant, moment: dt.datetime) -> str:
    if grant.ended_at is not None:
        return (
            f"This grant ended at {grant.ended_at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{grant.get_end_reason_display()}."
        )
    if moment < grant.starts_at:
        return f"This grant begins at {grant.starts_at:%Y-%m-%d %H:%M:%S} UTC."
    return f"This grant ended at {grant.ends_at:%Y-%m-%d %H:%M:%S} UTC: its time was up."


@transaction.atomic
def _confirm(credential: Credential, accessor: str, by: User) -> None:
    """Third phase: the accessor is on record, and the credential live, if its grant still is."""
    grant = Grant.objects.select_for_update().get(pk=credential.grant_id)
    moment = clock.now()
    if not grant.is_live(moment):
        raise NotLive(_why_not_live(grant, moment))
    check_not_stopped(grant.request)
    changed = Credential.objects.filter(pk=credential.pk, state=CredentialState.ISSUING).update(
        state=CredentialState.ACTIVE, accessor=accessor, issued_at=moment
    )
    if not changed:
        raise Conflict("Another check-out replaced this one while it was being made.")
    credential.refresh_from_db()
    record(
        Event.CREDENTIAL_ISSUED,
        by=by,
        about=credential,
        related=_concerned(credential),
        accessor=accessor,
    )


@transaction.atomic
def _doubt(credential: Credential, accessor: str) -> None:
    """Whatever happened, this credential must go; keep its accessor if Vault told it."""
    fresh = Credential.objects.select_for_update().get(pk=credential.pk)
    if fresh.state == CredentialState.REVOKED:
        return
    if accessor and not fresh.accessor:
        fresh.accessor = accessor
        fresh.save(update_fields=["accessor"])
    if fresh.state != CredentialState.REVOKING:
        _start_revoking(fresh, RevokeReason.DOUBT, None)


def _concerned(credential: Credential) -> tuple[Grant | User | uuid.UUID, ...]:
    grant = credential.grant
    return (grant, grant.request_id, grant.holder_id, grant.request.profile.endpoint_id)


def _start_revoking(credential: Credential, reason: RevokeReason, by: User | None) -> None:
    """Commit the intent to revoke, in the caller's transaction, on a locked row."""
    moment = clock.now()
    credential.state = CredentialState.REVOKING
    credential.revoking_since = credential.next_attempt_at = moment
    credential.revoke_reason = reason
    credential.save(update_fields=["state", "revoking_since", "next_attempt_at", "revoke_reason"])
    record(
        Event.CREDENTIAL_REVOKING,
        by=by,
        about=credential,
        related=_concerned(credential),
        reason=reason,
    )
    pk = credential.pk
    # Should it never happen: gateways poll, and the sweep finds the row by its date.
    transaction.on_commit(lambda: tell([pk]))


def tell(credentials: list[uuid.UUID]) -> None:
    """Gateways first; then the doorbell, which makes the sweep come sooner.

    Where Redis can't be reached for the one it isn't tried for the other: Celery would keep the
    caller waiting for seconds.
    """
    from credentials.tasks import sweep

    if not push.ended(credentials):
        return
    try:
        sweep.apply_async(expires=5, retry=False)
    except sweep.OperationalError as error:
        logger.warning("no doorbell (%s); the next tick finds it", type(error).__name__)


@transaction.atomic
def end_grant(
    *, grant_id: uuid.UUID | str, by: User | None, reason: EndReason | None = None
) -> Grant:
    """End a grant and start taking its credentials back: the only path by which one ends.

    By a person the reason is `given_back` for its holder and `revoked` for anybody else.
    Ending what has ended already changes nothing. Raises NotFound and Forbidden.
    """
    visible = Grant.objects.visible_to(by) if by is not None else Grant.objects.all()
    grant = fetch(visible, grant_id, lock=True)
    if by is not None:
        check_end(by, grant)
        reason = EndReason.GIVEN_BACK if grant.holder_id == by.pk else EndReason.REVOKED
    if reason is None:
        raise ValueError("Keyturn itself must say why it ends a grant")
    _end(grant, reason, by)
    return grant


def _end(grant: Grant, reason: EndReason, by: User | None) -> None:
    if not close_grant(grant, reason=reason, by=by):
        return
    for credential in grant.credentials.select_for_update().filter(
        state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
    ):
        _start_revoking(credential, RevokeReason.GRANT_ENDED, by)
    if reason != EndReason.EXPIRED:
        # What extends it was approved for somebody who still had it.
        for follower in followers(grant):
            _end(follower, reason, by)


def end_denied(grant: Grant, by: User) -> None:
    """End this locked grant in the caller's transaction: its review afterwards was denied."""
    _end(grant, EndReason.REVIEW_DENIED, by)


def end_due_grants() -> int:
    """End grants whose time is up, whose holder or endpoint is gone, or that an emergency stop is
    against; how many.

    Rows locked by another worker are its business.
    """
    moment = clock.now()
    open_grants = Grant.objects.filter(ended_at=None)
    due: list[tuple[QuerySet[Grant], EndReason]] = [
        (open_grants.filter(ends_at__lte=moment), EndReason.EXPIRED),
        (open_grants.filter(holder__is_active=False), EndReason.REQUESTER_DEACTIVATED),
        (
            open_grants.filter(request__profile__endpoint__retired_at__isnull=False),
            EndReason.ENDPOINT_RETIRED,
        ),
    ]
    count = 0
    for grants, reason in due:
        with transaction.atomic():
            for grant in _batch(grants):
                _end(grant, reason, None)
                count += 1
    return count + _end_stopped()


def _batch(grants: QuerySet[Grant]) -> list[Grant]:
    return list(
        grants.select_related(
            "request__profile__endpoint", "request__requester", "holder"
        ).select_for_update(skip_locked=True, of=("self",))[:BATCH]
    )


@transaction.atomic
def _end_stopped() -> int:
    """End grants that an emergency stop is against, in the name of whoever declared it."""
    stops = EmergencyStop.objects.against(
        OuterRef("request__profile__endpoint"), OuterRef("request__decided_at")
    )
    rows = _batch(
        Grant.objects.filter(ended_at=None, ends_at__gt=clock.now())
        .annotate(stopped_by=Subquery(stops.values("stopped_by")[:1]))
        .filter(stopped_by__isnull=False)
    )
    people = User.objects.in_bulk({row.stopped_by for row in rows})  # type: ignore[attr-defined]
    for grant in rows:
        _end(grant, EndReason.EMERGENCY_STOP, people[grant.stopped_by])  # type: ignore[attr-defined]
    return len(rows)


def _doubt_old_mints() -> int:
    """Give up mints that a crash left half-done, and credentials that outlived their grant."""
    count = 0
    with transaction.atomic():
        open_rows = Credential.objects.select_for_update(skip_locked=True, of=("self",)).filter(
            state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
        )
        half_done = Q(state=CredentialState.ISSUING, created_at__lt=clock.now() - DOUBT_AFTER)
        for credential in open_rows.filter(half_done)[:BATCH]:
            _start_revoking(credential, RevokeReason.DOUBT, None)
            count += 1
        for credential in open_rows.filter(grant__ended_at__isnull=False)[:BATCH]:
            _start_revoking(credential, RevokeReason.GRANT_ENDED, None)
            count += 1
    return count


@transaction.atomic
def _claim() -> list[Credential]:
    """Credentials to revoke now. Each is this worker's until CLAIM is over."""
    moment = clock.now()
    rows = list(
        Credential.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("grant__request__profile__endpoint", "grant__holder")
        .filter(state=CredentialState.REVOKING, next_attempt_at__lte=moment)
        .order_by("next_attempt_at")[:BATCH]
    )
    for row in rows:
        row.attempts += 1
        row.next_attempt_at = moment + CLAIM
    Credential.objects.bulk_update(rows, ["attempts", "next_attempt_at"])
    return rows


class _NotYet(Exception):
    """Vault answered, and the credential isn't proven gone: ask again soon."""


def revoke_due() -> int:
    """Revoke all that is due, until each is proven gone or has its next try set; how many went.

    Once Vault can't be reached the rest of the batch isn't tried: a time-out for each would
    outlast the claim. Where it only refuses to list what it has, those whose accessors are known
    go all the same.
    """
    claimed = _claim()
    unknown = {str(row.pk) for row in claimed if not row.accessor}
    found: dict[str, str] = {}
    down: vault.VaultDown | None = None
    not_listed: vault.VaultError | None = None
    if unknown:
        try:
            found = vault.find(unknown)
        except vault.VaultDown as error:
            down = error
        except vault.VaultError as error:
            not_listed = error
    gone = 0
    for credential in claimed:
        try:
            if down is not None:
                raise down
            if not_listed is not None and not credential.accessor:
                raise not_listed
            proof = _take_back(credential, found.get(str(credential.pk), ""))
        except vault.VaultDown as error:
            down = error
            _try_again(credential, str(error))
        except vault.VaultError as error:
            _try_again(credential, str(error))
        except _NotYet as waiting:
            _ask_again(credential, str(waiting))
        else:
            _close(credential, proof)
            gone += 1
    return gone


def _take_back(credential: Credential, found: str) -> str:
    """Revoke at Vault; how it's known to be gone. Raises _NotYet while it isn't.

    At a grant's natural end Vault's own TTL has done it already, so ask before revoking.
    """
    accessor = credential.accessor or found
    if not accessor:
        # A mint that was slow may still land: absence proves something only once an unconfirmed
        # token would have died by itself.
        patience = dt.timedelta(seconds=vault.UNCONFIRMED_TTL + 2 * settings.VAULT_TIMEOUT)
        if clock.now() < credential.created_at + patience:
            raise _NotYet("no token in Vault bears its name so far; a slow mint could still land")
        return "never confirmed, and no token in Vault bears its name"
    if not credential.accessor:
        Credential.objects.filter(pk=credential.pk, accessor="").update(accessor=accessor)
    if credential.grant.end_reason == EndReason.EXPIRED and vault.lookup(accessor) is None:
        return "Vault's own TTL ended it; lookup-accessor finds nothing"
    vault.revoke(accessor)
    if vault.lookup(accessor) is not None:
        raise _NotYet("Vault still knows it after the revoke")
    return "revoked; lookup-accessor finds nothing"


@transaction.atomic
def _close(credential: Credential, proof: str) -> None:
    moment = clock.now()
    changed = Credential.objects.filter(pk=credential.pk, state=CredentialState.REVOKING).update(
        state=CredentialState.REVOKED, revoked_at=moment, proof=proof, last_error=""
    )
    if changed:
        record(
            Event.CREDENTIAL_REVOKED,
            by=None,
            about=credential,
            related=_concerned(credential),
            proof=proof,
            attempts=credential.attempts,
        )


def _ask_again(credential: Credential, why: str) -> None:
    """Look again in a few seconds."""
    Credential.objects.filter(pk=credential.pk, state=CredentialState.REVOKING).update(
        next_attempt_at=clock.now() + dt.timedelta(seconds=random.uniform(1, 5)),  # noqa: S311
        last_error=why[:300],
    )


@transaction.atomic
def _try_again(credential: Credential, error: str) -> None:
    """Set the next try, at most a minute away, with jitter; the first failure is an event."""
    pause = min(LONGEST_PAUSE, 2.0 ** min(credential.attempts, 6)) * random.uniform(0.5, 1)  # noqa: S311
    moment = clock.now()
    Credential.objects.filter(pk=credential.pk, state=CredentialState.REVOKING).update(
        next_attempt_at=moment + dt.timedelta(seconds=pause), last_error=error[:300]
    )
    if credential.stuck_since(moment):
        logger.error("%s is stuck since %s: %s", credential, credential.revoking_since, error)
    # `last_error` can't tell: it also holds what merely was not proven yet.
    if not AuditEvent.objects.about(credential.pk).filter(event=Event.CREDENTIAL_STUCK).exists():
        record(
            Event.CREDENTIAL_STUCK,
            by=None,
            about=credential,
            related=_concerned(credential),
            error=error[:300],
        )


def store_upstream_key(*, by: User | None, endpoint: Endpoint, key: str) -> int:
    """Put an endpoint's upstream key into Vault; its version. It can't be read back here.

    Raises InvalidInput for an empty key, Unavailable when Vault can't be reached.
    """
    if not key.strip() or not key.isprintable():
        raise InvalidInput({"key": "Must be one line and not empty."})
    try:
        version = vault.store_upstream_key(endpoint.slug, key.strip())
    except vault.VaultError as error:
        raise Unavailable(f"Vault didn't store the key: {error}") from error
    with transaction.atomic():
        record(Event.SECRET_STORED, by=by, about=endpoint, version=version)
    return version


def sweep() -> int:
    """Everything that is due at this moment, whoever else may be doing the same; how much.

    The queue is the rows themselves: what a lost message, a flushed Redis or a dead worker left
    behind is found by the next sweep.
    """
    return end_due_grants() + _doubt_old_mints() + revoke_due() + chase()
