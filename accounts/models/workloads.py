import datetime as dt

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from accounts.models.people import User
from accounts.scopes import BY_ITSELF, Verb
from audit.clock import ClockTimestamp
from audit.ids import new_id

LONGEST = dt.timedelta(hours=1)  # that a workload's token lasts


class TrustedIssuers(models.QuerySet["TrustedIssuer"]):
    def visible_to(self, user: User) -> "TrustedIssuers":
        """For those who see everything."""
        return self if user.sees_everything else self.none()


class WorkloadRules(models.QuerySet["WorkloadRule"]):
    def visible_to(self, user: User) -> "WorkloadRules":
        """For those who see everything."""
        return self if user.sees_everything else self.none()


class TrustedIssuer(models.Model):
    """Whoever signs JWTs that say what workload somebody is: a CI service, a cluster."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    issuer = models.CharField(max_length=300, help_text="`iss` of its tokens, a URL")
    audience = models.CharField(max_length=300, help_text="`aud` that its tokens must be for")
    jwks_uri = models.CharField(
        max_length=300, blank=True, default="", help_text="empty: what its discovery document says"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    retired_at = models.DateTimeField(null=True, help_text="from when on nothing of it is taken")

    objects = TrustedIssuers.as_manager()

    class Meta:
        ordering = ("slug",)
        constraints = [
            # Of two that bear one name, neither could be told from the other by a token.
            models.UniqueConstraint(
                fields=["issuer"], condition=Q(retired_at=None), name="trusted_issuer_once"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WorkloadRule(models.Model):
    """Which of an issuer's tokens may act as which service account, and for what."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    issuer = models.ForeignKey(TrustedIssuer, on_delete=models.PROTECT, related_name="rules")
    name = models.CharField(max_length=100)
    service_account = models.ForeignKey(
        User, on_delete=models.PROTECT, related_name="workload_rules"
    )
    claims = models.JSONField(help_text="what each claim must be; all of them")
    verbs = ArrayField(models.CharField(max_length=10, choices=Verb.choices))
    endpoints = ArrayField(
        models.UUIDField(), default=list, help_text="ids of those it is for; empty for all"
    )
    lifetime = models.DurationField(
        default=dt.timedelta(minutes=15), help_text="of the token that is given for one"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    retired_at = models.DateTimeField(null=True)

    objects = WorkloadRules.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(condition=~Q(claims={}), name="workload_rule_says_who"),
            models.CheckConstraint(
                condition=~Q(verbs=[]) & Q(verbs__contained_by=[verb.value for verb in BY_ITSELF]),
                name="workload_rule_never_reviews",
            ),
            models.CheckConstraint(
                condition=Q(lifetime__gte=dt.timedelta(minutes=1)) & Q(lifetime__lte=LONGEST),
                name="workload_rule_is_short",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class UsedAssertion(models.Model):
    """A JWT of a trusted issuer that was exchanged, so that it isn't exchanged twice."""

    id = models.BigAutoField(primary_key=True)
    digest = models.BinaryField(max_length=32, unique=True, help_text="of its issuer and `jti`")
    expires_at = models.DateTimeField(help_text="when it would be refused for its age anyway")

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="used_assertion_by_end")]

    def __str__(self) -> str:
        return f"used, until {self.expires_at}"
