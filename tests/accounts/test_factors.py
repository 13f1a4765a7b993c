"""The second factor: setting it up, proving it anew, and what must not get past it."""

import base64
import datetime as dt
import io
import json
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.db.models import F
from django.test import Client, RequestFactory
from django.urls import reverse
from django_htmx.middleware import HtmxDetails
from rest_framework.permissions import IsAuthenticated

from accounts import factors, stepup
from accounts.actions import create_token
from accounts.models import Session, Totp, User
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Forbidden, InvalidInput, StepUpNeeded, TooManyTries, Unavailable
from broker.middleware import Problems
from tests.accounts.authenticator import code, later, wrong
from tests.canary import scan
from tests.servers import Servers
from tests.world import PASSWORD, World

pytestmark = pytest.mark.django_db
STEP_UP, FACTOR = "/step-up/", "/settings/factor/"
SET_UP, REMOVE = FACTOR + "set-up/", FACTOR + "remove/"
CODES, PASSKEYS = FACTOR + "codes/", FACTOR + "passkeys/"


def shown(page: Any) -> bytes:
    """The secret on the page that sets one up."""
    groups = re.search(r'id="secret-value">(.*?)</div>', page.content.decode())
    assert groups
    return base64.b32decode("".join(re.findall("<span>(.*?)</span>", groups[1])))


def set_up(client: Client) -> bytes:
    """As a person does it in the portal; the authenticator's secret."""
    page = client.post(FACTOR, follow=True)
    secret = shown(page)
    done = client.post(SET_UP, {"code": code(secret)})
    assert done.status_code == 200, done.content.decode()
    return secret


def purpose(user: User) -> Purpose:
    return Purpose(Action.FACTOR, str(user.pk))


def proof_of(client: Client, what: str = "") -> dt.datetime | None:
    """When this session proved a factor last, for anything or for one purpose."""
    kept = client.session.get(stepup.PROOFS, {})
    text = kept.get(what) if what else max(kept.values(), default=None)
    return None if text is None else dt.datetime.fromisoformat(text)


def prove(client: Client, user: User, secret: bytes) -> None:
    """Prove it in the portal, to change factors."""
    later(user)
    posted = {"code": code(secret), "for": str(purpose(user)), "next": FACTOR}
    assert client.post(STEP_UP, posted)["Location"] == FACTOR


def events(user: User) -> list[str]:
    rows = AuditEvent.objects.filter(related__contains=[user.pk]).order_by("id")
    return [row.event for row in rows if row.event.startswith(("factor", "step_up"))]


@pytest.fixture
def user(world: World) -> User:
    return world.person(password=PASSWORD)


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def secret(user: User, client: Client) -> bytes:
    """Somebody who has a factor, and whose session has outlived the proof of it."""
    secret = set_up(client)
    later(user)
    session = client.session
    del session[stepup.PROOFS]
    session.save()
    return secret


# Setting it up


def test_setting_up(user: User, client: Client) -> None:
    assert "Set up a second factor" in client.get(FACTOR).content.decode()
    assert not factors.has_factor(user)
    page = client.post(FACTOR, {"next": "/approvals/"}, follow=True)
    html = page.content.decode()
    secret = shown(page)
    assert len(secret) == 20
    assert f"otpauth://totp/Keyturn:{user.email}?secret=".replace("@", "%40") in html
    assert '<svg class="qr"' in html
    assert "no-store" in page["Cache-Control"]
    assert not re.search(r"<style|\sstyle\s*=|<script(?![^>]*\ssrc=)", html)
    assert shown(client.get(SET_UP)) == secret  # a reload shows the same

    before = clock.now()
    done = client.post(SET_UP, {"code": code(secret), "next": "/approvals/"})
    # The codes come before one goes on, in this answer alone.
    assert 'href="/approvals/">I have kept them' in done.content.decode()
    assert "no-store" in done["Cache-Control"]
    assert factors.has_factor(user)
    proof = proof_of(client, str(purpose(user)))
    assert proof is not None
    assert before <= proof <= clock.now()
    assert events(user) == [Event.FACTOR_ADDED]
    assert client.get(SET_UP).status_code == 302  # and never again
    assert "Set up today" in re.sub("<[^>]+>", "", client.get(FACTOR).content.decode())


