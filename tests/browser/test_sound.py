"""Every page by axe against WCAG 2.2 AA, light and dark, at 1440 and 390 pixels, and its width."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from accessrequests.actions import comment, hand_over, review_request
from accessrequests.models import AccessRequest, Comment, Review
from accounts.models import User
from notifications.actions import mark_read
from notifications.kinds import Kind
from notifications.outbox import notify
from tests.accounts.authenticator import code
from tests.browser.conftest import Visitor
from tests.world import PASSWORD, PROVED, World


@pytest.fixture
def pages(world: World, committed: None) -> tuple[Any, Any, dict[str, str]]:
    name = "Claims triage and payout recommendation for the northern region"
    endpoint = world.endpoint(
        name=name, risk="critical", connected_systems=["Claims ledger", "Payout queue"]
    )
    profile = world.profile(
        endpoint=endpoint,
        models=["claims-ranker-2026-09-instruct-long-context", "claims-embed"],
        description="Replay one claim with its tools switched off.",
    )
    other = world.profile(requesters=profile.requesters, reviewers=profile.reviewers)
    ana = world.person(
        profile.requesters,
        other.reviewers,
        password=PASSWORD,
        full_name="Maximiliane Freifrau von Hohenstein-Wetterau",
        is_auditor=True,
    )
    ben = world.person(profile.reviewers, full_name="Ben Okafor")
    grant = world.grant(profile=profile, requester=ana, reviewer=ben)
    ended = world.grant(profile=other, requester=ana, reviewer=ben, ended=True)
    pending = world.request(profile=profile, requester=ana, reviewer=ben)
    waiting = world.request(profile=other, reviewer=ben)
    told(ana, pending)
    by_me, by_ben = (world.request(profile=other, reviewer=ben) for _ in range(2))
    review_request(by=ana, request_id=by_me.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    review_request(
        by=ben, request_id=by_ben.pk, verdict=Review.Verdict.DENY, reason="No.", proofs=PROVED
    )
    comment(by=ben, request_id=waiting.pk, text="What for?", kind=Comment.Kind.QUESTION)
    hand_over(by=ben, request_id=waiting.pk, to=ana.email, note="Yours.")
    policy = world.policy(profile=profile)
    paths = {
        "home": "/",
        "requests": "/requests/",
        "catalogue": "/catalogue/",
        "nothing found": "/catalogue/?q=zzzz",
        "endpoint": f"/endpoints/{endpoint.slug}/",
        "asking": f"/request/{profile.pk}/",
        "request": f"/requests/{pending.pk}/",
        "deciding": f"/requests/{waiting.pk}/",
        "approvals": "/approvals/",
        "decided": "/approvals/decided/",
        "decided without": "/approvals/others/",
        "figures": "/approvals/figures/",
        "grant": f"/grants/{grant.pk}/",
        "ended": f"/grants/{ended.pk}/",
        "record": "/record/",
        "policies": "/policies/",
        "policy": f"/policies/{policy.slug}/?version=1",
        "notifications": "/notifications/",
        "notification settings": "/settings/notifications/",
        "event": "/record/1/",
        "problem": "/grants/00000000-0000-0000-0000-000000000000/",
        "404": "/no/such/page",
    }
    return ana, world.person(password=PASSWORD), paths


def told(person: User, request: AccessRequest) -> None:
    """Some notifications, one of them read."""
    long = "Claims triage and payout recommendation for the northern region"
    with transaction.atomic():
        for kind, sentence in (
            (Kind.DECIDED, f"You have 1 hour on {long}"),
            (Kind.QUESTION, f"Ben Okafor asks about your request for 1 hour on {long}"),
            (Kind.REVIEW_WANTED, "Mei Tanaka asks for 4 hours on Support assistant"),
            (Kind.BREAK_GLASS, f"Mei Tanaka took 30 minutes on {long} before a review"),
        ):
            notify(
                kind,
                to=[person],
                about=request,
                path=f"/requests/{request.pk}/",
                sentence=sentence,
                facts=[("Profile", "Debug"), ("Models", "demo-large, demo-small")],
                quote="Customer says the refund tool was called twice for order 88214.",
            )
    [read] = person.notifications.filter(subject_id=request.pk, kind=Kind.DECIDED)
    mark_read(by=person, notification_id=read.pk)


@pytest.mark.parametrize(
    ("phone", "dark"),
    [
        # The look that the journeys don't have: they are in light, on a wide page.
        pytest.param(True, True, id="390-dark"),
        pytest.param(False, False, id="1440-light", marks=pytest.mark.slow),
        pytest.param(False, True, id="1440-dark", marks=pytest.mark.slow),
        pytest.param(True, False, id="390-light", marks=pytest.mark.slow),
    ],
)
def test_every_page(visit: Callable[..., Visitor], pages: Any, phone: bool, dark: bool) -> None:
    ana, newcomer, paths = pages
    found: list[str] = []

    def look(visitor: Visitor, name: str) -> None:
        found.extend(f"{name}: {line}" for line in visitor.axe())
        found.extend(f"{name}: {line}" for line in visitor.data_images())
        if over := visitor.overflow():
            found.append(f"{name}: {over} px too wide")

    guest = visit(phone=phone, dark=dark)
    guest.go("/sign-in/")
    look(guest, "sign-in")
    guest.page.get_by_role("button", name="Sign in", exact=True).click()
    look(guest, "sign-in with errors")

    visitor = visit(phone=phone, dark=dark)
    visitor.sign_in(ana)
    for name, path in paths.items():
        visitor.go(path)
        look(visitor, name)
    visitor.go(paths["asking"])
    visitor.page.get_by_role("button", name="Ask for access").click()
    look(visitor, "asking with errors")
    visitor.go(paths["approvals"])
    visitor.page.locator("[name=requests]").first.check()
    for fold in visitor.page.locator("#detail .fold > summary").all():
        fold.click()
    visitor.page.locator("[name=models]").first.uncheck()
    look(visitor, "approvals, all open")
    visitor.go(paths["approvals"])
    visitor.page.get_by_role("button", name="Deny").click()
    visitor.page.get_by_text("Say why").wait_for()
    look(visitor, "denying with errors")
    visitor.page.locator("details.menu summary").click()
    look(visitor, "menu")
    visitor.page.get_by_role("button", name="Keyboard").last.click()
    look(visitor, "keyboard")
    visitor.go(paths["grant"])
    visitor.page.get_by_role("button", name="Get credential").click()
    visitor.page.wait_for_url("**/step-up/**")
    look(visitor, "step-up")
    visitor.give_code()
    visitor.page.get_by_role("button", name="Get credential").click()
    visitor.page.locator("#secret-value").wait_for()
    look(visitor, "secret")

    empty = visit(phone=phone, dark=dark)
    empty.sign_in(newcomer)
    for name in ("home", "catalogue", "approvals", "figures", "requests", "notifications"):
        empty.go(paths[name])
        look(empty, f"empty {name}")
    empty.go("/step-up/")
    look(empty, "step-up without a factor")
    empty.go("/settings/factor/")
    look(empty, "no factor")
    empty.page.get_by_role("button", name="Set up an app").click()
    look(empty, "setting a factor up")
    secret = base64.b32decode(empty.page.locator("#secret-value").inner_text().replace("\n", ""))
    empty.page.get_by_role("textbox", name="Code").fill(code(secret))
    empty.page.get_by_role("button", name="Finish").click()
    empty.page.get_by_role("heading", name="Keep these recovery codes").wait_for()
    empty.go("/settings/factor/")
    look(empty, "factor")
    empty.go("/step-up/?next=/requests/")
    empty.page.get_by_role("textbox", name="Code", exact=True).fill("12")
    empty.page.get_by_role("button", name="Prove it").click()
    look(empty, "step-up with errors")
    assert not found, "\n".join(found)
