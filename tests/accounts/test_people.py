"""Invitations, service accounts, deactivation and what comes back, sessions."""

import datetime as dt
import re
import threading
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts import changes, factors, invitations, sessions, stepup
from accounts.actions import (
    create_service,
    create_token,
    deactivate_ended,
    deactivate_user,
    extend_service,
    join_group,
    name_owner,
    reactivate_user,
    token_owner,
    warn_of_ends,
)
from accounts.agents import in_words
from accounts.models import Change, Invitation, Session, User
from accounts.stepup import Action, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from audit.redaction import redact
from broker.errors import Conflict, Forbidden, InvalidInput, NotFound, StepUpNeeded
from notifications.models import Notification
from tests.accounts.authenticator import authenticator
from tests.world import PASSWORD, PROVED, World, unique

NEW = "a quiet harbour in november"
DAY = dt.timedelta(days=1)


def proofs_for(*about: Any) -> stepup.Proofs:
    """A second factor proved just now for these people or groups, and for adding some."""
    purposes = [Purpose(Action.PEOPLE), *(Purpose(Action.PEOPLE, str(row.pk)) for row in about)]
    return stepup.Proofs({str(purpose): clock.now() for purpose in purposes})


def prove(client: Client, *about: Any) -> None:
    """The same in the session of this browser."""
    session = client.session
    session[stepup.PROOFS] = {name: at.isoformat() for name, at in proofs_for(*about).times.items()}
    session.save()


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    client.get(reverse("home"))
    return client


@pytest.fixture
def administrator(world: World) -> User:
    return world.person(is_administrator=True)


@pytest.mark.django_db
class TestInvitations:
    def test_lets_one_person_in_once(self, world: World) -> None:
        person = world.person()
        link = invitations.invite(by=None, person=person)
        path = link.removeprefix(settings.KEYTURN_BASE_URL)
        token = path.split("/")[2]
        assert bytes(Invitation.objects.get(person=person).digest) == invitations.digest(token)
        assert redact(f"Not Found: {path}") == "Not Found: /welcome/[redacted]/"
        browser = Client()
        opened = browser.get(path)
        assert (opened.status_code, opened["Location"]) == (302, "/welcome/")
        assert opened["Referrer-Policy"] == "no-referrer"
        page = browser.get("/welcome/")
        assert person.email in page.content.decode()
        assert token not in page.content.decode()
        assert "_auth_user_id" not in browser.session, "looking signs nobody in"
        short = browser.post("/welcome/", {"password": "short", "again": "short"})
        assert short.status_code == 400
        unlike = browser.post("/welcome/", {"password": NEW, "again": NEW + "."})
        assert unlike.status_code == 400
        answer = browser.post("/welcome/", {"password": NEW, "again": NEW})
        assert answer.status_code == 302
        assert browser.session["_auth_user_id"] == str(person.pk)
        assert User.objects.get(pk=person.pk).check_password(NEW)
        again = Client().get(path)
        assert again.status_code == 404
        assert "This link is over" in again.content.decode()
        events = AuditEvent.objects.about(person.pk).values_list("event", flat=True)
        assert {Event.USER_INVITED, Event.INVITATION_USED, Event.PASSWORD_SET} <= set(events)

    def test_a_link_that_is_over_replaced_or_made_up_lets_nobody_in(self, world: World) -> None:
        person = world.person()

        def status(link: str) -> int:
            return Client().get(link.removeprefix(settings.KEYTURN_BASE_URL)).status_code

        first = invitations.invite(by=None, person=person)
        second = invitations.invite(by=None, person=person)
        assert [status(first), status(second)] == [404, 302]
        assert status(invitations.link(invitations.new_token())) == 404
        Invitation.objects.update(expires_at=clock.now())
        assert status(second) == 404
        third = invitations.invite(by=None, person=person)
        deactivate_user(by=None, user=person)
        assert status(third) == 404

    def test_nobody_is_invited_who_has_signed_in(self, world: World, administrator: User) -> None:
        for person in (world.person(password=PASSWORD), world.person(last_login=clock.now())):
            with pytest.raises(Conflict):
                invitations.invite(by=administrator, person=person, proofs=proofs_for(person))
        newcomer = world.person()
        with pytest.raises(StepUpNeeded):
            invitations.invite(by=administrator, person=newcomer, proofs=proofs_for())
        with pytest.raises(Forbidden):
            invitations.invite(by=world.person(), person=newcomer, proofs=proofs_for(newcomer))

    def test_the_first_administrator_is_refused_where_there_is_one(self, capsys: Any) -> None:
        email = f"first-{unique()}@example.com"
        call_command("administrator", email)
        first = capsys.readouterr().out.strip()
        assert re.fullmatch(r"http\S+/welcome/kt_inv_\w{43}/", first)
        user = User.objects.get(email=email)
        assert user.is_administrator
        expires = user.invitations.get().expires_at
        assert clock.now() < expires < clock.now() + dt.timedelta(hours=24)
        call_command("administrator", email)
        assert capsys.readouterr().out.strip() != first, "again, until it is used"
        with pytest.raises(CommandError, match="already"):
            call_command("administrator", f"second-{unique()}@example.com")
        call_command("administrator", f"second-{unique()}@example.com", "--another")


