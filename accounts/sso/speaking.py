"""Talking to an OpenID provider: what it publishes, what it signed, what it says of a person now.

Everything goes out by the one client of `endpoints.outgoing`, a layer above this one.
"""

import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import jwt

from accounts import published
from accounts.published import ALGORITHMS, LEEWAY, NoAnswer, NotGood, body_of, safe_url
from accounts.sso.configuration import Provider
from broker.errors import Unavailable

logger = logging.getLogger(__name__)

NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL = ("userinfo_endpoint", "end_session_endpoint")


class Gone(Exception):
    """The provider no longer stands for this sign-in."""


def metadata(provider: Provider) -> dict[str, Any]:
    """What the provider says where it is (OpenID Connect Discovery 1.0). Raises NoAnswer."""
    found = published.discovered(provider.issuer, need=NEEDED)
    for name in OPTIONAL:
        at = found.get(name)
        if at is not None and not (isinstance(at, str) and safe_url(at)):
            raise NoAnswer(f"{provider.issuer} has no {name} that may be called.")
    return found


def verified(provider: Provider, token: str, *, need: list[str]) -> dict[str, Any]:
    """The claims of a token that this provider signed for us and that hasn't ended.

    Raises NotGood, and NoAnswer where its keys can't be read.
    """
    try:
        claims = jwt.decode(
            token,
            key=published.key_of(token, lambda: metadata(provider)["jwks_uri"]),
            algorithms=ALGORITHMS,
            issuer=provider.issuer,
            audience=provider.client_id,
            leeway=LEEWAY,
            options={"require": ["iss", "aud", *need]},
        )
    except jwt.PyJWTError as error:
        raise NotGood(type(error).__name__) from None
    # OpenID Connect Core 1.0, §3.1.3.7: of several audiences, it was issued to `azp`.
    azp = claims.get("azp")
    if azp is not None and azp != provider.client_id:
        raise NotGood("issued to another client")
    if azp is None and isinstance(claims["aud"], list) and len(claims["aud"]) > 1:
        raise NotGood("issued to several clients")
    return claims


def has_userinfo(provider: Provider) -> bool:
    """Whether it has an endpoint that says who somebody is. Raises NoAnswer."""
    return metadata(provider).get("userinfo_endpoint") is not None


def userinfo(provider: Provider, access_token: str) -> dict[str, Any]:
    """What the provider says of the person now. Raises Gone, and NoAnswer."""
    url = metadata(provider).get("userinfo_endpoint")
    if url is None:
        raise NoAnswer(f"{provider.issuer} has no userinfo_endpoint.")
    headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
    answer = published.send("GET", url, headers=headers, timeout=published.TIMEOUT)
    if answer.status in {400, 401, 403}:
        raise Gone(f"userinfo: {answer.status}")
    if answer.status != 200:
        raise NoAnswer(f"{url} answered with {answer.status}.")
    return body_of(answer)


def refresh(provider: Provider, refresh_token: str) -> dict[str, Any]:
    """New tokens for a refresh token. Raises Gone, and NoAnswer."""
    found = metadata(provider)
    said = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    if uses_basic(found):
        headers["Authorization"] = basic(provider.client_id, provider.secret)
    else:
        said |= {"client_id": provider.client_id, "client_secret": provider.secret}
    answer = published.send(
        "POST",
        found["token_endpoint"],
        headers=headers,
        body=urlencode(said).encode(),
        timeout=published.TIMEOUT,
    )
    body = body_of(answer)
    if answer.status in {400, 401} and body.get("error") == "invalid_grant":
        raise Gone("refresh: invalid_grant")
    if answer.status != 200 or not isinstance(body.get("access_token"), str):
        raise NoAnswer(f"{found['token_endpoint']} answered with {answer.status}.")
    return body


def uses_basic(found: Mapping[str, Any]) -> bool:
    """Whether the client's secret goes in a header; where nothing is said, it does (Discovery)."""
    methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return "client_secret_basic" in methods or "client_secret_post" not in methods


def basic(name: str, secret: str) -> str:
    """The header by which a client names itself (RFC 6749, §2.3.1)."""
    return "Basic " + b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode()


def unavailable(provider: Provider) -> Unavailable:
    """What is said while it can't be asked."""
    return Unavailable(
        f"{provider.name} can’t be asked at the moment whether you still have your account there. "
        "Nothing was done: try again in a few seconds."
    )
