import datetime as dt

from django.db import models

from accounts.models import User
from endpoints.models import AccessProfile

# Upper ends of the classes by which waits are counted; the last class has none.
WAITS = tuple(dt.timedelta(minutes=n) for n in (5, 15, 60, 240, 1440))


class Tally(models.Model):
    """How many decisions of one sort there were on one day.

    Counted in the transaction that decides, so that a million past requests are never read to
    draw a chart of them.
    """

    class Outcome(models.TextChoices):
        APPROVED = "approved", "Approved"
        DENIED = "denied", "Denied"
        AUTOMATIC = "automatic", "Automatic"
        BREAK_GLASS = "break_glass", "Break-glass"
        EXPIRED = "expired", "Expired"

    day = models.DateField(help_text="UTC")
    profile = models.ForeignKey(AccessProfile, on_delete=models.PROTECT, related_name="tallies")
    reviewer = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", help_text="whose verdict"
    )
    outcome = models.CharField(max_length=12, choices=Outcome.choices)
    wait = models.PositiveSmallIntegerField(help_text="class of the time to the first decision")
    count = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "profile", "reviewer", "outcome", "wait"],
                nulls_distinct=False,
                name="tally_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.profile} {self.outcome}: {self.count}"
