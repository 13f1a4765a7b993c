"""What people are told about accounts. `notifications`, a layer above this one, tells it."""

from collections.abc import Callable, Iterable

from accounts.models import ApiToken, ScimToken, User


def _no_word(person: User) -> None:
    """Until `notifications` sets `password_changed`."""


def _nobody(service: User, news: str) -> None:
    """Until `notifications` sets `service_ends`."""


def _no_leak(token: ApiToken | ScimToken, people: Iterable[User], url: str) -> None:
    """Until `notifications` sets `token_leaked`."""


def _no_url(token: ApiToken, person: User) -> None:
    """Until `notifications` sets `token_in_url`."""


# Tells these that their token was reported as leaked, found at a URL, and is revoked by that.
token_leaked: Callable[[ApiToken | ScimToken, Iterable[User], str], None] = _no_leak

# Tells this person, once a day, that their token came to Keyturn in a URL.
token_in_url: Callable[[ApiToken, User], None] = _no_url

# Tells the owner of a service account that it "ends" in a while, or has "ended", in the
# transaction that makes it true.
service_ends: Callable[[User, str], None] = _nobody

# Tells a person that their password is another one now, in the transaction that makes it so.
password_changed: Callable[[User], None] = _no_word
