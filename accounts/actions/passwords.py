"""Changing one's own password."""

from django.http import HttpRequest

from accounts.actions.people import set_password
from accounts.actions.signing_in import may_without_provider, sign_in
from accounts.factors import check_may_change
from accounts.models import User
from accounts.stepup import NONE, Proofs
from broker.errors import Conflict, InvalidInput


def has_password(user: User) -> bool:
    """Whether this person may sign in by password."""
    return user.has_usable_password() and may_without_provider(user)


def check_has_password(user: User) -> None:
    """Raise Conflict for somebody who doesn't sign in by password."""
    if not has_password(user):
        raise Conflict("You don’t sign in by password, so there is none to change.")


def change_password(
    *, by: User, request: HttpRequest, current: str, password: str, proofs: Proofs = NONE
) -> None:
    """Give oneself a new password; all one's sessions end by it.

    Raises InvalidInput by field, Conflict for somebody without one, StepUpNeeded, and
    TooManyTries: the current one is guessed at as seldom here as when signing in.
    """
    check_has_password(by)
    check_may_change(by, proofs)
    if sign_in(request=request, email=by.email, password=current) is None:
        raise InvalidInput({"current": "This isn’t your password."})
    set_password(by=by, user=by, password=password)
