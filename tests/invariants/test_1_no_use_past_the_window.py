import datetime as dt
import time

import httpx
import pytest

from accessrequests.models import Grant
from accessrequests.states import GrantState
from audit import clock
from broker.errors import NotLive
from credentials.actions import check_out
from credentials.live import holding
from credentials.models import Credential
from tests.conftest import running_gateway
from tests.invariants.target import token_of, tokens_of
from tests.servers import Servers
from tests.world import World, move

pytestmark = pytest.mark.usefixtures("committed")


def ends_in(grant: Grant, seconds: float) -> None:
    """Move the window, as if most of it had passed."""
    by = clock.now() + dt.timedelta(seconds=seconds) - grant.ends_at
    move(grant, starts_at=by, ends_at=by)


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(profile=world.profile(with_key=True))


def test_the_gateway_refuses_with_everything_else_dead(grant: Grant, servers: Servers) -> None:
    """PostgreSQL, Valkey and OpenBao hang, and no worker runs: the gateway's own clock must do."""
    slug = grant.request.profile.endpoint.slug
    with running_gateway(servers) as gateway, httpx.Client() as client:
        ends_in(grant, 4)
        secret = check_out(by=grant.holder, grant_id=grant.pk).secret

        def status() -> int:
            return client.get(
                f"{gateway.base(slug)}/models", headers={"Authorization": f"Bearer {secret}"}
            ).status_code

        assert status() == 200
        hanging = (servers.postgres, servers.valkey, servers.openbao)
        for server in hanging:
            servers.pause(server)
        try:
            assert status() == 200, "known grants are served on for a while"
            last = 0.0
            until = grant.ends_at.timestamp() + 2
            while time.time() < until:
                sent = time.time()
                if status() == 200:
                    last = sent
                time.sleep(0.02)
        finally:
            for server in hanging:
                servers.resume(server)
        assert last < grant.ends_at.timestamp() + 1


def test_openbao_refuses_by_itself_with_no_worker(grant: Grant, servers: Servers) -> None:
    ends_in(grant, 3)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert token_of(servers, out.secret) is not None
    time.sleep(max(0.0, grant.ends_at.timestamp() + 0.2 - time.time()))
    assert token_of(servers, out.secret) is None
    assert holding([out.credential.pk]) == {}
    assert Grant.objects.get(pk=grant.pk).state == GrantState.ACTIVE, "no worker has run"


@pytest.mark.parametrize("minutes", [1, 61, 60 * 24 * 7], ids=["1 min", "61 min", "7 days"])
def test_a_token_of_openbao_never_outlives_its_grant(
    minutes: int, world: World, servers: Servers
) -> None:
    duration = dt.timedelta(minutes=minutes)
    grant = world.grant(
        profile=world.profile(max_duration=dt.timedelta(days=7), default_duration=duration),
        duration=duration,
    )
    out = check_out(by=grant.holder, grant_id=grant.pk)
    held = token_of(servers, out.secret)
    assert held is not None
    dies_at = dt.datetime.fromisoformat(held["expire_time"])
    assert dies_at <= grant.ends_at
    most = dt.datetime.fromtimestamp(held["creation_time"], dt.UTC) + dt.timedelta(
        seconds=held["explicit_max_ttl"]
    )
    assert most <= grant.ends_at


def test_nothing_is_minted_in_the_last_second(grant: Grant, servers: Servers) -> None:
    ends_in(grant, 0.8)
    with pytest.raises(NotLive, match="last second"):
        check_out(by=grant.holder, grant_id=grant.pk)
    assert tokens_of(servers, grant) == []


@pytest.mark.parametrize("seconds", [-0.001, -3600])
def test_nothing_is_checked_out_past_the_end_whatever_the_row_says(
    seconds: float, grant: Grant
) -> None:
    ends_in(grant, seconds)
    assert Grant.objects.get(pk=grant.pk).state == GrantState.ACTIVE, "no worker has run"
    with pytest.raises(NotLive, match="its time was up"):
        check_out(by=grant.holder, grant_id=grant.pk)
    assert not Credential.objects.filter(grant=grant).exists()


def test_nothing_is_checked_out_before_the_beginning(grant: Grant) -> None:
    move(grant, starts_at=dt.timedelta(minutes=5), ends_at=dt.timedelta(minutes=5))
    with pytest.raises(NotLive, match="begins at"):
        check_out(by=grant.holder, grant_id=grant.pk)


def test_the_gateways_question_needs_no_worker_either(grant: Grant) -> None:
    """`live` is what the gateway asks each second."""
    out = check_out(by=grant.holder, grant_id=grant.pk)
    found = holding([out.credential.pk])[out.credential.pk]
    assert 3590 < found.remaining <= 3600
    ends_in(grant, -0.001)
    assert holding([out.credential.pk]) == {}
