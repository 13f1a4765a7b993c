"""Webhooks in the portal and by the API: whose they are, what is shown once, what is refused."""

import json
import re

import pytest
from django.test import Client
from django.utils.html import escape

from accounts.models import User
from accounts.stepup import Action, Purpose
from audit.models import AuditEvent
from broker.errors import Conflict, StepUpNeeded
from notifications.models import Webhook, WebhookMessage
from notifications.webhooks.actions import MOST, create_webhook, send_test
from notifications.webhooks.telling import tell
from tests.api.callers import Caller
from tests.world import PROVED, World, prove

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def ana(world: World) -> User:
    return world.person(full_name="Ana Lima")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_one_is_made_with_a_second_factor_and_its_secret_is_shown_once(
    ana: User, world: World
) -> None:
    client = client_of(ana)
    service = world.person(owner=ana, full_name="Nightly build")
    form = {"name": "CI", "url": URL, "types": ["grant.ended"], "owner": service.email}
    assert client.post("/webhooks/new/", form)["Location"].startswith("/step-up/")
    assert not Webhook.objects.exists()
    prove(client, Purpose(Action.WEBHOOK))
    typed = client.get("/webhooks/new/").content.decode()
    assert escape(URL) in typed, "what was typed is there again"
    answer = client.post("/webhooks/new/", form)
    secret = re.search(r"whsec_[A-Za-z0-9+/=]{44}", answer.content.decode())
    assert secret is not None
    assert "no-store" in answer["Cache-Control"]
    row = Webhook.objects.get()
    assert (row.owner, row.types) == (service, ["grant.ended"])
    for path in ("/webhooks/", f"/webhooks/{row.pk}/", f"/api/v1/webhooks/{row.pk}/"):
        text = client.get(path).content.decode()
        assert "CI" in text
        assert "whsec_" not in text
        assert row.sealed not in text
    record = json.dumps(list(AuditEvent.objects.about(row.pk).values("data")))
    assert "whsec" not in record
    assert row.sealed not in record


def test_the_log_of_one(ana: User) -> None:
    row, _ = create_webhook(by=ana, name="CI", url=URL, proofs=PROVED)
    message = send_test(by=ana, webhook_id=row.pk)
    message.tries.create(status=500, milliseconds=12, error="It answered with 500.")
    client = client_of(ana)
    text = client.get(f"/webhooks/{row.pk}/").content.decode()
    assert "webhook.test" in text
    assert "500 in 12 ms" in text
    assert "webhook.test" not in client.get(f"/webhooks/{row.pk}/?state=given_up").content.decode()
    WebhookMessage.objects.update(state="given_up")
    client.post(f"/webhooks/messages/{message.pk}/replay/")
    message.refresh_from_db()
    assert message.state == "due"
    since = {"since": "2026-01-01T00:00", "delivered": "1"}
    WebhookMessage.objects.update(state="withdrawn")
    client.post(f"/webhooks/{row.pk}/replay/", since)
    message.refresh_from_db()
    assert message.state == "due"
    client.post(f"/webhooks/{row.pk}/disable/")
    message.refresh_from_db()
    assert message.state == "withdrawn"
    assert "Ana Lima disabled it." in client.get(f"/webhooks/{row.pk}/").content.decode()
    assert client.post(f"/webhooks/{row.pk}/test/").status_code == 409
    client.post(f"/webhooks/{row.pk}/enable/")
    assert client.post(f"/webhooks/{row.pk}/delete/")["Location"] == "/webhooks/"
    assert not Webhook.objects.exists()


