from django.db import models

from accounts.models.people import Group, User
from audit.clock import ClockTimestamp
from audit.ids import new_id


class ScimRecord(models.Model):
    """What a directory says of a person, or of a group that it governs."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.OneToOneField(User, on_delete=models.CASCADE, null=True, related_name="scim")
    group = models.OneToOneField(Group, on_delete=models.CASCADE, null=True, related_name="scim")
    external_id = models.CharField(max_length=255, help_text="its id there", db_index=True)
    names = models.JSONField(default=dict, help_text="displayName and name, as it gave them")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    changed_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    left_at = models.DateTimeField(null=True, help_text="when it deactivated the person")
    gone_at = models.DateTimeField(null=True, help_text="when it deleted this; hidden since")
    may_widen = models.BooleanField(
        default=False, help_text="people may be added to a group although it has rights"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user__isnull=False, group=None, may_widen=False)
                | models.Q(user=None, group__isnull=False, left_at=None),
                name="scim_record_of_one_thing",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.group} in the directory"
