"""The one path by which grants end, one or thousands at a time."""

import uuid

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from accessrequests.actions import close_grants
from accessrequests.actions.granting import followers
from accessrequests.models import Grant
from accessrequests.permissions import check_end
from accessrequests.states import EndReason
from accounts.behalf import let_by
from accounts.door import fetch
from accounts.models import Membership, User
from accounts.preconditions import ANYTHING, Expected
from audit import clock
from credentials.actions.revoking import start_revoking
from credentials.models import Credential
from credentials.states import CredentialState, RevokeReason
from endpoints.models import EmergencyStop

BATCH = 1000


@transaction.atomic
def end_grant(
    *,
    grant_id: uuid.UUID | str,
    by: User | None,
    reason: EndReason | None = None,
    expected: Expected = ANYTHING,
) -> Grant:
    """End a grant and start taking its credentials back.

    By a person the reason is `given_back` for its holder and `revoked` for anybody else.
    Ending what has ended already changes nothing. Raises NotFound, Forbidden and
    PreconditionFailed.
    """
    visible = Grant.objects.visible_to(by) if by is not None else Grant.objects.all()
    grant = fetch(visible, grant_id, lock=True)
    if by is not None:
        check_end(by, grant)
        reason = EndReason.GIVEN_BACK if grant.holder_id == by.pk else EndReason.REVOKED
    expected.check(grant)
    if reason is None:
        raise ValueError("Keyturn itself must say why it ends a grant")
    _end([grant], reason, by)
    return grant


def _end(grants: list[Grant], reason: EndReason, by: User | None) -> int:
    """End these locked grants in the caller's transaction; how many hadn't yet."""
    closed = close_grants(grants, reason=reason, by=by)
    if not closed:
        return 0
    of = {grant.pk: grant for grant in closed}
    credentials = list(
        Credential.objects.select_for_update().filter(
            grant__in=of, state__in=[CredentialState.ISSUING, CredentialState.ACTIVE]
        )
    )
    for credential in credentials:
        credential.grant = of[credential.grant_id]
    start_revoking(credentials, RevokeReason.GRANT_ENDED, by)
    if reason != EndReason.EXPIRED:
        # What extends one was approved for somebody who still had it.
        _end(followers(closed), reason, by)
    return len(closed)


def end_denied(grant: Grant, by: User) -> None:
    """End this locked grant in the caller's transaction: its review afterwards was denied."""
    _end([grant], EndReason.REVIEW_DENIED, by)


def end_due_grants() -> int:
    """End grants whose time is up, whose holder, endpoint or holder's group is gone, likewise of
    the person on whose behalf they are held, or who took their consent back, or that an emergency
    stop is against; how many.

    Rows locked by another worker are its business.
    """
    moment = clock.now()
    open_grants = Grant.objects.filter(ended_at=None)
    group = OuterRef("request__profile__requesters")
    in_group = Exists(Membership.objects.filter(user=OuterRef("holder"), group=group))
    for_another = Q(request__on_behalf_of__isnull=False)
    theirs = Membership.objects.filter(user=OuterRef("request__on_behalf_of"), group=group)
    due: list[tuple[QuerySet[Grant], EndReason]] = [
        (open_grants.filter(ends_at__lte=moment), EndReason.EXPIRED),
        (open_grants.filter(_gone_holder()), EndReason.REQUESTER_DEACTIVATED),
        (
            open_grants.filter(request__profile__endpoint__retired_at__isnull=False),
            EndReason.ENDPOINT_RETIRED,
        ),
        # Whoever is deactivated leaves their groups too, maybe in this very moment.
        (open_grants.filter(~_gone_holder(), ~in_group), EndReason.GROUP_LOST),
        (
            open_grants.filter(for_another, ~let_by("request__on_behalf_of", "holder")),
            EndReason.REVOKED,
        ),
        (open_grants.filter(for_another, ~Exists(theirs)), EndReason.GROUP_LOST),
    ]
    count = 0
    for grants, reason in due:
        with transaction.atomic():
            count += _end(_batch(grants), reason, None)
    return count + _end_stopped()


def _gone_holder() -> Q:
    """A service account goes with the person who answers for it, and what it holds for another
    with them."""
    return (
        Q(holder__is_active=False)
        | Q(holder__owner__is_active=False)
        | Q(request__on_behalf_of__is_active=False)
    )


def _batch(grants: QuerySet[Grant]) -> list[Grant]:
    return list(
        grants.select_related(
            "request__profile__endpoint", "request__requester", "holder"
        ).select_for_update(skip_locked=True, of=("self",))[:BATCH]
    )


@transaction.atomic
def _end_stopped() -> int:
    """End grants that an emergency stop is against, in the name of whoever declared it."""
    stops = EmergencyStop.objects.against(
        OuterRef("request__profile__endpoint"), OuterRef("request__decided_at")
    )
    rows = _batch(
        Grant.objects.filter(ended_at=None, ends_at__gt=clock.now())
        .annotate(stopped_by=Subquery(stops.values("stopped_by")[:1]))
        .filter(stopped_by__isnull=False)
    )
    by: dict[uuid.UUID, list[Grant]] = {}
    for grant in rows:
        by.setdefault(grant.stopped_by, []).append(grant)  # type: ignore[attr-defined]
    people = User.objects.in_bulk(list(by))
    for person, grants in by.items():
        _end(grants, EndReason.EMERGENCY_STOP, people[person])
    return len(rows)