def test_a_wrong_first_code_sets_nothing_up(user: User, client: Client) -> None:
    secret = shown(client.post(FACTOR, follow=True))
    page = client.post(SET_UP, {"code": wrong(secret)})
    assert page.status_code == 400
    assert "code that belongs to this secret" in page.content.decode().replace("&#x27;", "'")
    assert shown(page) == secret
    assert not factors.has_factor(user)
    assert proof_of(client) is None


def test_another_session_can_not_finish_what_this_one_began(user: User, client: Client) -> None:
    secret = shown(client.post(FACTOR, follow=True))
    other = Client()
    other.force_login(user)
    assert other.post(SET_UP, {"code": code(secret)})["Location"] == FACTOR
    assert not factors.has_factor(user)


def test_a_first_factor_takes_a_new_sign_in(user: User, client: Client) -> None:
    """Or whoever finds a session open could set up their own."""
    client.get(FACTOR)
    session = client.session
    session["began"] -= 16 * 60
    session.save()
    page = client.get(FACTOR + "?next=/approvals/")
    assert "Sign in again" in page.content.decode()
    assert client.post(FACTOR).status_code == 409
    session["factor.pending"] = factors.new_secret(by=user)
    session.save()
    assert client.get(SET_UP).status_code == 409
    back = FACTOR + "?next=%2Fapprovals%2F"
    sent = client.post(reverse("sign-out"), {"next": back})
    again = client.post(sent["Location"], {"username": user.email, "password": PASSWORD})
    assert again["Location"] == back
    assert client.post(FACTOR).status_code == 302


def test_the_change_ends_all_other_sessions(user: User, client: Client) -> None:
    other = Client()
    other.force_login(user)
    key = client.session.session_key
    secret = set_up(client)
    assert client.session.session_key != key
    assert client.get("/").status_code == 200
    assert other.get("/").status_code == 302
    other.force_login(user)
    assert not Session.objects.filter(session_key=key).exists()
    assert client.post(REMOVE).status_code == 302
    assert not factors.has_factor(user)
    assert proof_of(client) is None
    assert client.get("/").status_code == 200
    assert other.get("/").status_code == 302
    assert events(user) == [Event.FACTOR_ADDED, Event.FACTOR_REMOVED]
    assert secret
    assert not user.recovery_codes.exists()


@pytest.mark.parametrize(
    ("what", "old"),
    [
        ("", dt.timedelta(0)),
        ("factor", dt.timedelta(minutes=5, seconds=1)),
        ("review", dt.timedelta(0)),
        ("factor of another", dt.timedelta(0)),
    ],
)
def test_a_change_takes_a_proof_for_it_of_the_last_five_minutes(
    user: User, client: Client, secret: bytes, what: str, old: dt.timedelta
) -> None:
    purposes = {
        "factor": str(purpose(user)),
        "review": f"review:{user.pk}",
        "factor of another": "factor:01890000-0000-7000-8000-000000000000",
    }
    session = client.session
    session["factor.pending"] = factors.new_secret(by=user)
    if what:
        session[stepup.PROOFS] = {purposes[what]: (clock.now() - old).isoformat()}
    session.save()
    page = client.get(FACTOR).content.decode()
    assert 'action="/settings/factor/remove/"' not in page
    assert f"for=factor%3A{user.pk}" in page
    for path in (FACTOR, SET_UP, REMOVE, CODES, PASSKEYS, PASSKEYS + "begin/"):
        answer = client.post(path, {"code": "123456"})
        assert answer["Location"].startswith("/step-up/"), path
    new = factors.new_secret(by=user)
    right = code(factors.reveal(by=user, sealed=new))
    proofs = Proofs({purposes[what]: clock.now() - old}) if what else stepup.NONE
    with pytest.raises(StepUpNeeded):
        factors.add(by=user, sealed=new, code=right, proofs=proofs)
    with pytest.raises(StepUpNeeded):
        factors.remove(by=user, person=user, proofs=proofs)


