"""Both ways: what is out there against what is on record.

Each minute Vault is asked which leases it gave up on. Every five minutes all that bears a
credential's name, in Vault and at the targets, is held against the rows: what no row accounts for
is ended and reported, what has vanished is closed and reported.
"""

import datetime as dt
import logging
import time
import uuid
from typing import Any

from django.db import transaction
from django.urls import reverse

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record
from credentials import vault
from credentials.actions.revoking import start_revoking
from credentials.kinds import kinds
from credentials.kinds.base import Kind, Stray, TargetDown
from credentials.models import Credential, Reconciliation
from credentials.states import CredentialState, RevokeReason
from notifications.kinds import Kind as News
from notifications.outbox import notify

logger = logging.getLogger(__name__)

EVERY = dt.timedelta(minutes=5)
KEPT = dt.timedelta(days=30)
NAMED = 20  # in a notification and on the page; the record has them all


def reconcile_if_due() -> Reconciliation | None:
    """What a worker does each minute; the whole of it where five have gone by."""
    last = Reconciliation.objects.first()
    if last is not None and clock.now() - last.at < EVERY:
        last.irrevocable = _irrevocable(last.failures)
        last.save(update_fields=["irrevocable", "failures"])
        return None
    return reconcile()


def reconcile() -> Reconciliation:
    """Hold what is out there against the rows, once; what came of it.

    What couldn't be asked is in its `failures`, and keeps nothing else from being looked at.
    """
    began = time.monotonic()
    row = Reconciliation(at=clock.now())
    ended: list[Stray] = []
    for slug, kind in kinds().items():
        found: list[Stray] = []
        try:
            # One at a time: what came before a target that is down is looked at all the same.
            for stray in kind.strays():
                found.append(stray)
        except (vault.VaultError, TargetDown) as error:
            row.failures[slug] = str(error)[:300]
        row.looked_at += len(found)
        for stray in _unaccounted(found, row.at):
            row.found += 1
            if _end(kind, stray, row):
                ended.append(stray)
        if type(kind).strays is not Kind.strays and slug not in row.failures:
            row.vanished += _vanished(kind, found, row.at)
    row.irrevocable = _irrevocable(row.failures)
    row.ended = len(ended)
    row.took = time.monotonic() - began
    with transaction.atomic():
        row.save(force_insert=True)
        Reconciliation.objects.filter(at__lt=row.at - KEPT).delete()
        if row.found:
            _tell(row, ended)
    return row


def _unaccounted(found: list[Stray], looked_at: dt.datetime) -> list[Stray]:
    """Those that no row accounts for, or that one says were gone before we looked."""
    ids: dict[Stray, uuid.UUID | None] = {}
    for stray in found:
        try:
            ids[stray] = uuid.UUID(stray.credential)
        except ValueError:
            ids[stray] = None
    rows = dict(
        Credential.objects.filter(pk__in={pk for pk in ids.values() if pk is not None}).values_list(
            "pk", "revoked_at"
        )
    )

    def is_ours(stray: Stray) -> bool:
        pk = ids[stray]
        if pk is None or pk not in rows:
            return False
        revoked_at = rows[pk]
        return revoked_at is None or revoked_at >= looked_at

    return [stray for stray in found if not is_ours(stray)]


def _end(kind: Kind, stray: Stray, row: Reconciliation) -> bool:
    """End what nobody owns; whether that was accepted. The next look shows whether it's true."""
    data: dict[str, Any] = {"where": stray.where, "name": stray.name, "kind": kind.slug}
    logger.error("%s at %s is no credential that is on record", stray.name, stray.where)
    with transaction.atomic():
        record(Event.ORPHAN_FOUND, by=None, **data)
    try:
        kind.end_stray(stray)
    except (vault.VaultError, TargetDown) as error:
        row.left.append({**data, "why": str(error)[:300]})
        return False
    with transaction.atomic():
        record(Event.ORPHAN_ENDED, by=None, **data)
    return True


def _vanished(kind: Kind, found: list[Stray], looked_at: dt.datetime) -> int:
    """Close those that should be out there and aren't; how many.

    A listing alone isn't believed: what it lacks is asked about one by one.
    """
    there = {stray.credential for stray in found}
    missing = [
        row
        for row in Credential.objects.filter(
            kind=kind.slug, state=CredentialState.ACTIVE, issued_at__lt=looked_at
        ).select_related("grant__request__profile")
        if str(row.pk) not in there
    ]
    try:
        gone = kind.gone(missing) if missing else {}
    except (vault.VaultError, TargetDown):
        return 0
    with transaction.atomic():
        rows = list(
            Credential.objects.select_for_update(of=("self",))
            .select_related("grant__request__profile")
            .filter(pk__in=gone, state=CredentialState.ACTIVE)
        )
        start_revoking(rows, RevokeReason.VANISHED, None)
    for credential in rows:
        logger.error("%s has vanished: %s", credential, gone[str(credential.pk)])
    return len(rows)


def _irrevocable(failures: dict[str, Any]) -> list[dict[str, str]]:
    try:
        found = vault.irrevocable()
    except vault.VaultError as error:
        failures["leases"] = str(error)[:300]
        return []
    failures.pop("leases", None)
    return found


def _tell(row: Reconciliation, ended: list[Stray]) -> None:
    names = [stray.name for stray in ended][:NAMED]
    left = len(row.left)
    notify(
        News.ORPHANS_FOUND,
        to=User.objects.active().filter(is_administrator=True),
        about=row,
        path=reverse("operations"),
        sentence=f"{row.found} unknown credential{'s' * (row.found != 1)} found"
        + (f", {left} of them could not be ended" if left else " and ended"),
        facts=[("Named", ", ".join(names))] if names else [],
        quote="Nothing on record accounts for them: a restored snapshot, a crash of Vault, or "
        "somebody who mints without Keyturn.",
    )
