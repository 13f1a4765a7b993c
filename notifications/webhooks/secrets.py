"""Signing secrets: made here, sealed by Vault, shown once (Standard Webhooks)."""

import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import NoReturn

from broker.errors import Unavailable

PREFIX = "whsec_"
BYTES = 32


def _no_vault(*_: object) -> NoReturn:
    raise Unavailable("Nothing here can seal or unseal a signing secret.")


# Vault is spoken to by `credentials`, a layer above this one, which sets these two when it starts.
# Each takes what is to be sealed or unsealed and the webhook's id. They raise Unavailable. Only
# web may seal, and only a worker unseal.
seal: Callable[[bytes, str], str] = _no_vault
unseal: Callable[[str, str], bytes] = _no_vault


def make() -> str:
    """A new secret, as its holder is shown it."""
    return PREFIX + b64encode(secrets.token_bytes(BYTES)).decode()


def sealed(secret: str, bound_to: object) -> str:
    """As it's stored. Raises Unavailable."""
    return seal(b64decode(secret.removeprefix(PREFIX)), str(bound_to))


def unsealed(stored: str, bound_to: object) -> str:
    """As its holder has it. Raises Unavailable."""
    return PREFIX + b64encode(unseal(stored, str(bound_to))).decode()
