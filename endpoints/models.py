import datetime as dt
import uuid
from dataclasses import replace
from urllib.parse import urlsplit

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Exists, F, OuterRef, Q

from accounts.models import Group, Membership, User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from endpoints import kinds
from endpoints.scope import Scope, named

SHORTEST = dt.timedelta(minutes=1)
LONGEST = dt.timedelta(days=7)


def check_upstream(url: str) -> None:
    """Raise ValidationError unless `url` can be an upstream's base URL, or the address of what is
    opened directly, such as postgresql://db.internal:5432/reports."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValidationError(f"This is no URL: {error}.") from error
    if not url.isprintable():
        raise ValidationError("A URL has no control characters.")
    if not parts.scheme or not parts.hostname:
        raise ValidationError("Give an http or https URL, such as https://llm.internal:8443.")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValidationError("Give the base URL alone: no user, password, query or fragment.")


class Dialect(models.TextChoices):
    """An API that an upstream speaks."""

    OPENAI = "openai", "OpenAI"
    ANTHROPIC = "anthropic", "Anthropic"
    OLLAMA = "ollama", "Ollama"
    HTTP = "http", "Plain HTTP"
    DIRECT = "direct", "Opened directly"


class Endpoints(models.QuerySet["Endpoint"]):
    def visible_to(self, user: User) -> "Endpoints":
        """What this person may ask for, reviews or owns; everything for auditors."""
        if user.sees_everything:
            return self
        profiles = AccessProfile.objects.visible_to(user).filter(endpoint=OuterRef("pk"))
        return self.filter(Q(owner=user) | Exists(profiles))


class Endpoint(models.Model):
    """Any interface to a model or its plumbing, behind the gateway.

    Its upstream key is in Vault, at a path made from the slug; the slug therefore never changes.
    """

    class Kind(models.TextChoices):
        INFERENCE = "inference", "Inference API"
        DASHBOARD = "dashboard", "Admin dashboard"
        MANAGEMENT = "management", "Model management"
        TOOL = "tool", "Tool or data source"

    class Environment(models.TextChoices):
        DEVELOPMENT = "development", "Development"
        STAGING = "staging", "Staging"
        PRODUCTION = "production", "Production"

    class Risk(models.TextChoices):
        LOW = "low", "Low"
        ELEVATED = "elevated", "Elevated"
        CRITICAL = "critical", "Critical"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(unique=True, help_text="its name in URLs: /e/<slug>/v1")
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=300, blank=True)
    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.INFERENCE)
    environment = models.CharField(max_length=20, choices=Environment.choices)
    risk = models.CharField(max_length=20, choices=Risk.choices)
    connected_systems = ArrayField(
        models.CharField(max_length=100),
        default=list,
        blank=True,
        help_text="what its models can reach: the blast radius",
    )
    dialects = ArrayField(models.CharField(max_length=20, choices=Dialect.choices), default=list)
    upstream_url = models.CharField(max_length=300, validators=[check_upstream])
    further_upstreams = ArrayField(
        models.CharField(max_length=300, validators=[check_upstream]),
        default=list,
        blank=True,
        help_text="taken in this order when those before can't be reached; same key",
    )
    key_header = models.CharField(
        max_length=60,
        blank=True,
        default="",
        validators=[RegexValidator(r"^[A-Za-z][A-Za-z0-9-]*$", "Give a header's name.")],
        help_text="in which the upstream takes its key, as its whole value; "
        "empty: as its dialect has it; none: it takes no key",
    )
    max_stale = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="seconds for which gateways serve what they know while the database can't be "
        "asked; empty: as gateways are set, and none where the risk is critical",
    )
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="owned_endpoints")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    retired_at = models.DateTimeField(null=True, blank=True)

    objects = Endpoints.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(slug__regex=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"),
                name="endpoint_slug_plain",
                violation_error_message="Use lower-case letters, digits and inner hyphens.",
            ),
            models.CheckConstraint(
                condition=Q(dialects__len__gt=0), name="endpoint_speaks_something"
            ),
            models.CheckConstraint(
                condition=Q(max_stale=None) | Q(max_stale__lte=300),
                name="endpoint_max_stale_minutes",
                violation_error_message="At most 300 seconds.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """The gateway speaks HTTP; what is opened directly is out of its hands altogether."""
        if self.is_direct and len(self.dialects) > 1:
            raise ValidationError({"dialects": "What is opened directly has no other dialect."})
        urls = (self.upstream_url, *self.further_upstreams)
        # What is no URL at all is said by the field.
        if not self.is_direct and not all(
            url.lower().startswith(("http:", "https:")) for url in urls
        ):
            raise ValidationError(
                {"upstream_url": "Give an http or https URL, such as https://llm.internal:8443."}
            )

    @property
    def is_direct(self) -> bool:
        """Whether its holders open it themselves, with no gateway between."""
        return Dialect.DIRECT in self.dialects

    @property
    def is_active(self) -> bool:
        """Whether anything may be asked for on it."""
        return self.retired_at is None


class AccessProfiles(models.QuerySet["AccessProfile"]):
    def visible_to(self, user: User) -> "AccessProfiles":
        """What this person may ask for, reviews or owns; everything for auditors."""
        if user.sees_everything:
            return self
        groups = Membership.objects.filter(user=user).values("group")
        return self.filter(
            Q(requesters__in=groups) | Q(reviewers__in=groups) | Q(endpoint__owner=user)
        )

    def open_to(self, user: User) -> "AccessProfiles":
        """What this person may ask for at this moment."""
        # By the rows: who was deactivated since this process loaded them asks for nothing.
        groups = Membership.objects.filter(user=user, user__is_active=True).values("group")
        return self.filter(
            requesters__in=groups, retired_at=None, endpoint__retired_at=None
        ).select_related("endpoint", "reviewers")


class AccessProfile(models.Model):
    """What may be asked for on an endpoint, for how long at most, and who reviews it.

    The policy is one approval by a member of `reviewers` other than the requester.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="profiles")
    slug = models.SlugField()
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=300, blank=True)
    credential_kind = models.CharField(max_length=20, default="gateway_token")
    kind_settings = models.JSONField(
        default=dict, blank=True, help_text="what its kind needs to know: mounts, roles, audiences"
    )
    scope = models.JSONField(help_text="the ceiling")
    defaults = models.JSONField(
        default=dict,
        blank=True,
        help_text="what the form starts with, as far as it isn't all of the ceiling's models and "
        "operations, none of its tools and hosts, and its limits",
    )
    aliases = models.JSONField(
        default=dict, blank=True, help_text="model names that clients may use: the model meant"
    )
    default_duration = models.DurationField(default=dt.timedelta(hours=1))
    max_duration = models.DurationField(default=dt.timedelta(hours=8))
    pending_timeout = models.DurationField(
        default=dt.timedelta(days=1), help_text="an undecided request expires after this"
    )
    requesters = models.ForeignKey(Group, on_delete=models.PROTECT, related_name="may_request")
    reviewers = models.ForeignKey(Group, on_delete=models.PROTECT, related_name="may_review")
    retired_at = models.DateTimeField(null=True, blank=True)

    objects = AccessProfiles.as_manager()

    class Meta:
        ordering = ("endpoint__name", "name")
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "slug"], name="profile_slug_once"),
            models.CheckConstraint(
                condition=Q(max_duration__gte=SHORTEST)
                & Q(max_duration__lte=LONGEST)
                & Q(default_duration__gte=SHORTEST)
                & Q(default_duration__lte=F("max_duration")),
                name="profile_durations_sound",
                violation_error_message="Durations are from 1 minute to 7 days, "
                "the default no longer than the longest.",
            ),
            models.CheckConstraint(
                condition=models.Func(
                    F("scope"),
                    function="scope_opens_something",
                    output_field=models.BooleanField(),
                ),
                name="profile_scope_opens_something",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint.name}: {self.name}"

    @property
    def is_active(self) -> bool:
        """Whether it may be asked for."""
        return self.retired_at is None and self.endpoint.is_active

    @property
    def ceiling(self) -> Scope:
        """The widest scope that it may give."""
        return Scope.parse(self.scope)

    @property
    def default_scope(self) -> Scope:
        """The scope that the form starts with, within the ceiling whatever `defaults` says."""
        ceiling = self.ceiling
        least = replace(ceiling, tools=frozenset(), mcp_hosts=frozenset())
        usual = replace(least, **named(self.defaults)) & ceiling
        return (
            usual
            if usual.opens_something
            else replace(usual, models=ceiling.models, operations=ceiling.operations)
        )

    @property
    def kind(self) -> kinds.Kind:
        """What its credentials are."""
        return kinds.known(self.credential_kind)

    @property
    def revocation(self) -> kinds.Revocation:
        """How its credentials can be taken back."""
        return self.kind.revocation(self.kind_settings)

    @property
    def in_words(self) -> str:
        """What a credential of it is, and how it ends."""
        return self.kind.describe(self.kind_settings)


