from django.db import models

from accounts.models.people import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class Totp(models.Model):
    """A person's second factor: an authenticator that shows a new code every 30 seconds."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.OneToOneField(User, on_delete=models.CASCADE, related_name="totp")
    sealed = models.CharField(max_length=500, help_text="the secret, as Vault encrypted it")
    last_step = models.BigIntegerField(help_text="of the last code taken; older ones are used up")
    failures = models.PositiveIntegerField(default=0, help_text="wrong codes since the last one")
    failed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(sealed__startswith="vault:"), name="totp_secret_is_sealed"
            ),
        ]

    def __str__(self) -> str:
        return f"the second factor of {self.person}"


class RecoveryCode(models.Model):
    """One of ten codes on paper, each a second factor once. Only a hash of it is stored."""

    id = models.BigAutoField(primary_key=True)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=200, help_text="keyed, by accounts.recovery")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"a recovery code of {self.person}"


class PasskeyChallenge(models.Model):
    """What a passkey is to sign, until it has: whoever deletes the row has used it up."""

    digest = models.CharField(primary_key=True, max_length=64, help_text="SHA-256 of it")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a challenge until {self.expires_at}"
