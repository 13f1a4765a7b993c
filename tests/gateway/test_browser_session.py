"""Browser sessions, by what a browser sends: opened from the portal, carried on by a cookie."""

import datetime as dt
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from credentials.actions import check_out, end_grant
from credentials.models import Credential
from gateway.session import IDLE, NAME, Session, landing
from tests.conftest import RunningGateway
from tests.gateway.dashboards import ORIGIN, Answer, Dashboard, dashboard
from tests.upstream import Upstream
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

PORTAL = "http://localhost:8000"
PAGE = {"Accept": "text/html,application/xhtml+xml"}
OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def board(upstream: Upstream, gateway: RunningGateway, django_db_blocker: Any) -> Dashboard:
    """For all tests that leave its grant as it is."""
    with django_db_blocker.unblock():
        return dashboard(World(upstream_url=upstream.url), gateway)


def opened(board: Dashboard, origin: str | None = PORTAL, **headers: str) -> Answer:
    sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    if origin is not None:
        sent["Origin"] = origin
    body = urlencode({"credential": board.secret}).encode()
    return board.send("/.keyturn/session", "POST", sent, body, key=False)


def cookie(board: Dashboard) -> str:
    """What the browser sends from now on."""
    answer = opened(board)
    assert answer.status == 303
    return answer.header("set-cookie").partition(";")[0]


def session(board: Dashboard, **changed: Any) -> str:
    """A cookie as a gateway signs it."""
    made = Session(
        Credential.objects.get(grant=board.grant, state="active").pk,
        board.grant.pk,
        board.slug,
        int(time.time()),
    )
    return f"{NAME}={replace(made, **changed).signed()}"


def test_it_opens_and_carries_on(board: Dashboard, upstream: Upstream) -> None:
    answer = opened(board)
    assert (answer.status, answer.header("location")) == (303, f"/e/{board.slug}/admin/")
    assert answer.header("clear-site-data") == '"cache", "storage"'
    made = answer.header("set-cookie")
    name, _, attributes = made.partition("=")
    assert name == NAME
    assert "; HttpOnly; SameSite=Lax" in attributes
    assert f"Max-Age={IDLE}; Path=/;" in attributes
    kept = made.partition(";")[0]
    page = board.send("/admin/", headers=PAGE | {"Cookie": f"{kept}; dashboard=seen"}, key=False)
    assert page.status == 200
    assert b"<h1>Models</h1>" in page.body
    assert "set-cookie" not in {n for n, v in page.headers if NAME in v}
    seen = upstream.calls[-1]["headers"]
    assert {name.lower(): value for name, value in seen.items()}["cookie"] == "dashboard=seen"
    again = opened(board, Cookie=kept)
    assert again.header("clear-site-data") == ""


def test_it_slides(board: Dashboard) -> None:
    old = session(board, at=int(time.time()) - 120)
    page = board.send("/admin/", headers={"Cookie": old}, key=False)
    assert page.status == 200
    renewed = [v for n, v in page.headers if n.lower() == "set-cookie" and NAME in v]
    assert len(renewed) == 1
    idle = session(board, at=int(time.time()) - IDLE - 1)
    assert board.send("/admin/", headers={"Cookie": idle}, key=False).code == "session_idle"


def test_it_never_outlasts_its_grant(world: World, gateway: RunningGateway) -> None:
    endpoint = world.endpoint(dialects=["http"])
    profile = world.profile(endpoint=endpoint, models=None, scope={"operations": ["GET /"]})
    grant = world.grant(profile=profile, duration=dt.timedelta(minutes=2))
    board = Dashboard(gateway, grant, check_out(by=grant.holder, grant_id=grant.pk).secret)
    answer = opened(board)
    assert answer.header("location") == f"/e/{board.slug}/"
    age = int(answer.header("set-cookie").partition("Max-Age=")[2].partition(";")[0])
    assert 60 < age <= 120


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ORIGIN, None])
def test_only_the_portal_opens_one(origin: str | None, board: Dashboard) -> None:
    answer = opened(board, origin)
    assert (answer.status, answer.code) == (403, "cross_site")
    assert answer.header("set-cookie") == ""


def test_what_opens_none(board: Dashboard, world: World) -> None:
    wrong = Dashboard(board.gateway, board.grant, "s." + "x" * 24)
    assert opened(wrong).code == "invalid_api_key"
    assert opened(Dashboard(board.gateway, board.grant, "nothing")).status == 401
    other = dashboard(world, board.gateway)
    assert opened(Dashboard(board.gateway, board.grant, other.secret)).code == "wrong_endpoint"
    plain = dashboard(world, board.gateway, dialects=["openai"])
    assert opened(plain).status == 404
    assert board.send("/.keyturn/session", headers=PAGE).status == 404


def test_forged_ones(board: Dashboard, upstream: Upstream) -> None:
    good = cookie(board)
    before = len(upstream.calls)
    signature = good.rpartition(":")[2]
    for bad in (
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace("=", "=x", 1),
        f"{NAME}=",
        f"{NAME}={signature}",
        f"{NAME}=W10:{signature}",
        f"{good}; {good}",
        f"{good}; {session(board, at=1)}",
    ):
        answer = board.send("/admin/", headers={"Cookie": bad}, key=False)
        assert answer.status == 401, bad
        assert answer.code in {"no_session", "session_idle"}, bad
    assert len(upstream.calls) == before


def test_one_of_another_endpoint(board: Dashboard, world: World) -> None:
    other = dashboard(world, board.gateway)
    answer = other.send("/admin/", headers={"Cookie": cookie(board)}, key=False)
    assert (answer.status, answer.code) == (403, "wrong_endpoint")
    page = other.send("/admin/", headers=PAGE | {"Cookie": cookie(board)}, key=False)
    assert (
        f"This browser’s session is for {board.slug}".replace("’", "&#x27;") in page.body.decode()
    )
    swapped = session(board, endpoint=other.slug)  # not even signed by us does it open another one
    assert other.send("/admin/", headers={"Cookie": swapped}, key=False).status == 403


