"""From the intent to revoke to the proof that it's gone."""

import contextvars
import datetime as dt
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from django.db import OperationalError, transaction
from django.db.models import F, Q
from psycopg.errors import DiskFull

from accessrequests.states import EndReason
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from audit.record import Entry, record_many
from credentials import vault
from credentials.actions.alerting import resolved
from credentials.actions.telling import tell_on_commit
from credentials.breaker import breaker
from credentials.failpoints import reached
from credentials.kinds import kind_of
from credentials.kinds.base import Kind, TargetDown
from credentials.models import Credential
from credentials.standing import standing
from credentials.states import CredentialState, RevokeReason

logger = logging.getLogger(__name__)

# A mint that hasn't been confirmed within this is in doubt: longer than Vault's time-out for the
# two calls, shorter than an unconfirmed token lives.
DOUBT_AFTER = dt.timedelta(seconds=15)
# How long a worker has for a batch before another may claim it.
CLAIM = dt.timedelta(seconds=30)
LONGEST_PAUSE = 50.0  # seconds between two tries, which with the work itself are within a minute
BATCH = 1000
# At a natural end Vault's own TTL does the work. Of so many at once it's given a while for it.
MANY = 20
PURGE = dt.timedelta(seconds=20)
AT_A_TIME = 8  # calls to Vault; more gain nothing

Failure = vault.VaultError | TargetDown
T = TypeVar("T")


def concerned(credential: Credential) -> tuple[Any, ...]:
    """Whose history an event of this credential belongs to."""
    grant = credential.grant
    return (grant, grant.request_id, grant.holder_id, grant.request.profile.endpoint_id)


def start_revoking(
    credentials: list[Credential], reason: RevokeReason, by: User | None, **why: Any
) -> None:
    """Commit the intent to revoke, in the caller's transaction, on locked rows that are issuing or
    active."""
    if not credentials:
        return
    moment = clock.now()
    changes = {
        "state": CredentialState.REVOKING,
        "revoking_since": moment,
        "next_attempt_at": moment,
        "revoke_reason": reason,
    }
    ids = [credential.pk for credential in credentials]
    Credential.objects.filter(pk__in=ids).update(**changes)
    for credential in credentials:
        for name, value in changes.items():
            setattr(credential, name, value)
    record_many(
        Event.CREDENTIAL_REVOKING,
        by=by,
        entries=[Entry(each, concerned(each), {"reason": reason, **why}) for each in credentials],
    )
    transaction.on_commit(lambda: reached("revoke:intended"))
    tell_on_commit(ids)


def doubt_old_mints() -> int:
    """Give up mints that a crash left half-done, and credentials that outlived their grant or
    themselves; how many."""
    moment = clock.now()
    half_done = Q(state=CredentialState.ISSUING, created_at__lt=moment - DOUBT_AFTER)
    due = (
        (half_done, RevokeReason.DOUBT),
        (Q(grant__ended_at__isnull=False), RevokeReason.GRANT_ENDED),
        (Q(state=CredentialState.ACTIVE, expires_at__lte=moment), RevokeReason.EXPIRED),
    )
    count = 0
    for which, reason in due:
        with transaction.atomic():
            rows = list(
                Credential.objects.select_for_update(skip_locked=True, of=("self",))
                .select_related("grant__request__profile")
                .filter(which, state__in=[CredentialState.ISSUING, CredentialState.ACTIVE])[:BATCH]
            )
            start_revoking(rows, reason, None)
            count += len(rows)
    return count


@transaction.atomic
def _claim() -> list[Credential]:
    """Credentials to revoke now. Each is this worker's until CLAIM is over."""
    moment = clock.now()
    rows = list(
        Credential.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("grant__request__profile__endpoint", "grant__holder")
        .filter(state=CredentialState.REVOKING, next_attempt_at__lte=moment)
        .order_by("next_attempt_at")[:BATCH]
    )
    Credential.objects.filter(pk__in=[row.pk for row in rows]).update(
        attempts=F("attempts") + 1, next_attempt_at=moment + CLAIM
    )
    for row in rows:
        row.attempts += 1
        row.next_attempt_at = moment + CLAIM
    return rows


def revoke_due() -> int:
    """Revoke all that is due, until each is proven gone or has its next try set; how many went.

    What fails for one kind, Vault or target doesn't keep those of another waiting: see
    credentials/breaker.py for how little is asked of what is down.
    """
    try:
        claimed = _claim()
    except OperationalError as error:
        if isinstance(error.__cause__, DiskFull):
            _revoke_unrecorded()
        raise
    if claimed:
        reached("revoke:claimed")
    by_kind: dict[str, list[Credential]] = {}
    for credential in claimed:
        by_kind.setdefault(credential.kind, []).append(credential)
    # Those without a target first: a target that hangs keeps only itself waiting.
    kinds = sorted(by_kind, key=lambda slug: bool(kind_of(slug).target(by_kind[slug][0])))
    return sum(_take_back(kind_of(slug), by_kind[slug]) for slug in kinds)


