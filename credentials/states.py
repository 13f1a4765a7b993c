"""States of credentials and rotations, and the only moves between them.

There is no failed state: until the target itself says that a credential is gone, it's `revoking`,
and until an endpoint refuses the old secret, its rotation isn't over.
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
        "its grant ended, its own time was up, or it was replaced or taken back",
    ),
    Move("revoking", "revoked", ("keyturn",), "the target itself says that it's gone"),
)


class RotationState(models.TextChoices):
    DUE = "due", "Due"
    CREATED = "created", "New one made"
    PUBLISHED = "published", "New one in use"
    RETIRED = "retired", "Done"


class RotationReason(models.TextChoices):
    EXPOSURE = "exposure", "a grant handed it out"
    AGE = "age", "it is older than it may be"
    REQUEST = "request", "somebody asked for it"
    LEAK = "leak", "it was reported as leaked"


ROTATION_MOVES = (
    Move(
        "due",
        "created",
        ("keyturn", "owner", "administrator"),
        "the new secret is in Vault: the provider made it, or a person stored it",
    ),
    Move("created", "published", ("keyturn",), "the endpoint took the new secret"),
    Move(
        "published",
        "retired",
        ("keyturn",),
        "no gateway uses the old secret any more, and the endpoint refuses it",
    ),
)
