"""What is owed, and having it tried now, as operators meet it in a browser."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from credentials.models import Credential
from tests.browser.conftest import Visitor
from tests.browser.owing import Owing, owing
from tests.credentials.owing import gone
from tests.world import World, unique

Visit = Callable[..., Visitor]


@pytest.fixture
def mark() -> str:
    return unique()


@pytest.fixture
def at(world: World, committed: None, mark: str) -> Owing:
    return owing(world, mark=f" {mark}")


@pytest.mark.slow
def test_try_now_and_watch_it_go(visit: Visit, at: Owing, mark: str) -> None:
    chidi = visit()
    page = chidi.sign_in(at.chidi)
    page.get_by_role("link", name="Operations").click()
    page.get_by_role("searchbox").fill(mark)
    page.get_by_role("searchbox").press("Enter")
    rows = page.get_by_role("listitem").filter(has_text=re.compile("Tried|last one issued"))
    expect(rows).to_have_count(5)
    page.get_by_role("link", name=re.compile("^Stuck")).click()
    expect(rows).to_have_count(3)
    first = at.stuck[0]
    page.get_by_role("button", name=re.compile(first.name)).click()
    expect(page.get_by_role("status").first).to_contain_text(f"{first.name} is being tried now")
    assert f"q={mark}" in page.url
    tried = Credential.objects.get(pk=first.pk).next_attempt_at
    assert tried is not None
    assert at.stuck[0].next_attempt_at is not None
    assert tried < at.stuck[0].next_attempt_at
    # What a worker proves shows without a reload.
    gone(first)
    expect(rows).to_have_count(2, timeout=8000)
    expect(page.locator("#owed")).not_to_contain_text(first.name)
    page.get_by_role("link", name=f"Orders database {mark}").first.click()
    expect(page.get_by_role("region", name="Credentials")).to_contain_text("and isn’t proven so")


@pytest.mark.slow
@pytest.mark.parametrize("phone", [False, True], ids=["desk, light", "phone, dark"])
def test_axe_finds_nothing(visit: Visit, at: Owing, mark: str, phone: bool) -> None:
    chidi = visit(dark=phone, phone=phone)
    chidi.sign_in(at.chidi)
    for path in (
        f"/operations/?q={mark}",
        "/operations/?q=zzz",
        f"/grants/{at.grant.pk}/",
        f"/grants/{at.down.pk}/",
    ):
        chidi.go(path)
        assert chidi.axe() == []
        assert chidi.overflow() <= 0, path
