"""Rotating upstream secrets, step by step, whatever crashes between two of them.

Create the new one at the provider, write it with check-and-set, try it at the endpoint, publish
it to gateways, wait until none uses the old one, retire that at the provider, see that the
endpoint refuses it, destroy its version. Gateways use the version that PostgreSQL names, so a new
one that wasn't tried yet harms nobody.
"""

import contextvars
import datetime as dt
import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Min, Q

from audit import clock
from audit.events import Event
from audit.record import record
from credentials import probing, push, rotation_notices, vault
from credentials.actions.upstream_keys import learn, path_of, rotator_of
from credentials.failpoints import reached
from credentials.models import Credential, Rotation, UpstreamSecret, Use
from credentials.rotators.base import Job, ProviderError
from credentials.rotators.manual import ROTATOR as MANUAL
from credentials.states import CredentialState, RotationReason, RotationState
from endpoints.models import Endpoint

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0  # seconds between two tries
SOON = 0.5  # seconds between two looks at the gateways
AT_A_TIME = 4  # rotations; each waits for its provider
BATCH = 100
# A new key that the endpoint refused for so long is given up for another one.
REMAKE_AFTER = dt.timedelta(minutes=10)
KEPT_VERSIONS = 10  # as the KV mount is set up


class Waits(Exception):
    """Nothing failed: the next step waits for this."""

    def __init__(self, what: str, *, pause: float = LONGEST_PAUSE, wrong: str = "") -> None:
        super().__init__(what)
        self.pause = pause
        self.wrong = wrong


Using = Callable[[str, int, dt.datetime], list[str]]
_using: list[Using] = []  # one, once Django has started


def on_publishing(using: Using) -> None:
    """Name what tells which gateways use a version of an endpoint's key that is older than this
    one, or haven't said since that moment. `gateway` is above this app."""
    _using[:] = [using]


# What is due


def make_due(
    secret: UpstreamSecret,
    why: RotationReason,
    *,
    by: Any = None,
    note: str = "",
) -> Rotation:
    """A rotation of this secret, in the caller's transaction, which has locked it.

    There must be none open.
    """
    now = clock.now()
    rotator = rotator_of(secret)
    deadline = None
    if not rotator.by_itself:
        urgent = why in {RotationReason.LEAK, RotationReason.EXPOSURE}
        deadline = now + MANUAL.time_for(secret.settings, urgent=urgent)
    rotation = Rotation.objects.create(
        secret=secret,
        why=why,
        by=by,
        note=note,
        deadline=deadline,
        old_version=secret.version,
        old_handle=secret.handle,
        next_attempt_at=now,
    )
    record(
        Event.ROTATION_DUE,
        by=by,
        about=rotation,
        related=(secret.endpoint,),
        why=why,
        rotator=secret.rotator,
        use=secret.use,
        version=secret.version,
    )
    if deadline is not None:
        rotation_notices.wanted(rotation)
    return rotation


def _find_due() -> None:
    """Make due what a grant exposed, what leaked, and what is too old."""
    _find_exposed()
    idle = UpstreamSecret.objects.filter(endpoint__retired_at=None).exclude(
        rotations__in=Rotation.objects.open()
    )
    # What a grant that still runs handed out is exposed, and due when that grant ends.
    ended = Credential.objects.filter(
        kind="static_secret", state=CredentialState.REVOKING, grant__ended_at__isnull=False
    )
    unknown = Q(leaked_at__isnull=False) | Q(max_age__isnull=False)
    for secret in idle.filter(unknown, version=0).select_related("endpoint"):
        with suppress(vault.VaultError):
            learn(secret)
    for reason, rows in (
        (RotationReason.LEAK, idle.filter(leaked_at__isnull=False, version__gt=0)),
        (RotationReason.EXPOSURE, idle.filter(use=Use.HANDED_OUT, exposed_at__isnull=False)),
        (
            RotationReason.AGE,
            idle.filter(
                max_age__isnull=False, stored_at__lt=clock.now() - F("max_age"), version__gt=0
            ),
        ),
    ):
        for pk in list(rows.values_list("pk", flat=True)):
            with transaction.atomic():
                locked = idle.select_for_update(of=("self",), skip_locked=True).filter(pk=pk)
                row = locked.select_related("endpoint__owner").first()
                if row is None or row.rotations.open().exists():
                    continue
                if reason == RotationReason.EXPOSURE and not (
                    ended.filter(
                        grant__request__profile__endpoint=row.endpoint_id,
                        handles__version=row.version,
                    ).exists()
                ):
                    continue
                make_due(row, reason)


