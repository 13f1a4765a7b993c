"""From what happens to a verified POST, whatever the receivers do."""

import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from accessrequests.states import EndReason
from accounts.models import User
from audit.context import Origin, working_for
from broker.errors import InvalidInput
from credentials.actions import end_grant
from endpoints import outgoing
from notifications.models import (
    Notification,
    Untold,
    Webhook,
    WebhookAttempt,
    WebhookMessage,
)
from notifications.webhooks import delivery
from notifications.webhooks.actions import (
    change_webhook,
    disable_webhook,
    replay_message,
    replay_since,
    rotate_secret,
    send_test,
)
from notifications.webhooks.posting import TIMEOUT, Outcome
from notifications.webhooks.telling import tell
from tests.invariants.races import at_once
from tests.webhooks.conftest import Make
from tests.webhooks.receiver import Receiver, answer
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("committed")
State = WebhookMessage.State
Work = Callable[[], int]


def messages(webhook: Webhook) -> list[WebhookMessage]:
    return list(WebhookMessage.objects.filter(webhook=webhook).order_by("id"))


def later(webhook: Webhook, **by: float) -> None:
    """As if so much time had gone by."""
    ago = dt.timedelta(**by)
    webhook.messages.update(
        next_attempt_at=F("next_attempt_at") - ago, give_up_at=F("give_up_at") - ago
    )
    Webhook.objects.filter(pk=webhook.pk).update(
        held_until=F("held_until") - ago,
        failing_since=F("failing_since") - ago,
        claimed_until=F("claimed_until") - ago,
        earlier_until=F("earlier_until") - ago,
    )


def test_what_happens_arrives_signed(
    hook: Make, work: Work, world: World, receiver: Receiver
) -> None:
    profile = world.profile()
    requester = world.person(profile.requesters)
    webhook, path, secret = hook(requester)
    grant = world.grant(profile=profile, requester=requester)
    end_grant(grant_id=grant.pk, by=requester, reason=EndReason.GIVEN_BACK)
    work()
    came = receiver.verified(path, secret)
    assert [each["type"] for each in came] == [
        "access_request.filed",
        "access_request.approved",
        "grant.started",
        "grant.ended",
    ]
    last = came[-1]["data"]
    assert last["subject"]["id"] == str(grant.pk)
    assert last["subject"]["url"].endswith(f"/api/v1/grants/{grant.pk}/")
    assert last["actor"] == {"id": str(requester.pk), "name": str(requester)}
    rows = messages(webhook)
    assert {row.state for row in rows} == {State.DELIVERED}
    assert [headers["webhook-id"] for headers, _ in receiver.at(path)] == [
        str(row.pk) for row in rows
    ]
    assert not Untold.objects.exists()
    webhook.refresh_from_db()
    assert webhook.quick
    assert work() == 0


def test_it_says_what_its_owner_may_see_and_nothing_else(
    hook: Make, work: Work, world: World, receiver: Receiver
) -> None:
    endpoint = world.endpoint()
    profile = world.profile(endpoint=endpoint)
    requester = world.person(profile.requesters)
    everybody = {
        "requester": requester,
        "teammate": world.person(profile.requesters),
        "endpoint owner": endpoint.owner,
        "auditor": world.person(is_auditor=True),
        "stranger": world.person(),
    }
    hooks = {who: hook(person, types=TYPES_HERE) for who, person in everybody.items()}
    world.grant(profile=profile, requester=requester)
    work()
    told = {
        who: [each["type"] for each in receiver.verified(path, secret)]
        for who, (_, path, secret) in hooks.items()
    }
    assert told == {
        "requester": TYPES_HERE,
        "teammate": [],
        "endpoint owner": ["grant.started"],
        "auditor": TYPES_HERE,
        "stranger": [],
    }


TYPES_HERE = ["access_request.filed", "grant.started"]


