"""The whole table: each failpoint, each kind, grants that live on and grants that end."""

import itertools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from django.db import connection

from accessrequests.models import Grant
from accessrequests.states import EndReason
from credentials.actions import check_out, end_grant
from credentials.failpoints import Failpoint
from credentials.models import Credential
from tests.conftest import RunningGateway, running_worker
from tests.credentials.targets import DATABASE, Target
from tests.faults import report
from tests.faults.killing import Act, settled, standing, unwanted, wrong
from tests.faults.kinds import Tried
from tests.servers import Servers
from tests.world import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]

BOUND = 60  # seconds from a kill until nothing is alive that shouldn't be
ON_RECORD = 120  # a mint that never was is known to be none once it could no longer land
FAILPOINTS = get_args(Failpoint)
# So that no claim is over before the last of a batch has died.
SLOWEST_FIRST = ("database", "client_certificate", "gateway_token")
MINT = [name for name in FAILPOINTS if name.startswith("mint:")]
REVOKE = [name for name in FAILPOINTS if name.startswith("revoke:")]


@dataclass
class Scenario:
    """One process that died, and how it went on."""

    kind: str
    failpoint: str
    then: str
    grant: Grant
    secrets: list[str]
    since: float = 0.0
    gone: float | None = None
    on_record: float | None = None

    @property
    def over(self) -> bool:
        """Whether all is as it should be."""
        return self.gone is not None and self.on_record is not None


def look(servers: Servers, scenarios: list[Scenario]) -> None:
    moment = time.monotonic()
    on_record = [each for each in scenarios if settled([each.grant])]
    alive = unwanted(servers, [each.grant for each in scenarios])
    rows = Credential.objects.filter(pk__in=[thing.credential for thing in alive])
    grants = set(rows.values_list("grant_id", flat=True))
    for each in scenarios:
        if each.grant.pk in grants:
            each.gone = None
        elif each.gone is None:
            each.gone = moment - each.since
        if each in on_record and each.on_record is None:
            each.on_record = moment - each.since


def watch(servers: Servers, scenarios: list[Scenario]) -> None:
    """Until each is over, or has taken too long."""
    while waiting := [each for each in scenarios if not each.over]:
        look(servers, waiting)
        for each in waiting:
            took = time.monotonic() - each.since
            assert each.gone is not None or took < BOUND, f"still alive: {each}"
            assert each.over or took < ON_RECORD, f"not on record: {each}"
        time.sleep(0.3)


@contextmanager
def watching(servers: Servers) -> Iterator[list[Scenario]]:
    """Look at those in this list from when they're added on; at the end of the block until each is
    over."""
    scenarios: list[Scenario] = []
    ended = threading.Event()

    def run() -> None:
        try:
            while not ended.wait(0.2):
                look(servers, [each for each in scenarios if not each.over])
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield scenarios
    finally:
        ended.set()
        thread.join()
    watch(servers, scenarios)


def plain(proof: str) -> str:
    """A proof without what is another one each time."""
    for what, word in (
        (r"user kt-\S+ at \S+", "such user at the target"),
        (r" at \d{4}-.*", ""),
        (r", \d{4}-[^,]* UTC,", ""),
    ):
        proof = re.sub(what, word, proof)
    return proof


def keep(name: str, title: str, text: str, scenarios: list[Scenario]) -> None:
    rows: list[list[Any]] = []
    for each in scenarios:
        found = Credential.objects.filter(grant=each.grant).order_by("created_at")
        states = ", ".join(row.state + f": {plain(row.proof)}" * bool(row.proof) for row in found)
        rows.append(
            [
                f"`{each.failpoint}`",
                each.kind,
                each.then,
                states or "none was begun",
                f"{each.gone:.1f}",
                f"{each.on_record:.1f}",
            ]
        )
    columns = ["killed at", "kind", "grant", "credential", "gone, s", "on record, s"]
    report.keep(name, title, text, columns, rows)


def test_a_mint_killed_at_each_failpoint(
    servers: Servers,
    world: World,
    tmp_path: Path,
    gateway: RunningGateway,
    tried: dict[str, Tried],
    target: Target,
) -> None:
    before = standing(servers)
    act = Act(servers, tmp_path, f"{target.address}/{DATABASE}")
    with running_worker(servers), watching(servers) as scenarios:
        for failpoint, kind, ends in itertools.product(MINT, tried, (False, True)):
            grant = world.grant(profile=tried[kind].profile(world))
            options = ["wrap"] if failpoint == "mint:wrapped" else []
            since = act.may_die_at(failpoint, "check_out", grant.pk, *options)
            if since is None:
                continue  # not a step of this kind
            if ends:
                end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
            then = "ended" if ends else "lives on"
            scenarios.append(Scenario(kind, failpoint, then, grant, [], since))
    grants = [each.grant for each in scenarios]
    assert wrong(servers, grants, act.loot(), gateway=gateway, before=before) == []
    assert {each.failpoint for each in scenarios} == set(MINT), "each is reached"
    keep(
        "mint",
        "Killed while minting",
        "Web is killed at each step of a check-out; a worker runs. Seconds from the kill.",
        scenarios,
    )
    for each in scenarios:
        if each.then == "lives on":
            again = act.run("check_out", each.grant.pk)
            assert again.returncode == 0, f"{each}: {again.stderr}"


def dies_sweeping(act: Act, failpoint: str, grant: Grant) -> bool:
    """Sweep until one dies there; whether one did before all was over."""
    while not settled([grant]):
        if act.may_die_at(failpoint, "sweep", role="worker") is not None:
            return True
    return False


def test_a_revocation_killed_at_each_failpoint(
    servers: Servers,
    world: World,
    tmp_path: Path,
    gateway: RunningGateway,
    tried: dict[str, Tried],
    target: Target,
) -> None:
    before = standing(servers)
    act = Act(servers, tmp_path, f"{target.address}/{DATABASE}")
    scenarios = []
    for failpoint in REVOKE:
        batch = []
        for kind in SLOWEST_FIRST:
            grant = world.grant(profile=tried[kind].profile(world))
            secrets = []
            if failpoint == "revoke:found":
                act.dies_at("mint:made", "check_out", grant.pk)
            else:
                parts = check_out(by=grant.holder, grant_id=grant.pk).parts
                secrets = [] if "private_key" in parts else [parts.get("url", parts["secret"])]
            if failpoint == "revoke:intended":
                act.dies_at(failpoint, "end_grant", grant.pk)
            else:
                end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
                if not dies_sweeping(act, failpoint, grant):
                    continue
            batch.append(Scenario(kind, failpoint, "ended", grant, secrets))
        since = time.monotonic()
        with running_worker(servers):
            for each in batch:
                each.since = since
            watch(servers, batch)
        scenarios += batch
    secrets = [*act.loot(), *(secret for each in scenarios for secret in each.secrets)]
    grants = [each.grant for each in scenarios]
    assert wrong(servers, grants, secrets, gateway=gateway, before=before) == []
    assert {each.failpoint for each in scenarios} == set(REVOKE), "each is reached"
    keep(
        "revoke",
        "Killed while revoking",
        "A worker is killed at each step of a revocation (web at `revoke:intended`), then another\n"
        "is started. Seconds from its start, of which some are the start itself.",
        scenarios,
    )
