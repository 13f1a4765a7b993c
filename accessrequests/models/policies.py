import pgtrigger
from django.db import models
from django.db.models import Q

from accessrequests.policy.document import PolicyDocument, parse
from accessrequests.policy.effective import Source
from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from endpoints.models import AccessProfile, Endpoint


class Policies(models.QuerySet["Policy"]):
    def visible_to(self, user: User) -> "Policies":
        """Policies are read by those who see everything; who asks sees what applies to the ask."""
        return self if user.sees_everything else self.none()


class Policy(models.Model):
    """Who may open some profiles, for how long, with whose consent. Its text is its version's."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(unique=True)
    current = models.ForeignKey(
        "PolicyVersion", on_delete=models.PROTECT, null=True, related_name="+"
    )
    retired_at = models.DateTimeField(null=True)

    objects = Policies.as_manager()

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class PolicyVersion(models.Model):
    """One state of a policy's text. It never changes."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    document = models.JSONField()
    note = models.CharField(max_length=300, blank=True, help_text="why it was changed")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    created_by = models.CharField(max_length=254)

    class Meta:
        ordering = ("-number",)
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="policy_version_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="policy_version_counts"),
        ]
        triggers = [
            pgtrigger.Protect(
                name="policy_version_kept", operation=pgtrigger.Update | pgtrigger.Delete
            ),
            refuse_truncate("policy_version_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.policy} version {self.number}"

    def parsed(self) -> PolicyDocument:
        """The document, checked again: what can't be read must not be taken for no policy."""
        return parse(self.document)

    def source(self) -> Source:
        """As a part of what holds for a profile."""
        return Source(self.policy.slug, self.number, self.parsed())


class PolicyBinding(models.Model):
    """A profile or an endpoint that a policy governs; each has one at most."""

    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="bindings")
    profile = models.OneToOneField(
        AccessProfile, on_delete=models.PROTECT, null=True, related_name="policy_binding"
    )
    endpoint = models.OneToOneField(
        Endpoint, on_delete=models.PROTECT, null=True, related_name="policy_binding"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(profile=None, endpoint__isnull=False)
                | Q(profile__isnull=False, endpoint=None),
                name="policy_binding_to_one_thing",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy} for {self.profile or self.endpoint}"
