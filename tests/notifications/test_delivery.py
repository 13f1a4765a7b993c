"""What is in the outbox arrives: at a real mail server, at a real HTTP server, once."""

import datetime as dt
import os
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import F

from accounts.models import User
from audit.ticker import Ticker
from notifications import delivery
from notifications.delivery import CLAIM, LOCKS, deliver_due, tickers
from notifications.kinds import Email, Kind
from notifications.mail import compose
from notifications.models import Delivery, Notification, Preference
from notifications.outbox import notify, withdraw
from tests.invariants.races import at_once
from tests.notifications.conftest import ChatServer, MailServer
from tests.notifications.test_outbox import EVIL, Thing, tell
from tests.world import World

pytestmark = pytest.mark.usefixtures("outbox")

EMAIL, CHAT = Delivery.Channel.EMAIL, Delivery.Channel.CHAT


@pytest.fixture
def ben(world: World) -> User:
    return world.person()


def the(row: Notification, channel: str = EMAIL) -> Delivery:
    return Delivery.objects.get(notification=row, channel=channel)


def later(*rows: Notification, by: dt.timedelta = dt.timedelta(days=2)) -> None:
    """Let these wait no longer, without letting them grow too old."""
    Delivery.objects.filter(notification__in=rows).update(next_attempt_at=F("next_attempt_at") - by)


def parts(message: Any) -> tuple[str, str]:
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return tuple(part.get_content().replace("\r\n", "\n") for part in (text, html))


# Outside of a transaction


def test_nothing_is_told_outside_of_a_transaction(ben: User):
    with pytest.raises(RuntimeError, match="transaction"):
        notify(Kind.DECIDED, to=[ben], about=Thing(), path="/", sentence="x")


# Mail


def test_a_mail_has_the_sentence_the_facts_and_one_link(mail: MailServer, ben: User):
    about = Thing()
    sentence = "Ana López asks for 1 hour on Research models"
    facts = [("Models", "demo-large, demo-small"), ("Decide by", "2026-11-24 10:00 UTC")]
    [row] = tell(ben, about=about, sentence=sentence, facts=facts, quote="Ticket 4711.\nToday.")
    assert deliver_due() == 1
    [message] = mail.to(ben.email)
    assert message["Subject"] == sentence
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == f"<{the(row).pk}@localhost>"
    assert message.get_content_type() == "multipart/alternative"
    link = f"{django_settings.KEYTURN_BASE_URL}/requests/{about.pk}/"
    text, html = parts(message)
    for part in (text, html):
        assert sentence in part
        assert "demo-large, demo-small" in part
        assert part.count(link) == 1
    assert "> Ticket 4711.\n> Today." in text
    assert "Models: demo-large, demo-small\n" in text
    assert html.count('class="button"') == 1
    # Nothing is fetched by whoever opens it, so nobody learns that it was opened.
    assert not re.search(r"<img|<link|<script|src=|url\(|@import", html)
    assert the(row).state == Delivery.State.SENT
    assert the(row).sent_at is not None
    assert deliver_due() == 0


def test_hostile_text_stays_text(mail: MailServer, ben: User):
    tell(ben, about=Thing(), sentence=EVIL, facts=[(EVIL, EVIL)], quote=EVIL + "\r\n.\r\nDATA")
    assert deliver_due() == 1
    [message], [raw] = mail.to(ben.email), mail.raw
    assert message["Bcc"] is None
    assert "Bcc: all@example.com" in message["Subject"]
    text, html = parts(message)
    assert b"\x1b" not in raw
    for part in (text, html, message["Subject"]):
        assert "\x1b" not in part
        assert "\u202e" not in part
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    # Whatever it says in lines of its own is quoted: it can't pass for Keyturn's words.
    assert "> DATA" in text


def test_a_dead_mail_server_is_tried_again(mail: MailServer, ben: User):
    mail.stop()
    [row] = tell(ben, about=Thing())
    [other] = tell(ben, about=Thing())
    assert deliver_due() == 0
    for each in (row, other):
        waiting = the(each)
        assert waiting.state == Delivery.State.DUE
        assert waiting.attempts == 1
        assert "refused" in waiting.last_error
        ahead = waiting.next_attempt_at - Notification.objects.get(pk=each.pk).at
        assert dt.timedelta(seconds=4) < ahead < dt.timedelta(seconds=15)
    assert deliver_due() == 0
    mail.start()
    later(row, other)
    assert deliver_due() == 2
    assert len(mail.to(ben.email)) == 2


