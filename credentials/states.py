"""States of credentials, and the only moves between them.

There is no failed state: until the target itself says that a credential is gone, it's `revoking`.
"""

from django.db import models

from accessrequests.states import Move


class CredentialState(models.TextChoices):
    ISSUING = "issuing", "Being minted"
    ACTIVE = "active", "Live"
    REVOKING = "revoking", "Ending"
    REVOKED = "revoked", "Gone"


class RevokeReason(models.TextChoices):
    GRANT_ENDED = "grant_ended", "its grant ended"
    SUPERSEDED = "superseded", "replaced by a newer check-out"
    DOUBT = "doubt", "nobody knows whether it was minted"
    EXPIRED = "expired", "its own time was up"
    VANISHED = "vanished", "it was found to be missing"
    TAKEN_BACK = "taken_back", "revoked by whoever holds it"


CREDENTIAL_MOVES = (
    Move("issuing", "active", ("keyturn",), "Vault confirmed it and the grant is still live"),
    Move("issuing", "revoking", ("requester", "reviewer", "keyturn"), "any doubt about the mint"),
    Move(
        "active",
        "revoking",
        ("requester", "reviewer", "keyturn"),
        "its grant ended, or it was checked out again",
    ),
    Move("revoking", "revoked", ("keyturn",), "the target itself says that it's gone"),
)
