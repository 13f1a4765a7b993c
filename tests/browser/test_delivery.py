"""What the grant's page hands over, once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.browser.delivering import delivering
from tests.servers import Servers
from tests.world import World


@pytest.mark.slow
@pytest.mark.parametrize(
    "look",
    [
        pytest.param({}, id="desk"),
        pytest.param({"dark": True, "phone": True}, id="dark phone"),
    ],
)
def test_each_kind_is_handed_over_by_its_parts(
    visit: Callable[..., Visitor],
    world: World,
    servers: Servers,
    tmp_path: Path,
    look: dict[str, bool],
) -> None:
    at = delivering(world, servers)
    ana = visit(**look)
    page = ana.sign_in(at.ana)

    def sound() -> None:
        assert ana.overflow() <= 0
        assert ana.axe() == []

    ana.go(f"/grants/{at.certificate.pk}/")
    page.get_by_role("button", name="Get credential").click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="as client.pem").click()
    saved = tmp_path / "client.pem"
    saving.value.save_as(saved)
    assert saving.value.suggested_filename == "client.pem"
    assert "PRIVATE" not in saving.value.url
    assert x509.load_pem_x509_certificate(saved.read_bytes()).serial_number
    page.locator("summary", has_text="The same in 3 files").click()
    expect(page.locator("#secret-ca_chain")).to_contain_text("BEGIN CERTIFICATE")
    sound()

    ana.go(f"/grants/{at.token.pk}/")
    page.get_by_role("button", name="Get it wrapped").click()
    expect(page.get_by_role("heading", name="Your wrapping token")).to_be_focused()
    page.get_by_role("tab", name="API").click()
    expect(page.get_by_label("Keyturn’s API", exact=True).locator("code")).to_contain_text("unwrap")
    sound()

    ana.go(f"/grants/{at.static.pk}/")
    page.get_by_role("button", name="Get credential").click()
    expect(page.locator("#secret-value")).to_have_text("ocr-7f3b9c2e51d84a06")
    expect(page.get_by_text("Only by rotating its key")).to_be_visible()
    expect(page.locator("#main")).not_to_contain_text("/e/e-")
    sound()

    ana.go(f"/grants/{at.database.pk}/")
    expect(page.get_by_label("psql", exact=True).locator("code")).to_contain_text("PGSSLMODE")
    sound()


def test_a_reviewer_sees_in_red_what_only_a_rotation_ends(
    visit: Callable[..., Visitor], world: World, servers: Servers
) -> None:
    at = delivering(world, servers)
    ben = visit()
    page = ben.sign_in(at.ben)
    ben.go(f"/requests/{at.asked.pk}/")
    warning = page.locator(".word-bad", has_text="Only by rotating its key")
    expect(warning.locator("svg")).to_be_visible()
    red = page.evaluate("getComputedStyle(document.querySelector('.word-bad')).color")
    assert red == "rgb(179, 38, 30)"
