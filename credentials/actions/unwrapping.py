"""Reading a wrapped secret here, for those who can't reach Vault. Once, by whoever is first."""

import uuid

from django.db import transaction
from django.urls import reverse

from accounts.door import fetch
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, InvalidInput, NotLive, Unavailable, WrapTaken
from credentials import vault
from credentials.actions.checking_out import CheckedOut
from credentials.actions.revoking import concerned
from credentials.models import Credential, Credentials
from credentials.states import CredentialState
from notifications.kinds import Kind
from notifications.outbox import notify


def unwrap(*, by: User, credential_id: uuid.UUID | str, token: str) -> CheckedOut:
    """What was wrapped as this credential was checked out. The token is what gives the right to
    it, to anybody who may see the grant: its holder hands it on to whatever is to use it.

    Raises NotFound, NotLive, Conflict where it wasn't wrapped, InvalidInput for the token of
    something else, WrapTaken where Vault no longer has it, and Unavailable when Vault can't be
    reached.
    """
    credential = fetch(_visible(by), credential_id)
    _check_live(credential)
    if not credential.wrapped_accessor:
        raise Conflict("This credential wasn't handed out wrapped.")
    try:
        about = vault.wrapping(token)
        if about is not None and about != (credential.wrapped_accessor, vault.WRAP_PATH):
            # What is in it, somebody else put there.
            _refuse(credential, by, "it is the token of something else")
            raise InvalidInput({"token": "Isn't the wrapping token of this credential."})
        parts = vault.unwrap(token) if about is not None else None
    except vault.VaultError as error:
        raise Unavailable(f"Vault can't unwrap it at the moment: {error}") from error
    if parts is None:
        _refuse(credential, by, "Vault no longer has what it wrapped", tell=True)
        raise WrapTaken
    return CheckedOut(_taken(credential, by), parts)


def _visible(by: User) -> Credentials:
    return Credential.objects.visible_to(by).select_related(
        "grant__holder", "grant__request__profile__endpoint"
    )


def _check_live(credential: Credential) -> None:
    if credential.state != CredentialState.ACTIVE or not credential.grant.is_live(clock.now()):
        raise NotLive("This credential was taken back, and its wrapped secret with it.")


@transaction.atomic
def _taken(credential: Credential, by: User) -> Credential:
    """It's on record who read it, and it was still good. Should this fail, nobody gets it, and the
    next try is told that it's gone."""
    fresh = Credential.objects.select_for_update(of=("self",)).get(pk=credential.pk)
    fresh.grant = credential.grant
    fresh.grant.refresh_from_db(fields=["ended_at", "ends_at", "starts_at"])
    _check_live(fresh)
    record(Event.CREDENTIAL_UNWRAPPED, by=by, about=fresh, related=concerned(fresh))
    return fresh


@transaction.atomic
def _refuse(credential: Credential, by: User, why: str, *, tell: bool = False) -> None:
    record(
        Event.CREDENTIAL_UNWRAP_REFUSED,
        by=by,
        about=credential,
        related=concerned(credential),
        why=why,
    )
    if tell:
        grant = credential.grant
        notify(
            Kind.WRAP_TAKEN,
            to=[grant.holder],
            about=credential,
            path=reverse("grant", args=[grant.pk]),
            sentence=f"The wrapped credential for {grant.request.profile.endpoint} was gone when "
            "it was asked for",
            facts=[("Asked for by", str(by)), ("Credential", credential.name)],
            quote="It was read before, or its time was over. If neither you nor anything of yours "
            "has read it, somebody else did: check out a new one, which stops it.",
        )
