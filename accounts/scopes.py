"""What an API token may be used for, by verb and by endpoint."""

import uuid
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from django.db.models import TextChoices

from broker.errors import InvalidInput

if TYPE_CHECKING:
    from accounts.models import User


class Verb(TextChoices):
    """What calls of the API are for. Names are for ever: tokens keep them."""

    READ = "read", "read what its owner may see"
    REQUEST = "request", "ask for access, comment, take a request back"
    CHECK_OUT = "check_out", "check credentials out"
    END = "end", "end grants"
    REVIEW = "review", "review, with a second factor in the same call"
    MANAGE = "manage", "change all else, mostly with a second factor in the same call"


# What a program may do with nobody there.
BY_ITSELF = (Verb.READ, Verb.REQUEST, Verb.CHECK_OUT, Verb.END)


def _none(owner: "User") -> Mapping[uuid.UUID, str]:  # noqa: ARG001
    return {}


# The endpoints that somebody sees, as {id: slug}. `endpoints`, a layer above this one, sets it.
endpoints_seen_by: Callable[["User"], Mapping[uuid.UUID, str]] = _none


def ids_of(owner: "User", slugs: Collection[str]) -> list[uuid.UUID]:
    """The endpoints with these slugs that this person sees. Raises InvalidInput."""
    seen = {slug: pk for pk, slug in endpoints_seen_by(owner).items()}
    unknown = [slug for slug in slugs if slug not in seen]
    if unknown:
        raise InvalidInput({"endpoints": f"{owner} sees none with the slug {unknown[0]}."})
    return [seen[slug] for slug in slugs]
