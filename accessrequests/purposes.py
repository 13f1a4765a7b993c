"""What a second factor is proved for here, in words for whoever proves it.

Each takes the reader and an id, and raises NotFound for what they can't see: whoever makes up a
link learns nothing by it.
"""

import re

from accessrequests.models import AccessRequest, Policy
from accessrequests.queue import waiting_for
from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Action, Purpose
from broker.errors import NotFound
from endpoints.models import AccessProfile

SHOWN = ("requester", "profile__endpoint")


def asking(reader: User, about: str) -> str:
    """For access by a profile."""
    rows = AccessProfile.objects.open_to(reader).select_related("endpoint")
    profile = fetch(rows, about)
    return f"Ask for {profile.name} on {profile.endpoint}"


def reviewing(reader: User, about: str) -> str:
    """A verdict on a request."""
    row = fetch(AccessRequest.objects.visible_to(reader).select_related(*SHOWN), about)
    return f"Decide {row.requester}’s request for {row.wanted} on {row.profile.endpoint}"


def policy(reader: User, about: str) -> str:
    """Another version of a policy, its first, or its end."""
    # What isn't there yet is named by the link alone, which must have no text to put in.
    if not reader.sees_everything or not re.fullmatch("[a-z0-9-]+", about):
        raise NotFound
    row = Policy.objects.filter(slug=about, current__isnull=False).select_related("current").first()
    if row is not None and row.current is not None:
        return f"Change the policy “{row.current.parsed().name}”"
    return f"Make the policy {about}"


def others_to_review(reader: User, number: int) -> list[Purpose]:
    """Up to so many of the requests that wait for the reader."""
    ids = waiting_for(reader).values_list("request_id", flat=True)[:number]
    return [Purpose(Action.REVIEW, str(pk)) for pk in ids]
