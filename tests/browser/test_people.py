"""People in a real browser: from an administrator's invitation to a newcomer's last session."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from accounts import factors
from accounts.models import Change, Session, User
from tests.accounts.authenticator import SECRETS, code, later
from tests.browser.conftest import Visitor
from tests.browser.test_factors import press, set_up_app, sound
from tests.world import PASSWORD, World, unique

Visit = Callable[..., Visitor]
NEW = "a quiet harbour in november"


def prove(visitor: Visitor, user: User) -> None:
    """Prove the second factor on the page that asks for it."""
    visitor.page.wait_for_url("**/step-up/**")
    later(user)
    visitor.page.get_by_role("textbox", name="Code", exact=True).fill(code(SECRETS[user.pk]))
    press(visitor.page, "Prove it")
    visitor.page.wait_for_url(lambda url: "/step-up/" not in url)
    later(user)


@pytest.mark.slow
def test_a_newcomer_comes_and_goes(visit: Visit, world: World) -> None:
    boss = world.person(full_name="Chidi Eze", is_administrator=True, password=PASSWORD)
    group, email = world.profile().requesters, f"noor-{unique()}@example.com"
    desk, phone = visit(), visit(phone=True, dark=True)
    page = desk.sign_in(boss)
    page.get_by_role("link", name="People").click()
    page.get_by_role("link", name="Add a person").click()
    prove(desk, boss)
    page.get_by_label("Full name").fill("Noor Haddad")
    page.get_by_label("E-mail").fill(email)
    press(page, "Add and make the link")
    expect(page.get_by_role("heading", name="Hand this link to Noor Haddad")).to_be_visible()
    sound(desk)
    link = page.locator("#link-value").inner_text()

    own = phone.go(link[link.index("/welcome/") :])
    own.wait_for_url("**/welcome/")
    expect(own.get_by_text("Chidi Eze invited you")).to_be_visible()
    sound(phone)
    own.get_by_label("Password", exact=True).fill(NEW)
    own.get_by_label("again").fill(NEW)
    press(own, "Set password and go on")
    own.wait_for_url("**/settings/factor/**")
    noor = User.objects.get(email=email)
    SECRETS[noor.pk] = set_up_app(own)
    later(noor)
    own.get_by_role("link", name="I have kept them").click()
    own.wait_for_url(lambda url: "/settings/" not in url)
    assert factors.has_factor(noor)

    elsewhere = visit()
    elsewhere.sign_in(noor, NEW)
    phone.go("/settings/sessions/")
    expect(own.locator(".row-title")).to_have_count(2)
    sound(phone)
    press(own, "End all others")
    expect(own.get_by_text("You are signed in nowhere else.")).to_be_visible()
    elsewhere.go("/")
    assert "/sign-in/" in elsewhere.page.url

    desk.go(f"/groups/{group.pk}/")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Why").fill("Joins the team.")
    press(page, "Propose as a member")
    prove(desk, boss)
    expect(page.get_by_label("Why")).to_have_value("Joins the team.")
    press(page, "Propose as a member")
    page.wait_for_url("**/changes/*/")
    assert Change.objects.get(about=group.pk).proposed_by == boss
    desk.go(f"/groups/{group.pk}/")
    expect(page.get_by_text("waits for a second administrator")).to_be_visible()
    sound(desk)

    desk.go(f"/people/?q={email}")
    page.get_by_role("link", name="Noor Haddad").click()
    sound(desk)
    press(page, "Deactivate")
    prove(desk, boss)
    press(page, "Deactivate")
    expect(page.get_by_role("heading", name="Everything of Noor Haddad is gone")).to_be_visible()
    sound(desk)
    phone.go("/")
    assert "/sign-in/" in own.url
    assert not Session.objects.filter(person=noor).exists()


@pytest.mark.slow
@pytest.mark.parametrize("look", [{"phone": True}, {"dark": True}], ids=str)
def test_administration_is_sound(visit: Visit, world: World, look: dict[str, bool]) -> None:
    boss = world.person(is_administrator=True, password=PASSWORD)
    group = world.profile().requesters
    person = world.person(group, full_name="Maximiliane Freifrau von Hohenstein-Wetterau")
    world.person(owner=person, full_name="Nightly evaluation")
    visitor = visit(**look)
    visitor.sign_in(boss)
    for path in (
        "/people/",
        "/groups/",
        "/service-accounts/",
        f"/people/{person.pk}/",
        f"/people/{person.pk}/access/",
        f"/groups/{group.pk}/",
        "/groups/new/",
        "/settings/profile/",
        "/settings/sessions/",
        "/settings/tokens/",
    ):
        visitor.go(path)
        sound(visitor)
