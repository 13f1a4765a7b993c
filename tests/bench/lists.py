"""Lists and details of the API with a thousand requests, and with a million: `make bench`.

Ten audit rows belong to each request. Who sees little among so much is measured too: for them a
list that is read backwards until a page is full reads everything.
"""

import os
import statistics
import textwrap
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accessrequests.models import AccessRequest, Grant
from accounts.actions import create_token
from accounts.models import User
from audit.models import AuditEvent
from credentials.models import Credential
from tests.bench.past import fill
from tests.bench.record import fill_record
from tests.bench.report import few_and_many, write
from tests.world import World

TIMES = int(os.environ.get("TIMES", "60"))
MANY = int(os.environ.get("REQUESTS", "1000000"))
CREDENTIALS = """
INSERT INTO credentials_credential (id, grant_id, kind, state, settings, accessor, handles,
    wrapped_accessor, created_at, issued_at, expires_at, revoking_since, revoke_reason, revoked_at,
    proof, attempts, next_attempt_at, last_error, alerted_at)
SELECT id, id, 'gateway_token', 'revoked', '{}', id::text, '{}', '', starts_at, starts_at, ends_at,
    ends_at, 'expired', ends_at, 'looked up: gone', 1, NULL, '', NULL
FROM accessrequests_grant WHERE id NOT IN (SELECT grant_id FROM credentials_credential)
"""


@pytest.mark.usefixtures("committed")
def test_lists(world: World) -> None:
    group, askers = world.group(), world.group()
    reviewer = world.person(group)
    for _ in range(4):
        world.person(group)
    requesters = [world.person(askers) for _ in range(40)]
    newcomer, stranger = world.person(askers), world.person()
    administrator = world.person(is_administrator=True)
    endpoints = [world.endpoint(with_key=False) for _ in range(4)]
    profiles = [
        world.profile(reviewers=group, requesters=askers, endpoint=endpoint)
        for endpoint in endpoints
        for _ in range(3)
    ]
    own = [world.request(profile=profiles[0], requester=newcomer) for _ in range(3)]
    callers = {
        "an administrator": administrator,
        "a reviewer": reviewer,
        "a requester": requesters[0],
        "a newcomer": newcomer,
        "a stranger": stranger,
    }
    rounds: list[dict[str, Any]] = []
    for past, pending, first in ((940, 60, 10**12), (MANY - 1_000, 9_990, 2 * 10**12)):
        fill(
            past=past,
            pending=pending,
            profiles=profiles,
            reviewers=group,
            requesters=requesters,
            first=first,
        )
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("ALTER TABLE credentials_credential DISABLE TRIGGER USER")
            cursor.execute(CREDENTIALS)
            cursor.execute("ALTER TABLE credentials_credential ENABLE TRIGGER USER")
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("RESET statement_timeout")
        fill_record(low=f"{first:032x}", high=f"{first + past + pending:032x}")
        rounds.append(
            {
                "requests": AccessRequest.objects.count(),
                "events": AuditEvent.objects.count(),
                "calls": {
                    f"{name} by {who}": _measured(token, path)
                    for who, user in callers.items()
                    for token in [create_token(by=user, owner=user, name="bench")[1]]
                    for name, path in _paths(
                        user, endpoints[0].slug, own[0] if user == newcomer else None
                    ).items()
                },
            }
        )
    few, many = rounds
    within = sum(many["calls"][call]["p95"] <= 2 * of["p95"] for call, of in few["calls"].items())
    said = (
        f"p95 of {TIMES} calls by API token through Django's own client, one after another: with "
        f"{few['requests']:,} requests and {few['events']:,} audit rows, and with "
        f"{many['requests']:,} and {many['events']:,}. A newcomer has three requests, a stranger "
        f"none. Target: within 2×, which {within} of {len(few['calls'])} are."
    )
    text = textwrap.fill(said, 98) + "\n\n"
    text += few_and_many("call", few["calls"], many["calls"])
    write("lists", "Lists and details of the API", text, {"few": few, "many": many})


def _paths(user: User, slug: str, own: AccessRequest | None) -> dict[str, str]:
    """What this caller asks for: name -> path, the same names in each round."""
    requests = AccessRequest.objects.listed_for(user).order_by("-pk")
    event = AuditEvent.objects.visible_to(user).order_by("-pk").first()
    request = own or requests.first()
    grant = Grant.objects.visible_to(user).order_by("-pk").first() if user.sees_everything else None
    found = {
        "requests/": "requests/",
        "requests/?state=pending": "requests/?state=pending",
        "requests/?endpoint=": f"requests/?endpoint={slug}",
        "grants/": "grants/",
        "grants/?state=active": "grants/?state=active",
        "credentials/": "credentials/",
        "credentials/?state=revoking": "credentials/?state=revoking",
        "audit/events/": "audit/events/",
        "audit/events/?event=": "audit/events/?event=access_request:filed",
        "approvals/": "approvals/",
    }
    if request is not None:
        found["requests/{id}/"] = f"requests/{request.pk}/"
        found["audit/events/?about="] = f"audit/events/?about={request.pk}"
    if grant is not None:
        found["grants/{id}/"] = f"grants/{grant.pk}/"
        credential = Credential.objects.order_by("-pk").first()
        assert credential is not None
        found["credentials/{id}/"] = f"credentials/{credential.pk}/"
    if event is not None:
        found["audit/events/{id}/"] = f"audit/events/{event.pk}/"
    return found


def _measured(token: str, path: str) -> dict[str, Any]:
    client = Client(headers={"Authorization": f"Bearer {token}"})
    address = f"/api/v1/{path}"
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(address)
    asked = len(queries)
    assert answer.status_code == 200, (address, answer.status_code, answer.content[:300])
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        client.get(address)
        found.append((time.perf_counter() - began) * 1000)
        if found[-1] > 3_000 and len(found) >= 5:
            break  # slow enough to know it
    return {
        "p50": statistics.median(found),
        "p95": statistics.quantiles(found, n=20)[-1],
        "queries": asked,
    }
