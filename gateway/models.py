"""What gateways write: calls, what each grant has spent, and what each gateway holds of it."""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from accessrequests.models import Grant
from audit.clock import ClockTimestamp
from audit.ids import new_id
from credentials.models import Credential
from endpoints.models import Endpoint

MICRO = 1_000_000  # costs are stored in millionths of a US dollar


class Process(models.Model):
    """A running gateway. It beats each second; what a silent one held is settled by the others."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    host = models.CharField(max_length=100)
    started_at = models.DateTimeField(db_default=ClockTimestamp())
    beat_at = models.DateTimeField(db_default=ClockTimestamp(), db_index=True)
    open_calls = models.PositiveIntegerField(default=0)
    written = models.BigIntegerField(default=0, help_text="number of its last batch")
    keys = models.JSONField(
        default=dict, help_text="by endpoint, the oldest version of its upstream key in use"
    )
    keys_at = models.DateTimeField(null=True, help_text="since when these are what it knew")

    class Meta:
        verbose_name = "gateway process"
        verbose_name_plural = "gateway processes"

    def __str__(self) -> str:
        return f"{self.host} since {self.started_at:%Y-%m-%d %H:%M}"


class Meter(models.Model):
    """What a grant has spent: settled by what the upstream counted.

    What gateways hold in advance is in `Holding`; spent and held together never exceed the budget.
    """

    grant = models.OneToOneField(
        Grant, on_delete=models.PROTECT, primary_key=True, related_name="meter"
    )
    calls = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    charged_tokens = models.BigIntegerField(
        default=0, help_text="input, output, and what had to be charged without a count"
    )
    charged_cost = models.BigIntegerField(default=0, help_text="in millionths of a US dollar")
    last_call_at = models.DateTimeField(null=True)
    # A sliding window of two minutes: what was taken in this one and in the one before.
    minute = models.BigIntegerField(default=0, help_text="of the Unix epoch")
    taken = models.PositiveIntegerField(default=0)
    taken_before = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.charged_tokens} tokens of {self.grant_id}"


class Holding(models.Model):
    """What one gateway took of a grant's budgets and slots and has not settled yet."""

    pk = models.CompositePrimaryKey("grant_id", "process_id")
    grant = models.ForeignKey(Grant, on_delete=models.PROTECT, related_name="holdings")
    process = models.ForeignKey(Process, on_delete=models.PROTECT, related_name="holdings")
    tokens = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0, help_text="in millionths of a US dollar")
    slots = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(tokens__gte=0, cost__gte=0), name="holding_not_negative"
            ),
        ]
        indexes = [models.Index(fields=["process"], name="holding_of_process")]

    def __str__(self) -> str:
        return f"{self.tokens} tokens of {self.grant_id}"


class Call(models.Model):
    """One call through the gateway: who, what, how much, how it went. Never a body or a key.

    Written in batches, up to a second later. The columns that point elsewhere have no constraint
    in the database: checking them for each row would cost more than writing it.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField()
    trace = models.CharField(max_length=40, help_text="X-Request-Id of the answer")
    grant = models.ForeignKey(
        Grant, on_delete=models.DO_NOTHING, db_constraint=False, related_name="calls"
    )
    credential = models.ForeignKey(
        Credential, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    method = models.CharField(max_length=10)
    path = models.CharField(max_length=200, help_text="below /e/<endpoint>, without its query")
    model = models.CharField(max_length=200, blank=True)
    streamed = models.BooleanField(default=False)
    tools_declared = ArrayField(models.CharField(max_length=200), default=list)
    tools_called = ArrayField(models.CharField(max_length=200), default=list)
    status = models.PositiveSmallIntegerField(help_text="499: the client hung up")
    refusal = models.CharField(max_length=40, blank=True, help_text="code of the gateway's error")
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    charged_tokens = models.PositiveIntegerField(default=0)
    charged_cost = models.BigIntegerField(default=0, help_text="in millionths of a US dollar")
    request_bytes = models.PositiveBigIntegerField(default=0)
    response_bytes = models.PositiveBigIntegerField(default=0)
    first_byte_ms = models.FloatField(null=True)
    duration_ms = models.FloatField()
    client = models.CharField(max_length=45, blank=True, help_text="address of the client")

    class Meta:
        ordering = ("-at",)
        indexes = [
            models.Index(fields=["grant", "-at"], name="call_of_grant"),
            models.Index(fields=["endpoint", "-at"], name="call_of_endpoint"),
            BrinIndex(fields=["at"], name="call_by_age"),
        ]

    def __str__(self) -> str:
        return self.trace


class UpstreamHealth(models.Model):
    """How an upstream answers, as the gateways see it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="health")
    url = models.CharField(max_length=300)
    is_up = models.BooleanField()
    since = models.DateTimeField(help_text="when it last went up or down")
    checked_at = models.DateTimeField()
    last_error = models.CharField(max_length=100, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "url"], name="upstream_health_once")
        ]

    def __str__(self) -> str:
        return f"{self.url} is {'up' if self.is_up else 'down'}"
