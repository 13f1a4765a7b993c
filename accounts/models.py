import datetime as dt
import functools
from collections.abc import Iterator
from typing import ClassVar
from zoneinfo import available_timezones

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Lower

from audit.clock import ClockTimestamp
from audit.ids import new_id


@functools.cache
def _zones() -> set[str]:
    # Reads a thousand files, each time that it's asked.
    return available_timezones()


def check_time_zone(name: str) -> None:
    """Raise ValidationError unless `name` is in the IANA database."""
    if name not in _zones():
        raise ValidationError(f"{name!r} is no time zone; give one such as Europe/Berlin.")


class Users(BaseUserManager["User"]):
    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        """Spelling and case of an address must not make a second account of one person."""
        return (email or "").strip().lower()

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=self.normalize_email(username))

    def active(self) -> models.QuerySet["User"]:
        return self.filter(is_active=True)

    def visible_to(self, user: "User") -> models.QuerySet["User"]:
        """Everybody for those who see everything; else the service accounts one answers for."""
        return self.all() if user.sees_everything else self.filter(owner=user)


class User(AbstractBaseUser):
    """A person, or a program that a person answers for."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    email = models.EmailField(unique=True)
    full_name = models.CharField(max_length=150)
    time_zone = models.CharField(max_length=64, default="UTC", validators=[check_time_zone])
    is_active = models.BooleanField(default=True)
    is_administrator = models.BooleanField(default=False)
    is_auditor = models.BooleanField(default=False, help_text="reads everything, changes nothing")
    manager = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="reports"
    )
    owner = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="service_accounts",
        help_text="the person who answers for this service account; empty for people",
    )
    ends_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="from when on a service account is deactivated; empty for people",
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    session_epoch = models.PositiveIntegerField(
        default=0, editable=False, help_text="counted up to end all sessions"
    )

    objects: ClassVar[Users] = Users()
    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = ["full_name"]

    class Meta:
        ordering = ("full_name",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="user_email_lower_case"
            ),
            models.CheckConstraint(
                condition=~models.Q(manager=models.F("id")) & ~models.Q(owner=models.F("id")),
                name="user_not_above_themself",
                violation_error_message="Nobody is their own manager or owner.",
            ),
            models.CheckConstraint(
                condition=models.Q(owner=None) | models.Q(is_administrator=False, is_auditor=False),
                name="user_service_without_role",
                violation_error_message="A service account is neither administrator nor auditor.",
            ),
            models.CheckConstraint(
                condition=models.Q(ends_at=None) | models.Q(owner__isnull=False),
                name="user_ends_is_service",
                violation_error_message="Only a service account has an end date.",
            ),
        ]

    def __str__(self) -> str:
        return self.full_name or self.email

    def get_session_auth_hash(self) -> str:
        """What a session must carry to go on: it changes with the password and the epoch."""
        return f"{super().get_session_auth_hash()}.{self.session_epoch}"

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        """The same under each earlier secret key."""
        for earlier in super().get_session_auth_fallback_hash():
            yield f"{earlier}.{self.session_epoch}"

    @property
    def is_service(self) -> bool:
        """Whether this is a program's account rather than a person's."""
        return self.owner_id is not None

    @property
    def sees_everything(self) -> bool:
        """Auditors read all; administrators must, to end what others left open."""
        return self.is_auditor or self.is_administrator


class Groups(models.QuerySet["Group"]):
    def visible_to(self, user: User) -> "Groups":
        """All for those who see everything; else those that one owns."""
        return self if user.sees_everything else self.filter(owners=user)


class Group(models.Model):
    """People who may ask for the same things, or review them."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    is_rota = models.BooleanField(default=False, help_text="its members are on call")
    members = models.ManyToManyField(
        User, through="Membership", related_name="member_of", blank=True
    )
    owners = models.ManyToManyField(
        User,
        related_name="owns_groups",
        blank=True,
        help_text="who say who is in it, beside administrators",
    )

    objects = Groups.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def has(self, user: User) -> bool:
        """Whether this person is an active member at this moment."""
        # Both by the rows: what this process loaded of the person may be a moment old.
        return self.memberships.filter(user=user, user__is_active=True).exists()


class Membership(models.Model):
    """One person in one group."""

    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    since = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["group", "user"], name="membership_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.group}"


class ApiTokens(models.QuerySet["ApiToken"]):
    def visible_to(self, user: User) -> "ApiTokens":
        """One's own, and those of service accounts that one answers for; all for those who see
        everything."""
        if user.sees_everything:
            return self
        return self.filter(models.Q(owner=user) | models.Q(owner__owner=user))


