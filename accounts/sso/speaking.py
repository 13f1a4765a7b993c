"""Talking to an OpenID provider: what it publishes, what it signed, what it says of a person now.

Everything goes out by the one client of `endpoints.outgoing`, a layer above this one.
"""

import json
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol
from urllib.parse import quote_plus, urlencode

import jwt

from accounts.sso.configuration import Provider, safe_url
from broker.errors import Unavailable

logger = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds for each call
METADATA_AGE = 300.0  # seconds for which what a provider publishes is kept
KEYS_AGAIN = 10.0  # seconds before its keys are read anew for one that isn't among them
LEEWAY = 30  # seconds that two clocks may be apart
# What a provider signs by a key that it publishes. Not by the client's secret, which others that
# have it could sign by too, and not by nothing.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
ALGORITHMS += ["EdDSA"]
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL = ("userinfo_endpoint", "end_session_endpoint")


class Answer(Protocol):
    """What a server answered."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class NoAnswer(Exception):
    """The provider couldn't be asked, or said nothing that one could use."""


class NotGood(Exception):
    """A token isn't what its bearer says it is. The text is for the log."""


class Gone(Exception):
    """The provider no longer stands for this sign-in."""


def _no_client(*_: object, **__: object) -> NoReturn:
    raise NoAnswer("Nothing here can call a provider.")


# Set by `endpoints` when it starts: method, URL; headers, body, timeout by name. Raises NoAnswer.
send: Callable[..., Answer] = _no_client


@dataclass(frozen=True)
class _Kept:
    at: float
    value: Any


_kept: dict[str, _Kept] = {}
_lock = threading.Lock()


def _get_json(url: str, *, age: float) -> Any:
    """What is published at this address, from memory if that is younger than `age` seconds."""
    with _lock:
        kept = _kept.get(url)
    if kept is not None and time.monotonic() - kept.at < age:
        return kept.value
    answer = send("GET", url, headers={"Accept": "application/json"}, timeout=TIMEOUT)
    value = body_of(answer)
    if answer.status != 200:
        raise NoAnswer(f"{url} answered with {answer.status}.")
    with _lock:
        _kept[url] = _Kept(time.monotonic(), value)
    return value


def body_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer. Raises NoAnswer."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise NoAnswer("The provider's answer is no JSON.") from None
    if not isinstance(value, dict):
        raise NoAnswer("The provider's answer is no JSON object.")
    return value


def metadata(provider: Provider) -> dict[str, Any]:
    """What the provider says where it is (OpenID Connect Discovery 1.0). Raises NoAnswer."""
    url = provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
    found: dict[str, Any] = _get_json(url, age=METADATA_AGE)
    # §4.3: else one provider could speak in another's name.
    if found.get("issuer") != provider.issuer:
        raise NoAnswer(f"{url} is of another issuer than {provider.issuer}.")
    for name in (*NEEDED, *OPTIONAL):
        at = found.get(name)
        if at is None and name in OPTIONAL:
            continue
        if not isinstance(at, str) or not safe_url(at):
            raise NoAnswer(f"{url} has no {name} that may be called.")
    return found


def _key(provider: Provider, token: str) -> Any:
    header = jwt.get_unverified_header(token)
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise NotGood(f"signed by {algorithm}")
    url = metadata(provider)["jwks_uri"]
    for age in (METADATA_AGE, KEYS_AGAIN):
        published = _get_json(url, age=age).get("keys")
        keys = [each for each in published or [] if isinstance(each, dict)]
        fitting = [
            each
            for each in keys
            if each.get("use", "sig") == "sig"
            and each.get("alg", algorithm) == algorithm
            and (kid is None or each.get("kid") == kid)
        ]
        if len(fitting) == 1:
            return jwt.PyJWK(fitting[0], algorithm=algorithm).key
    raise NotGood("no key of the provider's signs so")


def verified(provider: Provider, token: str, *, need: list[str]) -> dict[str, Any]:
    """The claims of a token that this provider signed for us and that hasn't ended.

    Raises NotGood, and NoAnswer where its keys can't be read.
    """
    try:
        claims = jwt.decode(
            token,
            key=_key(provider, token),
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
    answer = send("GET", url, headers=headers, timeout=TIMEOUT)
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
    answer = send(
        "POST",
        found["token_endpoint"],
        headers=headers,
        body=urlencode(said).encode(),
        timeout=TIMEOUT,
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
