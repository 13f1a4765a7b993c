"""A database that is away for longer than OpenBao itself tries to revoke there: ten minutes."""

import time

import pytest

from accessrequests.states import EndReason
from credentials.actions import check_out, end_grant
from tests.conftest import running_worker
from tests.credentials.targets import Target
from tests.faults import report
from tests.faults.killing import settle, standing, until, wrong
from tests.faults.kinds import Tried
from tests.servers import Servers
from tests.world import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]


def irrevocable(servers: Servers) -> int:
    """The leases that OpenBao gave up."""
    return int(servers.vault("GET", "sys/leases?type=irrevocable")["data"]["lease_count"])


def test_a_target_that_is_down_for_longer_than_openbao_tries(
    servers: Servers, world: World, tried: dict[str, Tried], target: Target
) -> None:
    before = standing(servers)
    profile = tried["database"].profile(world)
    grants = [world.grant(profile=profile) for _ in range(3)]
    urls = [check_out(by=grant.holder, grant_id=grant.pk).parts["url"] for grant in grants]
    assert all(map(target.opens, urls))
    target.stop()
    try:
        began = time.monotonic()
        for grant in grants:
            end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
        with running_worker(servers):
            until(lambda: irrevocable(servers) == len(grants), 15 * 60, every=2)
            down = time.monotonic() - began
            target.start()
            took = until(lambda: not target.users(), 60)
            settle(grants, 60)
    finally:
        target.start()
    assert wrong(servers, grants, urls, before=before) == []
    report.add(
        "target of `database` down for longer than OpenBao tries",
        f"down for {down:.0f} s, until OpenBao had given up {len(grants)} leases; its users gone "
        "after its return",
        took,
    )
