"""Webhooks in a browser: made, looked at in each state, on a desk and a phone, light and dark."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from accounts.models import User
from accounts.stepup import Action, Purpose
from audit import clock
from notifications.models import Webhook, WebhookMessage
from notifications.webhooks.actions import create_webhook, disable_webhook, send_test
from tests.accounts.authenticator import authenticator
from tests.browser.conftest import Visitor
from tests.world import PASSWORD, PROVED, World

Visit = Callable[..., Visitor]
State = WebhookMessage.State
PICTURES = os.environ.get("KEYTURN_TEST_PICTURES", "")  # a folder, for whoever looks at the pages


def look(visitor: Visitor, name: str) -> None:
    assert visitor.axe() == []
    assert visitor.overflow() == 0
    if PICTURES:
        page = visitor.page
        width = page.evaluate("innerWidth")
        theme = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        Path(PICTURES).mkdir(exist_ok=True)
        page.screenshot(
            path=Path(PICTURES) / f"{name}-{width}-{'dark' if theme else 'light'}.png",
            full_page=True,
        )


def hooks(owner: User) -> list[Webhook]:
    names = ["Deploy pipeline", "Audit lake", "Chat of the on-call rota"]
    rows = [
        create_webhook(
            by=owner,
            name=name,
            url=f"http://127.0.0.1:9/hooks/{n}?source=keyturn-production-eu-central-1",
            types=["access_request.approved", "grant.ended", "credential.revoked"][: n + 1],
            proofs=PROVED,
        )[0]
        for n, name in enumerate(names)
    ]
    well, failing, off = rows
    now = clock.now()
    for n in range(4):
        row = send_test(by=owner, webhook_id=well.pk)
        row.tries.create(status=204, milliseconds=34 + n)
        row.state, row.delivered_at = State.DELIVERED, now
        row.save()
    Webhook.objects.filter(pk=well.pk).update(delivered_at=now)
    for n in range(3):
        row = send_test(by=owner, webhook_id=failing.pk)
        row.tries.create(status=503, milliseconds=812, error="It answered with 503.")
        row.tries.create(milliseconds=10_004, error="127.0.0.1 gave no answer within 10 s.")
        row.attempts, row.next_attempt_at = 2, now + dt.timedelta(minutes=5 + n)
        row.save()
    send_test(by=owner, webhook_id=failing.pk)
    Webhook.objects.filter(pk=failing.pk).update(
        failing_since=now - dt.timedelta(hours=3), held_until=now + dt.timedelta(minutes=4)
    )
    disable_webhook(by=owner, webhook_id=off.pk)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phone", "dark"), [(False, False), (True, True), (False, True), (True, False)]
)
def test_one_is_made_and_looked_at(visit: Visit, world: World, phone: bool, dark: bool) -> None:
    ana = world.person(full_name="Ana Lima", password=PASSWORD)
    authenticator(ana)
    visitor = visit(phone=phone, dark=dark)
    visitor.sign_in(ana)
    visitor.go("/webhooks/")
    look(visitor, "webhooks-none")
    world.person(owner=ana, full_name="Nightly build")
    visitor.prove(Purpose(Action.WEBHOOK), back="/webhooks/new/")
    visitor.page.locator("#id_url").fill("http://169.254.169.254/latest/")
    visitor.page.locator("#id_name").fill("Deploy pipeline")
    visitor.page.locator("details.fold summary", has_text="Grant").first.click()
    visitor.page.get_by_label("grant.ended").check()
    visitor.page.get_by_role("button", name="Make the webhook").click()
    visitor.page.get_by_text("may not be called from here").wait_for()
    look(visitor, "webhook-new")
    visitor.page.locator("#id_url").fill("http://127.0.0.1:9/")
    visitor.page.get_by_role("button", name="Make the webhook").click()
    visitor.page.get_by_role("button", name="Copy the signing secret").wait_for()
    look(visitor, "webhook-secret")
    Webhook.objects.filter(owner=ana).delete()
    well, failing, off = hooks(ana)
    visitor.go("/webhooks/")
    look(visitor, "webhooks")
    visitor.go(f"/webhooks/{well.pk}/")
    look(visitor, "webhook")
    visitor.go(f"/webhooks/{failing.pk}/")
    visitor.page.locator("details.webhook-message summary").nth(1).click()
    look(visitor, "webhook-failing")
    visitor.go(f"/webhooks/{off.pk}/")
    look(visitor, "webhook-disabled")
