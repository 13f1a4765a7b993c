"""What webhooks are told: one table, one schema, and no query where there is no webhook."""

from typing import Any

import jsonschema
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from audit.record import Entry, record, record_many
from broker.management.commands.webhook_types import PATH, page
from notifications.models import Untold, WebhookMessage
from notifications.webhooks.documented import DATA, add_webhooks, schema
from notifications.webhooks.telling import tell
from notifications.webhooks.types import ROUTES, TOLD, TYPES, payload, url_of
from tests.webhooks.conftest import Make
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


def test_the_page_is_that_of_the_table() -> None:
    assert PATH.read_text() == page(), "docs/webhook-types.md is stale: run `make docs`"


def test_what_is_sent_is_as_documented(world: World) -> None:
    grant = world.grant()
    rows = AuditEvent.objects.about(grant.pk, grant.request_id)
    assert rows
    for row in rows:
        said = payload(row)
        document = {**schema(said["type"]), "components": {"schemas": {"WebhookData": DATA}}}
        jsonschema.validate(said, document)
    assert set(add_webhooks({})["webhooks"]) == {*TYPES, "webhook.test"}


def test_each_kind_of_thing_has_an_address() -> None:
    """One that has none would stop all that is told after it."""
    assert all(url_of(kind, new_id()) for kind in ROUTES)
    assert url_of("nothing", new_id()) is None


def test_nobody_is_told_who_signed_in_and_how() -> None:
    kept = {"session", "step_up", "factor", "recovery_codes", "access", "identity", "scim_token"}
    assert not {event.partition(":")[0] for event in TOLD} & kept


def test_a_payload_is_small_whatever_the_row_has(world: World) -> None:
    row = AuditEvent(
        event=Event.GRANT_ENDED,
        subject_kind="grant",
        subject="x" * 300,
        data={f"key{n}": "x" * 190 for n in range(500)} | {"long": "y" * 5000, "list": [1]},
        related=[],
    )
    row.at = world.person().created_at
    assert payload(row)["data"]["facts"] == {}
    row.data = {"reason": "given_back", "long": "y" * 5000, "nested": {"a": 1}, "calls": 3}
    assert payload(row)["data"]["facts"] == {"reason": "given_back", "calls": 3}


def test_without_a_webhook_nothing_is_noted_and_nothing_asked(world: World) -> None:
    person = world.person()
    with transaction.atomic(), CaptureQueriesContext(connection) as asked:
        record(Event.USER_CHANGED, by=person, about=person)
    assert len([each for each in asked if "INSERT" in each["sql"]]) == len(asked) == 1
    assert not Untold.objects.exists()


def test_hundreds_of_rows_are_noted_by_a_few_statements(
    world: World, hook: Make, django_assert_num_queries: Any
) -> None:
    person = world.person()
    webhook, *_ = hook(person, types=["grant.ended"])
    hook(world.person(), types=["grant.ended"])
    with transaction.atomic(), CaptureQueriesContext(connection) as asked:
        record_many(Event.GRANT_ENDED, by=None, entries=[Entry(person)] * 600)
    assert len(asked) <= 4
    with transaction.atomic():
        record(Event.SIGNED_IN, by=person, about=person)
    assert Untold.objects.count() == 600
    with CaptureQueriesContext(connection) as asked:
        assert tell(most=100) == 100
    few = len(asked)
    with CaptureQueriesContext(connection) as asked:
        assert tell(most=400) == 400
    assert len(asked) <= few + 1
    while tell(most=500):
        pass
    assert WebhookMessage.objects.filter(webhook=webhook).count() == 600


def test_what_is_rolled_back_is_told_to_nobody(world: World, hook: Make) -> None:
    person = world.person()
    hook(person, types=["user.changed"])
    with transaction.atomic():
        record(Event.USER_CHANGED, by=person, about=person)
        assert Untold.objects.count() == 1
        transaction.set_rollback(True)
    assert not Untold.objects.exists()