def test_the_pause_grows_to_ten_minutes(mail: MailServer, ben: User):
    mail.answer = "451 4.3.0 later"
    [row] = tell(ben, about=Thing())
    Delivery.objects.filter(notification=row).update(attempts=20)
    assert deliver_due() == 0
    ahead = the(row).next_attempt_at - Notification.objects.get(pk=row.pk).at
    assert dt.timedelta(minutes=5) <= ahead <= dt.timedelta(minutes=11)
    assert "later" in the(row).last_error


def test_after_a_day_it_is_given_up_with_a_warning(mail: MailServer, ben: User, caplog: Any):
    mail.answer = "451 4.3.0 later"
    [row] = tell(ben, about=Thing())
    Delivery.objects.filter(notification=row).update(
        give_up_at=F("give_up_at") - dt.timedelta(days=1)
    )
    assert deliver_due() == 0
    assert the(row).state == Delivery.State.GIVEN_UP
    [said] = [line.getMessage() for line in caplog.records if line.name == delivery.__name__]
    assert "is given up" in said
    assert ben.email not in said


def test_an_address_that_is_refused_holds_nobody_up(mail: MailServer, ben: User, world: World):
    carla = world.person()
    mail.refused.add(ben.email)
    [his] = tell(ben, about=Thing())
    [hers] = tell(carla, about=Thing())
    assert deliver_due() == 1
    assert the(his).state == Delivery.State.GIVEN_UP
    assert "no such person" in the(his).last_error
    assert the(hers).state == Delivery.State.SENT


def test_one_that_cannot_be_composed_holds_nobody_up(
    mail: MailServer, ben: User, monkeypatch: pytest.MonkeyPatch
):
    [bad] = tell(ben, about=Thing(), sentence="Bad")
    [good] = tell(ben, about=Thing(), sentence="Good")

    def poisoned(rows: Any) -> Any:
        if rows[0].notification_id == bad.pk:
            raise KeyError("poison")
        return compose(rows)

    monkeypatch.setattr("notifications.mail.compose", poisoned)
    assert deliver_due() == 1
    assert the(good).state == Delivery.State.SENT
    assert (the(bad).state, the(bad).last_error) == (Delivery.State.DUE, "KeyError")


def test_a_crash_after_the_mail_went_sends_it_again_recognisably(
    mail: MailServer, ben: User, monkeypatch: pytest.MonkeyPatch
):
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    [row] = tell(ben, about=Thing())
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "_sent", die)
        with pytest.raises(KeyboardInterrupt):
            deliver_due()
    assert len(mail.to(ben.email)) == 1
    assert the(row).state == Delivery.State.DUE
    assert deliver_due() == 0, "the claim of the dead holds for a while"
    later(row, by=CLAIM)
    assert deliver_due() == 1
    first, second = mail.to(ben.email)
    assert first["Message-ID"] == second["Message-ID"]


def test_workers_at_once_send_each_once(mail: MailServer, world: World):
    people = [world.person() for _ in range(12)]
    about = Thing()
    tell(*people, about=about)
    sent = at_once([deliver_due] * 4)
    assert sum(sent) == 12
    assert sorted(message["To"] for message in mail.inbox) == sorted(p.email for p in people)


def test_of_a_digest_workers_at_once_make_one(mail: MailServer, ben: User):
    Preference.objects.create(person=ben, email_waiting=Email.DIGEST)
    rows = [row for _ in range(43) for row in tell(ben, about=Thing())]
    later(*rows)
    assert sum(at_once([deliver_due] * 4)) == 1
    [message] = mail.to(ben.email)
    assert message["Subject"].startswith("43 things")
    for part in parts(message):
        assert "And 3 more." in part


def test_no_network_in_a_transaction(mail: MailServer, ben: User, monkeypatch: pytest.MonkeyPatch):
    before, seen = delivery.CARRIERS[EMAIL], []

    def carrier() -> Any:
        seen.append(connection.in_atomic_block)
        return before()

    monkeypatch.setitem(delivery.CARRIERS, EMAIL, carrier)
    tell(ben, about=Thing())
    assert deliver_due() == 1
    assert seen == [False]


