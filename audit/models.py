import uuid
from typing import Any

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.db import models

from audit.clock import ClockTimestamp
from audit.events import Event
from audit.keeping import refuse_truncate


class AuditEvents(models.QuerySet["AuditEvent"]):
    def about(self, *ids: uuid.UUID | str) -> "AuditEvents":
        """Events that concern any of these objects, by id."""
        if len(ids) == 1:
            return self.filter(concerns__concerned=ids[0])
        return self.filter(pk__in=Concern.objects.filter(concerned__in=ids).values("event"))

    def visible_to(self, user: Any) -> "AuditEvents":
        """Everything for those who see everything, else what concerns the reader."""
        return self if user.sees_everything else self.about(user.pk)


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
            models.Index(fields=["event", "-id"], name="audit_by_event"),
            models.Index(fields=["actor_id", "-id"], name="audit_by_actor"),
            models.Index(fields=["-at"], name="audit_by_time"),
        ]
        triggers = [
            pgtrigger.Protect(name="append_only", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("no_truncate"),
            pgtrigger.Trigger(
                name="concerns",
                level=pgtrigger.Statement,
                when=pgtrigger.After,
                operation=pgtrigger.Insert,
                referencing=pgtrigger.Referencing(new="added"),  # type: ignore[no-untyped-call]
                func="""
                    INSERT INTO audit_concern (concerned, event_id)
                        SELECT DISTINCT one, added.id
                            FROM added, LATERAL unnest(added.related) AS one;
                    RETURN NULL;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.get_event_display()} {self.subject}".strip()


class Concern(models.Model):
    """That an event concerns something, in the order in which it's read: an index over `related`,
    written by a trigger. One in GIN would have to read all that concerns somebody, however much
    that is, to find the newest fifty."""

    pk = models.CompositePrimaryKey("concerned", "event")
    concerned = models.UUIDField()
    event = models.ForeignKey(
        AuditEvent,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="concerns",
    )

    class Meta:
        triggers = [
            pgtrigger.Protect(name="concern_kept", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("concern_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} concerns {self.concerned}"
