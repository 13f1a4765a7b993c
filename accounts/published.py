"""What issuers of JWTs publish, and whether one of them signed a token: OpenID providers that
people come from, and the issuers of workloads.

Everything goes out by the one client of `endpoints.outgoing`, a layer above this one.
"""

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import jwt

TIMEOUT = 5.0  # seconds for each call
METADATA_AGE = 300.0  # seconds for which what an issuer publishes is kept
KEYS_AGAIN = 10.0  # seconds before its keys are read anew for one that isn't among them
FAILED_AGE = 2.0  # seconds for which one that couldn't be read isn't asked again
LEEWAY = 30  # seconds that two clocks may be apart
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# What an issuer signs by a key that it publishes. Not by a shared secret, which others that have it
# could sign by too, and not by nothing.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
ALGORITHMS += ["EdDSA"]


class Answer(Protocol):
    """What a server answered."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class NoAnswer(Exception):
    """The issuer couldn't be asked, or said nothing that one could use."""


class NotGood(Exception):
    """A token isn't what its bearer says it is. The text is for the log."""


def _no_client(*_: object, **__: object) -> NoReturn:
    raise NoAnswer("Nothing here can call an issuer.")


# Set by `endpoints` when it starts: method, URL; headers, body, timeout by name. Raises NoAnswer.
send: Callable[..., Answer] = _no_client


@dataclass(frozen=True)
class _Kept:
    """What was read last, and when; and when it couldn't be read since, and why not."""

    at: float = -math.inf
    value: dict[str, Any] = field(default_factory=dict)
    failed_at: float = -math.inf
    why: str = ""


_kept: dict[str, _Kept] = {}
# One asks and the others wait for what it learns: an issuer that hangs holds up each of them once.
_asking: dict[str, threading.Lock] = defaultdict(threading.Lock)


def safe_url(url: str) -> bool:
    """Whether who somebody is may be learned from this address: https, or loopback."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK))


def _from_memory(url: str, age: float) -> dict[str, Any] | None:
    kept, now = _kept.get(url, _Kept()), time.monotonic()
    if now - kept.at < age:
        return kept.value
    if now - kept.failed_at < FAILED_AGE:
        raise NoAnswer(kept.why)
    return None


def get_json(url: str, *, age: float) -> dict[str, Any]:
    """What is published at this address, from memory if that is younger than `age` seconds.
    Raises NoAnswer."""
    found = _from_memory(url, age)
    if found is not None:
        return found
    with _asking[url]:
        found = _from_memory(url, age)
        if found is None:
            try:
                found = _read(url)
            except NoAnswer as error:
                # What was read before goes on counting for its time: anybody can have keys asked
                # for anew, by a token that names one that there isn't.
                kept = _kept.get(url, _Kept())
                _kept[url] = replace(kept, failed_at=time.monotonic(), why=str(error))
                raise
            _kept[url] = _Kept(time.monotonic(), found)
    return found


def _read(url: str) -> dict[str, Any]:
    answer = send("GET", url, headers={"Accept": "application/json"}, timeout=TIMEOUT)
    if answer.status != 200:
        raise NoAnswer(f"{url} answered with {answer.status}.")
    return body_of(answer)


def body_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer. Raises NoAnswer."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise NoAnswer("The answer is no JSON.") from None
    if not isinstance(value, dict):
        raise NoAnswer("The answer is no JSON object.")
    return value


def discovered(issuer: str, *, need: tuple[str, ...]) -> dict[str, Any]:
    """What an issuer says where it is (OpenID Connect Discovery 1.0), with these addresses in it.
    Raises NoAnswer."""
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    found = get_json(url, age=METADATA_AGE)
    # §4.3: else one issuer could speak in another's name.
    if found.get("issuer") != issuer:
        raise NoAnswer(f"{url} is of another issuer than {issuer}.")
    for name in need:
        at = found.get(name)
        if not isinstance(at, str) or not safe_url(at):
            raise NoAnswer(f"{url} has no {name} that may be called.")
    return found


def key_of(token: str, jwks_uri: Callable[[], str]) -> Any:
    """The key among those published at `jwks_uri` that a token says it is signed by.

    Raises NotGood, NoAnswer, and PyJWTError for what is no token.
    """
    try:
        header = jwt.get_unverified_header(token)
    except RecursionError:
        raise NotGood("nested too deeply") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        # Anybody chooses what stands there, and it's for the log.
        raise NotGood(f"signed by {algorithm[:20]}" if isinstance(algorithm, str) else "not signed")
    url = jwks_uri()
    for age in (METADATA_AGE, KEYS_AGAIN):
        published = get_json(url, age=age).get("keys")
        fitting = [
            each
            for each in (published if isinstance(published, list) else [])
            if isinstance(each, dict)
            and each.get("use", "sig") == "sig"
            and each.get("alg", algorithm) == algorithm
            and (kid is None or each.get("kid") == kid)
            # With its private part anybody signs by it.
            and "d" not in each
        ]
        if len(fitting) == 1:
            try:
                return jwt.PyJWK(fitting[0], algorithm=algorithm).key
            except (jwt.PyJWTError, ValueError, TypeError):
                raise NotGood("the issuer's key is none") from None
    raise NotGood("no key of the issuer's signs so")
