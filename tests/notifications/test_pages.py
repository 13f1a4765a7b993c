"""The bell, the list and the settings, in the portal and by the API."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from notifications.actions import forget_old
from notifications.kinds import Email, Kind
from notifications.models import Notification, Preference
from tests.api.callers import Caller, faults
from tests.notifications.test_outbox import EVIL, Thing, tell
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def ben(world: World) -> User:
    return world.person()


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def many(user: User, count: int, **columns: Any) -> None:
    Notification.objects.bulk_create(
        Notification(
            person=user,
            kind=Kind.DECIDED,
            subject_id=Thing().pk,
            path="/",
            sentence=f"No. {n:03}",
            **columns,
        )
        for n in range(count)
    )


def page(user: User, name: str = "notifications", query: str = "") -> str:
    answer = browser(user).get(reverse(name) + query)
    assert answer.status_code == 200
    return answer.content.decode()


def bell(text: str) -> str:
    [inside] = re.findall(r'<a class="bell".*?</a>', text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", inside).split())


def test_the_bell_counts_what_is_unread(ben: User):
    assert bell(page(ben, "home")) == "Notifications"
    tell(ben, about=Thing())
    tell(ben, about=Thing())
    assert bell(page(ben, "home")) == "Notifications 2 unread"
    many(ben, 120)
    assert bell(page(ben, "home")) == "Notifications 99+ unread"


def test_the_bell_is_one_query_by_an_index(ben: User, world: World):
    # The planner takes who and what is read for independent: were most rows this person's, what
    # other tests left unread would make it expect theirs to be unread too, and read all of it.
    for person in (ben, *(world.person() for _ in range(30))):
        many(person, 100, read_at=clock.now())
    client = browser(ben)
    with CaptureQueriesContext(connection) as seen:
        client.get(reverse("home"))
    [asked] = [each["sql"] for each in seen if "notifications_notification" in each["sql"]]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE notifications_notification")
        cursor.execute(f"EXPLAIN {asked}")
        assert "notification_unread_of_person" in str(cursor.fetchall())


def test_the_list_shows_ones_own_newest_first(ben: User, world: World):
    carla = world.person(is_administrator=True)
    tell(ben, about=(first := Thing()), sentence="The first", facts=[("Ticket", "SUP-1")])
    tell(ben, about=Thing(), sentence="The second", quote="Because of <b>4711</b>")
    text = page(ben)
    assert text.index("The second") < text.index("The first")
    assert f'href="/requests/{first.pk}/"' in text
    assert "Because of &lt;b&gt;4711&lt;/b&gt;" in text
    assert "The first" not in page(carla), "other people's post is closed to administrators too"


def test_hostile_text_is_text(ben: User):
    tell(ben, about=Thing(), sentence=EVIL, facts=[(EVIL, EVIL)], quote=EVIL)
    text = page(ben)
    assert "<script>alert" not in text
    assert "\u202e" not in text


def test_looking_marks_nothing(ben: User):
    [row] = tell(ben, about=Thing())
    client = browser(ben)
    client.get(reverse("notifications"))
    for name, args in (("notification-read", [row.pk]), ("notifications-read", [])):
        assert client.get(reverse(name, args=args)).status_code == 405
        assert client.head(reverse(name, args=args)).status_code == 405
    row.refresh_from_db()
    assert row.read_at is None


def test_one_or_all_can_be_marked_read(ben: User, world: World):
    carla = world.person()
    rows = [row for _ in range(3) for row in tell(ben, about=Thing())]
    [hers] = tell(carla, about=Thing())
    client = browser(ben)
    assert client.post(reverse("notification-read", args=[rows[0].pk])).status_code == 302
    assert ben.notifications.unread().count() == 2
    assert page(ben, query="?show=unread").count("is-unread") == 2
    assert client.post(reverse("notification-read", args=[hers.pk])).status_code == 404
    assert client.post(reverse("notifications-read")).status_code == 302
    assert ben.notifications.unread().count() == 0
    hers.refresh_from_db()
    assert hers.read_at is None
    assert "Nothing unread" in page(ben, query="?show=unread")


def test_the_list_has_pages(ben: User):
    many(ben, 45)
    text = page(ben)
    [older] = re.findall(r'href="(\?before=[^"]+)" rel="next"', text)
    rest = page(ben, query=older)
    names = re.findall(r"No\. \d\d\d(?=</a>)", text), re.findall(r"No\. \d\d\d(?=</a>)", rest)
    assert [len(each) for each in names] == [30, 15]
    assert len({*names[0], *names[1]}) == 45
    assert page(ben, query="?before=nonsense").count("notice-said") == 30


# Settings


def form(**changed: Any) -> dict[str, Any]:
    email = {f"email_{topic}": "at_once" for topic in ("waiting", "access", "comments")}
    return email | {"digest_hour": "8", "chat_handle": ""} | changed


def test_without_servers_the_settings_say_so(ben: User):
    text = page(ben, "notification-settings")
    assert "E-mail is off" in text
    assert "Chat isn’t set up here" in text
    assert "<select" not in text


def test_settings_are_kept_and_on_record(settings: Any, ben: User):
    settings.KEYTURN_EMAIL, settings.KEYTURN_CHAT_URL = True, "json://127.0.0.1/{handle}"
    assert "E-mail is off" not in page(ben, "notification-settings")
    client, address = browser(ben), reverse("notification-settings")
    sent = form(email_access="digest", digest_hour="17", chat_handle="ben.o", chat_waiting="on")
    assert client.post(address, sent).status_code == 302
    chosen = Preference.objects.get(person=ben)
    assert (chosen.email_access, chosen.digest_hour) == (Email.DIGEST, 17)
    assert (chosen.chat_handle, chosen.chat_waiting, chosen.chat_access) == ("ben.o", True, False)
    row = AuditEvent.objects.get(event=Event.NOTIFICATIONS_CHANGED)
    assert (row.actor_id, row.data["digest_hour"]) == (ben.pk, 17)
    assert client.post(address, sent).status_code == 302
    assert AuditEvent.objects.filter(event=Event.NOTIFICATIONS_CHANGED).count() == 1
    text = page(ben, "notification-settings")
    assert 'value="ben.o"' in text
    assert '<option value="17" selected>' in text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_handle", "@ben"),
        ("chat_handle", "../hooks"),
        ("chat_handle", ".."),
        ("chat_handle", "ben?x=1"),
        ("chat_handle", "b" * 65),
        ("digest_hour", "24"),
        ("email_waiting", "never"),
    ],
)
def test_settings_that_are_wrong_are_refused(settings: Any, field: str, value: str, ben: User):
    settings.KEYTURN_EMAIL, settings.KEYTURN_CHAT_URL = True, "json://127.0.0.1/{handle}"
    answer = browser(ben).post(reverse("notification-settings"), form(**{field: value}))
    assert answer.status_code == 400
    assert "errorlist" in answer.content.decode()
    assert not Preference.objects.filter(person=ben).exists()


# API


def test_the_api_lists_and_marks_ones_own(ben: User):
    rows = tell(ben, about=(thing := Thing()), sentence="The first", facts=[("Ticket", "SUP-1")])
    tell(ben, about=Thing(), sentence="The second")
    caller = Caller(ben, "token")
    assert [row["sentence"] for row in caller.get("notifications/").json()["results"]] == [
        "The second",
        "The first",
    ]
    marked = caller.post(f"notifications/{rows[0].pk}/read/")
    assert marked.status_code == 200
    first = marked.json()
    assert first["read_at"]
    assert caller.post(f"notifications/{rows[0].pk}/read/").json() == first
    assert first["facts"] == [{"name": "Ticket", "value": "SUP-1"}]
    assert first["about"] == str(thing.pk)
    assert first["url"] == f"http://localhost:8000/requests/{thing.pk}/"
    for unread, sentences in (("true", ["The second"]), ("false", ["The first"])):
        found = caller.get("notifications/", unread=unread).json()["results"]
        assert [row["sentence"] for row in found] == sentences


def test_the_api_keeps_settings(ben: User):
    caller = Caller(ben)
    before = caller.get("notification-settings/").json()
    assert before["email_waiting"] == "at_once"
    assert before["email_on"] is False
    wanted = {k: v for k, v in before.items() if not k.endswith("_on")} | {"digest_hour": 6}
    answer = caller.client.put(
        "/api/v1/notification-settings/", wanted, "application/json", headers=caller.headers
    )
    assert answer.status_code == 200
    assert caller.get("notification-settings/").json() == before | {"digest_hour": 6}
    wrong = wanted | {"chat_handle": "a/b", "email_on": True, "digest_hour": 24}
    answer = caller.client.put(
        "/api/v1/notification-settings/", wrong, "application/json", headers=caller.headers
    )
    assert faults(answer).keys() == {"chat_handle", "email_on", "digest_hour"}


# Keeping


@pytest.mark.parametrize(
    ("days", "read", "kept"), [(80, True, True), (100, True, False), (100, False, True)]
)
def test_what_is_old_is_dropped(days: int, read: bool, kept: bool, ben: User):
    [row] = tell(ben, about=Thing())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notifications_notification SET at = at - make_interval(days => %s),"
            " read_at = CASE WHEN %s THEN at END WHERE id = %s",
            [days, read, row.pk],
        )
    forget_old()
    assert Notification.objects.filter(pk=row.pk).exists() == kept
