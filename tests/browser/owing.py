"""An hour in which a target is down: a few ways for credentials to be owed."""

from dataclasses import dataclass
from typing import Any

from accessrequests.models import Grant
from accounts.models import User
from audit import clock
from credentials.actions import check_out
from credentials.models import Credential, Reconciliation
from tests.credentials.owing import gone, owed
from tests.world import PASSWORD, World


@dataclass(frozen=True)
class Owing:
    """Who may act and who only reads, and what is owed under which grant."""

    chidi: User
    auditor: User
    ana: User
    grant: Grant
    down: Grant
    stuck: list[Credential]


def owing(world: World, zone: str = "Europe/Madrid", mark: str = "") -> Owing:
    """Make it all. `mark` ends each name: what tests commit is on one page for all of them."""
    look: dict[str, Any] = {"password": PASSWORD, "time_zone": zone}
    chidi = world.person(
        full_name=f"Chidi Eze{mark}", is_administrator=True, is_auditor=True, **look
    )
    auditor = world.person(full_name=f"Aud Itor{mark}", is_auditor=True, **look)
    both: dict[str, Any] = {"requesters": world.group(), "reviewers": world.group()}
    ana = world.person(both["requesters"], full_name=f"Ana Castillo{mark}", **look)
    long = world.person(
        both["requesters"], full_name=f"Maximiliane Freifrau von Hohenstein-Wetterau{mark}", **look
    )
    orders = world.endpoint(name=f"Orders behind the assistant{mark}", with_key=False)
    triage = world.endpoint(
        name=f"Claims triage and payout recommendation for the northern region{mark}",
        with_key=False,
    )
    grant = world.grant(profile=world.profile(endpoint=orders, **both), requester=ana)
    other = world.grant(profile=world.profile(endpoint=triage, **both), requester=long)
    for _ in range(2):
        check_out(by=ana, grant_id=grant.pk)
    gone(Credential.objects.filter(grant=grant).earliest("pk"))
    database = {
        "mount": "database",
        "role": "orders-read",
        "target": "postgresql://orders-db.internal:5432/orders",
        "monitor": "keyturn-monitor",
        "sslmode": "verify-full",
    }
    ledger = world.endpoint(
        name=f"Orders database{mark}",
        dialects=["direct"],
        upstream_url=database["target"],
        with_key=False,
    )
    asked: dict[str, Any] = {"scope": {"operations": ["CONNECT /orders"]}, **both}
    direct = world.profile(
        endpoint=ledger, credential_kind="database", kind_settings=database, **asked
    )
    down = "orders-db.internal:5432/orders: connection refused"
    users: dict[str, Any] = {"kind": "database", "error": down, **database}
    stuck = owed(
        world.grant(profile=direct, requester=ana), count=3, seconds=752, attempts=16, **users
    )
    owed(other, seconds=20, attempts=2, error="lookup-accessor: ReadTimeout", kind="gateway_token")
    owed(grant, seconds=20, kind="jwt", expires_in=217, attempts=1, error="", audience="")
    Reconciliation.objects.create(
        at=clock.now(),
        took=0.42,
        looked_at=4905,
        found=2,
        ended=1,
        left=[
            {
                "where": "orders-db.internal",
                "name": "kt-01jd9x2m4n8q6r5t7v9w1y3z5b",
                "kind": "database",
                "why": "permission denied to terminate process",
            }
        ],
        irrevocable=[
            {
                "lease": "database/creds/orders-read/8Kq2mZ0aWx1pR4tY7uI9oP3s",
                "error": "failed to revoke entry: dial tcp 10.2.0.7:5432: connection refused",
            }
        ],
        failures={},
    )
    return Owing(chidi, auditor, ana, grant, stuck[0].grant, stuck)
