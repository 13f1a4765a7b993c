"""What people are told of upstream secrets: who, and in which words."""

from django.urls import reverse

from accounts.models import User
from credentials.rotation_models import Rotation, UpstreamSecret, Use
from credentials.states import RotationState
from notifications.kinds import Kind
from notifications.outbox import notify, withdraw


def _path(secret: UpstreamSecret) -> str:
    return reverse("upstream-key", kwargs={"slug": secret.endpoint.slug})


def _what(secret: UpstreamSecret) -> str:
    key = "upstream key" if secret.use == Use.UPSTREAM else "key that is handed out"
    return f"the {key} of {secret.endpoint}"


def _answerable(secret: UpstreamSecret) -> list[User]:
    """Its owner and administrators."""
    return [secret.endpoint.owner, *User.objects.filter(is_administrator=True, is_active=True)]


def wanted(rotation: Rotation) -> None:
    """Ask the owner for what only a person can do at the provider."""
    secret = rotation.secret
    facts = [("Why", rotation.get_why_display())]
    if rotation.deadline is not None:
        facts.append(("Until", f"{rotation.deadline:%Y-%m-%d %H:%M} UTC"))
    deed = "Replace" if rotation.state == RotationState.DUE else "Delete the old key: rotate"
    notify(
        Kind.ROTATION_WANTED,
        to=[secret.endpoint.owner],
        about=rotation,
        path=_path(secret),
        sentence=f"{deed} {_what(secret)}",
        facts=facts,
        quote=rotation.note,
        occasion=rotation.state,
    )


def stuck(rotation: Rotation) -> None:
    """Tell whoever answers for it that a rotation isn't over, though it should be."""
    secret = rotation.secret
    why = rotation.last_error or f"It waits for {rotation.waits_for}."
    notify(
        Kind.ROTATION_STUCK,
        to=_answerable(secret),
        about=rotation,
        path=_path(secret),
        sentence=f"The rotation of {_what(secret)} doesn’t come to its end",
        facts=[
            ("Due since", f"{rotation.due_at:%Y-%m-%d %H:%M} UTC"),
            ("Why it is due", rotation.get_why_display()),
            ("So far", rotation.get_state_display()),
            ("What is wrong", why),
        ],
    )


def over(rotation: Rotation) -> None:
    """Nobody needs to do anything about it any more."""
    withdraw(about=rotation, kinds=[Kind.ROTATION_WANTED, Kind.ROTATION_STUCK])


def leaked(secret: UpstreamSecret, by: User, said: str, *, stopped: bool) -> None:
    """Tell whoever answers for a key that somebody reported it as leaked."""
    notify(
        Kind.KEY_LEAKED,
        to=_answerable(secret),
        about=secret,
        path=_path(secret),
        sentence=f"{by} reports {_what(secret)} as leaked",
        facts=[
            ("Version", str(secret.version)),
            ("The endpoint", "is stopped" if stopped else "goes on"),
        ],
        quote=said,
        # Whoever says it twice of the same key is heard once.
        occasion=f"{secret.version} {by.pk}",
    )
