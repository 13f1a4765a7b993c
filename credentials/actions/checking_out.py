"""Checking out: mint in two phases, hand over once."""

import datetime as dt
import logging
import uuid
from dataclasses import dataclass, field

from django.db import transaction

from accessrequests.actions import check_grant_authority, check_not_stopped
from accessrequests.facts import effective_for
from accessrequests.models import Grant
from accessrequests.permissions import check_hold
from accounts import factors, stepup
from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import CheckoutInProgress, Conflict, NotLive, Unavailable
from credentials import vault
from credentials.actions.revoking import DOUBT_AFTER, concerned, start_revoking
from credentials.failpoints import reached
from credentials.kinds import kind_of
from credentials.kinds.base import Minted, TargetDown
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason
from endpoints.kinds import Revocation

logger = logging.getLogger(__name__)

# For how long a wrapped secret waits for its first reader, in seconds.
WRAPPED_FOR = 300
RESTS_ON = (
    "holder",
    "request__requester",
    "request__on_behalf_of",
    "request__profile__endpoint",
    "request__profile__requesters",
    "request__profile__reviewers",
)


@dataclass(frozen=True)
class CheckedOut:
    """`parts` are for the one response that hands them over, and for nothing else.

    Where it was asked for wrapped, they're one part: the token that unwraps it, once.
    """

    credential: Credential
    parts: dict[str, str] = field(repr=False)
    wrapped: bool = False

    @property
    def secret(self) -> str:
        """What one pastes where a key is asked for."""
        return self.parts["secret"]


def check_out(
    *, by: User, grant_id: uuid.UUID | str, wrap: bool = False, proofs: Proofs | None = None
) -> CheckedOut:
    """Mint a credential under a live grant and hand it over. Checking out again replaces.

    `wrap` hands over a token instead, which gives the secret to its first reader and to nobody
    else. `proofs` are those of the person whose session asks; programs, which have none, come
    without. Raises NotFound, Forbidden, StepUpNeeded, NotLive, AuthorityLost, CheckoutInProgress,
    Conflict where it was taken back while being made, and Unavailable when Vault or the target
    can't be reached; whatever was minted in doubt is revoked.
    """
    reached("mint:before-intent")
    credential = _begin(by=by, grant_id=grant_id, proofs=proofs)
    reached("mint:after-intent")
    grant = credential.grant
    kind = kind_of(credential.kind)
    lifetime = int((grant.ends_at - clock.now()).total_seconds())
    minted = Minted()
    try:
        if lifetime < 1:
            raise NotLive("This grant is in its last second.")
        kind.mint(credential, lifetime, minted)
        reached("mint:made")
        _confirm(credential, minted, by)
        reached("mint:recorded")
        kind.confirm(credential, lifetime)
        reached("mint:confirmed")
        parts = minted.parts if not wrap else _wrap(credential, minted.parts, lifetime)
    except Exception as error:
        # Whatever went wrong, something may be alive that nobody will be told about.
        _doubt(credential, minted)
        if isinstance(error, vault.VaultInvalid) and credential.state == CredentialState.ACTIVE:
            raise Conflict("This credential was taken back while it was being made.") from error
        if isinstance(error, vault.VaultError | TargetDown):
            logger.warning("check-out of %s failed: %s", credential.name, error)
            raise Unavailable(
                "Vault can't mint a credential at the moment. Your grant is unharmed: try again "
                "in a few seconds."
            ) from error
        raise
    return CheckedOut(credential, parts, wrap)


def _wrap(credential: Credential, parts: dict[str, str], lifetime: int) -> dict[str, str]:
    wrapped = vault.wrap(parts, seconds=min(WRAPPED_FOR, lifetime))
    changed = Credential.objects.filter(pk=credential.pk, state=CredentialState.ACTIVE).update(
        wrapped_accessor=wrapped.accessor
    )
    if not changed:
        raise Conflict("This credential was taken back while it was being made.")
    reached("mint:wrapped")
    return {"secret": wrapped.token}


