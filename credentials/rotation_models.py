"""Upstream secrets and their rotations. The secrets themselves are in Vault alone."""

import datetime as dt

import pgtrigger
from django.db import models
from django.db.models import Exists, OuterRef, Q
from ulid import ULID

from accessrequests.states import pairs
from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from credentials.states import ROTATION_MOVES, RotationReason, RotationState
from endpoints.models import Endpoint

STUCK_AFTER = dt.timedelta(minutes=5)


class Use(models.TextChoices):
    """What a secret of an endpoint is for; its place in Vault."""

    UPSTREAM = "upstream", "Upstream key"
    HANDED_OUT = "handed_out", "Key that is handed out"


class UpstreamSecret(models.Model):
    """What Keyturn knows of an endpoint's secret, which is not the secret itself.

    `version` is the one in Vault that gateways use: a newer one may be there already, which is
    being tried. `handle` names the secret at its provider; empty where a person stored it.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="secrets")
    use = models.CharField(max_length=10, choices=Use.choices, default=Use.UPSTREAM)
    rotator = models.CharField(max_length=20, default="manual")
    settings = models.JSONField(default=dict, help_text="its rotator's; nothing of it is secret")
    probe = models.CharField(
        max_length=200,
        blank=True,
        default="",
        help_text="path at which a key is tried; empty: as the endpoint's dialect has one",
    )
    max_age = models.DurationField(null=True, help_text="due for rotation after this")
    version = models.PositiveIntegerField(default=0, help_text="in Vault")
    handle = models.JSONField(default=dict)
    stored_at = models.DateTimeField(null=True)
    last_rotated = models.DateTimeField(null=True)
    exposed_at = models.DateTimeField(null=True, help_text="since when people hold it themselves")
    leaked_at = models.DateTimeField(null=True, help_text="when somebody reported that it leaked")

    class Meta:
        ordering = ("endpoint", "-use")
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "use"], name="upstream_secret_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_use_display()} of {self.endpoint}"

    @property
    def is_exposed(self) -> bool:
        """Whether somebody may hold it who no longer should."""
        return self.leaked_at is not None or self.exposed_at is not None


class Rotations(models.QuerySet["Rotation"]):
    def visible_to(self, user: User) -> "Rotations":
        """Those of the endpoints that this person owns; all for auditors."""
        if user.sees_everything:
            return self
        own = Endpoint.objects.filter(owner=user, pk=OuterRef("secret__endpoint"))
        return self.filter(Exists(own))

    def open(self) -> "Rotations":
        """Those that aren't over."""
        return self.exclude(state=RotationState.RETIRED)

    def late(self, moment: dt.datetime) -> "Rotations":
        """Those that `Rotation.is_late` is true of."""
        no_deadline = Q(deadline=None, due_at__lt=moment - STUCK_AFTER)
        return self.open().filter(Q(deadline__lt=moment) | no_deadline)


class Rotation(models.Model):
    """One secret replaced by another, from its reason to the old one's end.

    Each step is on record before the next begins, and doing one twice changes nothing.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    secret = models.ForeignKey(UpstreamSecret, on_delete=models.PROTECT, related_name="rotations")
    state = models.CharField(
        max_length=10, choices=RotationState.choices, default=RotationState.DUE
    )
    why = models.CharField(max_length=10, choices=RotationReason.choices)
    note = models.CharField(max_length=500, blank=True, default="", help_text="what a person said")
    by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+")
    due_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    deadline = models.DateTimeField(null=True, help_text="for whoever does it by hand")
    old_version = models.PositiveIntegerField(default=0)
    new_version = models.PositiveIntegerField(null=True)
    old_handle = models.JSONField(default=dict)
    new_handle = models.JSONField(default=dict)
    created_at = models.DateTimeField(null=True, help_text="when the new one was in Vault")
    published_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(
        null=True, help_text="when that was committed: whoever reads the key later gets the new one"
    )
    confirmed_at = models.DateTimeField(
        null=True, help_text="when a person said that the old one is deleted at the provider"
    )
    retired_at = models.DateTimeField(null=True)
    proof = models.CharField(max_length=300, blank=True, default="")
    waits_for = models.CharField(max_length=300, blank=True, default="")
    attempts = models.PositiveIntegerField(default=0, help_text="tries of this step that failed")
    next_attempt_at = models.DateTimeField(db_default=ClockTimestamp())
    last_error = models.CharField(max_length=300, blank=True, default="")
    alerted_at = models.DateTimeField(null=True, help_text="when people were told that it is stuck")

    objects = Rotations.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(
                fields=["next_attempt_at"], condition=~Q(state="retired"), name="rotation_due"
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["secret"], condition=~Q(state="retired"), name="rotation_one_open"
            ),
            models.CheckConstraint(
                condition=Q(state="due") | Q(new_version__isnull=False, created_at__isnull=False),
                name="rotation_created_is_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["due", "created"]) | Q(published_at__isnull=False),
                name="rotation_published_when",
            ),
            models.CheckConstraint(
                condition=Q(~Q(state="retired"), retired_at=None, proof="")
                | (Q(state="retired", retired_at__isnull=False) & ~Q(proof="")),
                name="rotation_retired_is_proven",
            ),
        ]
        triggers = [
            pgtrigger.FSM(name="rotation_moves", field="state", transitions=pairs(ROTATION_MOVES)),
            pgtrigger.ReadOnly(name="rotation_fixed", fields=["secret", "due_at"]),
            pgtrigger.Protect(name="rotation_kept", operation=pgtrigger.Delete),
            refuse_truncate("rotation_not_truncated"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """The name that the new secret bears at its provider: `kt-<ulid>`."""
        return f"kt-{str(ULID.from_uuid(self.id)).lower()}"

    @property
    def is_open(self) -> bool:
        """Whether something is left to be done."""
        return self.state != RotationState.RETIRED

    @property
    def took(self) -> dt.timedelta | None:
        """From when it was due to its end."""
        return self.retired_at - self.due_at if self.retired_at is not None else None

    def is_late(self, moment: dt.datetime) -> bool:
        """Whether people should hear that it isn't over: past its deadline, or five minutes."""
        if not self.is_open:
            return False
        return moment > (self.deadline or self.due_at + STUCK_AFTER)