@pytest.mark.usefixtures("committed")
def test_of_ten_who_claim_at_once_one_gets_in(world: World) -> None:
    link = invitations.invite(by=None, person=world.person())
    stored = invitations.digest(link.split("/")[-2])
    barrier, found = threading.Barrier(10), []

    def claim(number: int) -> None:
        barrier.wait()
        try:
            invitations.claim(stored=stored, password=f"{NEW} {number}")
            found.append(number)
        except NotFound:
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=claim, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    person = Invitation.objects.get(digest=stored).person
    assert person.check_password(f"{NEW} {found[0]}")


@pytest.mark.django_db
class TestServiceAccounts:
    @pytest.fixture
    def owner(self, world: World) -> User:
        return world.person()

    def make(self, answers: User, **fields: Any) -> User:
        return create_service(
            **{
                "by": None,
                "email": f"s-{unique()}@example.com",
                "full_name": "Nightly",
                "owner": answers,
                "ends_at": clock.now() + 30 * DAY,
            }
            | fields
        )

    def test_has_an_owner_and_an_end_within_a_year(self, world: World, owner: User) -> None:
        gone = world.person()
        deactivate_user(by=None, user=gone)
        for wrong in (
            {"ends_at": clock.now() + 367 * DAY},
            {"ends_at": clock.now()},
            {"owner": gone},
            {"owner": self.make(owner)},
        ):
            with pytest.raises(InvalidInput):
                self.make(owner, **wrong)
        with pytest.raises(Forbidden):
            self.make(owner, by=owner, proofs=proofs_for())

    def test_ends_on_time_and_its_owner_is_told_before_and_after(self, owner: User) -> None:
        service = self.make(owner)
        _, token = create_token(by=owner, owner=service, name="x")
        told = Notification.objects.filter(subject_id=service.pk).values_list("sentence", flat=True)
        warn_of_ends()
        assert not told.all()
        User.objects.filter(pk=service.pk).update(ends_at=clock.now() + 13 * DAY)
        warn_of_ends()
        warn_of_ends()
        assert list(told.all()) == ["Nightly ends soon"]
        assert deactivate_ended() == 0
        User.objects.filter(pk=service.pk).update(ends_at=clock.now())
        assert deactivate_ended() == 1
        assert sorted(told.all()) == ["Nightly ends soon", "Nightly has ended"]
        assert token_owner(token) is None
        assert deactivate_ended() == 0

    def test_its_owner_extends_and_ends_it_and_nobody_else_does(
        self, world: World, owner: User
    ) -> None:
        service, stranger = self.make(owner), world.person()
        until = clock.now() + 90 * DAY
        for by, proofs, error in (
            (stranger, proofs_for(service), Forbidden),
            (owner, proofs_for(), StepUpNeeded),
        ):
            with pytest.raises(error):
                extend_service(by=by, service=service, ends_at=until, proofs=proofs)
            with pytest.raises(error):
                deactivate_user(by=by, user=service, proofs=proofs)
        extend_service(by=owner, service=service, ends_at=until, proofs=proofs_for(service))
        service.refresh_from_db()
        assert service.ends_at == until
        deactivate_user(by=owner, user=service, proofs=proofs_for(service))
        assert not User.objects.get(pk=service.pk).is_active
        with pytest.raises(Conflict):
            extend_service(by=None, service=service, ends_at=until)