def _find_exposed() -> None:
    """Note which keys people hold themselves, by the credentials that handed them out."""
    out = Credential.objects.filter(
        kind="static_secret",
        state__in=[CredentialState.ACTIVE, CredentialState.REVOKING],
        issued_at__isnull=False,
        handles__has_key="version",
    )
    endpoint = "grant__request__profile__endpoint"
    for endpoint_id, version, since in out.values_list(endpoint, "handles__version").annotate(
        since=Min("created_at")
    ):
        if not isinstance(version, int):
            continue
        secret, made = UpstreamSecret.objects.get_or_create(
            endpoint=Endpoint.objects.get(pk=endpoint_id),
            use=Use.HANDED_OUT,
            defaults={"version": version, "stored_at": since},
        )
        if not made and secret.version < version and not secret.rotations.open().exists():
            UpstreamSecret.objects.filter(pk=secret.pk).update(version=version)
        UpstreamSecret.objects.filter(pk=secret.pk, version=version, exposed_at=None).update(
            exposed_at=since
        )


# The engine


def rotate_due() -> int:
    """Take every rotation as far as it gets now; how many went a step.

    Rows are the queue. Whoever works at one holds an advisory lock of its id, which ends with the
    process: what died is taken up again at once, and nobody does a step twice at a time.
    """
    _find_due()
    due = list(
        Rotation.objects.open()
        .filter(next_attempt_at__lte=clock.now())
        .order_by("next_attempt_at")
        .values_list("pk", flat=True)[:BATCH]
    )
    if len(due) < 2:
        return sum(_work(pk) for pk in due)
    work = [(contextvars.copy_context(), pk) for pk in due]
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="rotate") as pool:
        return sum(pool.map(lambda each: each[0].run(_work_apart, each[1]), work))


def _work_apart(pk: UUID) -> bool:
    """As `_work`, on a connection of this thread's own."""
    try:
        return _work(pk)
    finally:
        connection.close()


@contextmanager
def _mine(pk: UUID) -> Iterator[bool]:
    number = int.from_bytes(pk.bytes[8:], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [number])
        (mine,) = cursor.fetchone()
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [number])


def _work(pk: UUID) -> bool:
    with _mine(pk) as mine:
        if not mine:
            return False
        rotation = (
            Rotation.objects.open()
            .select_related("secret__endpoint__owner")
            .filter(pk=pk, next_attempt_at__lte=clock.now())
            .first()
        )
        if rotation is None:
            return False
        began = rotation.state
        try:
            while rotation.is_open:
                STEPS[RotationState(rotation.state)](rotation)
        except Waits as waits:
            _wait(rotation, waits)
        except (ProviderError, vault.VaultError, probing.Unsure) as error:
            _try_again(rotation, str(error))
        except Exception as error:
            # One rotator's mistake must not keep all others from rotating.
            logger.exception("%s went wrong", rotation.name)
            _try_again(rotation, f"Keyturn failed: {type(error).__name__}.")
        return rotation.state != began


def job_of(rotation: Rotation, old: dict[str, Any]) -> Job:
    """What a rotator is told of this rotation."""
    secret = rotation.secret
    return Job(
        name=rotation.name,
        endpoint=secret.endpoint.slug,
        upstream_url=secret.endpoint.upstream_url,
        settings=secret.settings,
        old=old,
        admin_key=vault.rotator_key(secret.endpoint.slug),
    )


