"""Asking an endpoint whether it takes a key: by a call that costs nothing, and its status alone."""

from ulid import ULID

from credentials.rotation_models import UpstreamSecret
from endpoints import outgoing
from endpoints.models import Dialect, Endpoint

MOST = 20_000_000  # bytes of an answer, as lists of models can be long
PATHS: dict[str, str] = {
    Dialect.OPENAI: "/v1/models",
    Dialect.ANTHROPIC: "/v1/models",
    Dialect.OLLAMA: "/api/tags",
    Dialect.HTTP: "/",
}
REFUSED = {401, 403}


class Unsure(Exception):
    """The endpoint can't be asked at the moment, or its answer says nothing of the key."""


def path_of(secret: UpstreamSecret) -> str:
    """Where its keys are tried; empty where they can't be."""
    endpoint = secret.endpoint
    if endpoint.key_header == "none" or not endpoint.upstream_url.startswith("http"):
        return ""
    return secret.probe or PATHS.get(_dialect(endpoint), "/")


def _dialect(endpoint: Endpoint) -> str:
    return next((name for name in PATHS if name in endpoint.dialects), Dialect.HTTP)


def _headers(endpoint: Endpoint, key: str) -> dict[str, str]:
    sent = {"User-Agent": "keyturn-worker", "Accept": "application/json"}
    if _dialect(endpoint) == Dialect.ANTHROPIC:
        sent["anthropic-version"] = "2023-06-01"
    if endpoint.key_header:
        sent[endpoint.key_header] = key
    elif _dialect(endpoint) == Dialect.ANTHROPIC:
        sent["x-api-key"] = key
    else:
        sent["Authorization"] = f"Bearer {key}"
    return sent


def ask(secret: UpstreamSecret, key: str) -> list[bool]:
    """Of each upstream that answers, whether it takes this key; empty where none can be asked.

    Raises Unsure.
    """
    path = path_of(secret)
    if not path:
        return []
    endpoint, why = secret.endpoint, ""
    found: list[bool] = []
    for base in (endpoint.upstream_url, *endpoint.further_upstreams):
        try:
            answer = outgoing.send(
                "GET", base.rstrip("/") + path, headers=_headers(endpoint, key), most=MOST
            )
        except outgoing.OutgoingError as error:
            why = f"The endpoint can’t be asked: {error}"
            continue
        status = answer.status
        if status in REFUSED:
            found.append(False)
        elif status == 429 or status >= 500 or 300 <= status < 400:
            why = f"The endpoint answers {status} at {path}, which says nothing of the key."
        else:
            found.append(True)
    if not found:
        raise Unsure(why)
    return found


def takes_any_key(secret: UpstreamSecret) -> bool:
    """Whether its answers say nothing of keys, as it takes one that can't be right."""
    return all(ask(secret, f"kt-no-key-{ULID()}"))