@pytest.mark.django_db
class TestLeaving:
    def test_everything_goes_with_a_person_and_nothing_comes_back(
        self, world: World, administrator: User
    ) -> None:
        group, owned = world.group(), world.group()
        person = world.person(group, password=PASSWORD, is_auditor=True)
        name_owner(by=None, group=owned, user=person)
        _, token = create_token(by=person, owner=person, name="x")
        service = TestServiceAccounts().make(person)
        join_group(by=None, user=service, group=group)
        _, program = create_token(by=person, owner=service, name="x")
        browser = signed_in(person)
        assert Session.objects.filter(person=person).count() == 1
        deactivate_user(by=administrator, user=person, proofs=proofs_for(person))
        assert not Session.objects.filter(person=person).exists()
        assert token_owner(token) is None
        assert token_owner(program) is None
        assert not group.memberships.filter(user__in=[person, service]).exists()
        assert not owned.owners.exists()
        assert not User.objects.get(pk=service.pk).is_active
        row = AuditEvent.objects.get(event=Event.USER_DEACTIVATED, subject_id=person.pk)
        assert row.actor_id == administrator.pk
        assert row.data == {"roles": ["auditor"], "sessions": 1, "tokens": 1, "groups": 1}
        reactivate_user(by=administrator, user=person, proofs=proofs_for(person))
        person.refresh_from_db()
        assert person.is_active
        assert (person.is_auditor, person.has_usable_password()) == (False, False)
        assert browser.get(reverse("home")).status_code == 302
        assert token_owner(token) is None
        assert not person.member_of.exists()
        assert not User.objects.get(pk=service.pk).is_active
        invitations.invite(by=administrator, person=person, proofs=proofs_for(person))

    def test_who_may(self, world: World, administrator: User) -> None:
        person = world.person()
        for by in (world.person(), world.person(is_auditor=True)):
            with pytest.raises(Forbidden):
                deactivate_user(by=by, user=person, proofs=proofs_for(person))
            with pytest.raises(Forbidden):
                reactivate_user(by=by, user=person, proofs=proofs_for(person))
        with pytest.raises(StepUpNeeded):
            deactivate_user(by=administrator, user=person)
        with pytest.raises(Forbidden, match="themself"):
            deactivate_user(by=administrator, user=administrator, proofs=proofs_for(administrator))


@pytest.mark.django_db
class TestSessions:
    def test_one_sees_and_ends_ones_own(self, world: World) -> None:
        person, other = world.person(password=PASSWORD), world.person(password=PASSWORD)
        here, there, theirs = signed_in(person), signed_in(person), signed_in(other)
        page = here.get(reverse("sessions")).content.decode()
        assert page.count('<div class="row-title">') == 2
        for client in (here, there, theirs):
            assert str(client.session.session_key) not in page
        end = reverse("session-end")
        foreign = sessions.name_of(str(theirs.session.session_key))
        assert here.post(end, {"name": foreign}).status_code == 404
        assert theirs.get(reverse("home")).status_code == 200
        name = sessions.name_of(str(there.session.session_key))
        assert here.post(end, {"name": name}).status_code == 302
        assert there.get(reverse("home")).status_code == 302
        third = signed_in(person)
        assert here.post(reverse("sessions-end")).status_code == 302
        assert third.get(reverse("home")).status_code == 302
        assert here.get(reverse("home")).status_code == 200
        assert theirs.get(reverse("home")).status_code == 200

    def test_a_session_of_an_earlier_password_is_none(self, world: World) -> None:
        person = world.person(password=PASSWORD)
        signed_in(person)
        assert len(sessions.opened(person)) == 1
        person.set_password(NEW)
        person.save()
        assert sessions.opened(person) == []


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64) Gecko/20100101 Firefox/130.0", "Firefox on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10) Version/17 Safari/605.1", "Safari on macOS"),
        ("curl/8.1", "curl"),
        ("", "Unknown"),
        ("<script>" * 40, "<script>" * 5),
    ],
)
def test_what_a_browser_says_it_is(agent: str, words: str) -> None:
    assert in_words(agent) == words


