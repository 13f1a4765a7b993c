import datetime as dt

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models.people import User
from accounts.scopes import BY_ITSELF, Verb
from audit.clock import ClockTimestamp
from audit.ids import new_id


class ApiTokens(models.QuerySet["ApiToken"]):
    def visible_to(self, user: User) -> "ApiTokens":
        """One's own, and those of service accounts that one answers for; all for those who see
        everything."""
        if user.sees_everything:
            return self
        return self.filter(models.Q(owner=user) | models.Q(owner__owner=user))


def _by_itself() -> list[str]:
    return [verb.value for verb in BY_ITSELF]


class ApiToken(models.Model):
    """What a program signs in with on its owner's behalf. Only a keyed digest is stored.

    What it opens is at every use the smaller of its own scope and of what its owner may do now.
    """

    class Kind(models.TextChoices):
        PERSONAL = "pat", "made by a person"
        WORKLOAD = "wl", "exchanged for the JWT of a trusted issuer"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    lookup = models.CharField(max_length=16, unique=True, help_text="the id within the token")
    digest = models.BinaryField(max_length=32)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=3, choices=Kind.choices, default=Kind.PERSONAL)
    verbs = ArrayField(
        models.CharField(max_length=10, choices=Verb.choices),
        default=_by_itself,
        help_text="what it may be used for",
    )
    endpoints = ArrayField(
        models.UUIDField(), default=list, help_text="ids of those it is for; empty for all"
    )
    rule = models.ForeignKey(
        "WorkloadRule",
        on_delete=models.PROTECT,
        null=True,
        related_name="tokens",
        help_text="of a workload: by which it was exchanged",
    )
    claims = models.JSONField(
        default=dict, help_text="of a workload: what its JWT said of it, as far as a rule read it"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    last_used_from = models.GenericIPAddressField(null=True)
    revoked_at = models.DateTimeField(null=True)
    reported_at = models.DateTimeField(null=True, help_text="when it was reported as leaked")

    # Not stored: when its owner proved a second factor in the call that it came with.
    proved_at: dt.datetime | None = None

    objects = ApiTokens.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    expires_at__lte=models.F("created_at")
                    + models.Value("90 days", output_field=models.DurationField())
                ),
                name="api_token_at_most_90_days",
            ),
            models.CheckConstraint(condition=~Q(verbs=[]), name="api_token_is_for_something"),
            models.CheckConstraint(
                condition=Q(kind="pat", rule=None)
                | (
                    Q(kind="wl", rule__isnull=False)
                    & Q(verbs__contained_by=[verb.value for verb in BY_ITSELF])
                    & Q(
                        expires_at__lte=models.F("created_at")
                        + models.Value("1 hour", output_field=models.DurationField())
                    )
                ),
                name="api_token_of_workload_is_short",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_persons(self) -> bool:
        """Whether its owner is somebody who could be asked for a second factor."""
        return self.kind == self.Kind.PERSONAL and not self.owner.is_service


class ScimToken(models.Model):
    """What a directory calls /scim/v2/ with; it opens nothing else. Only a keyed digest is
    stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    lookup = models.CharField(max_length=16, unique=True, help_text="the id within the token")
    digest = models.BinaryField(max_length=32)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    expires_at__lte=models.F("created_at")
                    + models.Value("366 days", output_field=models.DurationField())
                ),
                name="scim_token_at_most_a_year",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (SCIM)"
