"""Vault as `accounts.factors` asks for it: that app lies below this one and can't import it."""

import logging

from broker.errors import Unavailable
from credentials import vault

logger = logging.getLogger(__name__)


def seal(secret: bytes, bound_to: str) -> str:
    """`secret` as only Vault can read it. Raises Unavailable."""
    try:
        return vault.seal(secret, bound_to=bound_to)
    except vault.VaultError as error:
        raise _unavailable(error) from error


def unseal(sealed: str, bound_to: str) -> bytes:
    """What was sealed. Raises Unavailable, also where it was sealed for somebody else."""
    try:
        return vault.unseal(sealed, bound_to=bound_to)
    except vault.VaultError as error:
        raise _unavailable(error) from error


def _unavailable(error: vault.VaultError) -> Unavailable:
    logger.warning("second factor: %s", error)
    return Unavailable(
        "Vault can't be asked about second factors at the moment. Nothing was changed: try again "
        "in a few seconds."
    )
