"""A dashboard behind the gateway, from the grant's page to the end of the grant."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from playwright.sync_api import Browser, Page, expect

from accounts.actions import join_group
from credentials.actions import end_grant
from credentials.models import Credential
from tests.browser.conftest import Visitor
from tests.conftest import free_port, running_gateway, running_web
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import PASSWORD, World


@pytest.fixture(scope="module")
def origins(servers: Servers, django_db_setup: None) -> Iterator[tuple[str, str]]:
    """Of a portal and a gateway that know each other's, as in production."""
    web, gateway = free_port(), free_port()
    known = {
        "KEYTURN_BASE_URL": f"http://127.0.0.1:{web}",
        "KEYTURN_GATEWAY_URL": f"http://127.0.0.1:{gateway}",
    }
    with running_web(servers, port=web, **known), running_gateway(servers, port=gateway, **known):
        yield known["KEYTURN_BASE_URL"], known["KEYTURN_GATEWAY_URL"]


@pytest.fixture
def visitor(browser: Browser, origins: tuple[str, str], committed: None) -> Iterator[Visitor]:
    context = browser.new_context()
    made = Visitor(context, origins[0])
    yield made
    # As in `visit`: pytest-django closes another one.
    connection.close()
    context.close()
    assert not made.complaints, made.complaints


def opening(visitor: Visitor, press: Callable[[], None]) -> Page:
    with visitor.context.expect_page() as found:
        press()
    page = found.value
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    return page


SAYS = """async () => {
    const socket = new WebSocket(location.href.split("?")[0].replace("http", "ws") + "ws");
    const heard = new Promise((resolve) => (socket.onmessage = (m) => resolve(m.data)));
    await new Promise((resolve) => (socket.onopen = resolve));
    window.ended = new Promise((resolve) => (socket.onclose = (e) => resolve([e.code, e.reason])));
    socket.send("hello");
    return await heard;
}"""


def test_from_the_grant_to_its_end(
    visitor: Visitor, origins: tuple[str, str], world: World, upstream: Upstream
) -> None:
    endpoint = world.endpoint(dialects=["http"], kind="dashboard", name="Model registry")
    operations = ["GET /admin/", "POST /admin/form", "WEBSOCKET /admin/ws"]
    profile = world.profile(endpoint=endpoint, models=None, scope={"operations": operations})
    ana = world.person(profile.requesters, password=PASSWORD)
    grant = world.grant(profile=profile, requester=ana)
    visitor.sign_in(ana)
    page = visitor.go(f"/grants/{grant.pk}/")
    assert visitor.axe() == []
    button = page.get_by_role("button", name="Open in browser")
    board = opening(visitor, button.click)
    base = f"{origins[1]}/e/{endpoint.slug}"
    board.wait_for_url(f"{base}/admin/")
    expect(board.get_by_role("heading", name="Models")).to_be_visible()

    board.locator("[name=name]").fill("new")
    with board.expect_response("**/admin/form") as posted:
        # It says a path from the root, as a dashboard without a base path does.
        board.evaluate("document.querySelector('form').action = 'form'")
        board.evaluate("document.querySelector('form').submit()")
    assert posted.value.status == 303
    board.wait_for_url(f"{base}/admin/?made=new")
    assert board.evaluate(SAYS) == "hello"
    seen = [call for call in upstream.calls if call["path"].startswith("/admin/")]
    assert not any("keyturn" in str(call["headers"].get("Cookie", "")) for call in seen)
    assert board.evaluate("document.cookie") == ""

    refused = board.goto(f"{base}/v1/models")
    assert refused is not None
    assert refused.status == 403
    expect(board.get_by_role("main")).to_contain_text("doesn't hold GET here")
    board.go_back()
    expect(board.get_by_role("heading", name="Models")).to_be_visible()
    board.evaluate(SAYS)

    end_grant(grant_id=grant.pk, by=ana)
    code, reason = board.evaluate("window.ended")
    assert (code, "has ended" in reason) == (1008, True)
    board.reload()
    expect(board.get_by_role("heading", name="has ended")).to_be_visible()
    board.get_by_role("link", name="ask again").click()
    board.wait_for_url(f"{origins[0]}/grants/{grant.pk}/")
    expect(board.get_by_role("button", name="Ask again")).to_be_visible()


def test_another_one_replaces_it_and_leaving_ends_it(
    visitor: Visitor, origins: tuple[str, str], world: World
) -> None:
    ana: Any = None
    grants = []
    for _ in range(2):
        endpoint = world.endpoint(dialects=["http"], kind="dashboard")
        scope = {"operations": ["GET /admin/"]}
        profile = world.profile(endpoint=endpoint, models=None, scope=scope)
        ana = ana or world.person(password=PASSWORD)
        join_group(by=None, user=ana, group=profile.requesters)
        grants.append(world.grant(profile=profile, requester=ana))
    visitor.sign_in(ana)
    boards = []
    for grant in grants:
        page = visitor.go(f"/grants/{grant.pk}/")
        board = opening(visitor, page.get_by_role("button", name="Open in browser").click)
        expect(board.get_by_role("heading", name="Models")).to_be_visible()
        boards.append(board)
    first, second = boards
    first.reload()
    expect(first.get_by_role("main")).to_contain_text("A browser has one at a time")
    base = second.url.removesuffix("/admin/")
    assert second.evaluate("localStorage.length") == 0
    second.goto(f"{base}/.keyturn/leave")
    second.get_by_role("button", name="Leave").click()
    second.wait_for_url(f"{origins[0]}/grants/{grants[1].pk}/")
    second.goto(f"{base}/admin/")
    expect(second.get_by_role("heading", name="Open this from Keyturn")).to_be_visible()
    assert Credential.objects.filter(grant=grants[1], state="active").exists()
