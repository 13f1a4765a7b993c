"""Upstream keys that people type in, and what rotates them."""

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, InvalidInput, Unavailable
from credentials import push, vault
from credentials.models import Credential, Rotation, UpstreamSecret, Use
from credentials.rotators import rotators
from credentials.rotators.base import Rotator
from credentials.rotators.manual import ROTATOR as MANUAL
from credentials.states import CredentialState, RotationReason, RotationState
from endpoints.models import Endpoint

logger = logging.getLogger(__name__)
PROBE_LENGTH = 200


def path_of(secret: UpstreamSecret) -> str:
    """Where in Vault it is."""
    mount = {Use.UPSTREAM: "upstream", Use.HANDED_OUT: "handed-out"}
    return f"{mount[Use(secret.use)]}/{secret.endpoint.slug}"


def rotator_of(secret: UpstreamSecret) -> Rotator:
    """What makes its successors; a person, where a rotator is no longer there."""
    return rotators().get(secret.rotator, MANUAL)


def secret_of(endpoint: Endpoint, use: Use | str = Use.UPSTREAM) -> UpstreamSecret:
    """What is known of this endpoint's secret. Raises VaultError where that must be asked first,
    and can't."""
    secret, _ = UpstreamSecret.objects.select_related("endpoint__owner").get_or_create(
        endpoint=endpoint, use=use
    )
    if not secret.version:
        learn(secret)
    return secret


def learn(secret: UpstreamSecret) -> None:
    """Ask Vault for what was stored there before Keyturn kept record of it. Raises VaultError."""
    version = vault.newest(path_of(secret))
    if version:
        # It may be older; its age counts from here.
        now = clock.now()
        UpstreamSecret.objects.filter(pk=secret.pk, version=0).update(
            version=version, stored_at=now
        )
        secret.refresh_from_db()


def store_upstream_key(
    *, by: User | None, endpoint: Endpoint, key: str, use: Use = Use.UPSTREAM
) -> int:
    """Put an endpoint's key into Vault; its version. It can't be read back here.

    While a rotation waits for a new key, this is it: it's tried before gateways use it. Otherwise
    they use it at once. Raises InvalidInput for an empty key, Conflict while the key before is
    being retired, Unavailable when Vault can't be reached.
    """
    if not key.strip() or not key.isprintable():
        raise InvalidInput({"key": "Must be one line and not empty."})
    try:
        secret = secret_of(endpoint, use)
        _check_may_store(secret)
        path = path_of(secret)
        version = vault.keep(path, key.strip(), replaces=vault.newest(path))
    except vault.VaultInvalid as error:
        raise Conflict("Somebody else stored a key at the same moment.") from error
    except vault.VaultError as error:
        raise Unavailable(f"Vault didn't store the key: {error}") from error
    _stored(secret, version, by)
    return version


def _open_rotation(secret: UpstreamSecret) -> Rotation | None:
    return secret.rotations.open().first()


def _check_may_store(secret: UpstreamSecret) -> None:
    rotation = _open_rotation(secret)
    by_itself = rotator_of(secret).by_itself
    if rotation is not None and rotation.state == RotationState.PUBLISHED and by_itself:
        # Nobody would be left who knows of the key that is in use and is retired by its handle.
        raise Conflict(
            "A rotation has replaced this key and is retiring the old one. Store yours when it is "
            "over."
        )


@transaction.atomic
def _stored(secret: UpstreamSecret, version: int, by: User | None) -> None:
    secret = UpstreamSecret.objects.select_for_update().get(pk=secret.pk)
    rotation = secret.rotations.open().select_for_update().first()
    now = clock.now()
    record(Event.SECRET_STORED, by=by, about=secret.endpoint, version=version, use=secret.use)
    if rotation is not None and rotation.state in {RotationState.DUE, RotationState.CREATED}:
        rotation.next_attempt_at = now
        rotation.save(update_fields=["next_attempt_at"])
        ring_on_commit()
        return
    if rotation is None and (secret.handle or _is_held(secret)):
        # What a rotator made or somebody holds has to be retired at its provider too.
        rotation = Rotation.objects.create(
            secret=secret,
            state=RotationState.CREATED,
            why=RotationReason.REQUEST,
            by=by,
            old_version=secret.version,
            old_handle=secret.handle,
            new_version=version,
            created_at=now,
        )
        record(
            Event.ROTATION_CREATED,
            by=by,
            about=rotation,
            related=(secret.endpoint,),
            version=version,
        )
        ring_on_commit()
        return
    if rotation is not None:
        rotation.new_version = version
        rotation.save(update_fields=["new_version"])
    secret.version, secret.stored_at, secret.handle = version, now, {}
    secret.save(update_fields=["version", "stored_at", "handle"])
    if secret.use == Use.UPSTREAM:
        transaction.on_commit(lambda: push.replaced(secret.endpoint.slug, version))


