"""What the owner of a webhook may see, and so be told, at this moment."""

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from accounts.models import User
from audit import clock
from audit.models import AuditEvent
from notifications.webhooks.models import WebhookMessage
from notifications.webhooks.types import OF_ENDPOINTS

Owned = Callable[[Collection[uuid.UUID]], Iterable[tuple[uuid.UUID, uuid.UUID]]]


def _nobody_owns(_: Collection[uuid.UUID]) -> Iterable[tuple[uuid.UUID, uuid.UUID]]:
    return ()


# Set by `endpoints` when it starts: of these people, who owns which endpoint.
endpoints_of: Owned = _nobody_owns


@dataclass
class Sight:
    """What one owner sees of the record."""

    everything: bool = False
    ids: set[uuid.UUID] = field(default_factory=set)  # theirs: themself, their service accounts
    endpoints: set[uuid.UUID] = field(default_factory=set)

    def of(self, event: AuditEvent) -> bool:
        """Whether this event is for them to see."""
        if self.everything or not self.ids.isdisjoint(event.related):
            return True
        concerns_one = not self.endpoints.isdisjoint(event.related)
        return concerns_one and event.event.startswith(OF_ENDPOINTS)


def is_active(owner: User) -> bool:
    """Whether this person, or this service account and whoever answers for it, is active."""
    if owner.ends_at is not None and owner.ends_at <= clock.now():
        return False
    return owner.is_active and (owner.owner is None or owner.owner.is_active)


def sights(owners: Iterable[User]) -> dict[uuid.UUID, Sight]:
    """What each of these sees now, in two queries. The inactive see nothing."""
    found: dict[uuid.UUID, Sight] = defaultdict(Sight)
    some = []
    for owner in owners:
        if not is_active(owner):
            continue
        if owner.sees_everything:
            found[owner.pk].everything = True
        else:
            found[owner.pk].ids.add(owner.pk)
            some.append(owner.pk)
    if some:
        services = User.objects.filter(owner__in=some).values_list("owner_id", "pk")
        for owner_id, service in services:
            if owner_id is not None:
                found[owner_id].ids.add(service)
        for owner_id, endpoint in endpoints_of(some):
            found[owner_id].endpoints.add(endpoint)
    return found


def withhold(reader: User, messages: Collection[WebhookMessage]) -> None:
    """Take from these, as they are shown, what they tell of that neither the reader nor the
    webhook's owner may see any more: the log is no way around a right that was lost."""
    if reader.sees_everything:
        return
    told = [message.event_id for message in messages if message.event_id is not None]
    events = AuditEvent.objects.in_bulk(told)
    owners = {message.webhook.owner for message in messages}
    seen = sights({reader, *owners})
    for message in messages:
        event = events.get(message.event_id or 0)
        own = (seen[reader.pk], seen[message.webhook.owner_id])
        if message.event_id is not None and not (event and any(each.of(event) for each in own)):
            message.payload = None
