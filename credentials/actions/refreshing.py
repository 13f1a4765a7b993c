"""The next secret of a credential whose secrets live for minutes."""

import logging
import uuid

from django.db import transaction

from accessrequests.actions import check_grant_authority, check_not_stopped
from accessrequests.models import Grant
from accessrequests.permissions import check_hold
from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Proofs
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, Unavailable
from credentials import vault
from credentials.actions.checking_out import CheckedOut, check_live, check_proved
from credentials.actions.revoking import concerned
from credentials.kinds import kind_of
from credentials.models import Credential
from credentials.states import CredentialState

logger = logging.getLogger(__name__)


def refresh(*, by: User, grant_id: uuid.UUID | str, proofs: Proofs | None = None) -> CheckedOut:
    """Another secret of the credential that is out under a live grant. Those before it stay good
    for as long as they say.

    It takes the proof that checking out takes. Raises NotFound, Forbidden, StepUpNeeded, NotLive,
    AuthorityLost, Conflict where nothing is out that could be refreshed or it was taken back
    meanwhile, and Unavailable when Vault can't be reached.
    """
    credential = _put_off(by=by, grant_id=grant_id, proofs=proofs)
    try:
        parts = kind_of(credential.kind).refresh(credential)
    except vault.VaultError as error:
        logger.warning("refreshing %s failed: %s", credential.name, error)
        raise Unavailable(
            "Vault can't sign at the moment. What you have stays good for as long as it says: try "
            "again in a few seconds."
        ) from error
    _check_still(credential)
    return CheckedOut(credential, parts)


@transaction.atomic
def _put_off(*, by: User, grant_id: uuid.UUID | str, proofs: Proofs | None) -> Credential:
    """Everything is checked anew under lock, and the new end is on record before anything is
    signed: whatever fails from here on, the row knows how long a secret of it can be out."""
    grant = fetch(Grant.objects.visible_to(by), grant_id, lock=True)
    check_hold(by, grant)
    check_proved(by, grant, proofs)
    credential = grant.credentials.select_for_update().filter(state=CredentialState.ACTIVE).first()
    moment = clock.now()
    check_live(grant, moment)
    check_grant_authority(grant)
    if credential is None:
        raise Conflict("Nothing is checked out under this grant, so there is nothing to refresh.")
    short = kind_of(credential.kind).short
    if short is None:
        raise Conflict("This credential lasts as long as its grant: it needs no refreshing.")
    if credential.expires_at is None or credential.expires_at <= moment:
        # Gateways may have cut it already, and the sweep is about to end it.
        raise Conflict("This credential was not refreshed in time and is over. Check out anew.")
    until = min(moment + short, grant.ends_at).replace(microsecond=0)
    credential.expires_at = max(credential.expires_at, until)
    credential.save(update_fields=["expires_at"])
    record(
        Event.CREDENTIAL_REFRESHED,
        by=by,
        about=credential,
        related=concerned(credential),
        expires_at=credential.expires_at.isoformat(),
    )
    return credential


@transaction.atomic
def _check_still(credential: Credential) -> None:
    """Hand nothing out that was taken back while it was being signed."""
    grant = Grant.objects.select_for_update().get(pk=credential.grant_id)
    check_live(grant, clock.now())
    check_not_stopped(grant.request)
    state = Credential.objects.values_list("state", flat=True).get(pk=credential.pk)
    if state != CredentialState.ACTIVE:
        raise Conflict("This credential was taken back while it was being refreshed.")