@pytest.mark.parametrize("what", ["withdrawn", "read", "deactivated"])
def test_what_is_no_news_any_more_is_not_sent(what: str, mail: MailServer, ben: User):
    about = Thing()
    [row] = tell(ben, about=about)
    match what:
        case "withdrawn":
            withdraw(about=about, kinds=[Kind.REVIEW_WANTED])
        case "read":
            ben.notifications.update(read_at=row.deliveries.get().next_attempt_at)
        case _:
            User.objects.filter(pk=ben.pk).update(is_active=False)
    assert deliver_due() == 0
    assert mail.inbox == []
    assert the(row).state == Delivery.State.WITHDRAWN


def test_a_claim_that_another_has_taken_over_is_left(
    mail: MailServer, ben: User, monkeypatch: pytest.MonkeyPatch
):
    before = delivery._claim

    def slow(*given: Any) -> Any:
        mine = before(*given)
        Delivery.objects.filter(notification__person=ben).update(attempts=F("attempts") + 1)
        return mine

    tell(ben, about=Thing())
    monkeypatch.setattr(delivery, "_claim", slow)
    assert deliver_due() == 0
    assert mail.inbox == []


def test_once_turned_off_nothing_goes_and_it_grows_old(settings: Any, mail: MailServer, ben: User):
    [row] = tell(ben, about=Thing())
    settings.KEYTURN_EMAIL = False
    assert deliver_due() == 0
    assert the(row).state == Delivery.State.DUE
    Delivery.objects.filter(notification=row).update(
        give_up_at=F("give_up_at") - dt.timedelta(days=1)
    )
    assert deliver_due() == 0
    assert the(row).state == Delivery.State.GIVEN_UP


# Digests


def test_a_digest_is_one_mail_with_all_of_the_day(mail: MailServer, ben: User):
    Preference.objects.create(person=ben, email_waiting=Email.DIGEST, email_access=Email.DIGEST)
    rows = tell(ben, about=Thing(), sentence="First <thing>")
    rows += tell(ben, about=Thing(), sentence="Second thing", kind=Kind.GRANT_ENDED)
    rows += tell(ben, about=(read := Thing()), sentence="Read already")
    ben.notifications.filter(subject_id=read.pk).update(read_at=F("at"))
    now = tell(ben, about=Thing(), sentence="Now", kind=Kind.BREAK_GLASS)
    assert deliver_due() == 1
    assert [message["Subject"] for message in mail.to(ben.email)] == ["Now"]
    later(*rows)
    assert deliver_due() == 1
    message = mail.to(ben.email)[-1]
    assert message["Subject"] == "2 things to catch up on in Keyturn"
    text, html = parts(message)
    assert text.index("First <thing>") < text.index("Second thing")
    assert "First &lt;thing&gt;" in html
    assert "Read already" not in text + html
    assert "Now" not in text
    for row in (*rows[:2], *now):
        assert the(row).state == Delivery.State.SENT
    assert the(rows[2]).state == Delivery.State.WITHDRAWN
    assert deliver_due() == 0


def test_a_digest_that_failed_goes_as_one_again(mail: MailServer, ben: User):
    Preference.objects.create(person=ben, email_waiting=Email.DIGEST)
    rows = [row for _ in range(3) for row in tell(ben, about=Thing())]
    later(*rows)
    mail.answer = "451 4.3.0 later"
    assert deliver_due() == 0
    assert len({the(row).next_attempt_at for row in rows}) == 1
    mail.answer = None
    later(*rows)
    assert deliver_due() == 1
    assert len(mail.to(ben.email)) == 1


# Chat


def test_a_chat_message_goes_to_ones_own_name(chat: ChatServer, ben: User):
    Preference.objects.create(person=ben, chat_handle="ben.o-1")
    about = Thing()
    [row] = tell(ben, about=about, facts=[("Models", "demo-large")], quote="Ticket 4711.")
    assert deliver_due() == 1
    [(path, body)] = chat.heard
    assert path == "/hooks/T0pS3cretT0ken/ben.o-1"
    assert body["title"] == "Ana asks for 1 hour on Research"
    assert body["message"].splitlines() == [
        "Models: demo-large",
        "“Ticket 4711.”",
        f"{django_settings.KEYTURN_BASE_URL}/requests/{about.pk}/",
    ]
    assert the(row, CHAT).state == Delivery.State.SENT


def test_a_chat_message_mentions_nobody_and_hides_no_link(chat: ChatServer, ben: User):
    Preference.objects.create(person=ben, chat_handle="ben")
    evil = "<!channel> @here [https://keyturn](https://evil.example) <https://evil.example|here>"
    tell(ben, about=Thing(), sentence=evil, quote=evil, facts=[("x", evil)])
    assert deliver_due() == 1
    [(_, body)] = chat.heard
    for text in (body["title"], body["message"]):
        assert not set("<>@[]") & set(text)


