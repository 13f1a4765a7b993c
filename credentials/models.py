import datetime as dt

import pgtrigger
from django.db import models
from django.db.models import OuterRef, Q
from ulid import ULID

from accessrequests.models import Grant
from accessrequests.models.sight import FEW, some
from accessrequests.states import pairs
from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from credentials.rotation_models import Rotation, UpstreamSecret, Use
from credentials.states import CREDENTIAL_MOVES, CredentialState, RevokeReason

__all__ = [
    "STUCK_AFTER",
    "Credential",
    "Credentials",
    "Reconciliation",
    "Rotation",
    "UpstreamSecret",
    "Use",
]

STUCK_AFTER = dt.timedelta(seconds=60)


class Credentials(models.QuerySet["Credential"]):
    def visible_to(self, user: User) -> "Credentials":
        """Those of the grants that this person may see."""
        if user.sees_everything:
            return self
        grants = Grant.objects.visible_to(user).filter(pk=OuterRef("grant"))
        return self.filter(some(grants))

    def listed_for(self, user: User) -> "Credentials":
        """The same, for lists (`accessrequests.models.sight`)."""
        if user.sees_everything:
            return self
        grants = Grant.objects.order_by().listed_for(user).values_list("pk", flat=True)[: FEW + 1]
        few = list(grants)
        return self.visible_to(user) if len(few) > FEW else self.filter(grant__in=few)


class Credential(models.Model):
    """Something minted under a grant that opens its endpoint. The secret itself is in no table.

    `accessor` finds it in Vault without being able to use it, or the token that its lease hangs
    on. It's empty until Vault answered, and stays so where the answer was lost; then it's found
    by its name. `settings` are the profile's as they were: what it became since must not send a
    revocation elsewhere.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    grant = models.ForeignKey(Grant, on_delete=models.PROTECT, related_name="credentials")
    kind = models.CharField(max_length=20)
    state = models.CharField(
        max_length=10, choices=CredentialState.choices, default=CredentialState.ISSUING
    )
    settings = models.JSONField(default=dict, help_text="its kind's, as the profile had them")
    accessor = models.CharField(max_length=100, blank=True, default="")
    handles = models.JSONField(
        default=dict, help_text="what else finds it: a lease, a user name, a serial; never secret"
    )
    wrapped_accessor = models.CharField(max_length=100, blank=True, default="")
    expires_at = models.DateTimeField(
        null=True, help_text="when it ends by itself, wherever it is verified"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    issued_at = models.DateTimeField(null=True)
    revoking_since = models.DateTimeField(null=True)
    revoke_reason = models.CharField(
        max_length=20, choices=RevokeReason.choices, blank=True, default=""
    )
    revoked_at = models.DateTimeField(null=True)
    proof = models.CharField(max_length=300, blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, blank=True, default="")
    alerted_at = models.DateTimeField(null=True, help_text="when people were told that it is stuck")

    objects = Credentials.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state="revoking"),
                name="credential_revocation_due",
            ),
            models.Index(
                fields=["created_at"],
                condition=Q(state__in=["issuing", "active"]),
                name="credential_open",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["grant"],
                condition=Q(state__in=["issuing", "active"]),
                name="credential_one_live_per_grant",
            ),
            models.UniqueConstraint(
                fields=["accessor"], condition=~Q(accessor=""), name="credential_accessor_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["issuing", "active"], revoking_since=None)
                | (
                    Q(state__in=["revoking", "revoked"], revoking_since__isnull=False)
                    & ~Q(revoke_reason="")
                ),
                name="credential_revoking_complete",
            ),
            models.CheckConstraint(
                condition=Q(~Q(state="revoked"), revoked_at=None, proof="")
                | (Q(state="revoked", revoked_at__isnull=False) & ~Q(proof="")),
                name="credential_gone_is_proven",
            ),
            models.CheckConstraint(
                condition=~Q(state="active")
                | (Q(issued_at__isnull=False) & (~Q(accessor="") | ~Q(handles={}))),
                name="credential_active_is_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="revoking") | Q(next_attempt_at__isnull=False),
                name="credential_revoking_is_due",
            ),
        ]
        triggers = [
            pgtrigger.FSM(
                name="credential_moves", field="state", transitions=pairs(CREDENTIAL_MOVES)
            ),
            pgtrigger.ReadOnly(
                name="credential_fixed", fields=["grant", "kind", "settings", "created_at"]
            ),
            # Whoever could exchange it would have another token revoked in this one's place.
            pgtrigger.Protect(
                name="credential_accessor_fixed",
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__accessor__df=pgtrigger.F("new__accessor"))
                & ~pgtrigger.Q(old__accessor=""),
            ),
            pgtrigger.Protect(name="credential_kept", operation=pgtrigger.Delete),
            refuse_truncate("credential_not_truncated"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """Its name in Vault: `kt-<ulid>`."""
        return f"kt-{str(ULID.from_uuid(self.id)).lower()}"

    @property
    def is_known(self) -> bool:
        """Whether there is something to find it by but its name."""
        return bool(self.accessor or self.handles)


class Reconciliation(models.Model):
    """One look around, both ways. The latest few weeks are kept."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField(editable=False)
    took = models.FloatField(default=0, help_text="seconds")
    looked_at = models.PositiveIntegerField(default=0, help_text="what bore a credential's name")
    found = models.PositiveIntegerField(default=0, help_text="of them, what no row accounted for")
    ended = models.PositiveIntegerField(default=0, help_text="of these, what was ended")
    left = models.JSONField(default=list, help_text="what wasn't: where, its name, and why")
    vanished = models.PositiveIntegerField(default=0, help_text="on record as live, and not there")
    irrevocable = models.JSONField(
        default=list, help_text="leases that Vault gave up on, as of the last minute"
    )
    failures = models.JSONField(default=dict, help_text="what couldn't be asked, and why")

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"reconciliation of {self.at:%Y-%m-%d %H:%M}"
