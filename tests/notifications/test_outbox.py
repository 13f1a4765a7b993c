"""Telling people: with the change or not at all, once, and only those who should hear of it."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, transaction

from accounts.models import User
from audit.ids import new_id
from notifications.kinds import TOPICS, Email, Kind, Topic
from notifications.models import Delivery, Notification, Preference
from notifications.outbox import notify, withdraw
from tests.abuse.test_hostile_text import HOSTILE
from tests.world import World

pytestmark = pytest.mark.django_db

EVIL = "\r\nBcc: all@example.com\x1b[31m\u202e" + HOSTILE["a script"]


class Thing:
    """Anything that one can be told about."""

    def __init__(self) -> None:
        self.pk = new_id()


def tell(*people: User, about: Thing, kind: Kind = Kind.REVIEW_WANTED, **more: object):
    words = {"path": f"/requests/{about.pk}/", "sentence": "Ana asks for 1 hour on Research"}
    with transaction.atomic():
        return notify(kind, to=people, about=about, **words | more)  # type: ignore[arg-type]


@pytest.fixture
def ben(world: World) -> User:
    return world.person()


@pytest.fixture
def thing() -> Thing:
    return Thing()


@pytest.fixture(autouse=True)
def mail_is_on(settings):
    settings.KEYTURN_EMAIL = True


def test_it_falls_with_the_transaction(thing: Thing, ben: User):
    with transaction.atomic():
        tell(ben, about=thing)
        assert ben.notifications.count() == 1
        transaction.set_rollback(True)
    assert not ben.notifications.exists()
    assert not Delivery.objects.filter(notification__subject_id=thing.pk).exists()


def test_one_for_each_person_and_event(world: World, thing: Thing, ben: User):
    carla = world.person()
    assert len(tell(ben, ben, about=thing)) == 1
    [late] = tell(ben, carla, about=thing)
    assert late.person == carla
    assert tell(ben, carla, about=thing) == []
    assert len(tell(ben, about=thing, occasion="step 2")) == 1
    assert len(tell(ben, about=thing, kind=Kind.ESCALATED)) == 1
    assert len(tell(ben, about=Thing())) == 1
    assert Delivery.objects.filter(notification__person=ben).count() == 4


def test_the_inactive_and_programs_get_none(world: World, thing: Thing, ben: User):
    program = world.person()
    User.objects.filter(pk=program.pk).update(owner=ben)
    gone = world.person()
    User.objects.filter(pk=gone.pk).update(is_active=False)
    # As the caller may have loaded them a moment ago.
    assert [row.person for row in tell(ben, program, gone, about=thing)] == [ben]


@pytest.mark.parametrize(
    "path", ["", "requests/", "//evil.example", "/\\evil.example", "https://x/", "/a\r\nb", "/a b"]
)
def test_a_path_never_leaves_the_portal(path: str, thing: Thing, ben: User):
    with pytest.raises(ValueError, match="path"):
        tell(ben, about=thing, path=path)


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "https://evil.example"])
def test_the_database_refuses_such_a_path_too(path: str, ben: User):
    with pytest.raises(IntegrityError, match="path_within_portal"):
        Notification.objects.create(
            person=ben, kind=Kind.DECIDED, subject_id=new_id(), path=path, sentence="x"
        )


def test_hostile_text_is_neutral(thing: Thing, ben: User):
    [row] = tell(
        ben, about=thing, sentence=EVIL * 9, facts=[(EVIL, EVIL)] * 40, quote=EVIL + "x" * 5000
    )
    row.refresh_from_db()
    texts = [row.sentence, *row.facts[0]]
    assert all("\n" not in text and "\r" not in text for text in texts)
    for text in [*texts, row.quote]:
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert len(row.sentence) <= 200
    assert len(row.quote) <= 1000
    assert len(row.facts) == 12


def test_what_looks_like_a_secret_is_not_passed_on(thing: Thing, ben: User):
    secret = "hvs." + "a1B2" * 8
    [row] = tell(ben, about=thing, sentence=f"Uses {secret}", facts=[("x", secret)], quote=secret)
    assert secret not in row.sentence + row.quote + row.facts[0][1]


def test_withdrawn_it_is_read_and_not_sent(world: World, thing: Thing, ben: User):
    tell(ben, about=thing)
    tell(ben, about=thing, kind=Kind.COMMENTED)
    tell(ben, about=Thing())
    assert withdraw(about=thing, kinds=[Kind.REVIEW_WANTED, Kind.ESCALATED]) == 1
    taken = Notification.objects.get(subject_id=thing.pk, kind=Kind.REVIEW_WANTED)
    assert taken.read_at is not None
    assert taken.deliveries.get().state == Delivery.State.WITHDRAWN
    assert ben.notifications.unread().count() == 2
    assert Delivery.objects.filter(notification__person=ben, state=Delivery.State.DUE).count() == 1
    assert withdraw(about=thing, kinds=[Kind.REVIEW_WANTED]) == 0


# Who chose what


def channels(*rows: Notification) -> list[tuple[str, bool]]:
    found = Delivery.objects.filter(notification__in=rows).order_by("channel")
    return [(row.channel, row.digest) for row in found]


@pytest.mark.parametrize("kind", Kind)
def test_by_default_mail_says_what_waits_and_what_changed(kind: Kind, thing: Thing, ben: User):
    rows = tell(ben, about=thing, kind=kind)
    assert channels(*rows) == ([] if TOPICS[kind] == Topic.COMMENTS else [("email", False)])


def test_without_a_server_nothing_is_queued(settings, thing: Thing, ben: User):
    settings.KEYTURN_EMAIL = False
    [row] = tell(ben, about=thing)
    assert channels(row) == []


def test_chat_takes_a_server_a_name_and_consent(settings, thing: Thing, ben: User):
    settings.KEYTURN_CHAT_URL = "json://127.0.0.1/{handle}"
    assert channels(*tell(ben, about=thing)) == [("email", False)]
    choice = Preference.objects.create(person=ben, chat_handle="ben")
    assert channels(*tell(ben, about=Thing())) == [("chat", False), ("email", False)]
    choice.chat_waiting = False
    choice.save()
    assert channels(*tell(ben, about=Thing())) == [("email", False)]


@pytest.mark.parametrize("kind", [Kind.BREAK_GLASS, Kind.REVIEW_OWED, Kind.FACTOR_CHANGED])
def test_some_things_nobody_can_turn_off(settings, kind: Kind, thing: Thing, ben: User):
    settings.KEYTURN_CHAT_URL = "json://127.0.0.1/{handle}"
    off = dict.fromkeys(("email_waiting", "email_access", "email_comments"), Email.OFF)
    quiet = dict.fromkeys(("chat_waiting", "chat_access", "chat_comments"), False)
    Preference.objects.create(person=ben, chat_handle="ben", **off, **quiet)
    assert channels(*tell(ben, about=thing, kind=kind)) == [("chat", False), ("email", False)]
    assert channels(*tell(ben, about=thing)) == []


def test_a_digest_is_due_at_its_hour_where_the_person_is(thing: Thing, ben: User):
    User.objects.filter(pk=ben.pk).update(time_zone="Asia/Tokyo")
    Preference.objects.create(person=ben, email_waiting=Email.DIGEST, digest_hour=17)
    [row] = tell(ben, about=thing)
    delivery = row.deliveries.get()
    assert delivery.digest
    due = delivery.next_attempt_at.astimezone(ZoneInfo("Asia/Tokyo"))
    assert (due.hour, due.minute) == (17, 0)
    assert dt.timedelta(0) < due - row_time(row) <= dt.timedelta(days=1)


def row_time(row: Notification) -> dt.datetime:
    return Notification.objects.get(pk=row.pk).at


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-03-28 07:00", "2026-03-29 06:00"),  # summer time begins that night
        ("2026-10-24 06:00", "2026-10-25 07:00"),  # and ends that one
        ("2026-06-01 05:59", "2026-06-01 06:00"),
        ("2026-06-01 06:00", "2026-06-02 06:00"),
    ],
)
def test_the_digests_hour_is_that_of_the_clock_on_the_wall(now: str, due: str):
    person = User(time_zone="Europe/Berlin")
    found = Preference(person=person, digest_hour=8).next_digest(
        dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC)
    )
    assert found == dt.datetime.fromisoformat(due).replace(tzinfo=dt.UTC)
