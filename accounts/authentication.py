"""Who calls the API: a browser's session, or an API token."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from accounts.actions import token_owner
from accounts.models import ApiToken, User


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