def test_a_service_accounts_owner_is_told_and_only_while_both_are_active(
    hook: Make, work: Work, world: World, receiver: Receiver
) -> None:
    profile = world.profile()
    person = world.person()
    service = world.person(profile.requesters, owner=person)
    own, own_path, own_secret = hook(service)
    _, persons_path, persons_secret = hook(person, types=["access_request.filed"])
    world.request(profile=profile, requester=service)
    work()
    assert len(receiver.verified(own_path, own_secret)) == 1
    assert len(receiver.verified(persons_path, persons_secret)) == 1
    world.request(profile=world.profile(requesters=profile.requesters), requester=service)
    with working_for(Origin(via="worker")):
        tell()
    assert [row.state for row in messages(own)] == [State.DELIVERED, State.DUE]
    User.objects.filter(pk=person.pk).update(is_active=False)
    work()
    assert [row.state for row in messages(own)] == [State.DELIVERED, State.WITHDRAWN]
    assert len(receiver.at(own_path)) == len(receiver.at(persons_path)) == 1


def test_a_right_lost_between_the_event_and_the_delivery(
    hook: Make, work: Work, world: World, receiver: Receiver
) -> None:
    auditor = world.person(is_auditor=True)
    webhook, path, _ = hook(auditor, types=["access_request.filed"])
    world.request()
    tell()
    assert len(messages(webhook)) == 1
    User.objects.filter(pk=auditor.pk).update(is_auditor=False)
    work()
    assert [row.state for row in messages(webhook)] == [State.WITHDRAWN]
    assert receiver.at(path) == []


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        (answer(500, b"sk-very-secret"), 500, "It answered with 500."),
        (
            answer(302, Location="http://169.254.169.254/latest/"),
            302,
            "It answered with 302: redirects are not followed.",
        ),
        (answer(400), 400, "It answered with 400."),
        (lambda handler: handler.connection.close(), None, "127.0.0.1 broke off"),
    ],
    ids=["500", "redirect", "400", "cut"],
)
def test_what_is_not_taken_is_tried_again_under_the_same_id(
    said: Any, status: int | None, error: str, hook: Make, work: Work, receiver: Receiver
) -> None:
    webhook, path, secret = hook()
    receiver.answers[path] = said
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    [row] = messages(webhook)
    tried = row.tries.get()
    assert (row.state, row.attempts, tried.status) == (State.DUE, 1, status)
    assert tried.error.startswith(error)
    assert "secret" not in tried.error
    assert work() == 0, "it waits"
    del receiver.answers[path]
    later(webhook, seconds=6)
    assert work() == 1
    [row] = messages(webhook)
    assert row.state == State.DELIVERED
    assert len({headers["webhook-id"] for headers, _ in receiver.at(path)}) == 1
    assert len(receiver.verified(path, secret)) == 2


def test_500_for_an_hour_and_for_a_day(
    hook: Make, work: Work, world: World, receiver: Receiver
) -> None:
    webhook, path, _ = hook(world.person(is_auditor=True), types=["access_request.filed"])
    receiver.answers[path] = answer(500)
    world.request()
    for pause in [dt.timedelta(0), *delivery.PAUSES[:3]]:  # 35 minutes and 5 seconds
        later(webhook, seconds=pause.total_seconds())
        assert work() == 1
    [row] = messages(webhook)
    assert (row.state, row.attempts) == (State.DUE, 4)
    later(webhook, hours=2)
    del receiver.answers[path]
    assert work() == 1
    [row] = messages(webhook)
    assert row.state == State.DELIVERED

    receiver.answers[path] = answer(500)
    world.request()
    work()
    for pause in delivery.PAUSES:
        later(webhook, seconds=pause.total_seconds())
        assert work() == 1
    _, row = messages(webhook)
    assert (row.state, row.attempts, row.tries.count()) == (State.GIVEN_UP, 8, 8)
    assert sum(delivery.PAUSES, dt.timedelta()) < dt.timedelta(days=1)


def test_retry_after_is_honoured_within_the_day(
    hook: Make, work: Work, receiver: Receiver, world: World
) -> None:
    webhook, path, _ = hook(world.person(is_auditor=True), types=["access_request.filed"])
    receiver.answers[path] = answer(429, Retry_After="1800")
    world.request()
    work()
    later(webhook, minutes=29)
    assert work() == 0
    later(webhook, minutes=2)
    receiver.answers[path] = answer(503, Retry_After="1000000000000")
    assert work() == 1
    assert messages(webhook)[0].state == State.GIVEN_UP


