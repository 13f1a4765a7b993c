"""Vault as `accounts.factors` and `notifications.webhooks` ask for it: those apps lie below this
one and can't import it."""

import logging

from broker.errors import Unavailable
from credentials import vault

logger = logging.getLogger(__name__)


def seal(secret: bytes, bound_to: str) -> str:
    """`secret` as only Vault can read it. Raises Unavailable."""
    try:
        return vault.seal(secret, bound_to=bound_to)
    except vault.VaultError as error:
        raise _unavailable(error, "second factors") from error


def unseal(sealed: str, bound_to: str) -> bytes:
    """What was sealed. Raises Unavailable, also where it was sealed for somebody else."""
    try:
        return vault.unseal(sealed, bound_to=bound_to)
    except vault.VaultError as error:
        raise _unavailable(error, "second factors") from error


def seal_webhook(secret: bytes, bound_to: str) -> str:
    """A webhook's signing secret as only Vault can read it. Raises Unavailable."""
    try:
        return vault.seal(secret, bound_to=bound_to, key=vault.WEBHOOK_KEY)
    except vault.VaultError as error:
        raise _unavailable(error, "signing secrets") from error


def unseal_webhook(sealed: str, bound_to: str) -> bytes:
    """The signing secret, for the worker alone: Vault tells no other process. Raises
    Unavailable."""
    try:
        return vault.unseal(sealed, bound_to=bound_to, key=vault.WEBHOOK_KEY)
    except vault.VaultError as error:
        raise _unavailable(error, "signing secrets") from error


def _unavailable(error: vault.VaultError, what: str) -> Unavailable:
    logger.warning("%s: %s", what, error)
    return Unavailable(
        f"Vault can't be asked about {what} at the moment. Nothing was changed: try again in a few "
        "seconds."
    )
