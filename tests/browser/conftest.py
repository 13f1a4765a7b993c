"""Debian's Chromium, a portal to point it at, and people to sign in as."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from accounts import factors, stepup
from accounts.models import User
from accounts.stepup import Purpose
from tests.accounts.authenticator import SECRETS, authenticator, code, later
from tests.conftest import running_web
from tests.servers import Servers
from tests.world import PASSWORD

# As the portal's process sees it, whatever a test has put in its place here.
needed_because = factors.needed_because
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL = "apt-get install --no-install-recommends chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if CHROMIUM is None:
        terminalreporter.section("BROWSER TESTS WERE SKIPPED", red=True, bold=True)
        terminalreporter.line(f"Chromium is missing. Install it:  {INSTALL}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason=f"no Chromium; {INSTALL}"))


# Playwright's synchronous interface keeps an event loop in this thread, in which Django would
# refuse to query, although nothing here is concurrent. Both end with this folder's tests.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="package")
def site(servers: Servers, django_db_setup: None) -> Iterator[str]:
    """The origin of a portal process, with the demo's sign-ins on its first page."""
    # No worker runs here, so nothing is sent; their settings are there to be looked at.
    reaches: dict[str, Any] = {
        "KEYTURN_EMAIL_URL": "smtp://127.0.0.1:9",
        "KEYTURN_CHAT_URL": "json://127.0.0.1:9/{handle}",
    }
    with running_web(servers, KEYTURN_DEMO="true", **reaches) as running:
        yield running.url


class Visitor:
    """One person's browser. Whatever the console complains about fails the test."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.context, self.origin = context, origin
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)

    def _listen(self, message: Any) -> None:
        if message.type in {"error", "warning"} and not re.search(r"status of 4\d\d", message.text):
            where = message.location
            self.complaints.append(
                f"{self.page.url} {message.text} ({where.get('url')}:{where.get('lineNumber')})"
            )

    def go(self, path: str) -> Page:
        self.page.goto(self.origin + path)
        return self.page

    def sign_in(self, user: User, password: str = PASSWORD) -> Page:
        self.user = user
        self.go("/sign-in/")
        self.page.get_by_label("Email").fill(user.email)
        self.page.get_by_label("Password").fill(password)
        if needed_because(user) and not factors.has_factor(user):
            authenticator(user)
        self.page.get_by_role("button", name="Sign in", exact=True).click()
        if user.pk in SECRETS:
            self.give_code("/sign-in/factor/")
        self.page.wait_for_url(lambda url: "/sign-in/" not in url)
        return self.page

    def give_code(self, path: str = "/step-up/") -> Page:
        """What the page with this address asks for, of whoever signs in here."""
        self.page.wait_for_url(f"**{path}**")
        later(self.user)
        self.page.get_by_role("textbox", name="Code", exact=True).fill(code(SECRETS[self.user.pk]))
        self.page.get_by_role("button", name="Prove it").click()
        self.page.wait_for_url(lambda url: path not in url)
        later(self.user)
        return self.page

    def prove(self, *purposes: Purpose, back: str) -> Page:
        """Prove a second factor before these are done, then go on to `back`."""
        self.go(stepup.link(back, purposes))
        return self.give_code()

    def axe(self) -> list[str]:
        """What axe finds wrong with the page as it stands, against WCAG 2.2 AA."""
        options = {
            # What passes would be described node by node.
            "resultTypes": ["violations"],
            "runOnly": {
                "type": "tag",
                "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
            },
        }
        found = Axe().run(self.page, options=options)
        return [
            f"{self.page.url} {item['id']} {item['help']}: "
            + "; ".join(
                node["html"][:160] + " " + node["failureSummary"][:200]
                for node in item["nodes"][:4]
            )
            for item in found.response["violations"]
        ]

    def data_images(self) -> list[str]:
        """Elements drawn with a data: image, which the policy on images needn't allow."""
        found: list[str] = self.page.evaluate(
            """[...document.querySelectorAll("*")]
            .filter((e) => getComputedStyle(e).backgroundImage.includes("data:"))
            .map((e) => e.outerHTML.slice(0, 120) + " is drawn with a data: image")"""
        )
        return found

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        width: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width


@pytest.fixture
def visit(browser: Browser, site: str, committed: None) -> Iterator[Callable[..., Visitor]]:
    """`visit()` opens a browser of its own; `dark=True`, `phone=True`, `motion=True`."""
    opened: list[Visitor] = []

    def open_one(
        *, dark: bool = False, phone: bool = False, motion: bool = False, **options: Any
    ) -> Visitor:
        context = browser.new_context(
            viewport=PHONE if phone else DESK,
            color_scheme="dark" if dark else "light",
            reduced_motion="no-preference" if motion else "reduce",
            **options,
        )
        visitor = Visitor(context, site)
        opened.append(visitor)
        return visitor

    yield open_one
    # Made under Playwright's event loop, it isn't the one that pytest-django closes at the end.
    connection.close()
    complaints = [line for visitor in opened for line in visitor.complaints]
    for visitor in opened:
        visitor.context.close()
    assert not complaints, complaints
