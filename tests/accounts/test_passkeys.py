"""Passkeys and recovery codes, in the portal and past it: what they open, and what they don't."""

import datetime as dt
import json
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from accounts import factors, passkeys, recovery, signing_in, stepup
from accounts.models import PasskeyChallenge, RecoveryCode, Session, Totp, User
from accounts.passkeys import Ceremony
from accounts.sessions import SessionStore
from accounts.stepup import Action, Purpose
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Conflict, InvalidInput, StepUpNeeded
from tests.accounts.authenticator import authenticator, code, later, wrong
from tests.accounts.passkey import Passkey, passkey_of, proved_for_factors
from tests.world import PASSWORD, World

pytestmark = pytest.mark.django_db
FACTOR, STEP_UP, SIGN_IN = "/settings/factor/", "/step-up/", "/sign-in/"
SECOND, PASSKEYS = "/sign-in/factor/", "/settings/factor/passkeys/"


@pytest.fixture
def user(world: World) -> User:
    return world.person(password=PASSWORD)


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def enrol(client: Client, key: Passkey, name: str = "Laptop") -> Any:
    options = client.post(PASSKEYS + "begin/").json()
    return client.post(PASSKEYS, {"credential": key.made(options), "name": name})


def step_up(client: Client, key: Passkey, *purposes: str) -> Any:
    options = client.post(STEP_UP + "passkey/", {"for": purposes}).json()
    return client.post(STEP_UP, {"for": purposes, "credential": key.used(options)})


def password(user: User) -> tuple[Client, Any]:
    client = Client()
    return client, client.post(
        SIGN_IN + "?next=/approvals/", {"username": user.email, "password": PASSWORD}
    )


def shown(page: Any) -> list[str]:
    codes: list[str] = page.context["codes"]
    return codes


# Setting one up


def test_a_first_passkey_and_its_codes(user: User, client: Client) -> None:
    page = enrol(client, Passkey(), "  My   laptop ")
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    codes = shown(page)
    assert len(set(codes)) == 10
    assert recovery.left(user) == 10
    stored = "".join(RecoveryCode.objects.values_list("digest", flat=True))
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    html = client.get(FACTOR).content.decode()
    assert "My laptop" in html
    assert "10 left of ten" in html
    assert not any(code in html for code in codes)
    told = [row.sentence for row in user.notifications.order_by("at")]
    assert told == ["Your second factor was set up: the passkey “My laptop”"]


def test_another_takes_a_proof_and_removing_the_last_ends_the_codes(
    user: User, client: Client
) -> None:
    key, purpose = Passkey(), f"factor:{user.pk}"
    enrol(client, key)
    session = client.session
    session[stepup.PROOFS] = {}
    session.save()
    assert client.post(PASSKEYS + "begin/")["Location"].startswith(STEP_UP)
    assert step_up(client, key, purpose).status_code == 302
    assert enrol(client, Passkey(), "Phone").status_code == 302
    first, second = passkeys.mine(user)
    assert client.post(f"{PASSKEYS}{first.pk}/", {"name": "Desk"}).status_code == 302
    assert client.post(f"{PASSKEYS}{first.pk}/remove/").status_code == 302
    assert recovery.left(user) == 10
    # The change took the proof along.
    assert client.post(f"{PASSKEYS}{second.pk}/remove/")["Location"].startswith(STEP_UP)
    assert len(passkeys.mine(user)) == 1
    passkeys.remove(by=user, pk=second.pk, proofs=proved_for_factors(user))
    assert not factors.has_factor(user)
    assert recovery.left(user) == 0


@pytest.mark.parametrize(
    "key",
    [
        Passkey(verifies=False),
        Passkey(origin="https://keyturn.example.net"),
        Passkey(rp_id="example.net"),
    ],
    ids=["asks nobody", "another origin", "another host"],
)
def test_what_is_no_passkey_of_here(client: Client, user: User, key: Passkey) -> None:
    page = enrol(client, key)
    assert page.status_code == 400
    assert "must ask who you are" in page.content.decode()
    assert not factors.has_factor(user)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 9000, "x" * 30_000, '{"id": 1}', "null"])
