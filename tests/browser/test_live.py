"""Who is in, stopping it, and use as it happens, as people meet them in a browser."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from accessrequests.models import Grant
from gateway.models import Meter
from tests.browser.conftest import Visitor
from tests.browser.inside import Inside, inside
from tests.gateway.using import call, used
from tests.world import World, unique

Visit = Callable[..., Visitor]


@pytest.fixture
def at(world: World, committed: None) -> Inside:
    return inside(world, mark=f" {unique()}")


def live(at: Inside, by: str = "endpoint") -> str:
    return f"/live/?by={by}&q={str(at.endpoint).rpartition(' ')[2]}"


@pytest.mark.slow
def test_stop_everything_is_ended_and_lifted(visit: Visit, at: Inside, sweep: Any) -> None:
    chidi, ana = visit(), visit()
    holder = ana.sign_in(at.ana)
    ana.go(f"/grants/{at.busy.pk}/")
    page = chidi.sign_in(at.chidi)
    page.get_by_role("link", name="Live access").click()
    chidi.go(live(at))
    name = str(at.endpoint)
    support = page.get_by_role("region", name=name)
    expect(support).to_contain_text("2 live grants")
    expect(support.get_by_role("row", name=re.compile("Ana Castillo"))).to_contain_text("21,740")

    support.get_by_role("link", name=f"Stop or end all on {name}").click()
    chidi.give_code()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Stop {name}")
    expect(page.get_by_role("main")).to_contain_text("2 live grants of 2 people would end now")
    page.get_by_role("button", name=f"End access to {name}").click()
    expect(page.locator(".errorlist")).to_contain_text("Say why")
    page.get_by_label("Why").fill("Its key is in a public repository.")
    page.get_by_role("button", name=f"End access to {name}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{name} is stopped")
    expect(page.locator("#ending")).to_contain_text("2 grants are refused already")
    sweep()
    expect(page.locator("#ending")).to_contain_text("Everything that was live has ended")

    holder.reload()
    expect(holder.get_by_role("main")).to_contain_text("Its key is in a public repository.")
    holder.get_by_role("link", name=name, exact=True).click()
    expect(holder.get_by_role("main")).to_contain_text("This endpoint is stopped.")

    page.get_by_role("link", name="See who is in now").click()
    expect(page.get_by_role("main")).to_contain_text(f"{name} is stopped.")
    expect(page.get_by_role("region", name=name)).to_have_count(0)
    page.get_by_role("link", name=f"See the stop of {name}, or lift it").click()
    page.get_by_role("button", name="Lift the stop").click()
    chidi.give_code()
    page.get_by_role("button", name="Lift the stop").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"The stop of {name} is lifted")
    assert not Grant.objects.filter(
        request__profile__endpoint=at.endpoint, ended_at=None
    ).exists(), "lifting brings nothing back"


@pytest.mark.slow
def test_one_is_ended_and_leaves_the_page(visit: Visit, at: Inside) -> None:
    dana = visit()
    page = dana.sign_in(at.owner)
    dana.go(live(at, "person"))
    mei = page.get_by_role("region", name=re.compile("Mei Tanaka"))
    expect(mei).to_contain_text("47,100 of 50,000 tokens")
    mei.get_by_role("button", name=re.compile("^End Mei Tanaka")).click()
    expect(page.get_by_role("status").first).to_contain_text("Ended Mei Tanaka")
    expect(mei).to_have_count(0)
    assert page.url.endswith(live(at, "person"))
    # Somebody else's end shows without a reload.
    ana = page.get_by_role("region", name=re.compile("Ana Castillo"))
    expect(ana).to_contain_text("2 live grants")
    Grant.objects.filter(pk=at.busy.pk).update(
        state="ended", ended_at=at.busy.starts_at, ended_by="Keyturn", end_reason="revoked"
    )
    expect(ana).to_contain_text("1 live grant", timeout=8000)


def test_use_shows_as_it_happens(visit: Visit, at: Inside) -> None:
    ana = visit()
    page = ana.sign_in(at.ana)
    ana.go(f"/grants/{at.busy.pk}/")
    use = page.get_by_role("region", name="Use", exact=True)
    expect(use).to_contain_text("28,260 of 50,000 tokens left")
    expect(use).to_contain_text("tool_not_granted")
    expect(use).not_to_contain_text("demo-new")
    call(at.busy, model="demo-new", ago=0)
    used(at.busy, charged_tokens=48_000)
    expect(use).to_contain_text("demo-new", timeout=6000)
    expect(use).to_contain_text("2,000 of 50,000 tokens left")
    assert Meter.objects.get(grant=at.busy).charged_tokens == 48_000
    use.get_by_role("link", name="All calls").click()
    page.get_by_label("Only what was refused").check()
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row")).to_have_count(2)


@pytest.mark.slow
@pytest.mark.parametrize("phone", [False, True], ids=["desk, light", "phone, dark"])
def test_axe_finds_nothing(visit: Visit, at: Inside, phone: bool) -> None:
    chidi = visit(dark=phone, phone=phone)
    page = chidi.sign_in(at.chidi)
    for path, shown in (
        (live(at), "Support assistant"),
        (live(at, "person"), "Mei Tanaka"),
        (f"/grants/{at.busy.pk}/", "tokens left"),
        (f"/grants/{at.low.pk}/usage/", "tokens left"),
        (f"/endpoints/{at.endpoint.slug}/", "connection refused"),
    ):
        chidi.go(path)
        page.get_by_text(shown).first.wait_for()
        assert chidi.axe() == []
        assert chidi.overflow() <= 0, path
