"""Whether whoever let somebody in still stands for them, asked before what matters most."""

from django.contrib.auth import logout
from django.http import HttpRequest

from accounts import sessions
from accounts.sso import actions
from accounts.sso.configuration import provider
from broker.errors import SignInAgain

SIGN_IN = "sso.sign_in"  # in the session: id of its ProviderSignIn


def check_standing(request: HttpRequest) -> None:
    """Ask the OpenID provider by which this session was signed in to, at most once a minute.

    Raises SignInAgain, the session then being over, where it no longer stands for the person or
    sign-in; Unavailable where it can't be asked. Other sessions and API tokens pass.
    """
    if getattr(request, "auth", None) is not None:
        return
    session = getattr(request, "session", None)
    if session is None:
        return
    key = session.get(SIGN_IN)
    if key is None and provider(session.get(sessions.HOW, "")) is None:
        return
    try:
        if key is None:
            raise SignInAgain
        actions.ask_again(key=key)
    except SignInAgain:
        logout(request)
        raise
