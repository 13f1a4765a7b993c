"""How credentials stand: when each should be gone, and which are stuck.

What ends by expiry or by rotation isn't late before its time has come, and neither is the name of
a mint that may still land.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, DateTimeField, F, Q, Value, When
from django.db.models.functions import Greatest

from credentials.kinds import kinds
from credentials.kinds.base import Kind
from credentials.models import STUCK_AFTER, Credential, Credentials
from credentials.states import CredentialState
from endpoints.kinds import Revocation

# What has to be up, or to come, where a kind names nothing else.
WAITS_FOR = {
    Revocation.IMMEDIATE: "Vault",
    Revocation.BY_EXPIRY: "Expiry",
    Revocation.BY_ROTATION: "Rotation",
}


@dataclass(frozen=True)
class Standing:
    """One credential at one moment, for people to read.

    `gone_by` is from when on only a fault keeps it from being gone: None while it's live, and
    where it ends by rotation. `stuck` is the same once it's a minute ago. `waits` says that its
    time hasn't come.
    """

    credential: Credential
    label: str
    revocation: Revocation
    gone_by: dt.datetime | None
    stuck: dt.datetime | None
    waits: bool


def kind_or_none(slug: str) -> Kind | None:
    """The kind, unless its module is no longer there: its rows must still be shown."""
    return kinds().get(slug)


def standing(credential: Credential, now: dt.datetime) -> Standing:
    """How it stands at this moment."""
    kind = kind_or_none(credential.kind)
    revocation = kind.revocation(credential.settings) if kind else Revocation.IMMEDIATE
    gone_by = None
    revoking = credential.state == CredentialState.REVOKING
    if revoking and revocation != Revocation.BY_ROTATION:
        gone_by = _gone_by(credential, kind, revocation)
    return Standing(
        credential,
        kind.label if kind else credential.kind,
        revocation,
        gone_by,
        gone_by if gone_by is not None and now - gone_by > STUCK_AFTER else None,
        waits=revoking and (gone_by is None or gone_by > now),
    )


def _gone_by(
    credential: Credential, kind: Kind | None, revocation: Revocation
) -> dt.datetime | None:
    moments = [credential.revoking_since]
    if revocation == Revocation.BY_EXPIRY:
        moments.append(credential.expires_at)
    elif kind is not None and not credential.is_known:
        moments.append(credential.created_at + kind.patience())
    return max(filter(None, moments), default=None)


def target_of(credential: Credential) -> str:
    """What has to be up for it to be taken back, or else what its end waits for. Its settings
    alone say so."""
    kind = kind_or_none(credential.kind)
    if kind is None:
        return WAITS_FOR[Revocation.IMMEDIATE]
    return kind.target(credential) or WAITS_FOR[kind.revocation(credential.settings)]


def ending(rows: Credentials | None = None) -> Any:
    """Those that are revoking, with `gone_by` as `Standing` has it."""
    rows = Credential.objects.all() if rows is None else rows
    found = rows.filter(state=CredentialState.REVOKING)
    profiles = [
        (slug, settings, kind.revocation(settings))
        for slug, settings in _profiles(found)
        if (kind := kind_or_none(slug)) is not None
    ]
    whens = []
    if by_rotation := _those(profiles, Revocation.BY_ROTATION):
        whens.append(When(by_rotation, then=Value(None)))
    if by_expiry := _those(profiles, Revocation.BY_EXPIRY):
        whens.append(When(by_expiry, then=Greatest("revoking_since", "expires_at")))
    whens += [
        When(
            Q(kind=slug, accessor="", handles={}),
            then=Greatest("revoking_since", F("created_at") + Value(kind.patience())),
        )
        for slug, kind in kinds().items()
    ]
    return found.annotate(
        gone_by=Case(*whens, default=F("revoking_since"), output_field=DateTimeField())
    )


def _profiles(rows: Credentials) -> Iterable[tuple[str, dict[str, Any]]]:
    """Kinds and settings among these: as many as there are profiles, however many the rows."""
    return rows.order_by().values_list("kind", "settings").distinct()


def _those(profiles: list[tuple[str, dict[str, Any], Any]], wanted: object) -> Q:
    """Credentials of the profiles of which that is true, by kind alone where it's so of them all:
    a condition for each of a thousand profiles would be slow on each of ten thousand rows."""
    found = Q()
    for kind in {slug for slug, _, _ in profiles}:
        of_kind = [(settings, what) for slug, settings, what in profiles if slug == kind]
        if all(what == wanted for _, what in of_kind):
            found |= Q(kind=kind)
        else:
            for settings, what in of_kind:
                if what == wanted:
                    found |= Q(kind=kind, settings=settings)
    return found


def stuck(rows: Credentials | None, now: dt.datetime) -> Any:
    """Those that should have been gone for more than a minute."""
    return ending(rows).filter(gone_by__lt=now - STUCK_AFTER)


def of_target(kind: str, target: str) -> Credentials:
    """Those of this kind that are revoking and wait for this target."""
    rows = Credential.objects.filter(state=CredentialState.REVOKING, kind=kind)
    profiles = [
        (slug, settings, target_of(Credential(kind=slug, settings=settings)))
        for slug, settings in _profiles(rows)
    ]
    found = _those(profiles, target)
    return rows.filter(found) if found else rows.none()