def _is_held(secret: UpstreamSecret) -> bool:
    """Whether people have the version that is in use, so that it must not be merely replaced."""
    return secret.use == Use.HANDED_OUT and (
        Credential.objects.filter(
            kind="static_secret",
            grant__request__profile__endpoint=secret.endpoint_id,
            issued_at__isnull=False,
            handles__version=secret.version,
        )
        .exclude(state=CredentialState.REVOKED)
        .exists()
    )


def ring_on_commit() -> None:
    """Ring for the worker. Should it never happen: its ticker finds the row."""
    transaction.on_commit(_ring)


def _ring() -> None:
    from credentials.tasks import rotate

    try:
        rotate.apply_async(expires=5, retry=False)
    except rotate.OperationalError as error:
        logger.warning("no doorbell (%s); the next tick finds it", type(error).__name__)


def set_rotator(
    *,
    by: User | None,
    endpoint: Endpoint,
    use: Use = Use.UPSTREAM,
    rotator: str,
    settings: Mapping[str, Any],
    max_age: dt.timedelta | None,
    probe: str = "",
) -> list[str]:
    """Say what rotates this endpoint's secret and how old it may get; the names of what differed.

    Raises InvalidInput by field.
    """
    found = rotators().get(rotator)
    if found is None:
        raise InvalidInput({"rotator": f"Must be one of {', '.join(sorted(rotators()))}."})
    try:
        whole = found.check(settings)
    except InvalidInput as error:
        raise InvalidInput(
            {f"settings.{key}".removesuffix("."): text for key, text in error.errors.items()}
        ) from error
    if max_age is not None and max_age < dt.timedelta(hours=1):
        raise InvalidInput({"max_age": "At least an hour."})
    if probe and not (probe.startswith("/") and probe.isascii() and probe.isprintable()):
        raise InvalidInput({"probe": "Give a path that begins with a slash."})
    if len(probe) > PROBE_LENGTH:
        raise InvalidInput({"probe": f"At most {PROBE_LENGTH} characters."})
    wanted = {"rotator": rotator, "settings": whole, "max_age": max_age, "probe": probe}
    with transaction.atomic():
        UpstreamSecret.objects.get_or_create(endpoint=endpoint, use=use)
        secret = UpstreamSecret.objects.select_for_update().get(endpoint=endpoint, use=use)
        changed = {
            name: [str(getattr(secret, name)), str(value)]
            for name, value in wanted.items()
            if getattr(secret, name) != value
        }
        if not changed:
            return []
        if "rotator" in changed:
            # The handle is of the provider that made it.
            secret.handle = {}
        for name, value in wanted.items():
            setattr(secret, name, value)
        secret.save()
        record(Event.ENDPOINT_CHANGED, by=by, about=endpoint, use=use, changed=changed)
    return sorted(changed)


def store_rotator_key(*, by: User | None, endpoint: Endpoint, key: str) -> int:
    """Put what an endpoint's rotator manages keys with into Vault; its version.

    Raises InvalidInput for an empty key, Unavailable when Vault can't be reached.
    """
    if not key.strip() or not key.isprintable():
        raise InvalidInput({"key": "Must be one line and not empty."})
    try:
        version = vault.store_rotator_key(endpoint.slug, key.strip())
    except vault.VaultError as error:
        raise Unavailable(f"Vault didn't store the key: {error}") from error
    with transaction.atomic():
        record(Event.SECRET_STORED, by=by, about=endpoint, version=version, use="rotator")
    return version