@transaction.atomic
def _begin(*, by: User, grant_id: uuid.UUID | str, proofs: Proofs | None = None) -> Credential:
    """First phase: everything is checked anew under lock, and the name is on record."""
    visible = Grant.objects.visible_to(by).select_related(*RESTS_ON)
    grant = fetch(visible.prefetch_related("request__reviews__reviewer"), grant_id, lock=True)
    check_hold(by, grant)
    check_proved(by, grant, proofs)
    moment = clock.now()
    check_live(grant, moment)
    check_grant_authority(grant)
    for old in grant.credentials.select_for_update().filter(
        state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
    ):
        if old.state == CredentialState.ISSUING and moment - old.created_at < DOUBT_AFTER:
            raise CheckoutInProgress
        start_revoking([old], RevokeReason.SUPERSEDED, by)
    profile = grant.request.profile
    credential = Credential.objects.create(
        grant=grant, kind=profile.credential_kind, settings=profile.kind_settings
    )
    record(Event.CREDENTIAL_ISSUING, by=by, about=credential, related=concerned(credential))
    return credential


def purpose(grant: Grant) -> Purpose:
    """What is proved to check out under this grant."""
    return Purpose(Action.CHECK_OUT, str(grant.pk))


def proof_age(by: User, grant: Grant) -> dt.timedelta | None:
    """How fresh this person's second factor must be to check out in a session; None where they
    have none and policy doesn't ask for one."""
    asked = effective_for(grant.request.profile).requester_factor_age
    if asked is None and not factors.has_factor(by):
        return None
    return stepup.shortest(asked)


def check_proved(by: User, grant: Grant, proofs: Proofs | None) -> None:
    """Raise StepUpNeeded where a session takes a second factor proved just now."""
    if proofs is None:
        return
    age = proof_age(by, grant)
    if age is not None:
        proofs.check(purpose(grant), age=age)


def check_live(grant: Grant, moment: dt.datetime) -> None:
    """Raise NotLive, saying why, unless this grant holds at this moment."""
    if not grant.is_live(moment):
        raise NotLive(_why_not_live(grant, moment))


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
def _confirm(credential: Credential, minted: Minted, by: User) -> None:
    """Third phase: what finds it is on record, and it's live, if its grant still is."""
    grant = Grant.objects.select_for_update().get(pk=credential.grant_id)
    request = credential.grant.request  # of which nothing that counts here ever changes
    moment = clock.now()
    check_live(grant, moment)
    check_not_stopped(request)
    changes = {
        "state": CredentialState.ACTIVE,
        "accessor": minted.accessor,
        "handles": minted.handles,
        "expires_at": minted.expires_at,
        "issued_at": moment,
    }
    rows = Credential.objects.filter(pk=credential.pk, state=CredentialState.ISSUING)
    if not rows.update(**changes):
        raise Conflict("Another check-out replaced this one while it was being made.")
    for name, value in changes.items():
        setattr(credential, name, value)
    record(
        Event.CREDENTIAL_ISSUED,
        by=by,
        about=credential,
        related=concerned(credential),
        accessor=minted.accessor,
        **minted.handles,
    )
    if kind_of(credential.kind).revocation(credential.settings) == Revocation.BY_ROTATION:
        record(
            Event.SECRET_EXPOSED,
            by=by,
            about=request.profile.endpoint,
            related=(credential, *concerned(credential)[:-1]),
            **minted.handles,
        )


@transaction.atomic
def _doubt(credential: Credential, minted: Minted) -> None:
    """Whatever happened, this credential must go; keep what finds it if Vault told it."""
    fresh = Credential.objects.select_for_update().get(pk=credential.pk)
    if fresh.state == CredentialState.REVOKED:
        return
    if not fresh.is_known and (minted.accessor or minted.handles):
        fresh.accessor, fresh.handles = minted.accessor, minted.handles
        fresh.save(update_fields=["accessor", "handles"])
    if fresh.state != CredentialState.REVOKING:
        start_revoking([fresh], RevokeReason.DOUBT, None)
