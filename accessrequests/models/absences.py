from django.db import models
from django.db.models import F, Q

from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class Absences(models.QuerySet["Absence"]):
    def visible_to(self, user: User) -> "Absences":
        """One's own."""
        return self.filter(person=user)

    def now(self) -> "Absences":
        """Those that hold at this moment."""
        return self.filter(starts_at__lte=ClockTimestamp(), ends_at__gt=ClockTimestamp())


class Absence(models.Model):
    """Somebody is out of office, and who is told in their place.

    It gives no rights: the delegate must be eligible in their own.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="absences")
    delegate = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, blank=True, related_name="stands_in"
    )
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True)

    objects = Absences.as_manager()

    class Meta:
        ordering = ("starts_at",)
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="absence_window_sound"
            ),
            models.CheckConstraint(
                condition=Q(delegate=None) | ~Q(delegate=F("person")),
                name="absence_delegate_is_another",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person} until {self.ends_at}"
