"""Credential kinds, as far as profiles, policies and pages need to know them.

What mints and revokes them is in `credentials/kinds`, which is above this app and makes its kinds
known here when Django starts.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from django.db.models import TextChoices

from broker.errors import InvalidInput


class Revocation(TextChoices):
    """How a credential can be taken back."""

    IMMEDIATE = "immediate", "Immediately"
    BY_EXPIRY = "by_expiry", "By expiry"
    BY_ROTATION = "by_rotation", "By rotation"


class Kind(Protocol):
    """What is known of a kind without minting one."""

    slug: ClassVar[str]
    label: ClassVar[str]

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The profile's settings, whole. Raises InvalidInput by setting."""

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        """How one that is minted by these settings can be taken back."""

    def describe(self, settings: Mapping[str, Any]) -> str:
        """What one gets and how it ends, in a sentence or two for whoever asks or reviews."""


_known: dict[str, Kind] = {}


def make_known(kind: Kind) -> None:
    """Let profiles be of this kind."""
    _known[kind.slug] = kind


def all_known() -> dict[str, Kind]:
    """Kinds by slug."""
    return dict(_known)


def known(slug: str) -> Kind:
    """The kind of this name. Raises InvalidInput where there is none."""
    try:
        return _known[slug]
    except KeyError:
        raise InvalidInput(
            {"credential_kind": f"Must be one of {', '.join(sorted(_known))}."}
        ) from None
