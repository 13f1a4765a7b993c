"""Telling people, once, of what can't be taken back.

Many get stuck together when what they wait for is down, so one notification tells of all that
wait for the same target: administrators of everything, owners of what is on their endpoints. What
gets stuck there later adds nothing until all of it is gone; then the notification is withdrawn.
"""

import datetime as dt
import uuid
from collections.abc import Iterable

from django.db import connection, transaction
from django.db.models import QuerySet
from django.urls import reverse

from accounts.models import User
from audit import clock
from credentials.models import Credential
from credentials.standing import stuck, target_of
from credentials.states import CredentialState
from notifications.kinds import Kind
from notifications.outbox import Notice, notify_many, withdraw

BATCH = 2000  # what more there is joins them a moment later
NAMED = 5  # endpoints in a notification; the page has them all
# Held until commit: of two that close the last ones at once, one must see that nothing is left.
LOCK = 0x4B45_5941

Told = set[tuple[str, uuid.UUID | None]]  # target, and owner of the endpoint


class Subject:
    """What waits for one target, as the subject of a notification."""

    def __init__(self, target: str) -> None:
        self.pk = uuid.uuid5(uuid.NAMESPACE_URL, f"keyturn:waits-for:{target}")


@transaction.atomic
def alert_stuck() -> int:
    """Tell administrators, and the owners of their endpoints, of credentials that should have been
    gone for a minute; how many those are.

    What merely waits for its expiry or for a rotation isn't late.
    """
    moment = clock.now()
    rows = list(
        stuck(None, moment)
        .filter(alerted_at=None)
        .select_for_update(of=("self",), skip_locked=True)
        .select_related("grant__request__profile__endpoint__owner")
        .order_by("gone_by", "pk")[:BATCH]
    )
    if not rows:
        return 0
    _lock()
    told = _told(Credential.objects.all())
    targets = {target for target, _ in told}
    Credential.objects.filter(pk__in=[row.pk for row in rows]).update(alerted_at=moment)
    administrators = list(User.objects.active().filter(is_administrator=True))
    by_target: dict[str, list[Credential]] = {}
    for row in rows:
        by_target.setdefault(target_of(row), []).append(row)
    notices = []
    for target, some in by_target.items():
        if target not in targets:
            page = f"{reverse('operations')}?show=stuck"
            notices.append(_notice(target, some, administrators, page, moment))
        by_owner: dict[User, list[Credential]] = {}
        for row in some:
            by_owner.setdefault(row.grant.request.profile.endpoint.owner, []).append(row)
        for owner, theirs in by_owner.items():
            if (target, owner.pk) not in told and owner not in administrators:
                path = reverse("grant", args=[theirs[0].grant_id])
                notices.append(_notice(target, theirs, [owner], path, moment))
    notify_many(notices)
    return len(rows)


def resolved(ids: Iterable[uuid.UUID]) -> None:
    """Withdraw what people were told of these, in the transaction that closes them, where nothing
    else of it is left."""
    gone = _told(Credential.objects.filter(pk__in=ids), CredentialState.REVOKED)
    if not gone:
        return
    _lock()
    left = _told(Credential.objects.all())
    targets = {target for target, _ in left}
    administrators = set(User.objects.filter(is_administrator=True).values_list("pk", flat=True))
    owners = User.objects.in_bulk([owner for _, owner in gone - left if owner])
    for target in {target for target, _ in gone} - targets:
        withdraw(about=Subject(target), kinds=[Kind.CREDENTIAL_STUCK])
    for target, owner in gone - left:
        if target in targets and owner in owners and owner not in administrators:
            withdraw(about=Subject(target), kinds=[Kind.CREDENTIAL_STUCK], of=owners[owner])


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def _told(rows: QuerySet[Credential], state: CredentialState = CredentialState.REVOKING) -> Told:
    """Targets and owners of those of these credentials that people were told about."""
    found = (
        rows.filter(state=state, alerted_at__isnull=False)
        .order_by()
        .values_list("kind", "settings", "grant__request__profile__endpoint__owner")
        .distinct()
    )
    return {
        (target_of(Credential(kind=kind, settings=settings)), owner)
        for kind, settings, owner in found
    }


def _notice(
    target: str, rows: list[Credential], to: list[User], path: str, moment: dt.datetime
) -> Notice:
    endpoints = sorted({row.grant.request.profile.endpoint for row in rows}, key=str)
    names = [str(endpoint) for endpoint in endpoints[:NAMED]]
    if len(endpoints) > NAMED:
        names.append(f"{len(endpoints) - NAMED} more")
    since = min(row.revoking_since for row in rows if row.revoking_since is not None)
    what = (
        f"A credential of {names[0]} isn’t"
        if len(rows) == 1
        else f"{len(rows):,}{' or more' * (len(rows) == BATCH)} credentials of "
        f"{names[0] if len(endpoints) == 1 else f'{len(endpoints)} endpoints'} aren’t"
    )
    open_still = [str(endpoint) for endpoint in endpoints if endpoint.is_direct][:NAMED]
    return Notice(
        Kind.CREDENTIAL_STUCK,
        to=to,
        about=Subject(target),
        path=path,
        sentence=f"{what} gone yet, and should be",
        facts=[
            ("Waits for", target),
            ("Last answer", rows[0].last_error or "none yet: is a worker running?"),
            ("Since", f"{since:%Y-%m-%d %H:%M:%S} UTC"),
            ("Endpoint" if len(endpoints) == 1 else "Endpoints", ", ".join(names)),
            (
                "Meanwhile",
                f"it may still open {', '.join(open_still)}"
                if open_still
                else "the gateway refuses it",
            ),
        ],
        occasion=moment.isoformat(),
    )
