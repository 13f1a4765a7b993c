"""Who calls the API: a browser's session, or an API token."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions, serializers, viewsets
from rest_framework.request import Request

from accounts.actions import token_owner
from accounts.door import fetch
from accounts.models import ApiToken, User

Row = TypeVar("Row", bound=Model)


class SessionAuthentication(authentication.SessionAuthentication):
    """Django's session with its CSRF check; one that is missing answers 401, not 403."""

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return "Session"


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer kt_pat_…`."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = token_owner(text.strip())
        if found is None:
            raise exceptions.AuthenticationFailed(
                "This API token is unknown, expired or revoked. `manage.py token create` or "
                "your administrator gives a new one."
            )
        return found

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return 'Bearer realm="keyturn"'


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document names TokenAuthentication."""

    target_class = TokenAuthentication
    name = "apiToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "bearerFormat": "kt_pat_…"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document names SessionAuthentication."""

    target_class = SessionAuthentication
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


def caller(request: Request) -> User:
    """The person on whose behalf this call is made; the permission classes let nobody else by."""
    user = request.user
    if isinstance(user, AnonymousUser):
        raise exceptions.NotAuthenticated
    return user


def is_token(request: Request) -> bool:
    """Whether this call came with an API token rather than a person's session."""
    return isinstance(request.auth, ApiToken)


class VisibleViewSet(viewsets.GenericViewSet[Row]):
    """Lists and fetches by `visible_to` the caller; the rest answers 404 and is audited."""

    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Row]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        visible: QuerySet[Row] = rows.visible_to(caller(self.request))  # type: ignore[attr-defined]
        return visible

    def get_object(self) -> Row:
        return fetch(self.get_queryset(), self.kwargs["pk"])


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it doesn't know or that can't be written, by name.

    Dropping them in silence would tell a caller that `ends_at` or `state` was taken.
    """

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [str(key) for key in data if key not in writable]
            if unknown:
                known = ", ".join(sorted(writable)) or "nothing"
                raise serializers.ValidationError(
                    dict.fromkeys(unknown, f"Can't be written here. What can be: {known}.")
                )
        return super().to_internal_value(data)
