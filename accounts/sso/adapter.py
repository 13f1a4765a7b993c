"""What allauth does for us, and what it's kept from doing.

It keeps state and PKCE of a sign-in and exchanges the code. Accounts, identities, sessions and
what is believed of a token are ours: a sign-in ends in `accounts.sso.actions`, before allauth
would make or match an account by rules of its own.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any, NoReturn, Self
from urllib.parse import urlencode

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.base.constants import AuthError, AuthProcess
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from accounts import published
from accounts.published import NoAnswer, NotGood
from accounts.sso import speaking
from accounts.sso.configuration import Provider, provider, providers
from accounts.sso.speaking import Gone

NONCE = "nonce"  # in the state of a sign-in that is under way


class CodeFlow(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """One sign-in at one provider."""

    nonce = ""
    redirect_uri_protocol = None

    @property
    def provider_of_ours(self) -> Provider:
        """As the deployment has it."""
        found = provider(self.provider_id)
        if found is None:
            raise SocialApp.DoesNotExist
        return found

    @property
    def openid_config(self) -> dict[str, Any]:
        """What the provider publishes, judged."""
        try:
            return speaking.metadata(self.provider_of_ours)
        except NoAnswer as error:
            raise OAuth2Error(str(error)) from error

    @property
    def basic_auth(self) -> bool:
        """How the client names itself."""
        return speaking.uses_basic(self.openid_config)

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:  # noqa: ARG002
        """By the deployment's address; allauth would take it from the Host header."""
        return settings.KEYTURN_BASE_URL + reverse("sso-callback", args=[self.provider_id])

    def complete_login(
        self,
        request: HttpRequest,
        app: SocialApp,  # noqa: ARG002
        token: Any,  # noqa: ARG002
        **kwargs: Any,
    ) -> NoReturn:
        """Let in whom the provider's answer names. It never comes back to allauth."""
        from accounts.sso.actions import given
        from accounts.sso.views import let_in

        ours, answer = self.provider_of_ours, kwargs["response"]
        try:
            claims = self._claims(ours, answer)
        except (NoAnswer, NotGood, Gone) as error:
            raise OAuth2Error(f"{type(error).__name__}: {error}") from error
        raise ImmediateHttpResponse(let_in(request, ours, claims=claims, tokens=given(answer)))

    def _claims(self, ours: Provider, answer: Mapping[str, Any]) -> dict[str, Any]:
        """What the provider says of the person: by a token that it signed for this very sign-in,
        and, of the same person, by its userinfo."""
        claims = speaking.verified(
            ours, str(answer.get("id_token")), need=["sub", "exp", "iat", "nonce"]
        )
        if not self.nonce or not secrets.compare_digest(str(claims["nonce"]), self.nonce):
            raise NotGood("of another sign-in")
        if not speaking.has_userinfo(ours):
            return claims
        said = speaking.userinfo(ours, answer["access_token"])
        # OpenID Connect Core 1.0, §5.3.2: an access token could be of somebody else.
        if said.get("sub") != claims["sub"]:
            raise NotGood("userinfo is of another sub")
        return said | claims


class Client(OpenIDConnectProvider):  # type: ignore[misc]
    """Keyturn as the client of one provider."""

    oauth2_adapter_class = CodeFlow

    def start(self, request: HttpRequest, back: str) -> HttpResponse:
        """Send the browser to the provider, with state, nonce and PKCE of its session."""
        nonce = secrets.token_urlsafe(24)
        answer: HttpResponse = self.redirect(
            request, AuthProcess.LOGIN, next_url=back, auth_params={NONCE: nonce}, nonce=nonce
        )
        return answer


class Callback(OAuth2CallbackView):  # type: ignore[misc]
    """Where the provider sends the browser back to."""

    def _get_state(self, request: HttpRequest, client: Client) -> tuple[Any, Any]:
        state, response = super()._get_state(request, client)
        if state is not None:
            self.adapter.nonce = state.get(NONCE) or ""
            request.sso_back = state.get("next") or ""  # type: ignore[attr-defined]
        return state, response


class Adapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """What SOCIALACCOUNT_ADAPTER names."""

    def list_apps(
        self,
        request: HttpRequest | None,  # noqa: ARG002
        provider: str | None = None,
        client_id: str | None = None,
    ) -> list[SocialApp]:
        """The deployment's, and none of the database."""
        return [
            _app(each)
            for each in providers()
            if provider in {None, each.slug} and client_id in {None, each.client_id}
        ]

    def get_provider(
        self, request: HttpRequest, provider: str, client_id: str | None = None
    ) -> Client:
        """The one with this slug. Raises SocialApp.DoesNotExist."""
        return Client(request, app=self.get_app(request, provider=provider, client_id=client_id))

    def on_authentication_error(
        self,
        request: HttpRequest,
        provider: Any,
        error: str = AuthError.UNKNOWN,
        exception: Exception | None = None,
        extra_context: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Back to our own page, whatever it was."""
        from accounts.sso.views import failed

        raise ImmediateHttpResponse(
            failed(
                request,
                provider.app.provider_id,
                cancelled=error == AuthError.CANCELLED,
                why=_why(exception),
            )
        )

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:  # noqa: ARG002
        """Never by allauth."""
        return False

    def get_requests_session(self) -> "Outgoing":
        """The one client that goes out."""
        return Outgoing()


def _why(exception: Exception | None) -> str:
    # What allauth says of an exchange that failed quotes the provider's answer.
    if isinstance(exception, OAuth2Error) and exception.__cause__ is not None:
        return str(exception)
    return "" if exception is None else type(exception).__name__


def _app(each: Provider) -> SocialApp:
    return SocialApp(
        provider=OpenIDConnectProvider.id,
        provider_id=each.slug,
        name=each.name,
        client_id=each.client_id,
        secret=each.secret,
        settings={
            "server_url": each.issuer,
            "scope": each.scopes,
            "oauth_pkce_enabled": True,
        },
    )


class Outgoing:
    """As much of a `requests.Session` as allauth uses to exchange a code."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
    ) -> "Exchanged":
        """Send it. Raises OAuth2Error."""
        assert params is None, "a code goes in a body"  # noqa: S101
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        } | dict(headers or {})
        if auth is not None:
            sent["Authorization"] = speaking.basic(auth.username, auth.password)
        try:
            answer = published.send(
                method,
                url,
                headers=sent,
                body=urlencode(data or {}).encode(),
                timeout=published.TIMEOUT,
            )
        except NoAnswer as error:
            raise OAuth2Error(str(error)) from error
        return Exchanged(answer)


class Exchanged:
    """As much of its answer."""

    def __init__(self, answer: published.Answer) -> None:
        self.status_code = answer.status
        self.headers = {"content-type": "", **answer.headers}
        self.content = b"(not shown)"
        self.text = answer.body.decode(errors="replace")

    def json(self) -> Any:
        """The body. Raises OAuth2Error where it is no JSON."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise OAuth2Error("The provider's answer is no JSON.") from error
