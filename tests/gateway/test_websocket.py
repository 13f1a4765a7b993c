"""WebSockets of plain HTTP endpoints."""

import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from accessrequests.models import Grant
from credentials.actions import end_grant
from gateway.models import Call
from tests.conftest import RunningGateway
from tests.gateway.dashboards import Dashboard, dashboard
from tests.upstream import Upstream
from tests.world import UPSTREAM_KEY, World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture(scope="module")
def board(upstream: Upstream, gateway: RunningGateway, django_db_blocker: Any) -> Dashboard:
    """For all tests that leave its grant as it is."""
    with django_db_blocker.unblock():
        return dashboard(World(upstream_url=upstream.url), gateway)


def open_socket(board: Dashboard, path: str = "/admin/ws", **options: Any) -> ClientConnection:
    headers = {"Authorization": f"Bearer {board.secret}"} | options.pop("headers", {})
    url = f"{board.gateway.url.replace('http', 'ws', 1)}/e/{board.slug}{path}"
    opened: ClientConnection = connect(url, additional_headers=headers, proxy=None, **options)
    return opened


def refused(board: Dashboard, path: str = "/admin/ws", **options: Any) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        open_socket(board, path, **options)
    return caught.value.response.status_code, caught.value.response.body.decode()


def test_text_bytes_and_subprotocol(board: Dashboard, upstream: Upstream) -> None:
    with open_socket(board, subprotocols=["other", "echo"]) as socket:
        assert socket.subprotocol == "echo"
        socket.send("grüße")
        assert socket.recv(5) == "grüße"
        socket.send(b"\x00\xff")
        assert socket.recv(5) == b"\x00\xff"
        socket.send("x" * 1_000_000)
        assert len(socket.recv(5)) == 1_000_000
    seen = upstream.calls[-1]["headers"]
    assert seen["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert board.secret not in str(seen)


def test_the_upstreams_close_is_the_clients(board: Dashboard) -> None:
    with open_socket(board) as socket:
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(5)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as asked")


def test_the_clients_close_is_the_upstreams(board: Dashboard, upstream: Upstream) -> None:
    with open_socket(board) as socket:
        socket.send("x")
        socket.recv(5)
        socket.close(4002, "enough")
    record = upstream.calls[-1]
    upstream.wait(lambda _: record["done"])
    assert record["closed"] == 4002


def end(grant: Grant) -> None:
    end_grant(grant_id=grant.pk, by=grant.holder)


def test_the_end_of_the_grant_closes_it(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway)
    with open_socket(board) as socket:
        socket.send("x")
        socket.recv(5)
        end(board.grant)
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(5)
        assert time.monotonic() - began < 1.5
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008
    assert "has ended" in caught.value.rcvd.reason
    status, body = refused(board)
    assert (status, "grant_ended" in body) == (401, True)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/admin/other", {}, 403, "operation_not_granted"),
        ("/admin/../admin/ws", {}, 404, "not_found"),
        ("/admin//ws", {}, 404, "not_found"),
        ("/admin/ws?token=x", {}, 401, "key_in_url"),
        ("/admin/ws", {"x-api-key": "another"}, 400, "two_keys"),
        ("/admin/ws", {"Authorization": "Bearer s.aaaaaaaaaaaaaaaaaaaaaaaaaa"}, 401, "invalid_api"),
    ],
)
def test_refused_before_it_opens(
    path: str, headers: Any, status: int, code: str, board: Dashboard, upstream: Upstream
) -> None:
    before = len(upstream.calls)
    found, body = refused(board, path, headers=headers)
    assert found == status
    assert code in body
    assert len(upstream.calls) == before


def test_a_message_that_is_too_large(board: Dashboard) -> None:
    with open_socket(board) as socket:
        socket.send(b"x" * 10_000_001)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


def test_the_upstreams_key_follows_no_redirect(board: Dashboard, upstream: Upstream) -> None:
    before = len(upstream.calls)
    with upstream.behaving(redirect=f"{upstream.url}/admin/echo"):
        status, body = refused(board)
    assert (status, "upstream_refused" in body) == (502, True)
    assert len(upstream.calls) == before + 1


def test_it_goes_to_the_next_upstream_before_it_opens(
    world: World, gateway: RunningGateway, upstream: Upstream
) -> None:
    board = dashboard(
        world, gateway, upstream_url="http://127.0.0.1:1", further_upstreams=[upstream.url]
    )
    with open_socket(board) as socket:
        socket.send("x")
        assert socket.recv(5) == "x"
    assert refused(dashboard(world, gateway, upstream_url="http://127.0.0.1:1"))[0] == 502


def test_it_is_one_call_and_takes_a_place(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway, limits={"concurrency": 1})
    with open_socket(board) as socket:
        socket.send("abc")
        assert socket.recv(5) == "abc"
        assert board.send("/admin/").code == "too_many_at_once"
    until = time.monotonic() + 5
    rows = Call.objects.filter(grant=board.grant, method="WEBSOCKET")
    while not rows.exists() and time.monotonic() < until:
        time.sleep(0.1)
    row = rows.get()
    assert (row.path, row.status, row.refusal) == ("/admin/ws", 101, "")
    assert (row.request_bytes, row.response_bytes) == (3, 3)
    assert board.send("/admin/").status == 200