@pytest.mark.django_db
class TestPages:
    def test_an_administrator_adds_finds_and_ends(self, administrator: User) -> None:
        browser = signed_in(administrator)
        assert browser.get(reverse("person-new")).status_code == 302, "a second factor first"
        prove(browser)
        email = f"new-{unique()}@example.com"
        answer = browser.post(reverse("person-new"), {"email": email, "full_name": "Noor Haddad"})
        link = re.search(r"/welcome/kt_inv_\w{43}/", answer.content.decode())
        assert link
        assert Client().get(link[0]).status_code == 302
        person = User.objects.get(email=email)
        page = browser.get(reverse("people"), {"q": email, "state": "never"}).content.decode()
        assert str(person.pk) in page
        assert (
            str(person.pk)
            not in browser.get(reverse("people"), {"state": "deactivated"}).content.decode()
        )
        url = reverse("person-deactivate", args=[person.pk])
        assert "/step-up/" in browser.post(url)["Location"]
        prove(browser, person)
        assert browser.post(url)["Location"] == reverse("person-access", args=[person.pk])
        gone = browser.get(reverse("person-access", args=[person.pk])).content.decode()
        assert f"Everything of {person} is gone" in gone
        assert "hx-trigger" not in gone.split('id="held"')[1][:300]

    def test_auditors_read_and_change_nothing(self, world: World) -> None:
        person, group = world.person(), world.group()
        browser = signed_in(world.person(is_auditor=True))
        for name, args in (
            ("people", []),
            ("services", []),
            ("groups", []),
            ("person", [person.pk]),
            ("person-access", [person.pk]),
            ("group", [group.pk]),
        ):
            page = browser.get(reverse(name, args=args))
            assert page.status_code == 200
            forms = re.findall(r'<form method="post" action="([^"]+)"', page.content.decode())
            assert set(forms) <= {reverse("sign-out")}, name
        prove(browser, person, group)
        for verb in ("deactivate", "reactivate", "invite", "sign-out"):
            answer = browser.post(reverse(f"person-{verb}", args=[person.pk]))
            assert answer.status_code == 403, verb
        for verb in ("join", "leave", "owner"):
            answer = browser.post(reverse(f"group-{verb}", args=[group.pk]), {"email": "x@y.z"})
            assert answer.status_code == 403, verb
        for name in ("person-new", "service-new", "group-new"):
            assert browser.get(reverse(name)).status_code == 403

    def test_an_owner_manages_the_members_of_their_group_alone(self, world: World) -> None:
        mine, other, owner, person = world.group(), world.group(), world.person(), world.person()
        name_owner(by=None, group=mine, user=owner)
        browser = signed_in(owner)
        prove(browser, mine, other)
        joined = browser.post(reverse("group-join", args=[mine.pk]), {"email": person.email})
        assert joined.status_code == 302
        assert mine.has(person)
        assert browser.post(reverse("group-leave", args=[mine.pk]), {"person": str(person.pk)})
        assert not mine.has(person)
        assert browser.get(reverse("group", args=[other.pk])).status_code == 404
        refused = browser.post(reverse("group-join", args=[other.pk]), {"email": person.email})
        assert refused.status_code == 404
        owning = browser.post(reverse("group-owner", args=[mine.pk]), {"email": person.email})
        assert owning.status_code == 403
        assert browser.get(reverse("people")).status_code == 404
        assert browser.get(reverse("person", args=[person.pk])).status_code == 404

    def test_what_widens_access_waits_for_a_second_administrator(
        self, world: World, administrator: User
    ) -> None:
        second, person = world.person(is_administrator=True), world.person(full_name="Noor")
        group = world.profile().requesters
        authenticator(person)
        browser = signed_in(administrator)
        prove(browser, group, person)
        made = {
            ("group-join", group): {"email": person.email, "reason": "Joins the team."},
            ("group-owner", group): {"email": person.email, "reason": "Leads the team."},
            ("person-roles", person): {"auditor": "on", "reason": "Audits from May on."},
            ("person-reset", person): {"reason": "Her phone is gone; we spoke in person."},
        }
        for (name, about), fields in made.items():
            url = reverse(name, args=[about.pk])
            silent = browser.post(url, fields | {"reason": ""})
            assert (silent.status_code, "Say why" in silent.content.decode()) == (400, True), name
            answer = browser.post(url, fields)
            change = Change.objects.latest("id")
            assert answer["Location"] == reverse("change", args=[change.pk]), name
            page = browser.get(reverse(name.split("-")[0], args=[about.pk])).content.decode()
            assert f"{change}</a> waits for a second administrator" in page.replace("&#x27;", "'")
            assert browser.post(url, fields).status_code == 409, "one of each waits"
        person.refresh_from_db()
        assert not group.has(person)
        assert not group.owners.exists()
        assert (person.is_auditor, factors.has_factor(person)) == (False, True)
        for change in Change.objects.filter(about__in=[group.pk, person.pk]):
            changes.approve(by=second, change_id=change.pk, note="", proofs=PROVED)
        person.refresh_from_db()
        assert group.has(person)
        assert group.owners.get() == person
        assert (person.is_auditor, factors.has_factor(person)) == (True, False)
        dropped = browser.post(reverse("person-roles", args=[person.pk]), {"reason": ""})
        assert dropped["Location"] == reverse("person", args=[person.pk])
        assert not User.objects.get(pk=person.pk).is_auditor, "less takes nobody else"

    def test_a_profile_is_changed_by_whom_it_is_of(self, world: World) -> None:
        person = world.person()
        browser = signed_in(person)
        wrong = browser.post(reverse("profile"), {"full_name": " ", "time_zone": "Mars/Base"})
        assert wrong.status_code == 400
        right = {"full_name": "Noor H.", "time_zone": "Asia/Tokyo", "email": "x@example.com"}
        assert browser.post(reverse("profile"), right).status_code == 302
        row = User.objects.get(pk=person.pk)
        assert (row.full_name, row.time_zone) == ("Noor H.", "Asia/Tokyo")
        assert (row.email, row.is_administrator) == (person.email, False)

    @pytest.mark.parametrize("page", ["people", "services", "groups"])
    def test_queries_are_as_many_with_ten_thousand(
        self, page: str, administrator: User, world: World, django_assert_max_num_queries: Any
    ) -> None:
        browser, profile = signed_in(administrator), world.profile()
        name_owner(by=None, group=profile.requesters, user=administrator)
        world.person(profile.requesters)
        world.person(owner=administrator)
        with django_assert_max_num_queries(60) as few:
            browser.get(reverse(page))
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO accounts_user (id, email, full_name, time_zone, is_active, password,"
                " is_administrator, is_auditor, session_epoch, owner_id) SELECT"
                " gen_random_uuid(), 'bulk' || n || '@example.com', 'Bulk ' || n, 'UTC', true, '!',"
                " false, false, 0, CASE WHEN mod(n, 2) = 0 THEN %s::uuid END"
                " FROM generate_series(1, 10000) n",
                [administrator.pk],
            )
        for _ in range(20):
            world.person(world.group())
        with django_assert_max_num_queries(len(few.captured_queries)):
            answer = browser.get(reverse(page), {"q": "bulk"} if page != "groups" else {})
        if page != "groups":
            assert len(answer.context["rows"]) == 50
            assert answer.context["older"]
            second = browser.get(reverse(page) + answer.context["older"])
            assert not {row.pk for row in answer.context["rows"]} & {
                row.pk for row in second.context["rows"]
            }
