"""Who may do what with a webhook."""

from accounts.models import User
from broker.errors import Forbidden
from notifications.webhooks.models import Webhook


def can_change(user: User, webhook: Webhook) -> bool:
    """Whether this webhook is the person's own, or that of a service account of theirs.

    No administrator's right: whoever changes where it goes reads what its owner may see.
    """
    return user.is_active and user.pk in {webhook.owner_id, webhook.owner.owner_id}


def check_change(user: User, webhook: Webhook) -> None:
    """Raise Forbidden unless this person may change this webhook."""
    if not can_change(user, webhook):
        raise Forbidden("Only its owner changes a webhook.")


def can_end(user: User, webhook: Webhook) -> bool:
    """Whether this person may disable or delete this webhook: its owner, administrators."""
    return can_change(user, webhook) or (user.is_active and user.is_administrator)


def check_end(user: User, webhook: Webhook) -> None:
    """Raise Forbidden unless this person may disable or delete this webhook."""
    if not can_end(user, webhook):
        raise Forbidden("Only its owner and administrators disable or delete a webhook.")


def may_call_inside(owner: User) -> bool:
    """Whether this owner's webhooks may go wherever workers may. Others' go to
    KEYTURN_WEBHOOK_NETWORKS alone: by status and time, the log tells what listens at an address.
    """
    return (owner.owner or owner).is_administrator


def check_create(user: User, owner: User) -> None:
    """Raise Forbidden unless this person may make a webhook of this owner's."""
    if user.pk not in {owner.pk, owner.owner_id}:
        raise Forbidden("A webhook is one's own, or that of a service account one answers for.")