def test_it_is_replaced_once_proved(user: User, client: Client, secret: bytes) -> None:
    prove(client, user, secret)
    assert client.post(FACTOR)["Location"] == SET_UP
    assert client.post(SET_UP, {"code": code(shown(client.get(SET_UP)))}).status_code == 302
    row = AuditEvent.objects.filter(event=Event.FACTOR_ADDED, actor_id=user.pk).latest("id")
    assert row.data == {"replaced": True}


def test_nobody_removes_anothers(user: User, secret: bytes, world: World) -> None:
    with pytest.raises(Forbidden):
        factors.remove(
            by=world.person(is_administrator=True),
            person=user,
            proofs=Proofs({str(purpose(user)): clock.now()}),
        )


def test_a_lost_one_is_removed_by_command(user: User, client: Client, secret: bytes) -> None:
    call_command("person", "factor", "remove", user.email, stdout=io.StringIO())
    assert not factors.has_factor(user)
    assert client.get("/").status_code == 302
    row = AuditEvent.objects.get(event=Event.FACTOR_REMOVED, subject_id=user.pk)
    assert row.actor_id is None
    with pytest.raises(CommandError, match="has no second factor"):
        call_command("person", "factor", "remove", user.email)


# Proving it


def test_proving(user: User, client: Client, secret: bytes) -> None:
    key = client.session.session_key
    before = clock.now()
    done = client.post(
        STEP_UP + "?next=/approvals/",
        {"code": f" {code(secret)[:3]} {code(secret)[3:]}", "for": str(purpose(user))},
    )
    assert done["Location"] == "/approvals/"
    assert client.session.session_key != key
    assert not Session.objects.filter(session_key=key).exists()
    proof = proof_of(client)
    assert proof is not None
    assert before <= proof <= clock.now()
    assert events(user)[-1] == Event.STEP_UP_PROVED


@pytest.mark.parametrize(
    "given",
    ["", "12345", "1234567", "12a456", "".join(chr(0xFF11 + n) for n in range(6)), "1" * 500],
)
def test_what_is_no_code_is_not_counted(
    user: User, client: Client, secret: bytes, given: str
) -> None:
    assert client.post(STEP_UP, {"code": given}).status_code == 400
    assert Totp.objects.get(person=user).failures == 0


def test_a_code_works_once(user: User, client: Client, secret: bytes) -> None:
    used = code(secret)
    assert client.post(STEP_UP, {"code": used}).status_code == 302
    page = client.post(STEP_UP, {"code": used})
    assert page.status_code == 400
    assert "used already" in page.content.decode()
    assert events(user)[-1] == Event.STEP_UP_REFUSED
    # Neither does one that was shown before it.
    assert client.post(STEP_UP, {"code": code(secret, steps=-1)}).status_code == 400
    assert client.post(STEP_UP, {"code": code(secret, steps=1)}).status_code == 302


def test_the_code_that_set_it_up_is_used_up(user: User, client: Client) -> None:
    secret = shown(client.post(FACTOR, follow=True))
    first = code(secret)
    client.post(SET_UP, {"code": first})
    assert client.post(STEP_UP, {"code": first}).status_code == 400


@pytest.mark.parametrize("steps", [-3, -2, 3])
def test_codes_of_other_times_do_not_count(client: Client, secret: bytes, steps: int) -> None:
    assert client.post(STEP_UP, {"code": code(secret, steps=steps)}).status_code == 400


