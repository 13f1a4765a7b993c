"""What somebody holds, and whether all of it is gone.

Nothing is called gone here because it should be: a credential is once its target said so, a
session once its row isn't there.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch, Q

from accessrequests.models import AccessRequest, Grant, Route
from accessrequests.states import RequestState
from accounts import sessions
from accounts.models import ApiToken, User
from credentials.models import Credential
from credentials.standing import Standing, standing
from credentials.states import CredentialState
from endpoints.models import Endpoint

ENDED_SHOWN = dt.timedelta(days=7)
GRANTS = 100  # shown; all are counted


@dataclass(frozen=True)
class Held:
    """One grant of theirs, with how each of its credentials stands."""

    grant: Grant
    live: bool
    credentials: list[Standing]

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left: it has ended, and each credential is proven gone."""
        return self.grant.ended_at is not None and all(
            each.credential.state == CredentialState.REVOKED for each in self.credentials
        )


@dataclass(frozen=True)
class Holding:
    """All that a person and their service accounts hold at one moment, and agents for them."""

    grants: list[Held]
    more: int  # grants that are left and not among these
    sessions: int
    tokens: int
    services: list[User]
    groups: int
    owned: int
    invitations: int
    pending: int
    # For somebody else to take over; nothing that opens anything.
    reviews: int
    endpoints: list[Endpoint]
    reports: int

    @property
    def grants_left(self) -> int:
        """Grants of which something is left."""
        return sum(not each.gone for each in self.grants) + self.more

    @property
    def services_left(self) -> int:
        """Service accounts that are active."""
        return sum(each.is_active for each in self.services)

    @property
    def gone(self) -> bool:
        """Whether nothing at all is left."""
        return not any(
            (
                self.grants_left,
                self.sessions,
                self.tokens,
                self.services_left,
                self.groups,
                self.owned,
                self.invitations,
                self.pending,
            )
        )


def _left() -> Q:
    """Grants that are open, or have a credential that isn't proven gone."""
    owed = Credential.objects.exclude(state=CredentialState.REVOKED).values("grant")
    return Q(ended_at=None) | Q(pk__in=owed)


def _held(rows: Iterable[Grant], now: dt.datetime) -> list[Held]:
    return [
        Held(row, row.is_live(now), [standing(each, now) for each in row.credentials.all()])
        for row in rows
    ]


def holding(person: User, now: dt.datetime) -> Holding:
    """What this person, their service accounts and agents for them hold now, and what ended of
    late."""
    services = list(person.service_accounts.order_by("full_name"))
    accounts: list[Any] = [person, *services]
    rows = (
        Grant.objects.filter(Q(holder__in=accounts) | Q(request__on_behalf_of=person))
        .select_related("holder", "request__profile__endpoint")
        .prefetch_related(Prefetch("credentials", queryset=Credential.objects.order_by("-id")))
    )
    left = rows.filter(_left()).order_by("-id")
    shown = list(left[:GRANTS])
    more = left.count() - len(shown) if len(shown) == GRANTS else 0
    ids = {row.pk for row in shown}
    recent = rows.filter(ended_at__gt=now - ENDED_SHOWN).order_by("-id")[:GRANTS]
    shown += [row for row in recent if row.pk not in ids]
    return Holding(
        grants=_held(shown, now),
        more=more,
        sessions=sum(len(sessions.opened(each)) for each in accounts)
        if person.is_active
        else person.sessions.count(),
        tokens=ApiToken.objects.filter(
            owner__in=accounts, revoked_at=None, expires_at__gt=now
        ).count(),
        services=services,
        groups=sum(each.member_of.count() for each in accounts),
        owned=person.owns_groups.count(),
        invitations=person.invitations.filter(used_at=None, expires_at__gt=now).count(),
        pending=AccessRequest.objects.filter(
            Q(requester__in=accounts) | Q(on_behalf_of=person), state=RequestState.PENDING
        ).count(),
        reviews=Route.objects.filter(person=person, waiting=True).count(),
        endpoints=list(person.owned_endpoints.filter(retired_at=None)),
        reports=person.reports.filter(is_active=True).count(),
    )
