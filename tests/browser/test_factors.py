"""Second factors in a real browser, with a passkey that Chromium makes up (CDP's WebAuthn)."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from accounts import factors, recovery
from accounts.models import Session, User
from tests.accounts.authenticator import code, later
from tests.browser.conftest import Visitor
from tests.conftest import free_port, running_web
from tests.servers import Servers
from tests.world import PASSWORD, World

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def site(servers: Servers, django_db_setup: None) -> Iterator[str]:
    """A portal under a name: browsers make no passkeys for addresses."""
    port = free_port()
    url = f"http://localhost:{port}"
    with running_web(servers, port=port, KEYTURN_BASE_URL=url, KEYTURN_DEMO="true"):
        yield url


def device(page: Page, **options: Any) -> tuple[Any, str]:
    """Give this browser a device that keeps passkeys, and asks who holds it unless told not to."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    device: dict[str, Any] = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": device | options})
    return session, made["authenticatorId"]


def by_password(visitor: Visitor, user: User) -> Page:
    page = visitor.go("/sign-in/")
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    return page


def sound(visitor: Visitor) -> None:
    assert visitor.axe() == []
    assert visitor.overflow() == 0


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def set_up_app(page: Page) -> bytes:
    press(page, "Set up an app")
    shown = page.locator("#secret-value").text_content() or ""
    secret = base64.b32decode("".join(shown.split()))
    page.get_by_role("textbox", name="Code").fill(code(secret))
    press(page, "Finish")
    return secret


def test_from_nothing_to_a_lost_device(visit: Visit, world: World) -> None:
    user = world.person(full_name="Chidi Eze", is_auditor=True, password=PASSWORD)
    visitor = visit(phone=True)
    device(visitor.page)
    page = by_password(visitor, user)

    page.wait_for_url("**/settings/factor/**")
    expect(page.get_by_text("which takes a second factor")).to_be_visible()
    press(page, "Set up a passkey")
    expect(page.get_by_role("heading", name="Keep these recovery codes")).to_be_visible()
    sound(visitor)
    codes = page.locator("ol.codes code").all_inner_texts()
    assert len(codes) == 10
    page.get_by_role("link", name="I have kept them").click()
    page.wait_for_url(lambda url: "/settings/" not in url)

    visitor.context.clear_cookies()
    visitor.go("/sign-in/")
    press(page, "Sign in with a passkey")
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    assert Session.objects.filter(person=user, how="passkey").exists()

    visitor.go("/settings/factor/")
    page.get_by_role("link", name="Prove it is you").click()
    page.wait_for_url("**/step-up/**")
    press(page, "Use a passkey")
    page.wait_for_url("**/settings/factor/**")
    set_up_app(page)
    expect(page.get_by_text("Your authenticator app is set up.")).to_be_visible()
    assert factors.has_app(user)
    sound(visitor)

    visitor.context.clear_cookies()
    by_password(visitor, user)
    page.wait_for_url("**/sign-in/factor/**")
    sound(visitor)
    page.get_by_text("You don’t have it with you?").click()
    page.get_by_label("Recovery code").fill(codes[0].lower())
    press(page, "Use a recovery code")
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    assert recovery.left(user) == 9


@pytest.mark.slow
def test_a_device_that_asks_nobody(visit: Visit, world: World) -> None:
    user = world.person(password=PASSWORD)
    visitor = visit(dark=True)
    session, name = device(visitor.page, isUserVerified=False)
    page = by_password(visitor, user)
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    visitor.go("/settings/factor/")
    press(page, "Set up a passkey")
    expect(page.get_by_role("alert")).to_contain_text("cancelled, or took too long")
    assert not factors.has_factor(user)
    session.send("WebAuthn.setUserVerified", {"authenticatorId": name, "isUserVerified": True})
    press(page, "Set up a passkey")
    expect(page.get_by_role("heading", name="Keep these recovery codes")).to_be_visible()
    session.send("WebAuthn.setUserVerified", {"authenticatorId": name, "isUserVerified": False})
    visitor.go("/step-up/")
    press(page, "Use a passkey")
    expect(page.get_by_role("alert")).to_contain_text("cancelled, or took too long")


@pytest.mark.slow
def test_without_scripts_codes_still_work(visit: Visit, world: World) -> None:
    user = world.person(password=PASSWORD)
    visitor = visit(java_script_enabled=False)
    page = by_password(visitor, user)
    visitor.go("/settings/factor/")
    expect(page.get_by_text("This browser can’t make passkeys here")).to_be_visible()
    secret = set_up_app(page)
    expect(page.get_by_role("heading", name="Keep these recovery codes")).to_be_visible()
    later(user)
    visitor.context.clear_cookies()
    by_password(visitor, user)
    page.get_by_role("textbox", name="Code").fill(code(secret))
    press(page, "Prove it")
    page.wait_for_url(lambda url: "/sign-in/" not in url)