def test_guessing_has_to_wait_longer_and_longer(user: User, client: Client, secret: bytes) -> None:
    for _ in range(5):
        assert client.post(STEP_UP, {"code": wrong(secret)}).status_code == 400
    page = client.post(STEP_UP, {"code": code(secret)})
    assert page.status_code == 429
    assert "Wait 30 seconds" in page.content.decode()
    assert proof_of(client) is None
    waits = []
    for _ in range(8):
        Totp.objects.filter(person=user).update(failed_at=F("failed_at") - dt.timedelta(hours=1))
        with pytest.raises(InvalidInput):
            factors.prove(by=user, code=wrong(secret))
        with pytest.raises(TooManyTries) as told:
            factors.prove(by=user, code=code(secret))
        waits.append(told.value.retry_after)
    assert waits == [60, 120, 240, 480, 900, 900, 900, 900]
    # The session goes on meanwhile, and once waited for, the right code resets it all.
    assert client.get("/").status_code == 200
    Totp.objects.filter(person=user).update(failed_at=F("failed_at") - dt.timedelta(hours=1))
    assert client.post(STEP_UP, {"code": code(secret)}).status_code == 302
    assert Totp.objects.get(person=user).failures == 0
    vain = user.notifications.filter(sentence__contains="tried in vain 5 times in a row")
    assert vain.count() == 1


def test_the_demo_shows_codes_without_a_phone(capsys: pytest.CaptureFixture[str]) -> None:
    secret = secrets.token_bytes(20)
    call_command("demo_code", base64.b32encode(secret).decode().lower())
    assert capsys.readouterr().out[:6] in {code(secret), code(secret, steps=-1)}


@pytest.mark.parametrize(
    "where",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http://testserver/approvals/",
        "",
    ],
)
def test_it_leads_nowhere_else(client: Client, secret: bytes, where: str) -> None:
    assert "evil" not in client.get(STEP_UP, {"next": where}).content.decode()
    done = client.post(STEP_UP, {"code": code(secret), "next": where})
    assert done["Location"] == reverse("home")


def test_without_a_factor_it_leads_to_setting_one_up(client: Client) -> None:
    page = client.get(STEP_UP + "?next=/approvals/").content.decode()
    assert 'href="/settings/factor/?next=%2Fapprovals%2F"' in page
    assert client.post(STEP_UP, {"code": "123456"}).status_code == 200
    assert proof_of(client) is None


@pytest.mark.parametrize("path", [STEP_UP, FACTOR, SET_UP, REMOVE])
def test_nobody_at_all_is_sent_to_sign_in(path: str) -> None:
    assert Client().post(path)["Location"].startswith("/sign-in/")


# What counts as proof


def test_proof_is_of_this_person_in_this_session(
    rf: RequestFactory, user: User, client: Client, world: World
) -> None:
    set_up(client)
    request = rf.get("/")
    request.user, request.session = user, client.session
    assert stepup.proofs(request).at(purpose(user)) == proof_of(client)
    request.user = world.person()
    assert stepup.proofs(request) is stepup.NONE
    request.user = AnonymousUser()
    assert stepup.proofs(request) is stepup.NONE
    other = Client()
    other.force_login(user)
    request.user, request.session = user, other.session
    assert not stepup.proofs(request).times


