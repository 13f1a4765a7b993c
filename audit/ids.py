"""Ids that sort by the time of their making."""

import uuid

from ulid import ULID


def new_id() -> uuid.UUID:
    """A new id: a ULID's 128 bits as a UUID, so that a row's name can show it either way."""
    return ULID().to_uuid()
