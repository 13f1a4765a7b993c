"""What the gateway needs to know of a credential: does it hold at this moment, and for what."""

import datetime as dt
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from django.db.models import (
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    Subquery,
    TextField,
)
from django.db.models.functions import Cast, Coalesce

from accessrequests.models import GrantRaise
from accounts.behalf import let_by
from audit.clock import ClockTimestamp
from credentials import vault
from credentials.models import Credential, UpstreamSecret, Use
from credentials.states import CredentialState
from endpoints.models import EmergencyStop
from endpoints.scope import Scope

# A refresh that was in time may be committing: it must not find its credential cut.
REFRESHING = dt.timedelta(seconds=5)


class Holds(NamedTuple):
    """A credential that holds now: for `remaining` seconds from the moment it was asked about.

    `facts` are as PostgreSQL has them, so that whoever asks each second can see by one comparison
    that nothing has changed.
    """

    facts: tuple[Any, ...]
    remaining: float


@dataclass(frozen=True)
class Live:
    """What a credential that holds is for."""

    credential: uuid.UUID
    grant: uuid.UUID
    profile: uuid.UUID
    holder: str
    endpoint_id: uuid.UUID
    endpoint: str
    dialects: frozenset[str]
    upstreams: tuple[str, ...]
    key_header: str
    max_stale: int | None
    critical: bool
    aliases: dict[str, str]
    scope: Scope

    @classmethod
    def of(cls, facts: tuple[Any, ...]) -> Self:
        """The facts of `Holds`, read."""
        credential, grant, profile, holder, endpoint_id, endpoint = facts[:6]
        dialects, url, further, key_header, max_stale, risk, aliases, scope = facts[6:]
        return cls(
            credential=credential,
            grant=grant,
            profile=profile,
            holder=holder,
            endpoint_id=endpoint_id,
            endpoint=endpoint,
            dialects=frozenset(dialects),
            upstreams=tuple(each.rstrip("/") for each in (url, *further)),
            key_header=key_header,
            max_stale=max_stale,
            critical=risk == "critical",
            aliases=json.loads(aliases),
            scope=Scope.parse(json.loads(scope)),
        )


def usable_key(endpoint: str) -> vault.Kept | None:
    """The upstream key that gateways use for the endpoint of this slug, None if it has none.

    Not simply the newest: that may be one that a rotation is still trying. Raises VaultError.
    """
    path = vault.upstream_path(endpoint)
    found = None
    for _ in range(2):
        version = UpstreamSecret.objects.filter(endpoint__slug=endpoint, use=Use.UPSTREAM)
        number = version.values_list("version", flat=True).first() or 0
        found = vault.kept(path, version=number)
        if found is not None or not number:
            break
        # It was replaced and destroyed between the two questions.
    return found


def holding(credentials: Iterable[uuid.UUID]) -> dict[uuid.UUID, Holds]:
    """Those of these credentials that hold, by PostgreSQL's clock and rows.

    Nothing here waits for a worker: a grant past its end or ended, a deactivated holder, a service
    account past its end, a person who no longer lets it be held on their behalf, a retired endpoint
    and an emergency stop count from the moment they're true; that nothing handed out under it is
    good any more, a few seconds later.
    """
    behalf = "grant__request__on_behalf_of"
    endpoint = "grant__request__profile__endpoint"
    stopped = EmergencyStop.objects.against(
        OuterRef(endpoint), OuterRef("grant__request__decided_at")
    )
    raised = GrantRaise.objects.filter(grant=OuterRef("grant")).order_by("-at").values("scope")[:1]
    rows = (
        Credential.objects.filter(
            ~Exists(stopped),
            Q(expires_at=None) | Q(expires_at__gt=ClockTimestamp() - REFRESHING),
            Q(**{behalf: None})
            | (Q(**{f"{behalf}__is_active": True}) & let_by(behalf, "grant__holder")),
            Q(grant__holder__ends_at=None) | Q(grant__holder__ends_at__gt=ClockTimestamp()),
            pk__in=list(credentials),
            state=CredentialState.ACTIVE,
            grant__ended_at=None,
            grant__starts_at__lte=ClockTimestamp(),
            grant__ends_at__gt=ClockTimestamp(),
            grant__holder__is_active=True,
            **{f"{endpoint}__retired_at": None},
        )
        .annotate(
            remaining=ExpressionWrapper(
                F("grant__ends_at") - ClockTimestamp(), output_field=DurationField()
            )
        )
        .values_list(
            "remaining",
            "pk",
            "grant_id",
            "grant__request__profile_id",
            "grant__holder__email",
            f"{endpoint}_id",
            f"{endpoint}__slug",
            f"{endpoint}__dialects",
            f"{endpoint}__upstream_url",
            f"{endpoint}__further_upstreams",
            f"{endpoint}__key_header",
            f"{endpoint}__max_stale",
            f"{endpoint}__risk",
            # As text: reading the JSON of each again each second would be work for nothing.
            Cast("grant__request__profile__aliases", TextField()),
            Cast(Coalesce(Subquery(raised), "grant__scope"), TextField()),
        )
    )
    found = {}
    for remaining, *facts in rows:
        left: dt.timedelta = remaining
        found[facts[0]] = Holds(tuple(facts), left.total_seconds())
    return found