def test_a_right_that_is_lost_is_lost_in_the_log(ana: User, world: World) -> None:
    User.objects.filter(pk=ana.pk).update(is_auditor=True)
    row, _ = create_webhook(by=User.objects.get(pk=ana.pk), name="All", url=URL, proofs=PROVED)
    theirs, mine = world.person(), world.person(owner=ana)
    while tell():
        pass
    send_test(by=ana, webhook_id=row.pk)

    def shown() -> tuple[list[str], str]:
        user = User.objects.get(pk=ana.pk)
        answer = Caller(user).get("webhook-messages/", webhook=str(row.pk), limit=200)
        found = {each["id"]: each["payload"] for each in answer.json()["results"]}
        for pk, payload in found.items():
            assert Caller(user).get(f"webhook-messages/{pk}/").json()["payload"] == payload
        page = client_of(user).get(f"/webhooks/{row.pk}/").content.decode()
        return sorted(each["type"] for each in found.values() if each is not None), page

    types, page = shown()
    assert types == ["user.created", "user.created", "webhook.test"]
    assert theirs.email in page
    User.objects.filter(pk=ana.pk).update(is_auditor=False)
    types, page = shown()
    assert types == ["user.created", "webhook.test"]
    assert mine.email in page
    assert theirs.email not in page
    assert "You may not see what it tells of any more." in page
    [message] = row.messages.filter(event_id=AuditEvent.objects.about(theirs.pk).get().pk)
    replayed = Caller(ana).post(f"webhook-messages/{message.pk}/replay/")
    assert (replayed.status_code, replayed.json()["payload"]) == (202, None)
    message.refresh_from_db()
    assert message.payload["data"]["subject"]["id"] == str(theirs.pk), "it is shown less, not lost"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254/latest/", "may not be called from here"),
        ("http://[::ffff:169.254.169.254]/", "may not be called from here"),
        ("http://2852039166/", "may not be called from here"),
        ("ftp://example.com/", "Only http and https"),
        ("https://ana:pw@example.com/", "no user and no password"),
        ("http://93.184.216.34/", "by https alone"),
        ("https://example.com/ x", "printable ASCII"),
    ],
)
def test_a_url_that_may_not_be_called(url: str, said: str, ana: User) -> None:
    caller = Caller(ana)
    caller.prove(Purpose(Action.WEBHOOK))
    answer = caller.post("webhooks/", {"name": "x", "url": url, "types": ["grant.begun"]})
    assert answer.status_code == 400
    answer = caller.post("webhooks/", {"name": "x", "url": url})
    [error] = answer.json()["errors"]
    assert error["field"] == "url"
    assert said in error["message"]
    assert not Webhook.objects.exists()


def test_what_takes_a_second_factor_and_what_does_not(ana: User) -> None:
    row, _ = create_webhook(by=ana, name="CI", url=URL, proofs=PROVED)
    caller = Caller(ana)
    path = f"webhooks/{row.pk}/"
    for verb, body in (("", {"url": URL + "2"}), ("rotate-secret/", {"overlap": 0})):
        answer = caller.send("POST" if verb else "PATCH", path + verb, json.dumps(body))
        assert answer.json()["code"] == "step-up-needed"
        assert answer.json()["purposes"] == [f"webhook:{row.pk}"]
    caller.prove(Purpose(Action.WEBHOOK, str(row.pk)))
    assert caller.send("PATCH", path, json.dumps({"url": URL + "2"})).json()["url"] == URL + "2"
    first = caller.post(path + "rotate-secret/", {})
    assert first.json()["secret"].startswith("whsec_")
    assert first["Cache-Control"] == "no-store"
    row.refresh_from_db()
    assert row.earlier_until is not None
    assert caller.post(path + "rotate-secret/", {"overlap": 0}).json()["earlier_until"] is None
    assert caller.post(path + "rotate-secret/", {"overlap": 604_801}).status_code == 400
    assert caller.send("PATCH", path, json.dumps({"sealed": "vault:x"})).status_code == 400


def test_an_owner_has_so_many_and_only_their_own(ana: User, world: World) -> None:
    for _ in range(MOST):
        create_webhook(by=ana, name="CI", url=URL, proofs=PROVED)
    with pytest.raises(Conflict, match=str(MOST)):
        create_webhook(by=ana, name="CI", url=URL, proofs=PROVED)
    with pytest.raises(StepUpNeeded):
        create_webhook(by=world.person(), name="CI", url=URL)
    other = world.person(owner=world.person())
    caller = Caller(ana)
    caller.prove(Purpose(Action.WEBHOOK))
    said = {"name": "x", "url": URL, "owner": other.email}
    assert caller.post("webhooks/", said).json()["errors"][0]["field"] == "owner"


def test_messages_by_filter(ana: User) -> None:
    one, _ = create_webhook(by=ana, name="CI", url=URL, proofs=PROVED)
    two, _ = create_webhook(by=ana, name="CD", url=URL, proofs=PROVED)
    for row in (one, one, two):
        send_test(by=ana, webhook_id=row.pk).tries.create(milliseconds=1, error="x")
    caller = Caller(ana, "token")
    found = caller.get(f"webhook-messages/?webhook={one.pk}&state=due").json()["results"]
    assert len(found) == 2
    assert found[0]["attempts"][0]["error"] == "x"
    assert caller.get("webhook-messages/?state=delivered").json()["results"] == []
