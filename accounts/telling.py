"""What people are told about accounts. `notifications`, a layer above this one, tells it."""

from collections.abc import Callable

from accounts.models import User


def _nobody(service: User, news: str) -> None:
    """Until `notifications` sets `service_ends`."""


# Tells the owner of a service account that it "ends" in a while, or has "ended", in the
# transaction that makes it true.
service_ends: Callable[[User, str], None] = _nobody
