"""Verbs on endpoints and access profiles."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput
from endpoints.models import AccessProfile, Endpoint
from endpoints.scope import Scope


def _checked(row: Endpoint | AccessProfile) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        raise InvalidInput(
            {field: " ".join(texts) for field, texts in error.message_dict.items()}
        ) from error


@transaction.atomic
def create_endpoint(*, by: User | None, **fields: Any) -> Endpoint:
    """Add an endpoint. Raises InvalidInput by field."""
    endpoint = Endpoint(**fields)
    _checked(endpoint)
    endpoint.save(force_insert=True)
    record(Event.ENDPOINT_CREATED, by=by, about=endpoint, slug=endpoint.slug)
    return endpoint


@transaction.atomic
def move_endpoint(*, by: User | None, endpoint: Endpoint, upstream_url: str) -> None:
    """Point an endpoint at another upstream. Raises InvalidInput."""
    if endpoint.upstream_url == upstream_url:
        return
    before, endpoint.upstream_url = endpoint.upstream_url, upstream_url
    _checked(endpoint)
    endpoint.save(update_fields=["upstream_url"])
    record(Event.ENDPOINT_CHANGED, by=by, about=endpoint, upstream_url=[before, upstream_url])


@transaction.atomic
def retire_endpoint(*, by: User | None, endpoint: Endpoint) -> None:
    """Close an endpoint: nothing new can be asked for or checked out on it.

    Its live grants are ended by the sweep.
    """
    if Endpoint.objects.filter(pk=endpoint.pk, retired_at=None).update(retired_at=clock.now()):
        record(Event.ENDPOINT_RETIRED, by=by, about=endpoint)


@transaction.atomic
def create_profile(*, by: User | None, models: list[str], **fields: Any) -> AccessProfile:
    """Add an access profile whose ceiling is these models. Raises InvalidInput by field."""
    profile = AccessProfile(scope=Scope.parse({"models": models}).as_json(), **fields)
    _checked(profile)
    profile.save(force_insert=True)
    record(Event.PROFILE_CREATED, by=by, about=profile, related=(profile.endpoint,))
    return profile
