"""The one way into a session, whatever somebody has proved themself by."""

from django.contrib.auth import login
from django.http import HttpRequest

from accounts import sessions
from accounts.models import User


def begin(request: HttpRequest, user: User, *, how: str) -> None:
    """Sign this person in, who has just proved themself by `how`, such as `password`."""
    login(request, user)
    request.session[sessions.HOW] = how
