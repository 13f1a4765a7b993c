"""Somebody who holds a grant of each kind that is opened directly, and somebody who reviews."""

from dataclasses import dataclass
from typing import Any

from accessrequests.models import AccessRequest, Grant
from accounts.actions import join_group
from accounts.models import User
from endpoints.models import AccessProfile
from tests.credentials.test_client_certificate import operate
from tests.servers import Servers
from tests.world import PASSWORD, World


@dataclass(frozen=True)
class Delivering:
    ana: User
    ben: User
    certificate: Grant
    static: Grant
    database: Grant
    token: Grant
    asked: AccessRequest


def delivering(world: World, servers: Servers, zone: str = "Europe/Madrid") -> Delivering:
    """Make it all, with a CA and a key that an operator stored."""
    look: dict[str, Any] = {"password": PASSWORD, "time_zone": zone}
    ana = world.person(full_name="Ana Ruiz", **look)
    ben = world.person(full_name="Ben Okafor", **look)
    requesters, reviewers = world.group(), world.group()
    join_group(by=None, user=ana, group=requesters)
    join_group(by=None, user=ben, group=reviewers)
    operate(servers, "claims-tools")

    def profile(name: str, url: str, kind: str, **kind_settings: str) -> AccessProfile:
        endpoint = world.endpoint(
            name=name,
            with_key=False,
            dialects=["direct"],
            kind="tool",
            upstream_url=url,
            connected_systems=["Claims database"],
        )
        return world.profile(
            endpoint=endpoint,
            models=None,
            scope={"operations": ["CONNECT /claims"]},
            requesters=requesters,
            reviewers=reviewers,
            credential_kind=kind,
            kind_settings=kind_settings,
        )

    static = profile("Legacy OCR", "https://ocr.internal:8443", "static_secret")
    servers.vault(
        "POST",
        f"kv/data/handed-out/{static.endpoint.slug}",
        {"data": {"key": "ocr-7f3b9c2e51d84a06"}, "options": {"cas": 0}},
    )
    target = "postgresql://claims-db.internal:5432/claims"
    database = profile(
        "Claims database",
        target,
        "database",
        role="claims-read",
        target=target,
        monitor="keyturn-monitor",
    )
    certificate = profile(
        "Claims tools", "https://tools.internal", "client_certificate", role="claims-tools"
    )
    token = world.profile(with_key=True, requesters=requesters, reviewers=reviewers)

    def grant(of: AccessProfile) -> Grant:
        return world.grant(profile=of, requester=ana, reviewer=ben)

    return Delivering(
        ana,
        ben,
        grant(certificate),
        grant(static),
        grant(database),
        grant(token),
        world.request(
            profile=static, requester=world.person(requesters, full_name="Eli Sato"), reviewer=ben
        ),
    )
