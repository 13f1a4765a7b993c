"""The main stories, in a browser, as their people walk through them."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from playwright.sync_api import expect

from accessrequests.models import AccessRequest, Grant
from notifications.kinds import Kind
from notifications.outbox import notify
from tests.accounts.authenticator import authenticator
from tests.browser.conftest import Visitor
from tests.world import PASSWORD, PROVED, World, reviewing

Visit = Callable[..., Visitor]


@pytest.fixture
def people(world: World, committed: None) -> dict[str, Any]:
    endpoint = world.endpoint(name="Support assistant", risk="critical")
    profile = world.profile(endpoint=endpoint, default_models=["demo-small"])
    return {
        "profile": profile,
        "ana": world.person(profile.requesters, password=PASSWORD, full_name="Ana Castillo"),
        "ben": world.person(profile.reviewers, password=PASSWORD, full_name="Ben Okafor"),
    }


def test_the_whole_story(visit: Visit, people: dict[str, Any], sweep: Any) -> None:
    ana, ben = visit(), visit()
    page = ana.sign_in(people["ana"])

    page.get_by_role("link", name="Catalogue").click()
    page.get_by_role("searchbox").fill("support")
    page.wait_for_url("**/catalogue/?q=support*")
    page.get_by_role("link", name=re.compile("^Ask for Support assistant")).click()
    preview = page.locator("#preview")
    expect(preview).to_contain_text("Ben Okafor decides")
    page.get_by_role("radio", name="2 hours").check()
    expect(preview).to_contain_text("2 hours from the approval on")
    expect(preview).to_contain_text("1 hour longer than the default")
    page.get_by_label("What you need it for").fill("Ticket 4711.")
    page.get_by_role("button", name="Ask for access").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("You ask for 2 hours")
    expect(page.get_by_role("main")).to_contain_text("for Ben Okafor")

    desk = ben.sign_in(people["ben"])
    desk.get_by_role("link", name=re.compile("Approvals")).click()
    expect(desk.get_by_role("heading", level=2).first).to_contain_text("Ana Castillo asks")
    desk.get_by_role("button", name=re.compile("^Approve")).click()
    desk.wait_for_url("**/step-up/**")
    expect(desk.get_by_role("listitem").filter(has_text="Decide Ana Castillo")).to_be_visible()
    assert not Grant.objects.exists()
    ben.give_code()
    desk.get_by_role("button", name=re.compile("^Approve")).click()
    expect(desk.get_by_role("status").first).to_contain_text("Approved. Ana Castillo has access")
    expect(desk.get_by_role("main")).to_contain_text("Nothing waits for you")

    ana.go("/")
    page.get_by_role("button", name=re.compile("^Get credential")).click()
    secret = page.locator("#secret-value").inner_text()
    assert len(secret) > 20
    assert secret not in page.url
    page.get_by_role("button", name="Copy the credential").click()
    page.get_by_role("tab", name="OpenAI SDK").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("from openai import OpenAI")
    page.get_by_role("button", name="Give back").click()
    expect(page.get_by_role("main")).to_contain_text("You gave it back early")
    sweep()
    expect(page.get_by_text(re.compile("proven gone")).first).to_be_visible(timeout=8000)
    assert secret not in page.content()


@pytest.mark.slow
def test_a_countdown_moves_and_ends_by_itself(
    visit: Visit, people: dict[str, Any], world: World
) -> None:
    grant = world.grant(
        profile=people["profile"],
        requester=people["ana"],
        reviewer=people["ben"],
        duration=dt.timedelta(minutes=1),
    )
    ana = visit()
    page = ana.sign_in(people["ana"])
    digits = page.locator(".pass [data-figure]")
    before = digits.inner_text()
    expect(digits).not_to_have_text(before)
    # A clock that is an hour wrong on this side changes nothing.
    page.clock.install(time=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    ana.go(f"/grants/{grant.pk}/")
    expect(page.locator("[data-figure]").first).to_contain_text("0:")
    page.clock.fast_forward(61_000)
    expect(page.locator(".time-left").first).to_have_class(re.compile("is-over"))
    expect(page.locator("#live")).to_contain_text("has ended")


def test_the_queue_by_keyboard_alone(visit: Visit, people: dict[str, Any], world: World) -> None:
    first, second = (
        world.request(profile=people["profile"], reviewer=people["ben"]) for _ in range(2)
    )
    authenticator(people["ben"])
    ben = visit()
    ben.user = people["ben"]
    ben.go("/sign-in/")
    page, keys = ben.page, ben.page.keyboard
    for _ in range(30):
        keys.press("Tab")
        if page.evaluate("document.activeElement.name") == "username":
            break
    keys.type(people["ben"].email)
    keys.press("Tab")
    keys.type(PASSWORD)
    keys.press("Enter")
    ben.give_code("/sign-in/factor/")
    ben.prove(*reviewing(first, second), back="/")
    keys.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(10):
        keys.press("Tab")
        if page.evaluate("document.activeElement.pathname") == "/approvals/":
            break
    keys.press("Enter")
    page.wait_for_url("**/approvals/")

    keys.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()

    keys.press("j")
    expect(page.locator("#detail")).to_contain_text(str(second.requester))
    expect(page.locator(f"#q-{second.pk}")).to_be_focused()
    keys.press("k")
    expect(page.locator("#detail")).to_contain_text(str(first.requester))
    keys.press("a")
    expect(page.get_by_role("button", name=re.compile("^Approve"))).to_be_focused()
    assert not Grant.objects.filter(request=first).exists()
    keys.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Approved.")
    expect(page.locator(f"#q-{second.pk}")).to_be_focused()
    assert Grant.objects.filter(request=first).exists()

    keys.press("d")
    expect(page.get_by_label("Reason")).to_be_focused()
    keys.type("Use staging.")
    keys.press("Tab")
    keys.press("Tab")
    expect(page.get_by_role("button", name="Deny")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("Nothing waits for you")
    assert AccessRequest.objects.get(pk=second.pk).state == "denied"


def test_a_decision_that_lost_the_race(visit: Visit, people: dict[str, Any], world: World) -> None:
    from accessrequests.actions import review_request
    from accessrequests.models import Review

    row = world.request(profile=people["profile"], reviewer=people["ben"])
    dana = world.person(people["profile"].reviewers, full_name="Dana Levi")
    ben = visit()
    page = ben.sign_in(people["ben"])
    ben.prove(*reviewing(row), back="/approvals/")
    review_request(by=dana, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    page.get_by_role("button", name=re.compile("^Approve")).click()
    expect(page.get_by_role("status").first).to_contain_text("Already approved by Dana Levi")
    expect(page.get_by_role("main")).to_contain_text("Nothing waits for you")


@pytest.mark.slow
def test_a_decided_row_leaves_and_the_next_is_open(
    visit: Visit, people: dict[str, Any], world: World
) -> None:
    first, second = (
        world.request(profile=people["profile"], reviewer=people["ben"]) for _ in range(2)
    )
    ben = visit(motion=True)
    page = ben.sign_in(people["ben"])
    ben.prove(*reviewing(first), back="/approvals/")
    row = page.locator(f"#q-{first.pk}")
    name = row.evaluate("(e) => getComputedStyle(e).viewTransitionName")
    assert name == f"q-{first.pk}"
    page.get_by_role("button", name=re.compile("^Approve")).click()
    expect(row).to_have_count(0)
    expect(page.locator("#detail")).to_contain_text(str(second.requester))
    assert page.url.endswith(str(second.pk))
    page.go_back()
    expect(page.get_by_role("main")).to_contain_text(str(first.requester))


def test_two_clicks_make_one_request(visit: Visit, people: dict[str, Any]) -> None:
    ana = visit()
    page = ana.sign_in(people["ana"])
    ana.go(f"/request/{people['profile'].pk}/")
    page.get_by_label("What you need it for").fill("Ticket 4711.")
    page.get_by_role("button", name="Ask for access").dblclick()
    page.wait_for_url("**/requests/**")
    assert AccessRequest.objects.filter(requester=people["ana"]).count() == 1


def test_the_theme_is_kept_and_there_before_the_first_paint(
    visit: Visit, people: dict[str, Any]
) -> None:
    ana = visit()
    page = ana.sign_in(people["ana"])
    root = page.locator("html")
    expect(root).to_have_attribute("data-bs-theme", "light")
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Dark").click()
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.goto(page.url, wait_until="commit")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.locator("details.menu summary").click()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")


def test_demo_sign_ins_are_filled_in(visit: Visit) -> None:
    guest = visit()
    page = guest.go("/sign-in/")
    page.get_by_role("button", name=re.compile("ben@example.com")).click()
    expect(page.get_by_label("Email")).to_have_value("ben@example.com")
    expect(page.get_by_role("button", name="Sign in", exact=True)).to_be_focused()


def test_single_keys_can_be_turned_off(visit: Visit, people: dict[str, Any]) -> None:
    ben = visit()
    page = ben.sign_in(people["ben"])
    page.keyboard.press("?")
    page.get_by_label("Single-key shortcuts are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_it_works_without_script(visit: Visit, people: dict[str, Any]) -> None:
    ana = visit(java_script_enabled=False)
    page = ana.sign_in(people["ana"])
    ana.go(f"/request/{people['profile'].pk}/")
    page.get_by_label("What you need it for").fill("Ticket 4711.")
    page.get_by_role("button", name="Ask for access").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("You ask for 1 hour")
    ben = visit(java_script_enabled=False)
    desk = ben.sign_in(people["ben"])
    ben.go("/approvals/")
    desk.get_by_role("button", name=re.compile("^Approve")).click()
    ben.give_code()
    desk.get_by_role("button", name=re.compile("^Approve")).click()
    expect(desk.get_by_role("status").first).to_contain_text("Approved.")
    ana.go("/")
    page.get_by_role("button", name=re.compile("^Get credential")).click()
    expect(page.locator("#secret-value")).to_be_visible()
    expect(page.get_by_text("curl", exact=False).last).to_be_visible()


def test_the_preview_does_not_pull_the_reader_back_to_the_errors(
    visit: Visit, people: dict[str, Any]
) -> None:
    ana = visit()
    page = ana.sign_in(people["ana"])
    ana.go(f"/request/{people['profile'].pk}/")
    page.get_by_role("button", name="Ask for access").click()
    expect(page.get_by_role("alert")).to_be_focused()
    page.get_by_role("radio", name="30 minutes").check()
    expect(page.locator("#preview")).to_contain_text("30 minutes from the approval on")
    expect(page.get_by_role("radio", name="30 minutes")).to_be_focused()


def test_following_a_notification_reads_it(visit: Visit, people: dict[str, Any]) -> None:
    with transaction.atomic():
        for occasion, sentence in (("1", "Ben asks about it"), ("2", "Ben asks once more")):
            notify(
                Kind.QUESTION,
                to=[people["ana"]],
                about=people["profile"],
                path="/requests/",
                sentence=sentence,
                occasion=occasion,
            )
    ana = visit()
    page = ana.sign_in(people["ana"])
    page.get_by_role("link", name="Notifications 2 unread").click()
    page.get_by_role("link", name="Ben asks about it").click()
    expect(page).to_have_url(re.compile("/requests/$"))
    ana.go("/notifications/")
    expect(page.locator(".is-unread")).to_have_count(1)
    page.get_by_role("button", name="Mark read Ben asks once more").click()
    expect(page.locator(".is-unread")).to_have_count(0)
    expect(page.get_by_role("link", name="Notifications", exact=True)).to_be_visible()


@pytest.mark.slow
def test_two_steps_the_second_narrows(visit: Visit, people: dict[str, Any], world: World) -> None:
    security = world.group()
    chidi = world.person(security, password=PASSWORD, full_name="Chidi Eze")
    world.policy(
        profile=people["profile"],
        steps=[
            {"name": "Platform", "reviewers": {"profile_reviewers": True}},
            {"name": "Security", "reviewers": {"groups": [security.slug]}},
        ],
    )
    row = world.request(
        profile=people["profile"],
        requester=people["ana"],
        reviewer=people["ben"],
        models=["demo-large", "demo-small"],
    )
    ben = visit()
    desk = ben.sign_in(people["ben"])
    ben.prove(*reviewing(row), back="/approvals/")
    expect(desk.locator("#detail")).to_contain_text("Security")
    desk.get_by_role("button", name="Approve 1 hour").click()
    expect(desk.get_by_role("status").first).to_contain_text("It still waits for “Security”")
    assert not Grant.objects.filter(request=row).exists()

    security_desk = visit()
    page = security_desk.sign_in(chidi)
    security_desk.go("/approvals/")
    expect(page.locator("#detail")).to_contain_text("Ben Okafor approved")
    page.locator("#less-fold > summary").click()
    expect(page.get_by_role("button", name="Approve 1 hour")).to_be_hidden()
    page.get_by_label("For (1 hour asked)").select_option(label="30 minutes")
    page.get_by_role("checkbox", name="demo-large").uncheck()
    page.get_by_role("button", name="Approve as changed").click()
    # What was chosen is still chosen afterwards.
    security_desk.give_code()
    page.get_by_role("button", name="Approve as changed").click()
    expect(page.get_by_role("status").first).to_contain_text("Approved less: 30 minutes")
    grant = Grant.objects.get(request=row)
    assert grant.ends_at - grant.starts_at == dt.timedelta(minutes=30)
    assert grant.allowed.models == {"demo-small"}


def test_break_glass_and_its_review(visit: Visit, people: dict[str, Any], world: World) -> None:
    from accessrequests.actions import file_request

    world.policy(
        profile=people["profile"],
        break_glass={"groups": [people["profile"].requesters.slug], "max_duration": "PT30M"},
    )
    row = file_request(
        by=people["ana"],
        profile_id=people["profile"].pk,
        justification="Everything is down.",
        duration=dt.timedelta(minutes=30),
        break_glass=True,
        proofs=PROVED,
    )
    ben = visit()
    page = ben.sign_in(people["ben"])
    ben.prove(*reviewing(row), back="/approvals/")
    expect(page.locator("#queue-list")).to_contain_text("Review owed")
    expect(page.locator("#detail")).to_contain_text("This access is already on")
    page.get_by_label("Reason").fill("It was not down.")
    page.get_by_role("button", name="Deny and end it now").click()
    expect(page.get_by_role("status").first).to_contain_text("Their access has ended")
    ben.go(f"/requests/{row.pk}/")
    expect(page.get_by_role("main")).to_contain_text("ended it by the review afterwards")
    assert Grant.objects.get(request=row).end_reason == "review_denied"


@pytest.mark.slow
def test_the_desk_by_keyboard(visit: Visit, people: dict[str, Any], world: World) -> None:
    rows = [world.request(profile=people["profile"], reviewer=people["ben"]) for _ in range(4)]
    dana = world.person(people["profile"].reviewers, full_name="Dana Levi")
    ben = visit()
    page, keys = ben.sign_in(people["ben"]), ben.page.keyboard
    ben.go(f"/approvals/?request={rows[0].pk}")

    keys.press("q")
    expect(page.get_by_label(re.compile("^To Person"))).to_be_focused()
    keys.type("Which just order? a d x")
    keys.press("Control+Enter")
    expect(page.locator("#detail .story")).to_contain_text("Which just order? a d x")
    expect(page.get_by_role("status").first).to_contain_text("Asked.")
    assert rows[0].comments.get().kind == "question"

    keys.press("h")
    expect(page.get_by_label("To", exact=True)).to_be_focused()
    keys.press("Tab")
    keys.type("Yours.")
    keys.press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("Handed to Dana Levi")
    assert rows[0].hand_overs.get().to == dana

    keys.press("l")
    expect(page.get_by_label("For (1 hour asked)")).to_be_focused()
    keys.press("Escape")
    keys.press("j")
    expect(page.locator("#detail")).to_contain_text(str(rows[1].requester))
    keys.press("x")
    keys.press("ArrowDown")
    expect(page.locator("#detail")).to_contain_text(str(rows[2].requester))
    keys.press("x")
    expect(page.get_by_text("2 selected")).to_be_visible()
    keys.press("D")
    expect(page.locator("#bulk-reason")).to_be_focused()
    keys.press("Escape")
    keys.press("A")
    expect(page.get_by_role("button", name="Approve selected")).to_be_focused()
    keys.press("Enter")
    ben.give_code()
    expect(page.get_by_text("2 selected")).to_be_visible()
    keys.press("A")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="What became of them")).to_be_focused()
    expect(page.locator(".results")).to_contain_text(str(rows[2].requester))
    assert Grant.objects.filter(request__in=rows).count() == 2

    keys.press("g")
    keys.press("d")
    page.wait_for_url("**/approvals/decided/")
    expect(page.get_by_role("table")).to_contain_text(str(rows[1].requester))
    keys.press("g")
    keys.press("f")
    page.wait_for_url("**/approvals/figures/")
    keys.press("g")
    keys.press("w")
    page.wait_for_url("**/approvals/")
    keys.press("/")
    keys.type(rows[3].requester.full_name)
    expect(page.locator(f"#q-{rows[0].pk}")).to_have_count(0)
    expect(page.locator(f"#q-{rows[3].pk}")).to_be_visible()
    assert "q=" in page.url


@pytest.mark.slow
def test_what_is_typed_and_selected_outlives_an_update(
    visit: Visit, people: dict[str, Any], world: World
) -> None:
    from accessrequests.actions import review_request
    from accessrequests.models import Review

    rows = [world.request(profile=people["profile"], reviewer=people["ben"]) for _ in range(3)]
    dana = world.person(people["profile"].reviewers, full_name="Dana Levi")
    ben = visit()
    page = ben.sign_in(people["ben"])
    page.clock.install()
    ben.go("/approvals/")
    page.locator(f"#t-{rows[1].pk}").check()
    page.get_by_label("Reason").fill("Because")
    review_request(by=dana, request_id=rows[0].pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    page.clock.fast_forward(16_000)
    expect(page.locator(f"#q-{rows[0].pk}")).to_have_count(0)
    expect(page.locator("#detail-news")).to_contain_text("approved by Dana Levi")
    expect(page.locator(f"#t-{rows[1].pk}")).to_be_checked()
    expect(page.get_by_label("Reason")).to_have_value("Because")
    expect(page.get_by_label("Reason")).to_be_focused()