def _create(rotation: Rotation) -> None:
    """Due: until the new secret is in Vault."""
    secret = rotation.secret
    found = vault.kept(path_of(secret))
    if found is not None and found.version > rotation.old_version:
        _adopt(rotation, found)
    elif not rotator_of(secret).by_itself:
        raise Waits("the owner to make a new key at the provider and to store it here")
    else:
        reached("rotate:begun")
        replaces = found.version if found is not None else vault.newest(path_of(secret))
        _make(rotation, replaces)


def _adopt(rotation: Rotation, found: vault.Kept) -> None:
    """There is a newer one already: ours, after a crash, or what a person stored."""
    if rotation.old_version:
        before = vault.kept(path_of(rotation.secret), version=rotation.old_version)
        if before is not None and before.secret == found.secret:
            _note(rotation, old_version=found.version)
            raise Waits("another key", wrong="What was stored is the very key to be replaced.")
    _created(rotation, found.version, _handle(rotation, found))


def _handle(rotation: Rotation, found: vault.Kept) -> dict[str, Any]:
    ours = found.about.get("rotation") == rotation.name
    return dict(found.about.get("handle", {})) if ours else {}


def _make(rotation: Rotation, replaces: int) -> None:
    """Have the provider make it, and write it over this version."""
    secret = rotation.secret
    rotator, path = rotator_of(secret), path_of(secret)
    new = rotator.create(job_of(rotation, rotation.old_handle))
    reached("rotate:created")
    # Beside the key, so that after a crash it's known what it is called at its provider.
    about = {"rotation": rotation.name, "handle": new.handle}
    try:
        version = vault.keep(path, new.secret, replaces=replaces, about=about)
    except vault.VaultInvalid:
        if vault.newest(path) == replaces:
            raise
        if rotator.keeps_both:
            # Somebody stored a key meanwhile: that is the new one, and this one is none.
            rotator.retire(job_of(rotation, new.handle))
            return
        # It ended all others as it began, so that theirs opens nothing any more.
        version = vault.keep(path, new.secret, replaces=vault.newest(path), about=about)
    reached("rotate:stored")
    _created(rotation, version, new.handle)


def _try(rotation: Rotation) -> None:
    """Created: until the endpoint takes the new secret, and gateways may."""
    secret = rotation.secret
    found = vault.kept(path_of(secret))
    if found is None:
        raise Waits("a new key: the one that was stored is gone from Vault")
    if found.version != rotation.new_version:
        _supersede(rotation, found)
    answers = probing.ask(secret, found.secret)
    if not all(answers):
        _refused_anew(rotation, found.version)
    reached("rotate:tried")
    _publish(rotation)


def _supersede(rotation: Rotation, found: vault.Kept) -> None:
    """A person stored another one while ours was being tried: it takes its place."""
    handle = _handle(rotation, found)
    if rotation.new_handle and rotation.new_handle != handle:
        rotator_of(rotation.secret).retire(job_of(rotation, rotation.new_handle))
    _note(rotation, new_version=found.version, new_handle=handle, created_at=clock.now())


def _refused_anew(rotation: Rotation, version: int) -> None:
    rotator = rotator_of(rotation.secret)
    if not rotator.by_itself:
        raise Waits("another key", wrong="The endpoint refuses the key that was stored.")
    if rotation.created_at is not None and clock.now() - rotation.created_at > REMAKE_AFTER:
        _make(rotation, version)
    raise probing.Unsure("The endpoint refuses the new key so far.")