def test_what_is_no_credential_at_all(client: Client, user: User, text: str) -> None:
    client.post(PASSKEYS + "begin/")
    assert client.post(PASSKEYS, {"credential": text}).status_code == 400
    anybody = Client()
    anybody.post("/sign-in/passkey/")
    assert anybody.post(SIGN_IN, {"credential": text}).status_code == 400


def test_a_passkey_of_somebody_else_is_not_taken_over(
    client: Client, user: User, world: World
) -> None:
    theirs, row, key = passkey_of(world)
    assert enrol(client, key).status_code == 400
    assert not factors.has_factor(user)
    row.refresh_from_db()
    assert row.user_id == theirs.pk


# Proving it


def test_a_proof_by_passkey_is_for_its_purpose(user: User, client: Client) -> None:
    key = Passkey()
    enrol(client, key)
    purpose = Purpose(Action.FACTOR, str(user.pk))
    at = client.session[stepup.PROOFS][str(purpose)]
    assert step_up(client, key, str(purpose)).status_code == 302
    assert client.session[stepup.PROOFS][str(purpose)] > at
    assert set(client.session[stepup.PROOFS]) == {str(purpose)}
    [row] = passkeys.mine(user)
    assert row.last_used_at is not None
    assert row.sign_count == 1


def test_each_ceremony_is_for_itself(world: World) -> None:
    user, _, key = passkey_of(world)
    about = "review:1"
    for ceremony, said in [
        (Ceremony.SECOND, about),
        (Ceremony.SIGN_IN, about),
        (Ceremony.ADD, about),
        (Ceremony.PROVE, "review:2"),
        (Ceremony.PROVE, ""),
    ]:
        session = SessionStore()
        passkeys.begin(session, Ceremony.PROVE, by=user, about=about)
        with pytest.raises(InvalidInput):
            passkeys.taken(session, ceremony, said)
        with pytest.raises(InvalidInput):  # and it's used up
            passkeys.taken(session, Ceremony.PROVE, about)
    session = SessionStore()
    used = key.used(passkeys.begin(session, Ceremony.PROVE, by=user, about=about))
    copy = dict(session.items())
    begun = passkeys.taken(session, Ceremony.PROVE, about)
    passkeys.prove(by=user, begun=begun, credential=used)
    # A copy of the session, such as another request at the same moment has, is no second chance.
    session.update(copy)
    with pytest.raises(InvalidInput):
        passkeys.taken(session, Ceremony.PROVE, about)
    # Nor is what was signed for another challenge.
    passkeys.begin(session, Ceremony.PROVE, by=user, about=about)
    begun = passkeys.taken(session, Ceremony.PROVE, about)
    with pytest.raises(InvalidInput):
        passkeys.prove(by=user, begun=begun, credential=used)


def test_a_challenge_lives_for_minutes(world: World) -> None:
    user, _, _ = passkey_of(world)
    session = SessionStore()
    passkeys.begin(session, Ceremony.PROVE, by=user)
    PasskeyChallenge.objects.update(expires_at=F("expires_at") - passkeys.LIFE)
    with pytest.raises(InvalidInput):
        passkeys.taken(session, Ceremony.PROVE)
    assert passkeys.forget_old_challenges() == 1


def prove(key: Passkey, user: User | None, **changed: Any) -> User:
    """A proof with something about it changed."""
    session = SessionStore()
    used = json.loads(key.used(passkeys.begin(session, Ceremony.PROVE, by=user)))
    used["response"] |= changed
    begun = passkeys.taken(session, Ceremony.PROVE)
    owner, _ = passkeys.prove(by=user, begun=begun, credential=json.dumps(used))
    return owner