def test_a_date_that_no_clock_has_is_no_pause(hook: Make, work: Work, receiver: Receiver) -> None:
    webhook, path, _ = hook()
    far = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"
    receiver.answers[path] = answer(503, Retry_After=far)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    assert messages(webhook)[0].tries.get().status == 503
    webhook.refresh_from_db()
    assert webhook.failures == 1


def test_410_disables_at_once_and_tells_its_owner(
    hook: Make, work: Work, receiver: Receiver
) -> None:
    webhook, path, _ = hook()
    receiver.answers[path] = answer(410)
    for _ in range(3):
        send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    webhook.refresh_from_db()
    assert "410" in webhook.disabled_because
    assert {row.state for row in messages(webhook)} == {State.WITHDRAWN}
    assert len(receiver.at(path)) == 1
    notice = Notification.objects.get(person=webhook.owner, kind="webhook_disabled")
    assert notice.path == f"/webhooks/{webhook.pk}/"


def test_what_was_changed_while_a_message_went_stays(hook: Make) -> None:
    before, *_ = hook()
    by, pk, message = before.owner, before.pk, send_test(by=before.owner, webhook_id=before.pk)
    gone = Outcome(410, 5, "It answered with 410.")
    change_webhook(by=by, webhook_id=pk, url=before.url + "/moved", proofs=PROVED)
    delivery.settle(before, message, gone)
    after = Webhook.objects.get(pk=pk)
    assert (after.disabled_at, after.failures) == (None, 0), "that is what the other receiver said"
    disable_webhook(by=by, webhook_id=pk)
    delivery.settle(after, message, gone)
    after.refresh_from_db()
    assert after.disabled_because == f"{by} disabled it."
    assert not Notification.objects.filter(person=by).exists()
    assert message.tries.count() == 2


def test_five_days_of_nothing_but_failure_disable_it(
    hook: Make, work: Work, receiver: Receiver
) -> None:
    webhook, path, _ = hook()
    receiver.answers[path] = answer(500)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    later(webhook, days=5, hours=1)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    webhook.refresh_from_db()
    assert webhook.disabled_at is None, "one message of long ago isn't enough"
    Webhook.objects.filter(pk=webhook.pk).update(failures=9)
    later(webhook, seconds=11)
    work()
    webhook.refresh_from_db()
    assert webhook.disabled_because == "Nothing was taken for 5 days."


def test_a_huge_answer_is_not_read(hook: Make, work: Work, receiver: Receiver) -> None:
    webhook, path, _ = hook()
    receiver.answers[path] = answer(200, b"x" * 20_000_000)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    assert [row.state for row in messages(webhook)] == [State.DELIVERED]