def _retire(rotation: Rotation) -> None:
    """Published: until the old secret is gone and known to be."""
    secret = rotation.secret
    rotator = rotator_of(secret)
    _tell_gateways(rotation)
    cannot = ""
    if rotator.by_itself:
        try:
            rotator.retire(job_of(rotation, rotation.old_handle))
        except ProviderError as error:
            if rotation.old_handle:
                raise
            # It didn't make the old one, so that it may not know which one to end.
            cannot = str(error)
    elif rotation.old_version and rotation.confirmed_at is None:
        with transaction.atomic():
            rotation_notices.wanted(rotation)
        raise Waits("the owner to delete the old key at its provider, and to say so")
    reached("rotate:retired")
    proof = _proof(rotation, cannot)
    path, newest = path_of(secret), rotation.new_version or 0
    versions = list(range(max(1, newest - KEPT_VERSIONS), newest))
    if rotator.by_itself:
        # Stored in the instant before it was published, and never taken.
        versions += range(newest + 1, vault.newest(path) + 1)
    if versions:
        vault.destroy(path, versions)
    reached("rotate:destroyed")
    about = {"last_rotated": clock.now().isoformat(timespec="seconds"), "why": rotation.why}
    vault.remark(path, about | {"by": str(rotation.by or "Keyturn"), "rotation": rotation.name})
    _retired(rotation, proof)


def _tell_gateways(rotation: Rotation) -> None:
    """Push, and wait until no gateway uses the old key."""
    secret = rotation.secret
    if secret.use != Use.UPSTREAM:
        return
    if rotation.told_at is None:
        _note(rotation, told_at=clock.now())
    assert rotation.told_at is not None  # noqa: S101 -- just set
    push.replaced(secret.endpoint.slug, secret.version)
    version = rotation.new_version or secret.version
    waiting = [
        host for using in _using for host in using(secret.endpoint.slug, version, rotation.told_at)
    ]
    if waiting:
        named = ", ".join(sorted(set(waiting))[:3])
        raise Waits(f"gateways that may still use the old key: {named}", pause=SOON)


def _proof(rotation: Rotation, cannot: str) -> str:
    """How the old one is known to be gone; `cannot` is why its rotator couldn't end it. Raises
    Waits and Unsure."""
    secret, rotator = rotation.secret, rotator_of(rotation.secret)
    if not rotation.old_version:
        return "there was none before"
    old = vault.kept(path_of(secret), version=rotation.old_version)
    if old is None:
        # Destroyed by this rotation before a crash, which follows on proof alone, or by others.
        return "Vault no longer has it to try"
    said = "the owner says" if not rotator.by_itself else "the provider says"
    answers = probing.ask(secret, old.secret)
    if not answers:
        return f"{said} that it is gone; Keyturn can’t try keys at this endpoint"
    if not any(answers):
        return "the endpoint refuses it"
    if (not cannot or rotation.confirmed_at is not None) and probing.takes_any_key(secret):
        return f"{said} that it is gone; the endpoint takes any key at {probing.path_of(secret)}"
    wrong = "The endpoint still takes the old key."
    if rotation.confirmed_at is not None:
        _note(rotation, confirmed_at=None)
    if not rotator.by_itself:
        raise Waits("the owner to delete the old key at its provider, and to say so", wrong=wrong)
    if cannot:
        with transaction.atomic():
            rotation_notices.wanted(rotation)
        raise Waits("somebody to delete the old key at its provider", wrong=cannot)
    raise probing.Unsure(wrong)


STEPS: dict[RotationState, Callable[[Rotation], None]] = {
    RotationState.DUE: _create,
    RotationState.CREATED: _try,
    RotationState.PUBLISHED: _retire,
}


# On record


def _note(rotation: Rotation, **columns: Any) -> None:
    Rotation.objects.filter(pk=rotation.pk).update(**columns)
    for name, value in columns.items():
        setattr(rotation, name, value)


def _moved(rotation: Rotation, **columns: Any) -> None:
    """Write a step down; whatever was wrong before it is over."""
    fresh = Rotation.objects.select_for_update().get(pk=rotation.pk)
    if fresh.state != rotation.state:
        raise RuntimeError(f"{rotation.name} is {fresh.state} already")
    _note(
        rotation,
        attempts=0,
        last_error="",
        waits_for="",
        next_attempt_at=clock.now(),
        **columns,
    )


