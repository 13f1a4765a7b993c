"""What being in a group opens here."""

from collections.abc import Iterator

from accounts.models import Group
from endpoints.models import AccessProfile


def rights(group: Group) -> Iterator[str]:
    """What its members may ask for, and what they review."""
    rows = AccessProfile.objects.filter(retired_at=None, endpoint__retired_at=None)
    rows = rows.select_related("endpoint").order_by("endpoint__name", "name")
    for profile in rows.filter(requesters=group):
        yield f"ask for {profile}"
    for profile in rows.filter(reviewers=group):
        yield f"review {profile}"
