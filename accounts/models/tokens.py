from django.db import models

from accounts.models.people import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class ApiTokens(models.QuerySet["ApiToken"]):
    def visible_to(self, user: User) -> "ApiTokens":
        """One's own, and those of service accounts that one answers for; all for those who see
        everything."""
        if user.sees_everything:
            return self
        return self.filter(models.Q(owner=user) | models.Q(owner__owner=user))


class ApiToken(models.Model):
    """What a program signs in with on its owner's behalf. Only a keyed digest is stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    lookup = models.CharField(max_length=16, unique=True, help_text="the id within the token")
    digest = models.BinaryField(max_length=32)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

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
        ]

    def __str__(self) -> str:
        return self.name


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
