from django.db import models

from accounts.models.people import User
from audit.clock import ClockTimestamp


class IdempotencyKey(models.Model):
    """One call that a caller may have to repeat, and what was answered to it. Never a secret."""

    id = models.BigAutoField(primary_key=True)
    caller = models.ForeignKey(User, on_delete=models.CASCADE, related_name="idempotency_keys")
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32, help_text="of method, path and body")
    status = models.PositiveSmallIntegerField(null=True, help_text="empty while it isn't answered")
    body = models.BinaryField(null=True, help_text="of the answer; none where that had a secret")
    headers = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["caller", "key"], name="idempotency_key_once"),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_key_by_age")]

    def __str__(self) -> str:
        return f"{self.key} of {self.caller_id}"