def _revoke_unrecorded() -> None:
    """What is due, where the database can't write that it was done: once it can, it's claimed,
    revoked again and proven."""
    due = Credential.objects.filter(
        state=CredentialState.REVOKING, next_attempt_at__lte=clock.now()
    ).select_related("grant")
    by_kind: dict[str, list[Credential]] = {}
    for row in due.order_by("next_attempt_at")[:BATCH]:
        if row.is_known:
            by_kind.setdefault(row.kind, []).append(row)
    for slug, rows in by_kind.items():
        _revoke(kind_of(slug), rows, {})


def _take_back(kind: Kind, rows: list[Credential]) -> int:
    failed: dict[Credential, Failure] = {}
    waiting: dict[Credential, str] = {}
    proofs: dict[str, str] = {}
    rows = _not_yet(kind, rows)
    known = [row for row in rows if row.is_known]
    known += _find(kind, [row for row in rows if not row.is_known], proofs, waiting, failed)
    patient, known = _patient(known)
    _ask(kind, patient, proofs, failed)
    overdue = [row for row in patient if str(row.pk) not in proofs and row not in failed]
    if len(patient) > MANY:
        since = clock.now() - PURGE
        for row in overdue:
            if row.revoking_since is not None and row.revoking_since > since:
                waiting[row] = "Vault's own TTL ends it at this moment"
    known += [row for row in overdue if row not in waiting]
    revoked = _revoke(kind, known, failed)
    if revoked:
        reached("revoke:done")
    _ask(kind, revoked, proofs, failed)
    for row in revoked:
        if str(row.pk) not in proofs and row not in failed:
            waiting[row] = kind.waits_for(row)
    if proofs:
        reached("revoke:proven")
    _close([row for row in rows if str(row.pk) in proofs], proofs)
    _ask_again(waiting, kind.pace)
    _try_again(failed)
    return len(proofs)


def _not_yet(kind: Kind, rows: list[Credential]) -> list[Credential]:
    """Those of these that could be gone by now; of the others nothing is asked until then."""
    moment = clock.now()
    due = []
    for row in rows:
        at = kind.not_before(row)
        if at is None or at <= moment:
            due.append(row)
        else:
            Credential.objects.filter(pk=row.pk, state=CredentialState.REVOKING).update(
                next_attempt_at=at,
                last_error=f"what was handed out is good until {at:%Y-%m-%d %H:%M:%S} UTC "
                "wherever nobody asks Keyturn",
            )
    return due


def _find(
    kind: Kind,
    lost: list[Credential],
    proofs: dict[str, str],
    waiting: dict[Credential, str],
    failed: dict[Credential, Failure],
) -> list[Credential]:
    """Those of these mints without an answer that are there after all, with what finds them."""
    found: dict[str, dict[str, Any]] = {}
    for each in _by_target(kind, lost, failed, kind.find):
        found |= each
    there = []
    for row in lost:
        if row in failed:
            continue
        handles = dict(found.get(str(row.pk), {}))
        if handles:
            row.accessor = handles.pop("accessor", "")
            row.handles = handles
            row.save(update_fields=["accessor", "handles"])
            there.append(row)
        # A mint that was slow may still land: absence proves something only once an unconfirmed
        # one would have died by itself.
        elif clock.now() < row.created_at + kind.patience():
            waiting[row] = "nothing in Vault bears its name so far; a slow mint could still land"
        else:
            proofs[str(row.pk)] = "never confirmed, and nothing in Vault bears its name"
    if there:
        reached("revoke:found")
    return there


def _patient(rows: list[Credential]) -> tuple[list[Credential], list[Credential]]:
    """Those that should be gone by themselves, and the others."""
    natural = [row for row in rows if row.grant.end_reason == EndReason.EXPIRED]
    return natural, [row for row in rows if row.grant.end_reason != EndReason.EXPIRED]


def _ask(
    kind: Kind,
    rows: list[Credential],
    proofs: dict[str, str],
    failed: dict[Credential, Failure],
) -> None:
    """Add the proofs of those that are gone."""
    for found in _by_target(kind, rows, failed, kind.gone):
        proofs |= found


def _by_target(
    kind: Kind,
    rows: list[Credential],
    failed: dict[Credential, Failure],
    call: Callable[[list[Credential]], T],
) -> Iterator[T]:
    """What this call gives for those of each target. One that is down fails its own alone."""
    groups: dict[str, list[Credential]] = {}
    for row in rows:
        groups.setdefault(kind.target(row), []).append(row)
    for target, some in groups.items():
        try:
            _check_up(target)
            yield call(some)
            _is_up(target)
        except (vault.VaultError, TargetDown) as error:
            _note_down(error)
            failed.update(dict.fromkeys(some, error))


def _check_up(target: str) -> None:
    if target and not breaker(target).allows():
        raise TargetDown("", f"{target} didn't answer of late, and isn't asked for a moment")