def test_a_key_goes_before_it(board: Dashboard) -> None:
    answer = board.send("/admin/", headers={"Cookie": f"{NAME}=forged"})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", OWN, 201),
        ("POST", {"Origin": ORIGIN}, 201),
        ("POST", OWN | {"Origin": "null"}, 201),  # a page that says no-referrer
        ("POST", {}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": PORTAL}, 403),
        ("POST", {"Origin": "https://evil.example"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "none"}, 403),
        ("GET", {}, 200),
        ("GET", OWN, 200),
        ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
    ],
)
def test_only_its_own_pages_act(
    method: str, headers: dict[str, str], status: int, board: Dashboard, upstream: Upstream
) -> None:
    before = len(upstream.calls)
    body = b'{"name": "x"}' if method == "POST" else None
    sent = headers | {"Cookie": session(board)}
    answer = board.send("/admin/api/models", method, sent, body, key=False)
    assert answer.status == status
    assert (len(upstream.calls) > before) == (status < 300)
    if status == 403:
        assert answer.code == "cross_site"


def test_when_the_grant_has_ended(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway)
    kept = cookie(board)
    assert board.send("/admin/", headers={"Cookie": kept}, key=False).status == 200
    end_grant(grant_id=board.grant.pk, by=board.grant.holder)
    time.sleep(0.3)
    page = board.send("/admin/", headers=PAGE | {"Cookie": kept}, key=False)
    assert page.status == 401
    assert page.header("content-type").startswith("text/html")
    assert "default-src 'none'" in page.header("content-security-policy")
    assert f"Your access to {board.slug} has ended" in page.body.decode()
    assert f'href="{PORTAL}/grants/{board.grant.pk}/"' in page.body.decode()
    called = board.send("/admin/api/models", headers={"Cookie": kept} | OWN, key=False)
    assert (called.status, called.code) == (401, "grant_ended")
    assert opened(board).code == "grant_ended"


def test_a_gateway_that_never_saw_its_secret(world: World, gateway: RunningGateway) -> None:
    """As after a restart, or at another one of several gateways."""
    board = dashboard(world, gateway)
    kept = session(board)
    assert board.send("/admin/", headers={"Cookie": kept}, key=False).status == 200
    assert board.send("/admin/").status == 200  # its secret and its session are one entry
    assert board.send("/admin/", headers={"Cookie": kept}, key=False).status == 200
    check_out(by=board.grant.holder, grant_id=board.grant.pk)
    deadline = time.monotonic() + 2
    while board.send("/admin/").status == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert board.send("/admin/").status == 401
    assert board.send("/admin/", headers={"Cookie": kept}, key=False).code == "grant_ended"
    ended = dashboard(world, gateway)
    unseen = session(ended)
    end_grant(grant_id=ended.grant.pk, by=ended.grant.holder)
    assert ended.send("/admin/", headers={"Cookie": unseen}, key=False).code == "grant_ended"


def test_without_a_session_a_person_is_told_where_to_get_one(board: Dashboard) -> None:
    page = board.send("/admin/", headers=PAGE, key=False)
    assert page.status == 401
    assert "Open this from Keyturn" in page.body.decode()
    assert f'href="{PORTAL}/"' in page.body.decode()
    idle = session(board, at=1)
    page = board.send("/admin/", headers=PAGE | {"Cookie": idle}, key=False)
    assert "Open this from Keyturn" in page.body.decode()


def test_leaving(board: Dashboard) -> None:
    kept = cookie(board)
    asked = board.send("/.keyturn/leave", headers=PAGE | {"Cookie": kept}, key=False)
    assert asked.status == 200
    assert asked.header("set-cookie") == ""
    assert f"Leave {board.slug}?" in asked.body.decode()
    for origin in ("https://evil.example", "null"):
        forced = board.send(
            "/.keyturn/leave", "POST", {"Cookie": kept, "Origin": origin}, b"", key=False
        )
        assert forced.status == 403
    left = board.send("/.keyturn/leave", "POST", {"Cookie": kept, "Origin": ORIGIN}, b"", key=False)
    assert (left.status, left.header("location")) == (303, f"{PORTAL}/grants/{board.grant.pk}/")
    assert left.header("set-cookie").startswith(f"{NAME}=; Max-Age=0; ")
    assert left.header("clear-site-data") == '"cache", "storage"'


def test_a_websocket(world: World, gateway: RunningGateway) -> None:
    board = dashboard(world, gateway)
    url = f"{gateway.url.replace('http', 'ws', 1)}/e/{board.slug}/admin/ws"
    headers = {"Cookie": session(board)}
    for origin in (None, "null", "https://evil.example", PORTAL):
        with pytest.raises(InvalidStatus) as refused:
            connect(
                url,
                additional_headers=headers,
                origin=Origin(origin) if origin else None,
                proxy=None,
            )
        assert refused.value.response.status_code == 403
    with connect(url, additional_headers=headers, origin=Origin(ORIGIN), proxy=None) as socket:
        socket.send("x")
        assert socket.recv(5) == "x"
        end_grant(grant_id=board.grant.pk, by=board.grant.holder)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize(
    ("operations", "path"),
    [
        ({"GET /admin/", "GET /admin/api", "POST /"}, "/admin/"),
        ({"* /"}, "/"),
        ({"POST /x"}, "/"),
    ],
)
def test_where_a_browser_begins(operations: set[str], path: str) -> None:
    assert landing(frozenset(operations)) == path