def test_what_a_passkey_does_not_prove(world: World) -> None:
    user, _, key = passkey_of(world)
    _, _, others = passkey_of(world)
    assert prove(key, None) == user
    with pytest.raises(InvalidInput):
        prove(others, user)
    assert AuditEvent.objects.filter(event=Event.STEP_UP_REFUSED, actor_id=user.pk).count() == 1
    with pytest.raises(InvalidInput):
        prove(key, None, userHandle=others.handle)
    with pytest.raises(InvalidInput):
        prove(key, user, signature="AAAA")
    for name, value in {"verifies": False, "origin": "https://evil.example"}.items():
        was = getattr(key, name)
        setattr(key, name, value)
        with pytest.raises(InvalidInput):
            prove(key, user)
        setattr(key, name, was)
    assert prove(key, user) == user
    User.objects.filter(pk=user.pk).update(is_active=False)
    with pytest.raises(InvalidInput):
        prove(key, None)


def test_a_count_that_goes_back_is_refused_and_told(world: World) -> None:
    user, row, key = passkey_of(world)
    prove(key, user)
    prove(key, user)
    key.count = 0
    with pytest.raises(InvalidInput, match="may have been copied"):
        prove(key, user)
    assert AuditEvent.objects.filter(event=Event.FACTOR_COPIED, actor_id=user.pk).count() == 1
    assert "may have been copied" in user.notifications.latest("at").sentence
    row.refresh_from_db()
    assert row.sign_count == 2
    # One that is synchronised counts nothing, and says so from the start.
    _, _, synced = passkey_of(world, user, counts=False)
    assert prove(synced, user) == prove(synced, user) == user


# Signing in


def test_after_the_password_comes_the_factor(user: User, world: World) -> None:
    _, _, key = passkey_of(world, user)
    client, answer = password(user)
    assert answer["Location"] == SECOND + "?next=%2Fapprovals%2F"
    for path in ("/", FACTOR, STEP_UP, "/approvals/"):
        assert client.get(path)["Location"].startswith(SIGN_IN)
    assert client.get("/api/v1/grants/").status_code == 401
    assert "Use a passkey" in client.get(SECOND).content.decode()
    options = client.post("/sign-in/passkey/").json()
    assert len(options["allowCredentials"]) == 1
    before = client.session.session_key
    done = client.post(SECOND + "?next=/approvals/", {"credential": key.used(options)})
    assert done["Location"] == "/approvals/"
    assert client.session.session_key != before
    assert signing_in.HALF not in client.session
    assert not client.session.get(stepup.PROOFS)
    assert Session.objects.get(person=user).how == "password"
    row = AuditEvent.objects.get(event=Event.SIGNED_IN, actor_id=user.pk)
    assert row.data == {"how": "password", "factor": "passkey"}


def test_by_code_as_counted_as_ever(user: User) -> None:
    secret = authenticator(user)
    client, _ = password(user)
    for _ in range(5):
        assert client.post(SECOND, {"code": wrong(secret)}).status_code == 400
    assert client.post(SECOND, {"code": code(secret)}).status_code == 429
    assert Totp.objects.get(person=user).failures == 5
    Totp.objects.update(failed_at=F("failed_at") - dt.timedelta(minutes=1))
    assert client.post(SECOND, {"code": code(secret)})["Location"] == "/"
    assert client.get("/").status_code == 200


def test_half_way_survives_nothing(user: User) -> None:
    secret = authenticator(user)

    def half() -> Client:
        client, _ = password(user)
        later(user)
        return client

    client = half()
    session = client.session
    early = dt.datetime.fromisoformat(session[signing_in.HALF]["at"]) - dt.timedelta(minutes=6)
    session[signing_in.HALF] |= {"at": early.isoformat()}
    session.save()
    assert client.post(SECOND, {"code": code(secret)})["Location"].startswith(SIGN_IN)
    client = half()
    client.get(SIGN_IN)
    assert client.post(SECOND, {"code": code(secret)})["Location"].startswith(SIGN_IN)
    client = half()
    factors.end_sessions(user)
    assert client.post(SECOND, {"code": code(secret)})["Location"].startswith(SIGN_IN)
    client = half()
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert client.post(SECOND, {"code": code(secret)})["Location"].startswith(SIGN_IN)


