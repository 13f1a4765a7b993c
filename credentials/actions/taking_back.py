"""Taking a credential back on the word of whoever holds its secret."""

from django.db import transaction

from accounts.models import User
from audit import clock
from broker.errors import Unavailable
from credentials import vault
from credentials.actions.revoking import start_revoking
from credentials.kinds import recognise
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason


def take_back(*, by: User | None, secret: str) -> bool:
    """Start revoking the credential of this secret; whether there was one to revoke. Its grant
    goes on.

    Whoever has a secret could use it, so they may also end it: they needn't be anybody. One that
    has expired shows nothing of the sort and ends nothing. Raises Unavailable when Vault can't be
    asked.
    """
    try:
        known = recognise(secret)
    except vault.VaultError as error:
        raise Unavailable("Vault can't be asked about this token at the moment.") from error
    if known is None or (known.expires_at is not None and known.expires_at <= clock.now()):
        return False
    with transaction.atomic():
        rows = list(
            Credential.objects.select_for_update(of=("self",))
            .select_related("grant__request__profile")
            .filter(
                pk=known.credential,
                state__in=[CredentialState.ISSUING, CredentialState.ACTIVE],
            )
        )
        start_revoking(rows, RevokeReason.TAKEN_BACK, by)
    return bool(rows)
