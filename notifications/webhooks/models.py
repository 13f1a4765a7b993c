import json

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class Webhooks(models.QuerySet["Webhook"]):
    def visible_to(self, user: User) -> "Webhooks":
        """One's own and one's service accounts'; all of them for those who see everything."""
        if user.sees_everything:
            return self
        return self.filter(Q(owner=user) | Q(owner__owner=user))

    def enabled(self) -> "Webhooks":
        """Those that anything is sent to."""
        return self.filter(disabled_at=None)


class Webhook(models.Model):
    """Where what happens is told to a program (Standard Webhooks). It's told what its owner may
    see at that moment."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="webhooks")
    name = models.CharField(max_length=100)
    url = models.CharField(max_length=500)
    types = ArrayField(
        models.CharField(max_length=60), default=list, help_text="of event; empty for all"
    )
    sealed = models.CharField(max_length=500, help_text="the signing secret, as Vault encrypted it")
    earlier = models.CharField(
        max_length=500, blank=True, default="", help_text="the secret before, sealed too"
    )
    earlier_until = models.DateTimeField(
        null=True, help_text="until when what is sent is signed with both"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    changed_at = models.DateTimeField(db_default=ClockTimestamp())
    delivered_at = models.DateTimeField(null=True, help_text="the last time that it took something")
    failing_since = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0, help_text="in a row")
    held_until = models.DateTimeField(
        null=True, help_text="while it fails: when one message is tried again, of all that are due"
    )
    quick = models.BooleanField(
        default=False, help_text="whether it took the last message, and at once"
    )
    claim = models.PositiveBigIntegerField(default=0, help_text="counted up by each worker's turn")
    claimed_until = models.DateTimeField(null=True, help_text="whose it is alone until then")
    turn_at = models.DateTimeField(null=True, help_text="when its last turn began")
    disabled_at = models.DateTimeField(null=True)
    disabled_because = models.CharField(max_length=200, blank=True, default="")

    objects = Webhooks.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["owner", "-id"], name="webhook_of_owner")]
        constraints = [
            models.CheckConstraint(
                condition=Q(sealed__startswith="vault:")
                & (Q(earlier="") | Q(earlier__startswith="vault:")),
                name="webhook_secret_is_sealed",
            ),
            models.CheckConstraint(
                condition=Q(earlier="", earlier_until=None)
                | (~Q(earlier="") & Q(earlier_until__isnull=False)),
                name="webhook_earlier_secret_ends",
            ),
            models.CheckConstraint(
                condition=Q(disabled_at=None, disabled_because="")
                | (Q(disabled_at__isnull=False) & ~Q(disabled_because="")),
                name="webhook_disabled_says_why",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WebhookMessages(models.QuerySet["WebhookMessage"]):
    def visible_to(self, user: User) -> "WebhookMessages":
        """Those of the webhooks that one sees."""
        if user.sees_everything:
            return self
        return self.filter(Q(webhook__owner=user) | Q(webhook__owner__owner=user))


class WebhookMessage(models.Model):
    """One event on its way to one webhook. Rows that are due are the queue."""

    class State(models.TextChoices):
        DUE = "due", "due"
        DELIVERED = "delivered", "delivered"
        GIVEN_UP = "given_up", "given up"
        WITHDRAWN = "withdrawn", "withdrawn"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    webhook = models.ForeignKey(
        Webhook, on_delete=models.CASCADE, related_name="messages", db_index=False
    )
    type = models.CharField(max_length=60)
    event_id = models.BigIntegerField(null=True, help_text="of the record; empty for a test")
    payload = models.JSONField()
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.DUE)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=ClockTimestamp())
    give_up_at = models.DateTimeField()
    delivered_at = models.DateTimeField(null=True)

    objects = WebhookMessages.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event_id"], name="webhook_message_once"),
            models.CheckConstraint(
                condition=Q(state="delivered", delivered_at__isnull=False)
                | (~Q(state="delivered") & Q(delivered_at=None)),
                name="webhook_message_delivered_complete",
            ),
        ]
        indexes = [
            models.Index(fields=["webhook", "-id"], name="webhook_message_of"),
            models.Index(
                fields=["webhook", "next_attempt_at"],
                condition=Q(state="due"),
                name="webhook_message_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"

    @property
    def as_text(self) -> str:
        """What is sent, to be read; empty where its reader may not see it any more."""
        if self.payload is None:
            return ""
        return json.dumps(self.payload, indent=2)


class Untold(models.Model):
    """An audit row of which no webhook was told yet. PostgreSQL adds it with the audit row, in the
    same statement, if there is a webhook that could want it."""

    event_id = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return str(self.event_id)


class WebhookAttempt(models.Model):
    """One try to deliver a message, for the delivery log. What was answered isn't kept."""

    id = models.BigAutoField(primary_key=True)
    message = models.ForeignKey(WebhookMessage, on_delete=models.CASCADE, related_name="tries")
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    status = models.PositiveSmallIntegerField(null=True, help_text="of the answer, if there was")
    milliseconds = models.PositiveIntegerField()
    error = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.status or self.error} at {self.at}"
