"""What people are told about accounts. `notifications`, a layer above this one, tells it."""

from collections.abc import Callable

from accounts.models import User


def _no_word(person: User) -> None:
    """Until `notifications` sets `password_changed`."""


def _nobody(service: User, news: str) -> None:
    """Until `notifications` sets `service_ends`."""


# Tells the owner of a service account that it "ends" in a while, or has "ended", in the
# transaction that makes it true.
service_ends: Callable[[User, str], None] = _nobody

# Tells a person that their password is another one now, in the transaction that makes it so.
password_changed: Callable[[User], None] = _no_word
