"""One server dies; the rest holds what it promises, and recovers by itself."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from django.db import connection

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit.clock import now
from broker.errors import Unavailable
from credentials.actions import check_out, end_grant
from credentials.models import Credential
from credentials.states import CredentialState
from credentials.sweeper import SWEEPING, tickers
from tests.conftest import Running, RunningGateway, running_gateway, running_web, running_worker
from tests.servers import Servers
from tests.world import World, move

pytestmark = pytest.mark.usefixtures("committed")
SAY: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(profile=world.profile(with_key=True))


@pytest.fixture
def own_gateway(servers: Servers) -> Iterator[RunningGateway]:
    """A gateway that knows nothing yet and may be left in a bad way."""
    with running_gateway(servers) as running:
        yield running


def client_of(gateway: RunningGateway, grant: Grant, secret: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=gateway.base(grant.request.profile.endpoint.slug),
        api_key=secret,
        max_retries=0,
    )


def seconds_until(true: Callable[[], bool], most: float) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < most, f"not within {most} s"
        time.sleep(0.05)
    return time.monotonic() - began


def status(client: openai.OpenAI) -> int:
    try:
        client.models.list()
    except openai.APIStatusError as error:
        return error.status_code
    return 200


@pytest.fixture
def no_valkey(servers: Servers) -> Iterator[None]:
    servers.valkey.stop()
    yield
    servers.valkey.start()


def test_without_valkey_an_end_still_cuts_within_two_seconds(
    own_gateway: RunningGateway, grant: Grant, no_valkey: None
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    with client_of(own_gateway, grant, secret) as client:
        stream = client.chat.completions.create(model="demo-slow", messages=SAY, stream=True)
        next(iter(stream))
        began = time.monotonic()
        end_grant(grant_id=grant.pk, by=grant.holder)
        assert time.monotonic() - began < 3, "a dead doorbell must not hold the end up"
        committed = time.monotonic()
        with pytest.raises(openai.APIError, match="has ended"):
            list(stream)
        assert time.monotonic() - committed < 2
        assert status(client) == 401


@pytest.mark.slow
def test_without_postgresql_the_gateway_serves_what_it_knows_then_fails_closed(
    own_gateway: RunningGateway, grant: Grant, servers: Servers
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    with client_of(own_gateway, grant, secret) as client:
        assert status(client) == 200
        connection.close()
        servers.postgres.stop()
        try:
            assert status(client) == 200, "known, and confirmed a moment ago"
            took = seconds_until(lambda: status(client) == 503, 9)
            assert took > 3, "max_stale is 5 s"
        finally:
            servers.postgres.start()
        seconds_until(lambda: status(client) == 200, 10)


def test_without_openbao_a_check_out_says_so_and_leaves_nothing_behind(
    grant: Grant, servers: Servers, sweep: Callable[[], int]
) -> None:
    check_out(by=grant.holder, grant_id=grant.pk)
    servers.openbao.stop()
    try:
        with pytest.raises(Unavailable) as refused:
            check_out(by=grant.holder, grant_id=grant.pk)
        assert refused.value.retry_after > 0
        sweep()
        credentials = Credential.objects.filter(grant=grant)
        assert {row.state for row in credentials} == {CredentialState.REVOKING}
        assert all(row.last_error for row in credentials)
    finally:
        servers.openbao.start()
    Credential.objects.filter(grant=grant).update(next_attempt_at=grant.starts_at)
    # The one that was live is proven gone; the one in doubt waits until no mint can land.
    live = credentials.order_by("id")[0]
    seconds_until(lambda: sweep() >= 0 and state_of(live) == CredentialState.REVOKED, 20)
    assert check_out(by=grant.holder, grant_id=grant.pk).secret


def test_a_sealed_openbao_is_retried_until_the_revocation_is_proven(
    grant: Grant, servers: Servers, sweep: Callable[[], int]
) -> None:
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    servers.seal()
    try:
        end_grant(grant_id=grant.pk, by=grant.holder)
        sweep()
        credential.refresh_from_db()
        assert credential.state == CredentialState.REVOKING
        assert credential.next_attempt_at is not None
        assert credential.revoking_since is not None
        pause = credential.next_attempt_at - credential.revoking_since
        assert pause.total_seconds() <= 60
    finally:
        servers.unseal()
    Credential.objects.filter(pk=credential.pk).update(next_attempt_at=grant.starts_at)
    seconds_until(lambda: sweep() >= 0 and state_of(credential) == CredentialState.REVOKED, 20)


def state_of(credential: Credential) -> str:
    return Credential.objects.get(pk=credential.pk).state


@pytest.mark.slow
def test_a_gateway_that_never_saw_the_key_says_503_without_openbao(
    own_gateway: RunningGateway, grant: Grant, servers: Servers
) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    with client_of(own_gateway, grant, secret) as client:
        servers.openbao.stop()
        try:
            assert status(client) == 503
        finally:
            servers.openbao.start()
        seconds_until(lambda: status(client) == 200, 10)
    assert httpx.get(f"{own_gateway.url}/healthz").status_code == 200


def test_without_postgresql_portal_and_api_say_503_and_recover(
    servers: Servers, world: World
) -> None:
    with running_web(servers) as web:
        connection.close()
        servers.postgres.stop()
        try:
            session = {"keyturn": "x" * 32}
            api = httpx.get(f"{web.url}/api/v1/requests/", timeout=20, cookies=session)
            page = httpx.get(f"{web.url}/catalogue/", timeout=20, cookies=session)
        finally:
            servers.postgres.start()
        assert api.status_code == 503
        assert api.headers["content-type"] == "application/problem+json"
        assert api.json()["code"] == "unavailable"
        assert page.status_code == 503
        assert page.headers["retry-after"] == "5"
        seconds_until(lambda: httpx.get(f"{web.url}/healthz/").status_code == 200, 10)


def test_the_api_has_its_own_not_found(servers: Servers, portal: Running) -> None:
    answer = httpx.get(f"{portal.url}/api/v1/nothing/")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not-found"


@pytest.mark.slow
def test_without_valkey_and_beat_a_worker_still_revokes_what_expired(
    servers: Servers, grant: Grant, no_valkey: None
) -> None:
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    move(
        grant,
        starts_at=dt.timedelta(hours=-1, seconds=1),
        ends_at=dt.timedelta(hours=-1, seconds=1),
    )
    with running_worker(servers):
        took = seconds_until(lambda: state_of(credential) == CredentialState.REVOKED, 30)
    assert took < 20, "most of it is the worker's start"


def test_of_two_workers_one_sweeps(servers: Servers, grant: Grant) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [SWEEPING])
        try:
            credential = check_out(by=grant.holder, grant_id=grant.pk).credential
            end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
            tick = threading.Thread(target=swept_elsewhere)
            tick.start()
            tick.join()
            assert state_of(credential) == CredentialState.REVOKING
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [SWEEPING])


def swept_elsewhere() -> None:
    try:
        tickers()[0].tick()
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "down",
    [
        ("postgres",),
        ("valkey",),
        ("openbao",),
        ("postgres", "valkey"),
        ("postgres", "openbao"),
        ("valkey", "openbao"),
        ("postgres", "valkey", "openbao"),
    ],
    ids="+".join,
)
def test_the_gateway_serves_what_it_knows_for_max_stale_and_nothing_past_its_deadline(
    own_gateway: RunningGateway, world: World, servers: Servers, down: tuple[str, ...]
) -> None:
    long = world.grant(profile=world.profile(with_key=True))
    short = world.grant(profile=world.profile(with_key=True))
    secrets = [check_out(by=g.holder, grant_id=g.pk).secret for g in (long, short)]
    with (
        client_of(own_gateway, long, secrets[0]) as lasting,
        client_of(own_gateway, short, secrets[1]) as ending,
    ):
        assert status(lasting) == 200
        # Before it's seen: a gateway asks then how long a credential holds.
        move(short, ends_at=now() + dt.timedelta(seconds=12) - short.ends_at)
        assert status(ending) == 200
        ends_at = time.monotonic() + (short.ends_at - now()).total_seconds()
        connection.close()
        stopped = [getattr(servers, name) for name in down]
        try:
            for server in stopped:
                server.stop()
            began = time.monotonic()
            assert status(lasting) == 200
            if "postgres" in down:
                seconds_until(lambda: status(lasting) == 503, 8)
                assert time.monotonic() - began > 3, "it serves what it knows for a while"
            while time.monotonic() < ends_at + 1:
                time.sleep(0.05)
            assert status(ending) in {401, 503}
            if "postgres" not in down:
                assert status(lasting) == 200
        finally:
            for server in stopped:
                server.start()
        seconds_until(lambda: status(lasting) == 200, 15)
