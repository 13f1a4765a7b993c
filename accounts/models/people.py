import functools
from collections.abc import Iterator
from typing import ClassVar
from zoneinfo import available_timezones

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
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
