from django.db import models
from django.db.models import Q

from accounts.models.people import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class AgentConsents(models.QuerySet["AgentConsent"]):
    def visible_to(self, user: User) -> "AgentConsents":
        """Those that one gave, and those of one's service accounts and of itself; all for
        auditors."""
        if user.sees_everything:
            return self
        return self.filter(Q(person=user) | Q(agent=user) | Q(agent__owner=user))

    def standing(self) -> "AgentConsents":
        """Those that hold at this moment."""
        in_time = Q(until=None) | Q(until__gt=ClockTimestamp())
        return self.filter(in_time, taken_back_at=None)


class AgentConsent(models.Model):
    """That a person lets a service account, an agent, ask for access on their behalf.

    The owner of a service account needs none: they answer for what it does.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="agent_consents")
    agent = models.ForeignKey(User, on_delete=models.CASCADE, related_name="acts_for")
    given_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    until = models.DateTimeField(null=True, help_text="empty: until it's taken back")
    taken_back_at = models.DateTimeField(null=True)

    objects = AgentConsents.as_manager()

    class Meta:
        ordering = ("-given_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["person", "agent"],
                condition=Q(taken_back_at=None),
                name="agent_consent_once",
            ),
            models.CheckConstraint(
                condition=~Q(person=models.F("agent")), name="agent_consent_of_another"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent} for {self.person}"