def test_a_name_that_turns_private_after_it_was_entered(
    hook: Make,
    work: Work,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["93.184.216.34"])

    def look_up(host: str, port: int, family: Any) -> Any:
        address = next(answers, "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(outgoing, "look_up", look_up)
    webhook, *_ = hook(url="https://rebinds.example/hook")
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    [row] = messages(webhook)
    tried = row.tries.get()
    assert (row.state, tried.status) == (State.DUE, None)
    assert "may not be called from here" in tried.error


def test_what_is_inside_is_called_for_administrators_alone(
    hook: Make, work: Work, world: World, receiver: Receiver, settings: Any
) -> None:
    owner = world.person(is_administrator=True)
    service = world.person(owner=owner)
    settings.KEYTURN_WEBHOOK_NETWORKS = ["public"]
    webhook, path, _ = hook(owner=service)
    send_test(by=owner, webhook_id=webhook.pk)
    work()
    assert len(receiver.at(path)) == 1
    # By the role of now: what was entered before is no way to keep on looking.
    User.objects.filter(pk=owner.pk).update(is_administrator=False)
    send_test(by=owner, webhook_id=webhook.pk)
    work()
    refused = webhook.messages.get(state=State.DUE).tries.get()
    assert "may not be called from here (KEYTURN_WEBHOOK_NETWORKS)" in refused.error
    assert len(receiver.at(path)) == 1
    with pytest.raises(InvalidInput, match="KEYTURN_WEBHOOK_NETWORKS"):
        hook(owner=User.objects.get(pk=owner.pk))
    # What workers may not call at all, no list for webhooks opens.
    settings.KEYTURN_OUTGOING_NETWORKS = ["public"]
    settings.KEYTURN_WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    with pytest.raises(InvalidInput, match="KEYTURN_OUTGOING_NETWORKS"):
        hook()


def test_both_secrets_sign_while_they_overlap(hook: Make, work: Work, receiver: Receiver) -> None:
    webhook, path, old = hook()
    _, new = rotate_secret(by=webhook.owner, webhook_id=webhook.pk, proofs=PROVED)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    assert len(receiver.verified(path, old)) == len(receiver.verified(path, new)) == 1
    later(webhook, days=1, minutes=1)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    headers, body = receiver.at(path)[-1]
    Verifier(new).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(body, headers)
    rotate_secret(by=webhook.owner, webhook_id=webhook.pk, overlap=dt.timedelta(0), proofs=PROVED)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    headers, body = receiver.at(path)[-1]
    with pytest.raises(WebhookVerificationError):
        Verifier(new).verify(body, headers)


def test_replays_keep_their_ids(hook: Make, work: Work, world: World, receiver: Receiver) -> None:
    webhook, path, secret = hook(world.person(is_auditor=True), types=["access_request.filed"])
    world.request()
    world.request()
    work()
    first, _ = messages(webhook)
    replay_message(by=webhook.owner, message_id=first.pk)
    work()
    assert receiver.at(path)[-1][0]["webhook-id"] == str(first.pk)
    assert replay_since(by=webhook.owner, webhook_id=webhook.pk, since=first.at) == 0
    assert (
        replay_since(by=webhook.owner, webhook_id=webhook.pk, since=first.at, delivered=True) == 2
    )
    work()
    ids = [headers["webhook-id"] for headers, _ in receiver.at(path)]
    assert len(ids) == 5
    assert len(set(ids)) == 2
    assert len(receiver.verified(path, secret)) == 5


def test_a_worker_killed_before_it_notes_the_outcome(
    hook: Make, work: Work, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook, path, secret = hook()
    send_test(by=webhook.owner, webhook_id=webhook.pk)

    class Killed(BaseException):
        pass

    def settle(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "settle", settle)
        patch.setattr(delivery.Turn, "_mine", lambda _: Webhook.objects.none())
        with pytest.raises(Killed):
            work()
    assert work() == 0, "it's the dead worker's for a while"
    later(webhook, minutes=1, seconds=1)
    assert work() == 1
    assert [row.state for row in messages(webhook)] == [State.DELIVERED]
    assert len(receiver.verified(path, secret)) == 2
    assert len({headers["webhook-id"] for headers, _ in receiver.at(path)}) == 1


def test_workers_at_once_send_each_message_once(hook: Make, role: Any, receiver: Receiver) -> None:
    hooks = [hook() for _ in range(4)]
    for webhook, *_ in hooks:
        for _ in range(5):
            send_test(by=webhook.owner, webhook_id=webhook.pk)
    with role("worker"):
        at_once([delivery.deliver] * 6)
    for webhook, path, _ in hooks:
        assert [row.state for row in messages(webhook)] == [State.DELIVERED] * 5
        ids = [headers["webhook-id"] for headers, _ in receiver.at(path)]
        assert sorted(ids) == sorted(str(row.pk) for row in messages(webhook))


def test_nobodys_webhooks_have_all_threads(hook: Make, world: World, role: Any) -> None:
    many = world.person()
    service = world.person(owner=many)
    for number in range(10):
        row, *_ = hook((many, service)[number % 2])
        send_test(by=many, webhook_id=row.pk)
    one, *_ = hook()
    send_test(by=one.owner, webhook_id=one.pk)
    with role("worker"), working_for(Origin(via="worker")):
        turns = delivery.claim(quick=False, most=delivery.THREADS)
        assert len(turns) == delivery.OF_ONE + 1
        assert one.pk in {turn.webhook for turn in turns}, "others come before the ninth of one"
        assert delivery.claim(quick=False, most=delivery.THREADS) == []
        for turn in turns:
            turn.take()
        assert len(delivery.claim(quick=False, most=delivery.THREADS)) == 2


@pytest.mark.slow
def test_thirty_dead_receivers_make_no_other_delivery_late(
    hook: Make, work: Work, role: Any, world: World, receiver: Receiver
) -> None:
    """They take connections and never answer. Each holds a thread for 10 s, and there are more of
    them than threads; one whose receiver answers waits for none."""
    well, path, secret = hook()
    owner = world.person()
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(100)
        url = f"http://127.0.0.1:{dead.getsockname()[1]}/"
        ill = [
            hook(owner if i < 20 else None, url=url, types=["grant.ended"])[0] for i in range(30)
        ]
        send_test(by=well.owner, webhook_id=well.pk)
        work()
        for webhook in ill:
            for _ in range(3):
                send_test(by=webhook.owner, webhook_id=webhook.pk)
        with role("worker"), working_for(Origin(via="worker")):
            _meet(well)
    assert len(receiver.verified(path, secret)) == 4
    wait_for_threads()


def _meet(well: Webhook) -> None:
    lanes = [delivery.Lane(quick=True), delivery.Lane(quick=False)]
    assert lanes[1].go() == delivery.THREADS
    assert lanes[1].go() == 0
    began = time.monotonic()
    for _ in range(3):
        send_test(by=well.owner, webhook_id=well.pk)
        assert lanes[0].go() == 1
        while WebhookMessage.objects.filter(webhook=well, state=State.DUE).exists() or (
            Webhook.objects.get(pk=well.pk).claimed_until is not None
        ):
            assert time.monotonic() - began < TIMEOUT, "it waited for the dead"
            time.sleep(0.02)
    assert lanes[1].go() == 0, "the dead are at it still"


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "webhook":
            thread.join(30)


def test_while_one_fails_its_queue_is_one_try_at_a_time(
    hook: Make, work: Work, receiver: Receiver
) -> None:
    webhook, path, _ = hook()
    receiver.answers[path] = answer(500)
    for _ in range(12):
        send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    assert len(receiver.at(path)) == 1
    later(webhook, seconds=6)
    work()
    assert len(receiver.at(path)) == 2
    del receiver.answers[path]
    later(webhook, seconds=11)
    work()
    assert not webhook.messages.filter(state=State.DUE, attempts=0).exists()


def test_vault_away_counts_as_no_try(
    hook: Make, receiver: Receiver, settings: Any, role: Any
) -> None:
    webhook, path, _ = hook()
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    # Web may not unseal: to the code it's all one.
    with role("web"):
        delivery.deliver()
    [row] = messages(webhook)
    assert (row.state, row.attempts) == (State.DUE, 0)
    assert receiver.at(path) == []
    assert not WebhookAttempt.objects.filter(message=row).exists()


def test_no_secret_is_in_the_database(hook: Make, work: Work, receiver: Receiver) -> None:
    webhook, _, secret = hook()
    _, new = rotate_secret(by=webhook.owner, webhook_id=webhook.pk, proofs=PROVED)
    send_test(by=webhook.owner, webhook_id=webhook.pk)
    work()
    change_webhook(by=webhook.owner, webhook_id=webhook.pk, name="Other")
    tables = ("webhook", "webhookmessage", "webhookattempt", "untold")
    with connection.cursor() as cursor:
        for table in (*(f"notifications_{name}" for name in tables), "audit_auditevent"):
            cursor.execute(f"SELECT json_agg(t)::text FROM {table} t")  # noqa: S608
            text = cursor.fetchone()[0] or ""
            for each in (secret, new):
                assert each.removeprefix("whsec_") not in json.dumps(text)