def test_a_token_proves_nothing_whatever_comes_along(
    user: User, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner's fresh session, in the same call, changes nothing."""
    set_up(client)
    seen: list[Any] = []

    def watch(self: Any, request: Any, view: Any) -> bool:
        seen.append([stepup.proofs(each).at(purpose(user)) for each in (request, request._request)])
        return bool(request.user.is_authenticated)

    monkeypatch.setattr(IsAuthenticated, "has_permission", watch)
    _, token = create_token(by=user, owner=user, name="script")
    assert client.get("/api/v1/grants/").status_code == 200
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("/api/v1/grants/", headers=bearer).status_code == 200
    assert seen == [[proof_of(client)] * 2, [None, None]]


# Being asked for it


@pytest.fixture
def asked(rf: RequestFactory, user: User) -> Callable[..., Any]:
    """What the portal answers when an action asks for a fresher proof."""

    def ask(method: str, path: str, **headers: str) -> Any:
        request = rf.generic(method, path, headers=headers)
        request.user = user
        request.session = {}  # type: ignore[assignment]
        request.htmx = HtmxDetails(request)  # type: ignore[attr-defined]
        return Problems(lambda _: None).process_exception(request, StepUpNeeded())  # type: ignore[arg-type,return-value]

    return ask


def test_a_page_leads_there_and_back(asked: Callable[..., Any]) -> None:
    answer = asked("GET", "/grants/1/?a=b")
    assert (answer.status_code, answer["Location"]) == (
        302,
        "/step-up/?next=%2Fgrants%2F1%2F%3Fa%3Db",
    )


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("http://testserver/approvals/?request=1", "%2Fapprovals%2F%3Frequest%3D1"),
        ("https://testserver/approvals/", "%2F"),
        ("http://evil.example/approvals/", "%2F"),
        ("", "%2F"),
    ],
)
def test_a_form_is_not_sent_again(asked: Callable[..., Any], referer: str, back: str) -> None:
    answer = asked("POST", "/requests/1/review/", Referer=referer)
    assert (answer.status_code, answer["Location"]) == (302, f"/step-up/?next={back}")


def test_a_part_of_a_page_leads_the_whole_page_there(asked: Callable[..., Any]) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/approvals/"}
    answer = asked("POST", "/requests/1/review/", **headers)
    assert answer["HX-Redirect"] == "/step-up/?next=%2Fapprovals%2F"


def test_being_asked_is_on_record(user: User, client: Client, secret: bytes) -> None:
    client.post(REMOVE)
    row = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=user.pk)
    assert row.data["code"] == "step-up-needed"


# Secrets


def test_the_secret_is_nowhere_in_clear(
    client: Client, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    begun = shown(client.post(FACTOR, follow=True))
    places = scan.postgresql()
    client.post(SET_UP, {"code": code(begun)})
    given = code(begun, steps=1)
    assert client.post(STEP_UP, {"code": given}).status_code == 302
    client.post(STEP_UP, {"code": given})
    text = base64.b32encode(begun).decode()
    found = {
        "logs": caplog.text,
        "OpenBao's audit log": (servers.folder / "openbao" / "audit.log").read_text(),
    }
    for name, place in (
        places | {f"{k} later": v for k, v in scan.postgresql().items()} | found
    ).items():
        low = place.lower()
        for spelling in (text.lower(), begun.hex(), base64.b64encode(begun).decode().lower()):
            assert spelling not in low, name
    assert "vault:v1:" in places["sessions"]
    for place in (caplog.text, json.dumps(list(AuditEvent.objects.values_list("data", flat=True)))):
        assert given not in place


def test_a_row_of_another_person_can_not_be_unsealed(
    user: User, client: Client, secret: bytes, world: World
) -> None:
    """Whoever can write to the database makes no factor of theirs anybody else's."""
    victim = world.person()
    row = Totp.objects.get(person=user)
    Totp.objects.filter(pk=row.pk).update(person=victim)
    with pytest.raises(Unavailable):
        factors.prove(by=victim, code=code(secret))


def test_postgresql_takes_no_clear_secret(user: User) -> None:
    with pytest.raises(IntegrityError, match="totp_secret_is_sealed"), transaction.atomic():
        Totp.objects.create(person=user, sealed="JBSWY3DPEHPK3PXP", last_step=0)


def test_the_person_is_told_of_each_change_of_their_factor(client: Client, user: User) -> None:
    client.force_login(user)
    set_up(client)
    factors.remove(by=None, person=user)
    told = user.notifications.order_by("at").values_list("kind", "sentence")
    assert list(told) == [
        ("factor_changed", "Your second factor was set up"),
        ("factor_changed", "Your second factor was removed"),
    ]
