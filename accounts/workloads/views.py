"""/oauth/token (RFC 8693), and where OAuth clients find it (RFC 8414)."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.db import OperationalError
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from accounts.scopes import BY_ITSELF
from accounts.workloads.exchange import Refused, exchange
from audit import clock
from broker.errors import TooManyTries, Unavailable

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- a type's name
SUBJECT_TYPES = (
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
)
FORM = "application/x-www-form-urlencoded"
KNOWN = {"grant_type", "subject_token", "subject_token_type", "requested_token_type"}
KNOWN |= {"scope", "service_account", "audience"}


@csrf_exempt
@login_not_required
@never_cache
@sensitive_post_parameters("subject_token")
@require_POST
def token(request: HttpRequest) -> JsonResponse:
    """An API token for the JWT of a trusted issuer."""
    try:
        said = _parameters(request)
        row, text = exchange(
            subject_token=said["subject_token"],
            scope=said.get("scope", "").split(),
            service_account=said.get("service_account", ""),
        )
    except Refused as error:
        return _error(400, error.error, error.description)
    except TooManyTries as error:
        return _error(429, "slow_down", error.detail, retry_after=error.retry_after)
    except Unavailable as error:
        return _error(503, "temporarily_unavailable", error.detail, retry_after=error.retry_after)
    except OperationalError:
        return _error(
            503, "temporarily_unavailable", "The database can't answer: try again.", retry_after=5
        )
    left = (row.expires_at - clock.now()).total_seconds()
    return _answer(
        {
            "access_token": text,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": max(int(left), 0),
            "scope": " ".join(row.verbs),
        }
    )


def _parameters(request: HttpRequest) -> dict[str, str]:
    """What was sent, each once. Raises Refused."""
    if request.content_type != FORM:
        raise Refused("invalid_request", f"Send it as {FORM}.")
    if request.GET:
        # An address is in logs of all that it passes.
        raise Refused("invalid_request", "Send all of it in the body, and nothing in the URL.")
    try:
        fields = request.POST.lists()
    except (BadRequest, SuspiciousOperation):
        # Too large, of too many fields, or in another encoding.
        raise Refused("invalid_request", "The body can't be read as a form in UTF-8.") from None
    said = {}
    for name, values in fields:
        if len(values) > 1:
            raise Refused("invalid_request", f"{name} is there more than once.")
        said[name] = values[0]
    if said.get("grant_type", GRANT_TYPE) != GRANT_TYPE:
        raise Refused("unsupported_grant_type", f"The one grant_type is {GRANT_TYPE}.")
    for name in ("grant_type", "subject_token", "subject_token_type"):
        if not said.get(name):
            raise Refused("invalid_request", f"{name} is missing.")
    if said["subject_token_type"] not in SUBJECT_TYPES:
        types = " or ".join(SUBJECT_TYPES)
        raise Refused("invalid_request", f"subject_token_type must be {types}.")
    if said.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise Refused("invalid_request", f"The one requested_token_type is {ACCESS_TOKEN}.")
    if said.get("audience", settings.KEYTURN_BASE_URL) != settings.KEYTURN_BASE_URL:
        raise Refused("invalid_target", f"The one audience is {settings.KEYTURN_BASE_URL}.")
    if said.keys() - KNOWN:
        # `resource` and `actor_token` among them: whoever sends one means something by it.
        names = ", ".join(sorted(KNOWN))
        raise Refused("invalid_request", f"What can be sent here is {names}.")
    unknown = set(said.get("scope", "").split()) - set(BY_ITSELF)
    if unknown:
        names = " ".join(verb.value for verb in BY_ITSELF)
        raise Refused("invalid_scope", f"A scope is some of: {names}.")
    return said


def _answer(body: dict[str, object], *, status: int = 200) -> JsonResponse:
    return JsonResponse(body, status=status, headers={"Pragma": "no-cache"})


def _error(status: int, error: str, why: str, *, retry_after: int | None = None) -> JsonResponse:
    # RFC 6749, §5.2: printable ASCII without quotes and backslashes.
    plain = "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in why)
    response = _answer({"error": error, "error_description": plain}, status=status)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return response


@login_not_required
@require_safe
def authorization_server(request: HttpRequest) -> JsonResponse:  # noqa: ARG001
    """What RFC 8414 asks for, as far as there is something: programs exchange tokens here."""
    base = settings.KEYTURN_BASE_URL
    return JsonResponse(
        {
            "issuer": base,
            "token_endpoint": base + reverse("oauth-token"),
            "token_endpoint_auth_methods_supported": ["none"],
            "grant_types_supported": [GRANT_TYPE],
            "response_types_supported": [],
            "scopes_supported": [verb.value for verb in BY_ITSELF],
            "jwks_uri": base + reverse("jwks"),
            "introspection_endpoint": base + reverse("api-introspect"),
            "revocation_endpoint": base + reverse("api-revoke"),
            "revocation_endpoint_auth_methods_supported": ["none"],
            "service_documentation": base + reverse("api-docs"),
        },
        headers={"Cache-Control": f"public, max-age={settings.KEYTURN_JWKS_MAX_AGE}"},
    )
