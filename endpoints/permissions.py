"""Who may. What the state of things allows is another question: see actions."""

import uuid

from accounts.door import fetch
from accounts.models import User
from broker.errors import Forbidden
from endpoints.models import EmergencyStop, Endpoint


def changing_in_words(reader: User, about: str) -> str:
    """What a second factor is proved for to change this endpoint. Raises NotFound."""
    return f"Change {fetch(Endpoint.objects.visible_to(reader), about)}, its profiles or its prices"


def slugs_seen_by(user: User) -> dict[uuid.UUID, str]:
    """The endpoints that this person sees, by id."""
    return dict(Endpoint.objects.visible_to(user).order_by("slug").values_list("pk", "slug"))


def can_stop(user: User, endpoint: Endpoint | None) -> bool:
    """Whether this person may stop this endpoint, or all of them: its owner, administrators."""
    owned = endpoint is not None and endpoint.owner_id == user.pk
    return user.is_active and (user.is_administrator or owned)


def check_stop(user: User, endpoint: Endpoint | None) -> None:
    """Raise Forbidden unless this person may stop this endpoint, or all of them."""
    if not can_stop(user, endpoint):
        raise Forbidden(
            "Only administrators stop everything."
            if endpoint is None
            else "Only its owner and administrators stop an endpoint."
        )


def can_lift(user: User, stop: EmergencyStop) -> bool:
    """Whether this person may lift this stop: whoever might have declared it.

    What an administrator stopped, its owner doesn't open again.
    """
    return can_stop(user, stop.endpoint) and (
        user.is_administrator or not stop.stopped_by.is_administrator
    )


def check_lift(user: User, stop: EmergencyStop) -> None:
    """Raise Forbidden unless this person may lift this stop."""
    if not can_lift(user, stop):
        raise Forbidden(
            "Only administrators lift what an administrator stopped, "
            "and only its owner or an administrator what its owner did."
        )


def check_price(user: User, endpoint: Endpoint) -> None:
    """Raise Forbidden unless this person may say what models cost on this endpoint."""
    if not can_stop(user, endpoint):
        raise Forbidden("Only its owner and administrators set prices on an endpoint.")


def check_rotate(user: User, endpoint: Endpoint) -> None:
    """Raise Forbidden unless this person answers for the keys of this endpoint."""
    if not can_stop(user, endpoint):
        raise Forbidden("Only its owner and administrators rotate and store an endpoint’s keys.")
