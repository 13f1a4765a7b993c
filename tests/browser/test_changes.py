"""Two administrators: one proposes, the other sees what would change and decides."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from accessrequests.models import Policy
from accounts import factors
from accounts.models import Change, User
from tests.accounts.authenticator import SECRETS, authenticator, code, later
from tests.browser.conftest import Visitor
from tests.world import PASSWORD, World

Visit = Callable[..., Visitor]


def prove(page: Page, user: User) -> None:
    """On the page that asks for it, and on the way back."""
    page.wait_for_url("**/step-up/**")
    later(user)
    page.get_by_role("textbox", name="Code", exact=True).fill(code(SECRETS[user.pk]))
    page.get_by_role("button", name="Prove it").click()
    page.wait_for_url(lambda url: "/step-up/" not in url)


def two(world: World) -> tuple[User, User]:
    ada = world.person(is_administrator=True, full_name="Ada Obi", password=PASSWORD)
    ben = world.person(is_administrator=True, full_name="Ben Sato", password=PASSWORD)
    return ada, ben


@pytest.mark.slow
def test_a_policy_that_waits(visit: Visit, world: World) -> None:
    ada, ben = two(world)
    policy = world.policy(profile=world.profile(), limits={"max_duration": "PT1H"})
    first = visit()
    page = first.sign_in(ada)
    first.go(f"/policies/{policy}/edit/")
    text = page.get_by_label("Policy", exact=True)
    text.fill(text.input_value().replace("PT1H", "PT8H"))
    page.get_by_label("Why").fill("Nights are long.")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#check")).to_contain_text("It will wait for a second administrator")
    page.get_by_role("button", name="Save").click()
    prove(page, ada)
    # What was typed is still there.
    expect(text).to_have_value(re.compile("PT8H"))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Nothing is changed yet: it waits for")).to_be_visible()
    expect(page.get_by_role("button", name="Withdraw it")).to_be_visible()

    phone = visit(phone=True, dark=True)
    other = phone.sign_in(ben)
    change = Change.objects.get(about=policy.pk)
    phone.go("/changes/")
    other.get_by_role("link", name=f"Change policy {policy}", exact=True).click()
    for text_then_and_now in ("PT1H", "PT8H"):
        expect(other.get_by_text(text_then_and_now)).to_be_visible()
    assert phone.axe() == []
    assert phone.overflow() <= 0
    other.get_by_role("link", name="Prove it").click()
    prove(other, ben)
    other.get_by_label("Note").fill("As discussed.")
    other.get_by_role("button", name="Agree, and do it").click()
    expect(other.get_by_text("Done, as the two of you agreed.")).to_be_visible()
    assert phone.axe() == []
    change.refresh_from_db()
    assert (change.state, change.decided_by) == ("applied", ben)
    current = Policy.objects.get(pk=policy.pk).current
    assert current is not None
    assert current.document["limits"] == {"max_duration": "PT8H"}
    page.reload()
    expect(page.get_by_text("Ben Sato agreed")).to_be_visible()


@pytest.mark.slow
def test_two_administrators_reset_a_lost_factor(visit: Visit, world: World) -> None:
    ada, ben = two(world)
    chidi = world.person(full_name="Chidi Eze", is_auditor=True, password=PASSWORD)
    authenticator(chidi)
    first = visit()
    page = first.sign_in(ada)
    first.go(f"/people/{chidi.pk}/")
    sheet = page.locator("section", has=page.get_by_role("heading", name="Lost their second"))
    sheet.get_by_label("Why").fill("Lost the phone; I saw the badge.")
    sheet.get_by_role("button", name="Propose a reset").click()
    prove(page, ada)
    sheet.get_by_label("Why").fill("Lost the phone; I saw the badge.")
    sheet.get_by_role("button", name="Propose a reset").click()
    expect(page.get_by_text("Nothing is changed yet: it waits for")).to_be_visible()
    assert factors.has_factor(chidi)
    assert first.axe() == []

    second = visit()
    other = second.sign_in(ben)
    other.get_by_role("link", name=re.compile("^Changes")).click()
    other.get_by_role(
        "link", name="Take away the second factors of Chidi Eze", exact=True
    ).first.click()
    other.get_by_role("link", name="Prove it").click()
    prove(other, ben)
    other.get_by_role("button", name="Agree, and do it").click()
    expect(other.get_by_text("Done, as the two of you agreed.")).to_be_visible()
    assert not factors.has_factor(chidi)

    # By the password alone Chidi gets as far as setting up another.
    third = visit()
    own = third.go("/sign-in/")
    own.get_by_label("Email").fill(chidi.email)
    own.get_by_label("Password").fill(PASSWORD)
    own.get_by_role("button", name="Sign in", exact=True).click()
    own.wait_for_url("**/settings/factor/**")
    expect(own.get_by_text("which takes a second factor")).to_be_visible()
