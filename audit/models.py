from typing import Any

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

from audit.clock import ClockTimestamp
from audit.events import Event
from audit.keeping import refuse_truncate


class AuditEvents(models.QuerySet["AuditEvent"]):
    def about(self, *ids: object) -> "AuditEvents":
        """Events that concern any of these objects, by id."""
        return self.filter(related__overlap=list(ids))

    def visible_to(self, user: Any) -> "AuditEvents":
        """Everything for those who see everything, else what concerns the reader."""
        return self if user.sees_everything else self.filter(related__contains=[user.pk])


class AuditEvent(models.Model):
    """One thing that happened. Rows are added and never touched again.

    There are no foreign keys: a row outlives what it tells of. `related` holds the ids of all
    that it concerns (request, grant, credential, endpoint, people), so that any of them can show
    its own history.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    event = models.CharField(max_length=60, choices=Event.choices)
    actor_id = models.UUIDField(null=True, help_text="empty where Keyturn itself acted")
    actor = models.CharField(max_length=254)
    via = models.CharField(max_length=20)
    address = models.GenericIPAddressField(null=True)
    trace = models.UUIDField()
    subject_kind = models.CharField(max_length=30)
    subject_id = models.UUIDField(null=True)
    subject = models.CharField(max_length=300)
    related = ArrayField(models.UUIDField(), default=list)
    data = models.JSONField(default=dict)

    objects = AuditEvents.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            GinIndex(fields=["related"], name="audit_related"),
            models.Index(fields=["event", "-id"], name="audit_by_event"),
            models.Index(fields=["actor_id", "-id"], name="audit_by_actor"),
            models.Index(fields=["-at"], name="audit_by_time"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("no_truncate"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.get_event_display()} {self.subject}".strip()