def test_a_chat_that_fails_is_tried_again(chat: ChatServer, ben: User, settings: Any):
    Preference.objects.create(person=ben, chat_handle="ben")
    [row] = tell(ben, about=Thing())
    chat.status = 500
    assert deliver_due() == 0
    assert the(row, CHAT).attempts == 1
    chat.status = 200
    later(row)
    assert deliver_due() == 1
    chat.close()
    [row] = tell(ben, about=Thing())
    for url in (settings.KEYTURN_CHAT_URL, "nonsense://T0pS3cretT0ken/{handle}"):
        settings.KEYTURN_CHAT_URL = url
        assert deliver_due() == 0
        assert the(row, CHAT).state == Delivery.State.DUE
        assert the(row, CHAT).last_error
        assert "T0pS3cretT0ken" not in the(row, CHAT).last_error
        later(row)


def test_no_log_has_the_address_of_the_chat(chat: ChatServer):
    """By a process as talkative as it can be, since apprise and urllib3 write what they call."""
    script = (
        "import sys, django; django.setup()\n"
        "import apprise, logging\n"
        "for url in sys.argv[1:]:\n"
        "    service = apprise.Apprise()\n"
        "    service.add(url)\n"
        "    service.notify(body='x')\n"
        "logging.getLogger('trial').debug('heard')\n"
    )
    urls = [f"json://127.0.0.1:{port}/T0pS3cretT0ken/x" for port in (chat.port, 1)]
    done = subprocess.run(
        [sys.executable, "-c", script, *urls, "nonsense://T0pS3cretT0ken"],
        env=os.environ | {"KEYTURN_LOG_LEVEL": "DEBUG"},
        cwd=django_settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(chat.heard) == 1
    assert "heard" in done.stderr
    assert "T0pS3cretT0ken" not in done.stdout + done.stderr


def test_a_name_that_was_taken_away_gets_nothing(chat: ChatServer, ben: User):
    chosen = Preference.objects.create(person=ben, chat_handle="ben")
    [row] = tell(ben, about=Thing())
    chosen.chat_handle = ""
    chosen.save()
    assert deliver_due() == 0
    assert the(row, CHAT).state == Delivery.State.GIVEN_UP
    assert chat.heard == []


# In a worker


def test_a_worker_delivers_by_itself(mail: MailServer, chat: ChatServer, ben: User):
    Preference.objects.create(person=ben, chat_handle="ben")
    running = tickers()
    for ticker in running:
        ticker.start()
    try:
        tell(ben, about=Thing())
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not (mail.inbox and chat.heard):
            time.sleep(0.05)
        assert len(mail.to(ben.email)) == len(chat.heard) == 1
    finally:
        for ticker in running:
            ticker.stop()
            ticker.join(10)


def test_while_one_worker_is_at_it_another_leaves_it(mail: MailServer, ben: User):
    tell(ben, about=Thing())
    [by_mail] = [ticker for ticker in tickers() if "email" in ticker.name]

    def tick() -> None:
        try:
            by_mail.tick()
        finally:
            connection.close()

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCKS[EMAIL]])
        try:
            thread = threading.Thread(target=tick)
            thread.start()
            thread.join()
            assert mail.inbox == []
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCKS[EMAIL]])


def test_what_goes_wrong_once_ends_no_ticker(monkeypatch: pytest.MonkeyPatch, caplog: Any):
    done: list[int] = []

    def work() -> None:
        done.append(1)
        if len(done) == 1:
            raise ZeroDivisionError

    ticker = Ticker("trial", lock=0x7E57, every=0.01, work=work)
    ticker.start()
    deadline = time.monotonic() + 5
    while len(done) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    ticker.stop()
    ticker.join(5)
    assert len(done) >= 2
    assert "trial went wrong" in caplog.text


def test_ids_of_messages_are_of_the_outside_name(settings: Any, ben: User, world: World):
    settings.KEYTURN_BASE_URL = "https://keyturn.example.com"
    settings.KEYTURN_EMAIL = True
    [row] = tell(ben, about=Thing())
    message = compose([the(row)])
    assert message.extra_headers["Message-ID"].endswith("@keyturn.example.com>")
    assert "https://keyturn.example.com/requests/" in message.body