@transaction.atomic
def _created(rotation: Rotation, version: int, handle: dict[str, Any]) -> None:
    _moved(
        rotation,
        state=RotationState.CREATED,
        new_version=version,
        new_handle=handle,
        created_at=clock.now(),
    )
    endpoint = rotation.secret.endpoint
    record(Event.ROTATION_CREATED, by=None, about=rotation, related=(endpoint,), version=version)


@transaction.atomic
def _publish(rotation: Rotation) -> None:
    secret = UpstreamSecret.objects.select_for_update().get(pk=rotation.secret_id)
    now = clock.now()
    secret.version, secret.handle = rotation.new_version or 0, rotation.new_handle
    secret.stored_at = now
    secret.save(update_fields=["version", "handle", "stored_at"])
    rotation.secret.version, rotation.secret.handle = secret.version, secret.handle
    _moved(rotation, state=RotationState.PUBLISHED, published_at=now)
    record(
        Event.ROTATION_PUBLISHED,
        by=None,
        about=rotation,
        related=(rotation.secret.endpoint,),
        version=secret.version,
    )
    transaction.on_commit(lambda: reached("rotate:published"))


@transaction.atomic
def _retired(rotation: Rotation, proof: str) -> None:
    secret = UpstreamSecret.objects.select_for_update().get(pk=rotation.secret_id)
    now, published = clock.now(), rotation.published_at
    secret.last_rotated = now
    # What was reported since it was published is about the new one.
    for name in ("leaked_at", "exposed_at"):
        since = getattr(secret, name)
        if since is not None and published is not None and since <= published:
            setattr(secret, name, None)
    secret.save(update_fields=["last_rotated", "leaked_at", "exposed_at"])
    _moved(rotation, state=RotationState.RETIRED, retired_at=now, proof=proof[:300])
    record(
        Event.ROTATION_RETIRED,
        by=None,
        about=rotation,
        related=(rotation.secret.endpoint,),
        why=rotation.why,
        proof=proof,
        version=rotation.old_version,
        seconds=round((now - rotation.due_at).total_seconds(), 1),
    )
    rotation_notices.over(rotation)


@transaction.atomic
def _wait(rotation: Rotation, waits: Waits) -> None:
    now = clock.now()
    _fresh_attempt(rotation, now + dt.timedelta(seconds=waits.pause))
    _note(rotation, waits_for=str(waits)[:300], last_error=waits.wrong[:300])
    if rotation.is_late(now):
        _alert(rotation, now)


def _fresh_attempt(rotation: Rotation, at: dt.datetime) -> None:
    """Set the next try, unless somebody asked for one since this one began."""
    Rotation.objects.filter(pk=rotation.pk, next_attempt_at=rotation.next_attempt_at).update(
        next_attempt_at=at
    )


@transaction.atomic
def _try_again(rotation: Rotation, error: str) -> None:
    """Set the next try, at most a minute away, with jitter; the first failure is an event."""
    now = clock.now()
    pause = min(LONGEST_PAUSE, 2.0 ** min(rotation.attempts, 6))
    pause *= random.uniform(0.5, 1)  # noqa: S311 -- jitter
    _fresh_attempt(rotation, now + dt.timedelta(seconds=pause))
    first = rotation.attempts == 0
    _note(rotation, attempts=rotation.attempts + 1, last_error=error[:300], waits_for="")
    if first:
        record(
            Event.ROTATION_STUCK,
            by=None,
            about=rotation,
            related=(rotation.secret.endpoint,),
            state=rotation.state,
            error=error[:300],
        )
    if rotation.is_late(now):
        logger.error("%s is stuck since %s: %s", rotation.name, rotation.due_at, error)
        _alert(rotation, now)


def _alert(rotation: Rotation, now: dt.datetime) -> None:
    """Tell people, once."""
    if rotation.alerted_at is None:
        _note(rotation, alerted_at=now)
        rotation_notices.stuck(rotation)


__all__ = ["job_of", "make_due", "on_publishing", "rotate_due"]