def test_with_a_passkey_alone(user: User, world: World) -> None:
    _, _, key = passkey_of(world, user)
    client = Client()
    options = client.post("/sign-in/passkey/").json()
    assert not options.get("allowCredentials")
    done = client.post(SIGN_IN + "?next=/approvals/", {"credential": key.used(options)})
    assert done["Location"] == "/approvals/"
    assert client.get("/").status_code == 200
    assert not client.session.get(stepup.PROOFS)
    assert Session.objects.get(person=user).how == "passkey"
    again = Client()
    again.post("/sign-in/passkey/")
    assert again.post(SIGN_IN, {"credential": key.used(options)}).status_code == 400


# Recovery codes


def test_a_recovery_code_works_once_and_is_told(user: User, client: Client) -> None:
    codes = shown(enrol(client, Passkey()))
    other, _ = password(user)
    typed = codes[0].lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert other.post(SECOND, {"recovery": typed})["Location"] == "/"
    assert "proved by a recovery code; 9 are left" in user.notifications.latest("at").sentence
    purpose = {"for": f"factor:{user.pk}"}
    assert client.post(STEP_UP, {"recovery": codes[0], **purpose}).status_code == 400
    assert client.post(STEP_UP, {"recovery": codes[1], **purpose}).status_code == 302
    new = shown(client.post(FACTOR + "codes/"))
    assert recovery.left(user) == 10
    assert client.post(STEP_UP, {"recovery": codes[2], **purpose}).status_code == 400
    for each in new[:7]:
        recovery.use(by=user, code=each)
    page = client.post(STEP_UP, {"recovery": new[7], "next": FACTOR, **purpose}, follow=True)
    assert "2 recovery codes left" in page.content.decode()


def test_a_code_is_its_persons(world: World) -> None:
    user, _, _ = passkey_of(world)
    other, _, _ = passkey_of(world)
    [first, *_] = recovery.make(by=user, proofs=proved_for_factors(user))
    with pytest.raises(InvalidInput):
        recovery.use(by=other, code=first)
    with pytest.raises(StepUpNeeded):
        recovery.make(by=user)
    with pytest.raises(Conflict):
        recovery.make(by=world.person())


# Who must have one


@pytest.mark.must_enrol
@pytest.mark.parametrize("role", ["is_administrator", "is_auditor", "owner", "reviewer", "named"])
def test_who_must_have_one_is_sent_to_set_it_up(world: World, role: str) -> None:
    roles: dict[str, Any] = {role: True} if role.startswith("is_") else {}
    user = world.person(**roles)
    client = Client()
    client.force_login(user)
    if not role.startswith("is_"):
        assert client.get("/approvals/").status_code == 200
    profile = world.profile()
    if role == "owner":
        profile.reviewers.owners.add(user)
    elif role == "reviewer":
        profile.reviewers.memberships.create(user=user)
    elif role == "named":
        step = {"name": "Look", "reviewers": {"people": [user.email]}}
        world.policy(profile=profile, steps=[step])
    sent = client.get("/approvals/?request=1")
    assert sent["Location"] == FACTOR + "?next=%2Fapprovals%2F%3Frequest%3D1"
    assert client.post("/live/end/")["Location"] == FACTOR
    assert client.get("/", headers={"HX-Request": "true"})["HX-Redirect"].startswith(FACTOR)
    assert "which takes a second factor" in client.get(sent["Location"]).content.decode()
    assert client.get("/api/v1/grants/").status_code == 200
    key = Passkey()
    assert enrol(client, key).status_code == 200
    assert client.get("/approvals/").status_code == 200
    [row] = passkeys.mine(user)
    assert client.post(f"{PASSKEYS}{row.pk}/remove/").status_code == 409
    assert factors.has_factor(user)
    assert client.post("/sign-out/").status_code == 302
