"""Verbs on endpoints and access profiles."""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet

from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput
from endpoints.kinds import known
from endpoints.models import AccessProfile, Endpoint, ModelPrice
from endpoints.permissions import check_price
from endpoints.scope import NAME_LENGTH, Scope, named


def _checked(row: Endpoint | AccessProfile | ModelPrice) -> None:
    if isinstance(row, AccessProfile):
        _check_scope(row)
        row.kind_settings = _checked_kind(row)
    try:
        row.full_clean()
    except ValidationError as error:
        raise InvalidInput(
            {field: " ".join(texts) for field, texts in error.message_dict.items()}
        ) from error


def _checked_kind(profile: AccessProfile) -> dict[str, Any]:
    """Its kind's settings, whole. Raises InvalidInput where it can't be a kind of this endpoint."""
    kind = known(profile.credential_kind)
    if profile.endpoint.is_direct and profile.credential_kind == "gateway_token":
        raise InvalidInput(
            {"credential_kind": "A gateway token opens nothing that is opened directly."}
        )
    try:
        return kind.check(profile.kind_settings)
    except InvalidInput as error:
        raise InvalidInput(
            {f"kind_settings.{key}".removesuffix("."): text for key, text in error.errors.items()}
        ) from error


def _check_scope(profile: AccessProfile) -> None:
    """Raise InvalidInput unless ceiling, defaults and aliases can be understood."""
    Scope.parse(profile.scope)
    try:
        named(profile.defaults)
    except InvalidInput as error:
        raise InvalidInput(
            {key.replace("scope", "defaults", 1): text for key, text in error.errors.items()}
        ) from error
    aliases = profile.aliases
    if not isinstance(aliases, dict) or not all(
        isinstance(name, str) and 0 < len(name) <= NAME_LENGTH
        for pair in aliases.items()
        for name in pair
    ):
        raise InvalidInput({"aliases": "Name a model by its alias, such as fast: demo-small."})
    for alias, model in aliases.items():
        if model not in profile.ceiling.models or alias in profile.ceiling.models:
            raise InvalidInput(
                {"aliases": f"{alias!r} must be no model of the profile, and {model!r} one."}
            )


@transaction.atomic
def create_endpoint(*, by: User | None, **fields: Any) -> Endpoint:
    """Add an endpoint. Raises InvalidInput by field."""
    endpoint = Endpoint(**fields)
    _checked(endpoint)
    endpoint.save(force_insert=True)
    record(Event.ENDPOINT_CREATED, by=by, about=endpoint, slug=endpoint.slug)
    return endpoint


@transaction.atomic
def change(row: Endpoint | AccessProfile, *, by: User | None, **fields: Any) -> list[str]:
    """Set these fields of an endpoint or access profile; the names of those that differed.

    Raises InvalidInput by field. Grants keep the scope that they were given; a profile that got
    narrower refuses their next check-out.
    """
    rows: QuerySet[Any] = type(row)._default_manager.select_for_update(of=("self",))
    fresh = rows.get(pk=row.pk)
    changed = {
        name: [getattr(fresh, name), value]
        for name, value in fields.items()
        if getattr(fresh, name) != value
    }
    if not changed:
        return []
    for name, (_, value) in changed.items():
        setattr(fresh, name, value)
        setattr(row, name, value)
    _checked(fresh)
    fresh.save(update_fields=list(changed))
    is_endpoint = isinstance(fresh, Endpoint)
    record(
        Event.ENDPOINT_CHANGED if is_endpoint else Event.PROFILE_CHANGED,
        by=by,
        about=fresh,
        related=() if is_endpoint else (fresh.endpoint,),
        changed={name: [str(old), str(new)] for name, (old, new) in changed.items()},
    )
    return sorted(changed)


@transaction.atomic
def retire_endpoint(*, by: User | None, endpoint: Endpoint) -> None:
    """Close an endpoint: nothing new can be asked for or checked out on it.

    Its live grants are ended by the sweep.
    """
    if Endpoint.objects.filter(pk=endpoint.pk, retired_at=None).update(retired_at=clock.now()):
        record(Event.ENDPOINT_RETIRED, by=by, about=endpoint)


@transaction.atomic
def create_profile(
    *,
    by: User | None,
    models: list[str] | None = None,
    scope: Mapping[str, Any] | None = None,
    **fields: Any,
) -> AccessProfile:
    """Add an access profile whose ceiling is this scope, or these models. Raises InvalidInput by
    field."""
    ceiling = Scope.parse(scope or {"models": models or []})
    profile = AccessProfile(scope=ceiling.as_json(), **fields)
    _checked(profile)
    profile.save(force_insert=True)
    record(Event.PROFILE_CREATED, by=by, about=profile, related=(profile.endpoint,))
    return profile


def purpose(endpoint: Endpoint) -> Purpose:
    """What is proved to change this endpoint, its profiles or its prices."""
    return Purpose(Action.ENDPOINT, str(endpoint.pk))


@transaction.atomic
def set_price(
    *,
    by: User,
    endpoint: Endpoint,
    model: str,
    input_price: Decimal,
    output_price: Decimal,
    since: dt.date | None = None,
    proofs: Proofs = stepup.NONE,
) -> ModelPrice:
    """Say what a model costs on an endpoint from a day on, today if none is given, in US dollars
    per million tokens.

    What was charged stays as it was: a day that is over can't be given another price, and prices
    of earlier days are kept. Raises NotFound, Forbidden, StepUpNeeded, and InvalidInput by field.
    """
    endpoint = fetch(Endpoint.objects.visible_to(by), endpoint.pk, lock=True)
    check_price(by, endpoint)
    today = clock.now().astimezone(dt.UTC).date()
    row = ModelPrice(
        endpoint=endpoint,
        model=model.strip(),
        input_price=input_price,
        output_price=output_price,
        since=since or today,
        set_by=by,
    )
    if row.since < today:
        raise InvalidInput(
            {"since": f"Must be {today} (today, UTC) or later: it has been charged."}
        )
    if "\x00" in row.model:
        raise InvalidInput({"model": "Must not contain NUL characters."})
    old = ModelPrice.objects.filter(endpoint=endpoint, model=row.model, since=row.since).first()
    if old is not None:
        # The lock on the endpoint lets only one at a time get here.
        row.pk, row.set_at = old.pk, clock.now()
        row._state.adding = False
    _checked(row)
    proofs.check(purpose(endpoint))
    row.save()
    record(
        Event.PRICE_SET,
        by=by,
        about=endpoint,
        model=row.model,
        input_price=str(row.input_price),
        output_price=str(row.output_price),
        since=row.since.isoformat(),
        replaced=[str(old.input_price), str(old.output_price)] if old else None,
    )
    return row
