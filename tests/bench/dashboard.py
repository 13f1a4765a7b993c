"""The approver dashboard with a thousand requests, and with a million: `make bench`."""

import html
import re
import statistics
import textwrap
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accessrequests.models import AccessRequest
from accessrequests.queue import waiting_for
from accounts.models import User
from tests.bench.past import fill
from tests.bench.report import few_and_many, write
from tests.world import World

PAGES = {
    "Waiting": "/approvals/",
    "Waiting, critical ones": "/approvals/?risk=critical",
    "Decided by me": "/approvals/decided/",
    "Decided without me": "/approvals/others/",
    "Figures": "/approvals/figures/",
}
TIMES = 60


def measure(browser: Client, address: str) -> tuple[list[float], int]:
    """Milliseconds of each call, and the number of queries of one."""
    with CaptureQueriesContext(connection) as queries:
        answer = browser.get(address)
    assert answer.status_code == 200, (address, answer.status_code)
    count = len(queries)
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        browser.get(address)
        found.append((time.perf_counter() - began) * 1000)
    return found, count


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@pytest.mark.usefixtures("committed")
def test_dashboard(world: World) -> None:
    group, askers = world.group(), world.group()
    reviewer = world.person(group)
    for _ in range(4):
        world.person(group)
    requesters = [world.person(askers) for _ in range(40)]
    profiles = [
        world.profile(
            reviewers=group,
            requesters=askers,
            endpoint=world.endpoint(with_key=False, risk=risk),
        )
        for risk in ("low", "elevated", "critical")
        for _ in range(4)
    ]
    rounds: list[dict[str, Any]] = []
    for past, pending, first in ((940, 60, 10**12), (999_000, 9_990, 2 * 10**12)):
        fill(
            past=past,
            pending=pending,
            profiles=profiles,
            reviewers=group,
            requesters=requesters,
            first=first,
        )
        rounds.append({"requests": AccessRequest.objects.count(), "pages": _round(reviewer)})
    few, many = rounds
    said = (
        f"p95 of {TIMES} calls through Django's own client, one after another, by one of five "
        f"reviewers to whom every request goes: with {few['requests']:,} requests, of which 60 "
        f"wait, and with {many['requests']:,}, of which 10,000 wait. Target: within 2×."
    )
    text = textwrap.fill(said, 98) + "\n\n"
    text += few_and_many("page", few["pages"], many["pages"])
    write("dashboard", "Approver dashboard", text, {"few": few, "many": many})


def _round(reviewer: User) -> dict[str, Any]:
    browser = Client()
    browser.force_login(reviewer)
    first = waiting_for(reviewer).first()
    assert first is not None
    pending = first.request
    found = {}
    more = re.search(r"\?after=[^\"#]+", browser.get("/approvals/").content.decode())
    following = f"/approvals/{html.unescape(more[0])}" if more else "/approvals/"
    addresses = PAGES | {
        "Waiting, next page": following,
        "One request beside the queue": f"/approvals/?request={pending.pk}",
        "One request": f"/requests/{pending.pk}/",
    }
    for name, address in addresses.items():
        values, queries = measure(browser, address)
        found[name] = {"p50": statistics.median(values), "p95": p95(values), "queries": queries}
    return found
