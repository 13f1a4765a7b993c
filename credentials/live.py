"""What the gateway needs to know of a credential: does it hold at this moment, and for what."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import DurationField, ExpressionWrapper, F

from audit.clock import ClockTimestamp
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.scope import Scope


@dataclass(frozen=True)
class Live:
    """A credential that holds now. `remaining` is in seconds, from the moment it was asked."""

    credential: uuid.UUID
    grant: uuid.UUID
    profile: uuid.UUID
    endpoint: str
    dialects: frozenset[str]
    upstream_url: str
    critical: bool
    models: frozenset[str]
    remaining: float


def live(credentials: Iterable[uuid.UUID]) -> dict[uuid.UUID, Live]:
    """Those of these credentials that hold, by PostgreSQL's clock and rows.

    Nothing here waits for a worker: a grant past its end or ended, a deactivated holder and a
    retired endpoint count from the moment they're true.
    """
    rows = (
        Credential.objects.filter(
            pk__in=list(credentials),
            state=CredentialState.ACTIVE,
            grant__ended_at=None,
            grant__starts_at__lte=ClockTimestamp(),
            grant__ends_at__gt=ClockTimestamp(),
            grant__holder__is_active=True,
            grant__request__profile__endpoint__retired_at=None,
        )
        .annotate(
            remaining=ExpressionWrapper(
                F("grant__ends_at") - ClockTimestamp(), output_field=DurationField()
            )
        )
        .values_list(
            "pk",
            "grant_id",
            "grant__request__profile_id",
            "grant__request__profile__endpoint__slug",
            "grant__request__profile__endpoint__dialects",
            "grant__request__profile__endpoint__upstream_url",
            "grant__request__profile__endpoint__risk",
            "grant__scope",
            "remaining",
        )
    )
    found = {}
    for pk, grant, profile, endpoint, dialects, upstream_url, risk, scope, remaining in rows:
        left: dt.timedelta = remaining
        found[pk] = Live(
            credential=pk,
            grant=grant,
            profile=profile,
            endpoint=endpoint,
            dialects=frozenset(dialects),
            upstream_url=upstream_url.rstrip("/"),
            critical=risk == "critical",
            models=Scope.parse(scope).models,
            remaining=left.total_seconds(),
        )
    return found