def _is_up(target: str) -> None:
    if target:
        breaker(target).worked()


def _note_down(error: Failure) -> None:
    if isinstance(error, TargetDown) and error.target:
        breaker(error.target).failed()


def _revoke(
    kind: Kind, rows: list[Credential], failed: dict[Credential, Failure]
) -> list[Credential]:
    """Revoke these, some at a time; those of which it could be asked."""

    def revoke(row: Credential) -> Failure | None:
        if kind.target(row) in down:
            return down[kind.target(row)]
        try:
            _check_up(kind.target(row))
            # A wrap that nobody has read yet; what is in it outlives it.
            if row.wrapped_accessor:
                vault.revoke(row.wrapped_accessor)
            kind.revoke(row)
        except TargetDown as error:
            _note_down(error)
            down[error.target] = error
            return error
        except vault.VaultError as error:
            return error
        return None

    down: dict[str, TargetDown] = {}
    done = []
    for row, error in zip(rows, at_once(revoke, rows), strict=True):
        if error is None:
            done.append(row)
        else:
            failed[row] = error
    return done


def at_once(call: Any, rows: Iterable[Any]) -> list[Any]:
    """The results of calling Vault for each of these, some at a time. None may use the database:
    its connections belong to a thread."""
    work = [(contextvars.copy_context(), row) for row in rows]
    if len(work) < 2:
        return [call(row) for _, row in work]
    return list(_pool(os.getpid()).map(lambda each: each[0].run(call, each[1]), work))


@lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    """Of this process: threads don't survive a fork."""
    return ThreadPoolExecutor(AT_A_TIME, thread_name_prefix=f"vault-{pid}")


@transaction.atomic
def _close(rows: list[Credential], proofs: Mapping[str, str]) -> None:
    moment = clock.now()
    open_rows = set(
        Credential.objects.select_for_update()
        .filter(pk__in=[row.pk for row in rows], state=CredentialState.REVOKING)
        .values_list("pk", flat=True)
    )
    rows = [row for row in rows if row.pk in open_rows]
    by_proof: dict[str, list[Any]] = {}
    for row in rows:
        by_proof.setdefault(proofs[str(row.pk)][:300], []).append(row.pk)
    for proof, ids in by_proof.items():
        Credential.objects.filter(pk__in=ids).update(
            state=CredentialState.REVOKED, revoked_at=moment, proof=proof, last_error=""
        )
    record_many(
        Event.CREDENTIAL_REVOKED,
        by=None,
        entries=[
            Entry(row, concerned(row), {"proof": proofs[str(row.pk)], "attempts": row.attempts})
            for row in rows
        ],
    )
    resolved(row.pk for row in rows)
    if rows:
        transaction.on_commit(lambda: reached("revoke:closed"))


def _ask_again(waiting: Mapping[Credential, str], pace: float) -> None:
    """Look again in a while, `pace` seconds at most."""
    for why in set(waiting.values()):
        ids = [row.pk for row, reason in waiting.items() if reason == why]
        Credential.objects.filter(pk__in=ids, state=CredentialState.REVOKING).update(
            next_attempt_at=clock.now() + dt.timedelta(seconds=pace * random.uniform(0.2, 1)),  # noqa: S311
            last_error=why[:300],
        )


@transaction.atomic
def _try_again(failed: Mapping[Credential, Failure]) -> None:
    """Set the next try, at most a minute away, with jitter; the first failure is an event."""
    if not failed:
        return
    moment = clock.now()
    for row, error in failed.items():
        pause = min(LONGEST_PAUSE, 2.0 ** min(row.attempts, 6)) * random.uniform(0.5, 1)  # noqa: S311
        row.next_attempt_at = moment + dt.timedelta(seconds=pause)
        row.last_error = str(error)[:300]
    rows = list(failed)
    still = {
        each.pk
        for each in Credential.objects.select_for_update().filter(
            pk__in=[row.pk for row in rows], state=CredentialState.REVOKING
        )
    }
    rows = [row for row in rows if row.pk in still]
    Credential.objects.bulk_update(rows, ["next_attempt_at", "last_error"], batch_size=500)
    late = [row for row in rows if standing(row, moment).stuck]
    if late:
        logger.error(
            "%d credentials are stuck, the first since %s: %s",
            len(late),
            min(filter(None, (row.revoking_since for row in late))),
            late[0].last_error,
        )
    # `last_error` can't tell: it also holds what merely was not proven yet.
    told = set(
        AuditEvent.objects.filter(
            event=Event.CREDENTIAL_STUCK, subject_id__in=[row.pk for row in rows]
        ).values_list("subject_id", flat=True)
    )
    record_many(
        Event.CREDENTIAL_STUCK,
        by=None,
        entries=[
            Entry(row, concerned(row), {"error": row.last_error})
            for row in rows
            if row.pk not in told
        ],
    )
