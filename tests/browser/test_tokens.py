"""An API token in a real browser: made once a factor is proved, seen once, revoked."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from accounts.actions import token_owner
from tests.browser.conftest import Visitor
from tests.browser.test_factors import press, sound
from tests.browser.test_people import prove
from tests.world import PASSWORD, World

Visit = Callable[..., Visitor]


@pytest.mark.slow
@pytest.mark.parametrize("phone", [False, True])
def test_one_is_made_and_revoked(visit: Visit, world: World, phone: bool) -> None:
    user = world.person(full_name="Ana Silva", is_auditor=True, password=PASSWORD)
    endpoint = world.endpoint(with_key=False)
    browser = visit(phone=phone, dark=phone)
    page = browser.sign_in(user)
    browser.go("/settings/tokens/")
    sound(browser)
    page.get_by_role("link", name="New token").first.click()
    prove(browser, user)
    page.get_by_label("What will use it").fill("Nightly evaluation")
    page.get_by_label(endpoint.slug).check()
    sound(browser)
    press(page, "Make it")
    expect(page.get_by_role("heading", name="Nightly evaluation")).to_be_visible()
    found = token_owner(page.locator("#token-value").inner_text())
    assert found is not None
    assert (found[0], found[1].endpoints) == (user, [endpoint.pk])
    sound(browser)
    page.get_by_role("link", name="I have kept it").click()
    press(page, "Revoke Nightly evaluation")
    expect(page.get_by_text("is revoked")).to_be_visible()
    assert token_owner(found[1].lookup) is None
