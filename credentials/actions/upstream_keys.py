"""Upstream keys that people type in."""

from django.db import transaction

from accounts.models import User
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput, Unavailable
from credentials import vault
from endpoints.models import Endpoint


def store_upstream_key(*, by: User | None, endpoint: Endpoint, key: str) -> int:
    """Put an endpoint's upstream key into Vault; its version. It can't be read back here.

    Raises InvalidInput for an empty key, Unavailable when Vault can't be reached.
    """
    if not key.strip() or not key.isprintable():
        raise InvalidInput({"key": "Must be one line and not empty."})
    try:
        version = vault.store_upstream_key(endpoint.slug, key.strip())
    except vault.VaultError as error:
        raise Unavailable(f"Vault didn't store the key: {error}") from error
    with transaction.atomic():
        record(Event.SECRET_STORED, by=by, about=endpoint, version=version)
    return version
