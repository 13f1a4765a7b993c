import datetime as dt

from django.db import models

from accounts.models.people import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class Changes(models.QuerySet["Change"]):
    def visible_to(self, user: User) -> "Changes":
        """One's own proposals; all of them for administrators and auditors."""
        return self if user.sees_everything else self.filter(proposed_by=user)

    def waiting(self) -> "Changes":
        """Those that could be decided at this moment."""
        return self.filter(state=Change.State.PENDING, expires_at__gt=ClockTimestamp())


class Change(models.Model):
    """A change that widens access, as one administrator proposes it and another decides it.

    What each kind is, what it shows and what it does is said by accounts.changes.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        APPLIED = "applied"
        REJECTED = "rejected"
        WITHDRAWN = "withdrawn"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=40)
    about = models.UUIDField(null=True, help_text="id of what it changes; empty for a new one")
    part = models.CharField(
        max_length=100, default="", help_text="of what it changes, where several may wait at once"
    )
    label = models.CharField(max_length=200, help_text="what it changes, in words")
    payload = models.JSONField(help_text="what is to be done, for its kind")
    difference = models.JSONField(help_text="a list of {what, before, after}, to be read")
    base = models.CharField(max_length=64, help_text="digest of what it was made from")
    reason = models.CharField(max_length=1000)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    proposed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=1000, help_text="of whoever decided")

    objects = Changes.as_manager()

    class Meta:
        ordering = ("-proposed_at",)
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(state__in=["applied", "rejected"])
                | (
                    models.Q(decided_by__isnull=False, decided_at__isnull=False)
                    & ~models.Q(decided_by=models.F("proposed_by"))
                ),
                name="change_decided_by_a_second_person",
            ),
            models.UniqueConstraint(
                fields=["kind", "about", "part"],
                condition=models.Q(state="pending"),
                nulls_distinct=False,
                name="change_one_pending_of_each",
            ),
        ]
        indexes = [models.Index(fields=["state", "-proposed_at"], name="change_by_state")]

    def __str__(self) -> str:
        return self.label

    def state_at(self, moment: dt.datetime) -> "Change.State":
        """Its state, whether or not a sweep has closed what waited for too long."""
        state = Change.State(self.state)
        if state == Change.State.PENDING and self.expires_at <= moment:
            return Change.State.EXPIRED
        return state