class ApiToken(models.Model):
    """What a program signs in with on its owner's behalf. Only a keyed digest is stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    lookup = models.CharField(max_length=16, unique=True, help_text="the id within the token")
    digest = models.BinaryField(max_length=32)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = ApiTokens.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    expires_at__lte=models.F("created_at")
                    + models.Value("90 days", output_field=models.DurationField())
                ),
                name="api_token_at_most_90_days",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ScimToken(models.Model):
    """What a directory calls /scim/v2/ with; it opens nothing else. Only a keyed digest is
    stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    lookup = models.CharField(max_length=16, unique=True, help_text="the id within the token")
    digest = models.BinaryField(max_length=32)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    expires_at__lte=models.F("created_at")
                    + models.Value("366 days", output_field=models.DurationField())
                ),
                name="scim_token_at_most_a_year",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (SCIM)"


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


class SignInTry(models.Model):
    """One failed sign-in, counted per account and per account with address."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    account = models.CharField(max_length=64, help_text="SHA-256 of the address typed")
    address = models.GenericIPAddressField(null=True)

    class Meta:
        indexes = [models.Index(fields=["account", "-at"], name="sign_in_try_recent")]

    def __str__(self) -> str:
        return f"{self.account[:8]} at {self.at}"


class Totp(models.Model):
    """A person's second factor: an authenticator that shows a new code every 30 seconds."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.OneToOneField(User, on_delete=models.CASCADE, related_name="totp")
    sealed = models.CharField(max_length=500, help_text="the secret, as Vault encrypted it")
    last_step = models.BigIntegerField(help_text="of the last code taken; older ones are used up")
    failures = models.PositiveIntegerField(default=0, help_text="wrong codes since the last one")
    failed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(sealed__startswith="vault:"), name="totp_secret_is_sealed"
            ),
        ]

    def __str__(self) -> str:
        return f"the second factor of {self.person}"


class RecoveryCode(models.Model):
    """One of ten codes on paper, each a second factor once. Only a hash of it is stored."""

    id = models.BigAutoField(primary_key=True)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=200, help_text="keyed, by accounts.recovery")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"a recovery code of {self.person}"


class PasskeyChallenge(models.Model):
    """What a passkey is to sign, until it has: whoever deletes the row has used it up."""

    digest = models.CharField(primary_key=True, max_length=64, help_text="SHA-256 of it")
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"a challenge until {self.expires_at}"


class Invitation(models.Model):
    """A link that lets one person in once, to set a password. Only a digest of it is stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="invitations")
    digest = models.BinaryField(max_length=32, unique=True)
    invited_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", help_text="empty: an operator"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"an invitation of {self.person}"


class Session(AbstractBaseSession):
    """A browser in which somebody is signed in (accounts.sessions), or is about to."""

    person = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="sessions")
    began = models.BigIntegerField(null=True, help_text="seconds since the epoch")
    how = models.CharField(max_length=60, help_text="password, passkey, or a provider's name")
    provider_session = models.CharField(max_length=200, help_text="`sid` at the OpenID provider")
    address = models.GenericIPAddressField(null=True, help_text="of its last call")
    agent = models.CharField(max_length=300, help_text="what the browser says it is")

    class Meta(AbstractBaseSession.Meta):
        indexes = [
            models.Index(
                fields=["provider_session"],
                name="session_of_provider",
                condition=~models.Q(provider_session=""),
            )
        ]

    @classmethod
    def get_session_store_class(cls) -> type:
        from accounts.sessions import SessionStore

        return SessionStore


class ProviderSignIn(models.Model):
    """One sign-in by an OpenID provider, which is asked again whether it still stands for it.

    In a row of its own: tokens that are used up and replaced can't be in a session, of which two
    requests at once write the older state back. A session names its row, and without it is over.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="provider_sign_ins")
    provider = models.CharField(max_length=40, help_text="its slug")
    subject = models.CharField(max_length=255, help_text="`sub` at the provider")
    provider_session = models.CharField(max_length=200, help_text="as in its Session")
    sealed = models.TextField(help_text="the provider's tokens, as Vault encrypted them")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    asked_at = models.DateTimeField(help_text="when the provider last stood for it")

    class Meta:
        indexes = [models.Index(fields=["provider", "subject"], name="sign_in_by_subject")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(sealed__startswith="vault:"), name="provider_tokens_are_sealed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person} by {self.provider}"


class LogoutToken(models.Model):
    """A logout token of a provider that was taken, so that it isn't taken twice."""

    id = models.BigAutoField(primary_key=True)
    digest = models.BinaryField(max_length=32, unique=True, help_text="of its provider and `jti`")
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    def __str__(self) -> str:
        return f"taken at {self.at}"


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