class ModelPrice(models.Model):
    """What a model costs on an endpoint from a day on, in US dollars per million tokens."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="prices")
    model = models.CharField(max_length=200)
    input_price = models.DecimalField(
        max_digits=12, decimal_places=4, validators=[MinValueValidator(0)]
    )
    output_price = models.DecimalField(
        max_digits=12, decimal_places=4, validators=[MinValueValidator(0)]
    )
    since = models.DateField(help_text="UTC; the latest that has come holds")
    set_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    set_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("model", "-since")
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "model", "since"], name="price_once_a_day"),
            models.CheckConstraint(
                condition=Q(input_price__gte=0, output_price__gte=0), name="price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} on {self.endpoint} from {self.since}"


class EmergencyStops(models.QuerySet["EmergencyStop"]):
    def visible_to(self, user: User) -> "EmergencyStops":
        """Of one's own endpoints, and of everything for whoever owns one; all for auditors."""
        if user.sees_everything:
            return self
        own = Endpoint.objects.filter(owner=user)
        return self.filter(Q(endpoint__in=own) | Q(Exists(own), endpoint=None))

    def in_force(self) -> "EmergencyStops":
        """Those that nobody has lifted yet."""
        return self.filter(lifted_at=None)

    def against(
        self, endpoint: uuid.UUID | OuterRef, decided_at: dt.datetime | OuterRef | None
    ) -> "EmergencyStops":
        """Those that forbid what was decided at this moment on this endpoint.

        A stop that was lifted since counts too: what it ended doesn't come back, whether or not
        a worker got round to ending it.
        """
        since = Q(lifted_at=None)
        if decided_at is not None:
            since |= Q(lifted_at__gt=decided_at)
        return self.filter(since, Q(endpoint=None) | Q(endpoint=endpoint))


