"""What people are told of, and what they may choose about it."""

from django.db.models import TextChoices


class Kind(TextChoices):
    """One kind of event that concerns somebody. Names are for ever: rows keep them."""

    REVIEW_WANTED = "review_wanted", "review wanted"
    REVIEW_REMINDER = "review_reminder", "reminder"
    ESCALATED = "escalated", "escalated to you"
    HANDED_OVER = "handed_over", "handed over to you"
    DECIDED = "decided", "decided"
    EXPIRED = "expired", "expired undecided"
    COMMENTED = "commented", "comment"
    QUESTION = "question", "question"
    GRANT_STARTED = "grant_started", "access began"
    GRANT_ENDING = "grant_ending", "access ends soon"
    GRANT_ENDED = "grant_ended", "access ended"
    BREAK_GLASS = "break_glass", "break-glass"
    REVIEW_OWED = "review_owed", "review owed"
    SERVICE_ENDS = "service_ends", "service account ends"
    FACTOR_CHANGED = "factor_changed", "second factor changed"
    PASSWORD_CHANGED = "password_changed", "password changed"
    CREDENTIAL_STUCK = "credential_stuck", "credential stuck"
    ORPHANS_FOUND = "orphans_found", "unknown credentials found"
    WRAP_TAKEN = "wrap_taken", "wrapped secret was taken"
    ROTATION_WANTED = "rotation_wanted", "rotate a key"
    ROTATION_STUCK = "rotation_stuck", "rotation stuck"
    KEY_LEAKED = "key_leaked", "key reported as leaked"
    CHANGE_WAITING = "change_waiting", "change to decide"
    CHANGE_DECIDED = "change_decided", "change decided"
    TOKEN_LEAKED = "token_leaked", "token reported as leaked"
    TOKEN_IN_URL = "token_in_url", "token seen in a URL"
    WEBHOOK_DISABLED = "webhook_disabled", "webhook disabled"
    ASKED_FOR_YOU = "asked_for_you", "an agent asked for you"


class Topic(TextChoices):
    """Kinds about which a person chooses together; SECURITY is not for choosing."""

    WAITING = "waiting", "What waits for you"
    ACCESS = "access", "Your access"
    COMMENTS = "comments", "Comments"
    SECURITY = "security", "Break-glass, what is leaked or stuck, how you sign in"


class Email(TextChoices):
    """When to write."""

    AT_ONCE = "at_once", "At once"
    DIGEST = "digest", "Once a day"
    OFF = "off", "Off"


TOPICS: dict[Kind, Topic] = {
    Kind.REVIEW_WANTED: Topic.WAITING,
    Kind.REVIEW_REMINDER: Topic.WAITING,
    Kind.ESCALATED: Topic.WAITING,
    Kind.HANDED_OVER: Topic.WAITING,
    Kind.QUESTION: Topic.WAITING,
    Kind.DECIDED: Topic.ACCESS,
    Kind.EXPIRED: Topic.ACCESS,
    Kind.GRANT_STARTED: Topic.ACCESS,
    Kind.GRANT_ENDING: Topic.ACCESS,
    Kind.GRANT_ENDED: Topic.ACCESS,
    Kind.COMMENTED: Topic.COMMENTS,
    Kind.BREAK_GLASS: Topic.SECURITY,
    Kind.REVIEW_OWED: Topic.SECURITY,
    Kind.SERVICE_ENDS: Topic.SECURITY,
    Kind.FACTOR_CHANGED: Topic.SECURITY,
    Kind.PASSWORD_CHANGED: Topic.SECURITY,
    Kind.CREDENTIAL_STUCK: Topic.SECURITY,
    Kind.ORPHANS_FOUND: Topic.SECURITY,
    Kind.ROTATION_WANTED: Topic.WAITING,
    Kind.ROTATION_STUCK: Topic.SECURITY,
    Kind.WRAP_TAKEN: Topic.SECURITY,
    Kind.KEY_LEAKED: Topic.SECURITY,
    Kind.CHANGE_WAITING: Topic.WAITING,
    Kind.CHANGE_DECIDED: Topic.SECURITY,
    Kind.TOKEN_LEAKED: Topic.SECURITY,
    Kind.TOKEN_IN_URL: Topic.SECURITY,
    Kind.WEBHOOK_DISABLED: Topic.SECURITY,
    Kind.ASKED_FOR_YOU: Topic.ACCESS,
}

# One of the outlines in static/icons.svg for each kind.
ICONS: dict[Kind, str] = {
    Kind.REVIEW_WANTED: "checklist",
    Kind.REVIEW_REMINDER: "hourglass",
    Kind.ESCALATED: "users",
    Kind.HANDED_OVER: "users",
    Kind.DECIDED: "circle-check",
    Kind.EXPIRED: "hourglass",
    Kind.COMMENTED: "message-circle",
    Kind.QUESTION: "message-circle",
    Kind.GRANT_STARTED: "clock-hour-3",
    Kind.GRANT_ENDING: "hourglass",
    Kind.GRANT_ENDED: "player-stop",
    Kind.BREAK_GLASS: "flame",
    Kind.REVIEW_OWED: "alert-triangle",
    Kind.SERVICE_ENDS: "hourglass",
    Kind.FACTOR_CHANGED: "lock",
    Kind.PASSWORD_CHANGED: "lock",
    Kind.CREDENTIAL_STUCK: "alert-triangle",
    Kind.ORPHANS_FOUND: "alert-triangle",
    Kind.ROTATION_WANTED: "rotate",
    Kind.ROTATION_STUCK: "alert-triangle",
    Kind.WRAP_TAKEN: "flame",
    Kind.KEY_LEAKED: "flame",
    Kind.CHANGE_WAITING: "checklist",
    Kind.CHANGE_DECIDED: "users",
    Kind.TOKEN_LEAKED: "flame",
    Kind.TOKEN_IN_URL: "flame",
    Kind.WEBHOOK_DISABLED: "alert-triangle",
    Kind.ASKED_FOR_YOU: "users",
}
