import datetime as dt
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.validators import MaxValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from notifications.kinds import ICONS, TOPICS, Email, Kind, Topic
from notifications.webhooks.models import Untold, Webhook, WebhookAttempt, WebhookMessage

__all__ = [
    "Delivery",
    "Notification",
    "Preference",
    "Untold",
    "Webhook",
    "WebhookAttempt",
    "WebhookMessage",
]

HANDLE = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z"
check_handle = RegexValidator(
    HANDLE, "Give your name there: letters, digits, dots, dashes and underscores, 64 at most."
)


class Notifications(models.QuerySet["Notification"]):
    def visible_to(self, user: User) -> "Notifications":
        """One's own, also for those who else see everything: it is their post."""
        return self.filter(person=user)

    def unread(self) -> "Notifications":
        return self.filter(read_at=None)


class Notification(models.Model):
    """One event told to one person. What it says never changes; whether it was read does."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The indexes below begin with it, here and in Delivery.
    person = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="notifications", db_index=False
    )
    kind = models.CharField(max_length=20, choices=Kind.choices)
    subject_id = models.UUIDField(help_text="what it is about")
    occasion = models.CharField(
        max_length=100, blank=True, default="", help_text="which time, where a kind comes again"
    )
    path = models.CharField(max_length=300, help_text="the page in the portal")
    sentence = models.CharField(max_length=300)
    facts = models.JSONField(default=list, help_text="pairs of label and value")
    quote = models.CharField(max_length=1000, blank=True, default="")
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    read_at = models.DateTimeField(null=True)

    objects = Notifications.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["person", "kind", "subject_id", "occasion"], name="notification_once"
            ),
            models.CheckConstraint(
                condition=Q(path__regex=r"^/([^/\\]|$)"), name="notification_path_within_portal"
            ),
            models.CheckConstraint(condition=~Q(sentence=""), name="notification_says_something"),
        ]
        indexes = [
            models.Index(
                fields=["person"], condition=Q(read_at=None), name="notification_unread_of_person"
            ),
            models.Index(fields=["person", "-id"], name="notification_of_person"),
            models.Index(fields=["subject_id"], name="notification_by_subject"),
        ]

    def __str__(self) -> str:
        return self.sentence

    @property
    def topic(self) -> Topic:
        """What its person chooses about it with."""
        return TOPICS[Kind(self.kind)]

    @property
    def url(self) -> str:
        """Its page, as a link from outside."""
        return f"{settings.KEYTURN_BASE_URL}{self.path}"

    @property
    def icon(self) -> str:
        """One of the outlines in static/icons.svg."""
        return ICONS[Kind(self.kind)]


class Delivery(models.Model):
    """One notification on its way to one person by one channel. Rows that are due are the queue."""

    class Channel(models.TextChoices):
        EMAIL = "email", "e-mail"
        CHAT = "chat", "chat"

    class State(models.TextChoices):
        DUE = "due", "due"
        SENT = "sent", "sent"
        GIVEN_UP = "given_up", "given up"
        WITHDRAWN = "withdrawn", "withdrawn"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    notification = models.ForeignKey(
        Notification, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    channel = models.CharField(max_length=5, choices=Channel.choices)
    digest = models.BooleanField(default=False, help_text="goes with others of its day in one mail")
    state = models.CharField(max_length=10, choices=State.choices, default=State.DUE)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    give_up_at = models.DateTimeField()
    last_error = models.CharField(max_length=300, blank=True, default="")
    sent_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["notification", "channel"], name="delivery_once_by_channel"
            ),
            models.CheckConstraint(
                condition=Q(state="sent", sent_at__isnull=False)
                | (~Q(state="sent") & Q(sent_at=None)),
                name="delivery_sent_complete",
            ),
            models.CheckConstraint(
                condition=Q(digest=False) | Q(channel="email"), name="delivery_digest_is_mail"
            ),
        ]
        indexes = [
            models.Index(
                fields=["channel", "next_attempt_at"],
                condition=Q(state="due"),
                name="delivery_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.pk}"


class Preference(models.Model):
    """How one person wants to be told. Who has no row has the defaults."""

    person = models.OneToOneField(
        User, on_delete=models.CASCADE, primary_key=True, related_name="notification_preference"
    )
    email_waiting = models.CharField(max_length=7, choices=Email.choices, default=Email.AT_ONCE)
    email_access = models.CharField(max_length=7, choices=Email.choices, default=Email.AT_ONCE)
    email_comments = models.CharField(max_length=7, choices=Email.choices, default=Email.OFF)
    chat_waiting = models.BooleanField(default=True)
    chat_access = models.BooleanField(default=True)
    chat_comments = models.BooleanField(default=True)
    chat_handle = models.CharField(max_length=64, blank=True, default="", validators=[check_handle])
    digest_hour = models.PositiveSmallIntegerField(
        default=8,
        validators=[MaxValueValidator(23)],
        help_text="of the day in the person's own time zone",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(digest_hour__lte=23), name="preference_hour_sound"),
            models.CheckConstraint(
                condition=Q(chat_handle="")
                | Q(chat_handle__regex=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"),
                name="preference_handle_sound",
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"email_{topic}__in": Email.values}),
                    name=f"preference_{topic}_known",
                )
                for topic in ("waiting", "access", "comments")
            ),
        ]

    def __str__(self) -> str:
        return f"notification settings of {self.person}"

    def email_for(self, topic: Topic) -> Email:
        """When to write about this; security at once, whatever was chosen."""
        if topic == Topic.SECURITY:
            return Email.AT_ONCE
        return Email(getattr(self, f"email_{topic.value}"))

    def chat_for(self, topic: Topic) -> bool:
        """Whether to send this to their chat as well."""
        chosen: bool = topic == Topic.SECURITY or getattr(self, f"chat_{topic.value}")
        return bool(self.chat_handle) and chosen

    def next_digest(self, now: dt.datetime) -> dt.datetime:
        """The next time, after `now`, that it is the digest's hour where the person is."""
        zone = ZoneInfo(self.person.time_zone)
        local = now.astimezone(zone)
        today = local.replace(hour=self.digest_hour, minute=0, second=0, microsecond=0, fold=0)
        moments = ((today + dt.timedelta(days=days)).astimezone(dt.UTC) for days in (0, 1, 2))
        return next(moment for moment in moments if moment > now)