class EmergencyStop(models.Model):
    """Nothing is let through to an endpoint, or to any, until somebody lifts it.

    One that was lifted the moment it was declared ended what there was, and let all ask again.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    endpoint = models.ForeignKey(
        Endpoint,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="stops",
        help_text="empty: all of them",
    )
    reason = models.CharField(max_length=500)
    stopped_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    stopped_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    objects = EmergencyStops.as_manager()

    class Meta:
        ordering = ("-stopped_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint"],
                condition=Q(lifted_at=None),
                nulls_distinct=False,
                name="one_stop_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(lifted_at=None, lifted_by=None)
                | Q(lifted_at__isnull=False, lifted_by__isnull=False),
                name="stop_lifted_by_someone",
            ),
        ]

    def __str__(self) -> str:
        what = self.endpoint or "everything"
        if self.lifted_at == self.stopped_at:
            return f"all access to {what}"
        return f"emergency stop of {what}"

    @property
    def in_words(self) -> str:
        """What it means to whoever runs into it."""
        what = self.endpoint.name if self.endpoint else "Everything"
        reason = self.reason.rstrip(".")
        if self.lifted_at is None:
            return f"{what} is stopped by {self.stopped_by}: {reason}."
        return f"Access to {what} was ended by {self.stopped_by}: {reason}. Ask anew."
