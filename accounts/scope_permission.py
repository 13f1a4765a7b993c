"""What an API token opens of the API: by verb, and by endpoint.

A view says which verb its unsafe calls take (`verbs`, by action or method) and by which path its
rows hang on an endpoint (`endpoint_path`). One that says nothing takes MANAGE, and is closed to
tokens that are for some endpoints: what is forgotten is refused.
"""

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from django.db.models import Model, QuerySet
from rest_framework import permissions
from rest_framework.request import Request

from accounts.models import ApiToken
from accounts.scopes import BY_ITSELF, Verb
from broker.errors import NotFound, TokenScope

if TYPE_CHECKING:
    # Views import their permissions while they are made.
    from rest_framework.views import APIView

Row = TypeVar("Row", bound=Model)


def token_of(request: Request) -> ApiToken | None:
    """The API token that this call came with, if it came with one."""
    return request.auth if isinstance(request.auth, ApiToken) else None


def verb_for(view: "APIView", method: str) -> Verb | None:
    """What a token must be for to call this; None where any will do."""
    verbs: dict[str, Verb | None] = getattr(view, "verbs", {})
    if method in permissions.SAFE_METHODS:
        return verbs.get("get", Verb.READ)
    return verbs.get(getattr(view, "action", None) or method.lower(), Verb.MANAGE)


class InScope(permissions.BasePermission):
    """Refuses what the API token of a call isn't for."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        token, method = token_of(request), request.method or ""
        # What there isn't at all is answered as to everybody.
        if token is None or not hasattr(view, method.lower()):
            return True
        verb = verb_for(view, method)
        if verb is not None:
            check_verb(request, verb)
        if token.endpoints and getattr(view, "endpoint_path", None) is None:
            raise TokenScope("This API token is for some endpoints, and this isn't about them.")
        return True


def check_verb(request: Request, verb: Verb) -> None:
    """Raise TokenScope unless the call's token, if it came with one, is for that."""
    token = token_of(request)
    if token is not None and not allows(token, verb):
        raise TokenScope(f"This API token isn't for this: it lacks “{verb}”.", verb=verb)


def allows(token: ApiToken, verb: Verb) -> bool:
    """Whether this token is for that. A workload's reviews and changes nothing, whatever a row
    says."""
    return verb in token.verbs and (token.kind == ApiToken.Kind.PERSONAL or verb in BY_ITSELF)


def within(request: Request, rows: QuerySet[Row], path: str) -> QuerySet[Row]:
    """Those rows that hang by `path` on an endpoint that the call's token is for."""
    token = token_of(request)
    if token is None or not token.endpoints:
        return rows
    return rows.filter(**{f"{path}__in": token.endpoints})


def check_endpoints(request: Request, endpoints: Iterable[uuid.UUID]) -> None:
    """Raise NotFound unless the call's token is for all of these. Only one that is for some
    endpoints has them looked up."""
    token = token_of(request)
    if token is None or not token.endpoints:
        return
    for endpoint in endpoints:
        if endpoint not in token.endpoints:
            raise NotFound(kind="endpoint", id=str(endpoint))


def check_everywhere(request: Request) -> None:
    """Raise TokenScope for a token that is for some endpoints."""
    token = token_of(request)
    if token is not None and token.endpoints:
        raise TokenScope("This API token is for some endpoints, and this is about all of them.")
