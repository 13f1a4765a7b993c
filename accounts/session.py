"""The signed-in person of a request, with their type."""

from django.http import HttpRequest

from accounts.models import User
from broker.errors import NotSignedIn


def person(request: HttpRequest) -> User:
    """Who is signed in. Raises NotSignedIn; LoginRequiredMiddleware sees to it first."""
    if not isinstance(request.user, User):
        raise NotSignedIn
    return request.user
