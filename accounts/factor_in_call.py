"""A second factor in the same call as a person's own API token, so that the token alone does
nothing that takes one.

The code is good for that call and used up by it, whatever becomes of the call. It is taken before
the handler runs and committed by itself: an action that fails doesn't give it back.
"""

import datetime as dt
import re
from typing import TYPE_CHECKING

from rest_framework import permissions
from rest_framework.request import Request

from accounts import factors, recovery
from accounts.idempotency import is_known
from accounts.models import User
from accounts.scope_permission import token_of
from accounts.scopes import Verb
from accounts.stepup import HEADER
from broker.errors import InvalidInput, NeedsPerson

if TYPE_CHECKING:
    # Views import their permissions while they are made.
    from rest_framework.views import APIView

# What may take a person: to review, to ask where policy wants it, and all else.
_PERSONS = frozenset({Verb.REQUEST, Verb.REVIEW, Verb.MANAGE})
_WRITTEN = re.compile(r"[0-9A-Za-z -]{6,60}")


class FactorInCall(permissions.BasePermission):
    """Takes the code that comes with a token; after InScope, so that no call that is refused
    anyway uses one up."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        token, method = token_of(request), request.method or ""
        code = request.headers.get(HEADER)
        changes = method not in permissions.SAFE_METHODS and hasattr(view, method.lower())
        if token is not None and code is not None and changes:
            if not token.is_persons:
                raise NeedsPerson
            if not _PERSONS.intersection(token.verbs):
                # Nothing that it is for takes one. Else the least of tokens, once found, could
                # guess, and have its owner's own codes refused for that.
                return True
            if is_known(request, token.owner):
                # It's only told again, or to wait: its code was used up by the first time.
                return True
            token.proved_at = _take(token.owner, code)
        return True


def _take(owner: User, code: str) -> dt.datetime:
    """When this code of an authenticator, or recovery code, was taken. Raises InvalidInput and
    TooManyTries."""
    if not _WRITTEN.fullmatch(code):
        raise InvalidInput({HEADER: "Must be six digits of an authenticator, or a recovery code."})
    recovering = re.fullmatch(r"[0-9 ]{6,7}", code) is None
    if not recovering and not factors.has_app(owner):
        raise InvalidInput(
            {HEADER: "You have no authenticator app. Set one up, or send a recovery code."}
        )
    try:
        if recovering:
            return recovery.use(by=owner, code=code)
        return factors.prove(by=owner, code=code)
    except InvalidInput as error:
        raise InvalidInput({HEADER: " ".join(error.errors.values())}) from error
