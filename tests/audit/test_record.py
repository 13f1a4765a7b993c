import datetime as dt

import pytest
from django.db import connection

from audit import clock
from audit.context import Origin, origin, working_for
from audit.events import Event
from audit.models import AuditEvent
from audit.record import KEYTURN, record
from tests.world import World

pytestmark = pytest.mark.django_db


def test_every_event_is_named_by_the_grammar() -> None:
    for event in Event:
        assert event.value.count(":") == 1
        assert event.value.replace(":", "").replace("_", "").isalpha()
        assert len(event.value) <= 60


def test_keyturn_itself_acts_under_its_own_name(world: World) -> None:
    row = record(Event.GRANT_ENDED, by=None, about=world.person())
    assert (row.actor, row.actor_id) == (KEYTURN, None)


def test_the_origin_is_that_of_the_work_at_hand(world: World) -> None:
    source = Origin(via="api", address="192.0.2.9")
    with working_for(source):
        row = record(Event.SIGNED_IN, by=world.person())
    assert (row.via, row.address, row.trace) == ("api", "192.0.2.9", source.trace)
    assert origin().via == "cli", "and ends with it"


def test_each_object_that_is_concerned_finds_the_row(world: World) -> None:
    person, other, group = world.person(), world.person(), world.group()
    row = record(Event.GROUP_JOINED, by=person, about=other, related=(group, person))
    for each in (person, other, group):
        assert row in AuditEvent.objects.about(each.pk)
    assert len(row.related) == 3
    stranger = world.person()
    assert row not in AuditEvent.objects.visible_to(stranger)
    assert row in AuditEvent.objects.visible_to(other)
    assert row in AuditEvent.objects.visible_to(world.person(is_auditor=True))


def test_rows_carry_postgresqls_time_of_that_moment(world: World) -> None:
    """Not the transaction's: all of a long one would bear the same time."""
    before = clock.now()
    first = record(Event.SIGNED_IN, by=world.person())
    second = record(Event.SIGNED_OUT, by=world.person())
    first.refresh_from_db()
    second.refresh_from_db()
    assert before < first.at < second.at < clock.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT transaction_timestamp()")
        begun: dt.datetime = cursor.fetchone()[0]
    assert begun < first.at
    assert first.at.utcoffset() == dt.timedelta(0)


def test_ids_sort_by_time(world: World) -> None:
    rows = [record(Event.SIGNED_IN, by=world.person()).pk for _ in range(5)]
    assert rows == sorted(rows)
