"""Takes a picture of every page at 1440 and 390 pixels, light and dark: `make pictures`.

They go to build/pictures/; the three that README.md shows also go to docs/images/, and all of them
to docs/images/pages/ in 256 colours where Debian's pngquant is installed. It is a pytest
file so that it gets the same servers as the tests; it is not collected by their run.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from accounts import passkeys
from credentials.actions import alert_stuck
from credentials.models import Credential, Reconciliation
from credentials.stopping import lift
from endpoints.models import EmergencyStop
from tests.accounts.authenticator import code, later
from tests.accounts.passkey import passkey_of
from tests.browser import administering
from tests.browser.acting import acting
from tests.browser.administering import company
from tests.browser.asking import holdings, paths, stage
from tests.browser.conftest import DESK, PHONE, Visitor
from tests.browser.delivering import delivering
from tests.browser.inside import close_all, inside
from tests.browser.owing import owing
from tests.browser.rotating import rotating_keys
from tests.browser.scene import PASSWORD, Scene, afternoon, build
from tests.browser.test_factors import by_password, set_up_app
from tests.browser.test_people import prove
from tests.browser.test_sso import portal, provider
from tests.credentials.owing import gone
from tests.servers import Servers
from tests.world import PASSWORD as WORLD_PASSWORD
from tests.world import PROVED, UPSTREAM_KEY, World

__all__ = ["portal", "provider"]
ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "pictures"
LONGEST = 2600  # pixels; a record goes on as it began
SHOWN = {
    "home-1440-light": "my-access.png",
    "approvals-1440-dark": "approvals.png",
    "grant-secret-1440-light": "grant.png",
}


@pytest.fixture(scope="package")
def scene(browser: Any, site: str, django_db_blocker: Any) -> Scene:
    with django_db_blocker.unblock(), override_settings(KEYTURN_DEMO_UPSTREAM_KEY=UPSTREAM_KEY):
        return build()


def _snap(visitor: Visitor, name: str, size: str, theme: str) -> None:
    page = visitor.page
    page.set_default_timeout(6000)
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(150)
    target = OUT / f"{name}-{size}-{theme}.png"
    # Whole pages on the phone, where they scroll; what fits the screen is what a desk sees first.
    window = PHONE if size == "390" else DESK
    height = page.evaluate("document.documentElement.scrollHeight")
    height = min(max(height, window["height"]), LONGEST)
    page.set_viewport_size({"width": window["width"], "height": height})
    page.screenshot(path=target)
    page.set_viewport_size(window)
    if visitor.overflow() > 0:
        print(f"{target.name}: {visitor.overflow()} px too wide")  # noqa: T201


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures(
    visit: Callable[..., Visitor], scene: Scene, sweep: Any, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    sweep()
    look = {"dark": theme == "dark", "phone": size == "390"}

    guest = visit(**look)
    guest.go("/sign-in/")
    _snap(guest, "sign-in", size, theme)
    guest.page.get_by_label("Email").fill("ana@example.com")
    guest.page.get_by_label("Password").fill("wrong")
    guest.page.get_by_role("button", name="Sign in", exact=True).click()
    _snap(guest, "sign-in-error", size, theme)
    guest.go("/api/v1/docs/")
    _snap(guest, "reference", size, theme)
    guest.go("/problems/authority-lost/")
    _snap(guest, "problem", size, theme)

    ana = visit(**look)
    ana.sign_in(scene.ana, PASSWORD)
    pages = {
        "home": "/",
        "requests": "/requests/",
        "catalogue": "/catalogue/",
        "catalogue-nothing": "/catalogue/?q=zzz",
        "endpoint": "/endpoints/claims-triage/",
        "request-new": f"/request/{scene.profile.pk}/",
        "request-pending": f"/requests/{scene.pending.pk}/",
        "request-denied": f"/requests/{scene.denied.pk}/",
        "grant": f"/grants/{scene.fresh.pk}/",
        "grant-low": f"/grants/{scene.low.pk}/",
        "grant-ended": f"/grants/{scene.ended.pk}/",
        "factor": "/settings/factor/",
        "notifications": "/notifications/",
        "notification-settings": "/settings/notifications/",
        "step-up": "/step-up/",
        "not-found": "/grants/00000000-0000-0000-0000-000000000000/",
    }
    for name, path in pages.items():
        ana.go(path)
        _snap(ana, name, size, theme)
    ana.go("/catalogue/")
    ana.page.locator("details.menu summary").click()
    _snap(ana, "menu", size, theme)
    ana.go(f"/request/{scene.profile.pk}/")
    ana.page.get_by_label("Other", exact=True).check()
    ana.page.get_by_role("spinbutton", name="Minutes").fill("900")
    ana.page.get_by_role("button", name="Ask for access").click()
    _snap(ana, "request-new-errors", size, theme)
    ana.go(f"/grants/{scene.fresh.pk}/")
    ana.page.get_by_role("button", name="Replace it").click()
    ana.page.get_by_role("tab", name="OpenAI SDK").click()
    ana.page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    _snap(ana, "grant-secret", size, theme)

    ben = visit(**look)
    ben.sign_in(scene.ben, PASSWORD)
    ben.go("/approvals/")
    _snap(ben, "approvals", size, theme)
    ben.go(f"/approvals/?request={scene.queue[2].pk}")
    _snap(ben, "approvals-long", size, theme)
    ben.page.get_by_role("button", name="Deny").click()
    ben.page.get_by_text("Say why").wait_for()
    _snap(ben, "approvals-error", size, theme)
    ben.page.evaluate("document.activeElement.blur()")
    ben.page.keyboard.press("?")
    _snap(ben, "keyboard", size, theme)
    ben.go(f"/requests/{scene.queue[0].pk}/")
    _snap(ben, "request-review", size, theme)
    _desk(ben, scene, size, theme)

    chidi = visit(**look)
    chidi.sign_in(scene.chidi, PASSWORD)
    chidi.go("/record/")
    _snap(chidi, "record", size, theme)
    chidi.page.get_by_role("link", name="Event #").first.click()
    _snap(chidi, "record-event", size, theme)
    chidi.go("/approvals/")
    _snap(chidi, "approvals-other", size, theme)

    noor = visit(**look)
    noor.sign_in(scene.newcomer, PASSWORD)
    for name, path in {
        "empty-home": "/",
        "empty-catalogue": "/catalogue/",
        "empty-approvals": "/approvals/",
        "empty-requests": "/requests/",
    }.items():
        noor.go(path)
        _snap(noor, name, size, theme)
    for shot, file in SHOWN.items():
        if shot.endswith(f"{size}-{theme}"):
            shutil.copy(OUT / f"{shot}.png", ROOT / "docs" / "images" / file)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_asking(
    visit: Callable[..., Visitor], world: World, sweep: Any, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    at = stage(world, afternoon())
    held = holdings(at)
    sweep()
    ana = visit(dark=theme == "dark", phone=size == "390")
    ana.sign_in(at.ana)
    for name, path in paths(at, held).items():
        ana.go(path)
        _snap(ana, name, size, theme)
    page = ana.go(f"/request/{at.strict.pk}/")
    page.get_by_role("radio", name="Later").check()
    page.get_by_role("radio", name="2 hours").check()
    page.get_by_text("wouldn’t need").wait_for()
    _snap(ana, "ask-strict-more", size, theme)
    page.get_by_role("button", name="Ask for access").click()
    _snap(ana, "ask-strict-errors", size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_second_factors(
    visit: Callable[..., Visitor], world: World, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    chidi = world.person(
        full_name="Chidi Eze",
        is_auditor=True,
        password=WORLD_PASSWORD,
        time_zone=afternoon(),
    )
    visitor = visit(dark=theme == "dark", phone=size == "390")
    page = by_password(visitor, chidi)
    page.wait_for_url("**/settings/factor/**")
    _snap(visitor, "factor-first", size, theme)
    secret = set_up_app(page)
    page.get_by_role("heading", name="Keep these recovery codes").wait_for()
    _snap(visitor, "factor-codes", size, theme)
    _, row, _ = passkey_of(world, chidi)  # which signs them out
    passkeys.rename(by=chidi, pk=row.pk, name="Safari on iPhone")
    later(chidi)
    by_password(visitor, chidi)
    page.wait_for_url("**/sign-in/factor/**")
    _snap(visitor, "sign-in-factor", size, theme)
    page.get_by_role("textbox", name="Code", exact=True).fill(code(secret))
    page.get_by_role("button", name="Prove it").click()
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    visitor.go("/settings/factor/")
    page.get_by_role("link", name="Prove it is you").click()
    page.wait_for_url("**/step-up/**")
    _snap(visitor, "step-up-ways", size, theme)
    later(chidi)
    page.get_by_role("textbox", name="Code", exact=True).fill(code(secret))
    page.get_by_role("button", name="Prove it").click()
    page.wait_for_url("**/settings/factor/**")
    _snap(visitor, "factors", size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_people(
    visit: Callable[..., Visitor], world: World, sweep: Any, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    at = company(world, afternoon())
    look = {"dark": theme == "dark", "phone": size == "390"}
    chidi = visit(**look)
    page = chidi.sign_in(at.chidi)
    for name, path in administering.paths(at).items():
        chidi.go(path)
        _snap(chidi, name, size, theme)
    sweep()
    chidi.go(f"/people/{at.mei.pk}/access/")
    _snap(chidi, "person-gone", size, theme)
    chidi.go("/people/new/")
    prove(chidi, at.chidi)
    _snap(chidi, "person-new", size, theme)
    page.get_by_label("Full name").fill("Ben Okafor")
    page.get_by_label("E-mail").fill(f"ben-{size}-{theme}@example.com")
    page.get_by_role("button", name="Add and make the link").click()
    page.get_by_role("heading", name="Hand this link").wait_for()
    _snap(chidi, "invited", size, theme)
    link = page.locator("#link-value").inner_text()
    chidi.go("/service-accounts/new/")
    _snap(chidi, "service-new", size, theme)
    ben = visit(**look)
    ben.go(link[link.index("/welcome/") :])
    _snap(ben, "welcome", size, theme)
    ben.go(f"/welcome/kt_inv_{'x' * 43}/")
    _snap(ben, "welcome-over", size, theme)
    ana = visit(**look)
    ana.sign_in(at.ana)
    for name, path in administering.OWN.items():
        ana.go(path)
        _snap(ana, name, size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_agents(
    visit: Callable[..., Visitor], world: World, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    at = acting(world, afternoon())
    look = {"dark": theme == "dark", "phone": size == "390"}
    ana, chidi = visit(**look), visit(**look)
    ana.sign_in(at.ana)
    chidi.sign_in(at.reviewer)
    for name, visitor, path in (
        ("agents", ana, "/settings/agents/"),
        ("agent-request-own", ana, f"/requests/{at.pending.pk}/"),
        ("agent-request", chidi, f"/requests/{at.pending.pk}/"),
        ("agent-approvals", chidi, "/approvals/"),
        ("agent-grant", ana, f"/grants/{at.grant.pk}/"),
    ):
        visitor.go(path)
        _snap(visitor, name, size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_live_access(
    visit: Callable[..., Visitor], world: World, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    # Who is in is on one page for everybody: what the others hold ends first.
    close_all(by=world.person(is_administrator=True))
    at = inside(world, afternoon())
    look = {"dark": theme == "dark", "phone": size == "390"}
    ana = visit(**look)
    ana.sign_in(at.ana)
    ana.go(f"/grants/{at.busy.pk}/")
    ana.page.get_by_text("tokens left").first.wait_for()
    _snap(ana, "use", size, theme)
    ana.go(f"/grants/{at.busy.pk}/usage/")
    _snap(ana, "use-calls", size, theme)
    chidi = visit(**look)
    page = chidi.sign_in(at.chidi)
    for name, path in {
        "live": "/live/",
        "live-people": "/live/?by=person",
        "live-nothing": "/live/?q=zzz",
    }.items():
        chidi.go(path)
        _snap(chidi, name, size, theme)
    chidi.go(f"/endpoints/{at.endpoint.slug}/")
    page.get_by_text("connection refused").wait_for()
    _snap(chidi, "endpoint-owned", size, theme)
    chidi.go(f"/live/stop/?endpoint={at.endpoint.slug}")
    page.get_by_label("Code").fill(code(at.secret))
    page.get_by_role("button", name="Prove it").click()
    page.get_by_role("button", name="End access").click()
    _snap(chidi, "stop-new-error", size, theme)
    page.get_by_label("Why").fill("Its key is in a public repository.")
    page.get_by_role("button", name="End access").click()
    page.get_by_role("button", name="Lift the stop").wait_for()
    _snap(chidi, "stop", size, theme)
    chidi.go("/live/")
    _snap(chidi, "live-stopped", size, theme)
    ana.go(f"/endpoints/{at.endpoint.slug}/")
    _snap(ana, "endpoint-stopped", size, theme)
    row = EmergencyStop.objects.in_force().get()
    lift(by=at.chidi, stop_id=row.pk, proofs=PROVED)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_operations(
    visit: Callable[..., Visitor], world: World, size: str, theme: str, committed: None
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    look = {"dark": theme == "dark", "phone": size == "390"}
    # What is owed is on one page for everybody: what the others left is gone first.
    gone(*Credential.objects.filter(state="revoking"))
    Reconciliation.objects.all().delete()
    admin = world.person(is_administrator=True, password=WORLD_PASSWORD, time_zone=afternoon())
    first = visit(**look)
    first.sign_in(admin)
    first.go("/operations/")
    _snap(first, "operations-nothing", size, theme)
    at = owing(world, afternoon())
    alert_stuck()
    chidi = visit(**look)
    page = chidi.sign_in(at.chidi)
    for name, path in {
        "operations": "/operations/",
        "notifications-stuck": "/notifications/",
        "notification-settings": "/settings/notifications/",
        "grant-owed": f"/grants/{at.grant.pk}/",
        "grant-owed-direct": f"/grants/{at.down.pk}/",
    }.items():
        chidi.go(path)
        _snap(chidi, name, size, theme)
    chidi.go("/operations/")
    page.get_by_role("button", name="Try all now").first.click()
    page.get_by_role("status").first.wait_for()
    _snap(chidi, "operations-tried", size, theme)
    auditor = visit(**look)
    auditor.sign_in(at.auditor)
    auditor.go("/operations/")
    _snap(auditor, "operations-auditor", size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_delivery(
    visit: Callable[..., Visitor], world: World, servers: Servers, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    at = delivering(world, servers, afternoon())
    look = {"dark": theme == "dark", "phone": size == "390"}
    ana = visit(**look)
    page = ana.sign_in(at.ana)
    ana.go(f"/grants/{at.database.pk}/")
    _snap(ana, "grant-database", size, theme)
    for name, grant in {"grant-certificate": at.certificate, "grant-static": at.static}.items():
        ana.go(f"/grants/{grant.pk}/")
        page.get_by_role("button", name="Get credential").click()
        page.locator("#secret-value").wait_for()
        _snap(ana, name, size, theme)
    ana.go(f"/grants/{at.token.pk}/")
    page.get_by_role("button", name="Get it wrapped").click()
    page.get_by_role("tab", name="API").wait_for()
    _snap(ana, "grant-wrapped", size, theme)
    ana.go(f"/endpoints/{at.static.request.profile.endpoint.slug}/")
    _snap(ana, "endpoint-static", size, theme)
    ben = visit(**look)
    ben.sign_in(at.ben)
    ben.go(f"/requests/{at.asked.pk}/")
    _snap(ben, "request-static", size, theme)
    _keep_small(size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_rotation(
    visit: Callable[..., Visitor], world: World, size: str, theme: str, committed: None
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    at = rotating_keys(world, afternoon())
    look = {"dark": theme == "dark", "phone": size == "390"}
    dana = visit(**look)
    page = dana.sign_in(at.dana)
    dana.go(f"/endpoints/{at.leaked.slug}/")
    page.get_by_text("Exposed").first.wait_for()
    _snap(dana, "endpoint-exposed", size, theme)
    dana.go(f"/endpoints/{at.leaked.slug}/key/")
    _snap(dana, "keys-locked", size, theme)
    page.get_by_role("link", name="Prove it").click()
    page.get_by_label("Code").fill(code(at.secret))
    page.get_by_role("button", name="Prove it").click()
    for name, endpoint in {
        "keys-by-hand": at.leaked,
        "keys-stuck": at.waiting,
        "keys-idle": at.fresh,
    }.items():
        dana.go(f"/endpoints/{endpoint.slug}/key/")
        _snap(dana, name, size, theme)
    page.get_by_text("Enter a new key").click()
    page.get_by_role("button", name="Store it").click()
    page.locator(".errorlist").wait_for()
    _snap(dana, "keys-error", size, theme)
    dana.go(f"/endpoints/{at.fresh.slug}/key/leak/")
    _snap(dana, "leak", size, theme)
    ana = visit(**look)
    page = ana.sign_in(at.ana)
    ana.go(f"/endpoints/{at.leaked.slug}/")
    page.get_by_text("It is being replaced").wait_for()
    _snap(ana, "endpoint-exposed-asker", size, theme)
    ana.go(f"/endpoints/{at.leaked.slug}/key/leak/")
    page.get_by_role("button", name="Report the leak").click()
    _snap(ana, "leak-error", size, theme)
    _keep_small(size, theme)


def _desk(ben: Visitor, scene: Scene, size: str, theme: str) -> None:
    """The reviewer's dashboard in all its states."""
    page = ben.page
    for name, path in {
        "approvals-owed": f"/approvals/?request={scene.owed.pk}",
        "approvals-asked": f"/approvals/?request={scene.queue[0].pk}",
        "approvals-none": "/approvals/?q=zzz",
        "approvals-decided": "/approvals/decided/",
        "approvals-others": "/approvals/others/",
        "approvals-figures": "/approvals/figures/",
    }.items():
        ben.go(path)
        _snap(ben, name, size, theme)
    ben.go(f"/approvals/?request={scene.queue[2].pk}")
    page.locator("#less-fold > summary").click()
    page.locator("[name=models]").first.uncheck()
    _snap(ben, "approvals-less", size, theme)
    page.locator("#hand-fold > summary").click()
    page.locator("#talk-fold > summary").click()
    _snap(ben, "approvals-talk", size, theme)
    for tick in page.locator("[name=requests]").all()[1:3]:
        tick.check()
    _snap(ben, "approvals-selected", size, theme)
    page.get_by_role("button", name="Deny selected").click()
    page.locator(".bulk .errorlist").wait_for()
    _snap(ben, "approvals-selected-error", size, theme)
    page.locator("#bulk-reason").fill("Use staging first.")
    page.get_by_role("button", name="Deny selected").click()
    page.locator(".results").wait_for()
    _snap(ben, "approvals-results", size, theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", ["1440", "390"])
def test_pictures_of_providers(
    visit: Callable[..., Visitor], portal: str, size: str, theme: str
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    ana = visit(dark=theme == "dark", phone=size == "390")
    ana.origin = portal
    ana.context.route("https://cdn.jsdelivr.net/**", lambda route: route.fulfill(status=200))
    page = ana.go("/sign-in/")
    _snap(ana, "sign-in-provider", size, theme)
    ana.go("/sso/acme/callback/?state=unknown")
    _snap(ana, "sign-in-provider-error", size, theme)
    page.get_by_role("link", name="Continue with Acme").click()
    page.get_by_role("button", name="ana", exact=True).click()
    page.wait_for_url(portal + "/")

    def stay(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('http-equiv="refresh"', ""))

    page.route("**/sign-out/", stay)
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="You’re signed out").wait_for()
    _snap(ana, "signed-out", size, theme)
    _keep_small(size, theme)


def _keep_small(size: str, theme: str) -> None:
    """A third of the size, so that the history doesn't grow by megabytes with each new look."""
    pngquant = shutil.which("pngquant")
    if pngquant is None:
        print("No pngquant: docs/images/pages/ stays as it is")  # noqa: T201
        return
    pages = ROOT / "docs" / "images" / "pages"
    pages.mkdir(exist_ok=True)
    for picture in OUT.glob(f"*-{size}-{theme}.png"):
        target = pages / picture.name
        subprocess.run(
            [pngquant, "--quality=60-90", "--strip", "--force", "--output", target, picture],
            check=True,
        )
