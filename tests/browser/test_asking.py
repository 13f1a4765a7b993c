"""Ana asks: later, before a review, for longer, for two at once; and goes away."""

import datetime as dt
import re
from collections.abc import Callable

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from accessrequests.models import AccessRequest
from tests.accounts.authenticator import authenticator
from tests.browser.asking import holdings, paths, stage
from tests.browser.conftest import Visitor
from tests.world import World

Visit = Callable[..., Visitor]


@pytest.fixture
def world_of_ana(world: World, committed: None) -> World:
    return world


@pytest.mark.slow
def test_each_way_of_asking(visit: Visit, world_of_ana: World) -> None:
    at = stage(world_of_ana)
    authenticator(at.ana)
    ana = visit()
    page = ana.sign_in(at.ana)
    preview, main = page.locator("#preview"), page.get_by_role("main")

    # Longer costs a step; later needs a date; a ticket is missing.
    ana.go(f"/request/{at.strict.pk}/")
    expect(preview).to_contain_text("Not needed for this ask")
    page.get_by_role("radio", name="2 hours").check()
    expect(preview).to_contain_text("Step 2 of 2: Security")
    expect(preview).to_contain_text("wouldn’t need Security")
    page.get_by_role("radio", name="Later").check()
    start = timezone.now() + dt.timedelta(days=1)
    page.get_by_label("Date and time").fill(f"{timezone.localtime(start):%Y-%m-%dT10:00}")
    page.get_by_label("What you need it for").fill("Replay the conversation.")
    page.get_by_label("Ticket").fill("4711")
    page.get_by_label("Ticket").blur()
    expect(preview).to_contain_text("matches OPS-[0-9]+")
    page.get_by_label("Ticket").fill("OPS-4711")
    page.get_by_label("Ticket").blur()
    expect(preview).to_contain_text("2 hours from")
    page.get_by_role("button", name="Ask for access").click()
    page.wait_for_url("**/requests/**")
    asked = AccessRequest.objects.get(requester=at.ana)
    assert (asked.ticket, asked.starts_at is not None) == ("OPS-4711", True)

    # Break glass: what was typed stays, and all is said before it happens.
    ana.go(f"/request/{at.strict.pk}/?again={asked.pk}")
    page.get_by_role("button", name="Break glass").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Take access before a review")
    expect(page.get_by_label("Ticket")).to_have_value("OPS-4711")
    expect(preview).to_contain_text("Ben Okafor, Dana Levi and Priya Nair are told at once")
    page.get_by_role("button", name="Take access now").click()
    ana.give_code()
    expect(page.get_by_label("Ticket")).to_have_value("OPS-4711")
    page.get_by_role("button", name="Take access now").click()
    page.wait_for_url("**/grants/**")
    expect(main).to_contain_text("You have access now")
    expect(main).to_contain_text("Ben Okafor or Dana Levi owes it a review until")

    # Two at once, from the catalogue; one of them is decided by itself.
    ana.go("/catalogue/")
    page.get_by_role("checkbox", name="Choose Research models").check()
    page.get_by_role("searchbox").fill("contract")
    expect(page.get_by_role("heading", name="Support assistant")).to_have_count(0)
    page.get_by_role("checkbox", name="Choose Contract review").check()
    expect(page.get_by_role("checkbox", name="Research models: Debug")).to_be_checked()
    # Leaving the search field is no new search, which would forget the tick.
    page.wait_for_timeout(400)
    expect(page.get_by_role("checkbox", name="Choose Contract review")).to_be_checked()
    page.get_by_role("button", name="Ask for the ticked").click()
    expect(preview).to_contain_text("Decided automatically")
    page.get_by_label("What you need it for").fill("Compare them.")
    page.get_by_role("button", name="Ask for all 2").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Asked for at once")
    expect(page.get_by_role("row")).to_have_count(3)

    # Longer, without a gap.
    ana.go("/")
    page.get_by_role("link", name="Extend Research models").click()
    page.get_by_role("radio", name="30 minutes").check()
    expect(preview).to_contain_text("30 minutes more, without a gap")
    page.get_by_label("What you need it for").fill("One is left.")
    page.get_by_role("button", name="Ask for more time").click()
    expect(main).to_contain_text("It begins by itself")
    expect(main).to_contain_text("It follows the grant that it extends without a gap")
    page.get_by_role("button", name="Give back").click()
    expect(main).to_contain_text("Ended before it began")

    # Away, with somebody to be told.
    page.locator("details.menu summary").click()
    page.get_by_role("link", name="Out of office").click()
    until = timezone.localtime(start + dt.timedelta(days=2))
    page.get_by_label("Until").fill(f"{until:%Y-%m-%dT%H:%M}")
    page.get_by_label(re.compile("^Who is told")).fill(at.ben.email)
    page.get_by_role("button", name="Note it").click()
    expect(main).to_contain_text("Ben Okafor is told instead of you")
    page.get_by_role("button", name=re.compile("^I’m back")).click()
    expect(main).to_contain_text("You are told of what waits for you again")


@pytest.mark.parametrize(
    "look",
    [
        pytest.param({"phone": True, "dark": True}, id="390-dark", marks=pytest.mark.slow),
        pytest.param({}, id="1440-light", marks=pytest.mark.slow),
    ],
)
def test_how_they_look_to_everybody(
    look: dict[str, bool], visit: Visit, world_of_ana: World
) -> None:
    """By axe; what only these pages have."""
    at = stage(world_of_ana)
    pages = paths(at, holdings(at))
    found: list[str] = []
    ana = visit(**look)
    ana.sign_in(at.ana)
    for name, path in pages.items():
        ana.go(path)
        found += [f"{name}: {line}" for line in [*ana.axe(), *ana.data_images()]]
        if over := ana.overflow():
            found.append(f"{name}: {over} px too wide")
    assert not found, "\n".join(found)
