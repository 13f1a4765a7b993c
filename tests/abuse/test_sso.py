"""Attacks on single sign-on: tokens and codes that are somebody else's, and logout tokens that
nobody sent."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client

from accounts.models import User
from audit.events import Event
from audit.models import AuditEvent
from tests.sso.conftest import acme, configure, running
from tests.sso.providers import SECRET, FakeProvider, come_back
from tests.world import unique

__all__ = ["acme", "configure", "running"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def slug(acme, configure):
    sub = unique()
    acme.person = {"sub": sub, "email": f"{sub}@example.com", "email_verified": True}
    return configure(acme.issuer, new_accounts=True)


def signed_in(client):
    return client.session.get("_auth_user_id")


def test_the_honest_way_in_that_each_attack_changes_in_one_thing(acme, slug):
    client = Client()
    come_back(client, slug, acme)
    assert signed_in(client)


def _by_hand(provider: FakeProvider, **header):
    def sign(claims, key, algorithm):
        return jwt.encode(claims, key, algorithm, headers={"kid": "k1"} | header)

    return sign


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.test"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": ["keyturn", "another-client"]},
        {"aud": ["keyturn"], "azp": "another-client"},
        {"aud": None},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"nonce": ""},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "another"},  # than userinfo says
    ],
    ids=str,
)
def test_a_token_that_was_not_made_for_this_sign_in(acme, slug, claims):
    acme.claims = claims
    client = Client()
    if "sub" in claims:
        acme.userinfo = {"sub": acme.person["sub"]}
    assert come_back(client, slug, acme)["Location"] == "/sign-in/"
    assert signed_in(client) is None
    assert not User.objects.filter(email=acme.person["email"]).exists()
    assert AuditEvent.objects.filter(event=Event.SIGN_IN_REFUSED).exists()


@pytest.mark.parametrize("how", ["none", "secret", "public key", "another key", "no kid known"])
def test_a_token_that_the_provider_did_not_sign(acme, slug, how):
    client = Client()
    away = client.get(f"/sso/{slug}/login/")
    query = acme.authorize(away["Location"])
    (asked,) = acme.codes.values()
    claims = acme.usual(**acme.person, nonce=asked["nonce"])
    header = {"kid": "k1"}
    public = repr(acme.get(type("Call", (), {"path": "/jwks"}))[1]).encode()
    match how:
        case "none":
            acme.signed = jwt.encode(claims, "", "none", headers=header)
        case "secret":
            acme.signed = jwt.encode(claims, SECRET, "HS256", headers=header)
        case "public key":
            acme.signed = jwt.encode(claims, public, "HS256", headers=header)
        case "another key":
            other = ec.generate_private_key(ec.SECP256R1())
            acme.signed = jwt.encode(claims, other, "ES256", headers=header)
        case "no kid known":
            acme.signed = acme.sign(claims, kid="k2")
    client.get(f"/sso/{slug}/callback/?{query}")
    assert signed_in(client) is None


def test_state_and_code_work_once_and_in_the_browser_that_began(acme, slug):
    victim, thief = Client(), Client()
    away = victim.get(f"/sso/{slug}/login/")
    query = acme.authorize(away["Location"])
    # A link with the thief's code would sign the victim in as the thief.
    assert thief.get(f"/sso/{slug}/callback/?{query}")["Location"] == "/sign-in/"
    assert signed_in(thief) is None
    # The victim's code under a state of the thief's own: PKCE and nonce are the victim's.
    state = thief.get(f"/sso/{slug}/login/")["Location"].partition("state=")[2].partition("&")[0]
    code = query.partition("&")[0]
    assert thief.get(f"/sso/{slug}/callback/?{code}&state={state}")["Location"] == "/sign-in/"
    assert signed_in(thief) is None
    away = victim.get(f"/sso/{slug}/login/")
    query = acme.authorize(away["Location"])
    victim.get(f"/sso/{slug}/callback/?{query}")
    assert signed_in(victim)
    victim.post("/sign-out/")
    victim.get(f"/sso/{slug}/callback/?{query}")
    assert signed_in(victim) is None


def test_one_provider_does_not_speak_in_another_s_name(acme, slug):
    acme.metadata = {"issuer": "https://login.bigbank.example"}
    client = Client()
    assert client.get(f"/sso/{slug}/login/")["Location"] == "/sign-in/"


def test_a_slug_that_was_given_to_another_issuer_opens_no_account(acme, configure, tmp_path, slug):
    come_back(Client(), slug, acme)
    with FakeProvider() as other:
        other.person = acme.person | {"email_verified": True}
        configure(other.issuer, slug=slug, new_accounts=True)
        client = Client()
        come_back(client, slug, other)
    assert signed_in(client) is None


def test_the_way_back_leads_nowhere_else(acme, slug):
    for at in ("https://evil.test/", "//evil.test/", "/\\evil.test/", "javascript:alert(1)"):
        assert come_back(Client(), slug, acme, next=at)["Location"] == "/"


def test_a_forged_host_is_not_where_the_provider_sends_codes(acme, slug):
    away = Client(headers={"host": "127.0.0.1"}).get(f"/sso/{slug}/login/")
    assert "redirect_uri=http%3A%2F%2Flocalhost%3A8000%2Fsso" in away["Location"]
    asked = Client().get(f"/sso/{slug}/login/?scope=admin&auth_params=nonce%3Dmine&process=connect")
    assert "admin" not in asked["Location"]
    assert "nonce=mine" not in asked["Location"]


# Logout tokens


def signed_in_by(acme, slug, **claims):
    acme.person |= claims
    client = Client()
    come_back(client, slug, acme)
    assert signed_in(client)
    return client


def log_out(slug, token):
    said = {"logout_token": token}
    return Client(enforce_csrf_checks=True).post(f"/sso/{slug}/backchannel-logout", said)


def still_in(client):
    return client.get("/catalogue/").status_code == 200


@pytest.mark.parametrize("by", ["sid", "sub", "both"])
def test_a_logout_token_ends_the_session_or_all_of_the_person(acme, slug, by):
    here = signed_in_by(acme, slug, sid="one")
    there = signed_in_by(acme, slug, sid="two")
    sub = acme.person["sub"]
    named = {"sid": {"sid": "one"}, "sub": {"sub": sub}, "both": {"sid": "one", "sub": sub}}[by]
    answer = log_out(slug, acme.sign(acme.logout_token(**named), typ="logout+jwt"))
    assert (answer.status_code, "no-store" in answer["Cache-Control"]) == (200, True)
    assert not still_in(here)
    assert still_in(there) == (by != "sub")
    row = AuditEvent.objects.filter(event=Event.PROVIDER_ENDED).latest("pk")
    assert row.data == {"provider": slug, "why": "logout token"}


def test_a_logout_token_that_is_none(acme, slug):
    client = signed_in_by(acme, slug)
    bad: tuple[dict[str, object], ...] = (
        {"aud": "another-client"},
        {"iss": "https://evil.test"},
        {"iat": None},
        {"iat": 1_700_000_000},
        {"exp": 1},
        {"jti": None},
        {"jti": ""},
        {"events": None},
        {"events": {"http://schemas.openid.net/event/other": {}}},
        {"events": ["http://schemas.openid.net/event/backchannel-logout"]},
        {"nonce": "n"},
        {"sub": None},
    )
    for claims in bad:
        made = acme.logout_token(**({"sub": acme.person["sub"]} | claims))
        assert log_out(slug, acme.sign(made)).status_code == 400, claims
        assert still_in(client), claims


def test_a_logout_token_by_no_key_of_the_provider_and_one_that_is_an_id_token(acme, slug):
    client = signed_in_by(acme, slug)
    made = acme.logout_token(sub=acme.person["sub"])
    for token in (
        "",
        "a.b.c",
        jwt.encode(made, SECRET, "HS256", headers={"kid": "k1"}),
        jwt.encode(made, "", "none", headers={"kid": "k1"}),
        acme.id_token(jti="1"),
        acme.sign(made, typ="at+jwt"),
    ):
        assert log_out(slug, token).status_code == 400, token
    assert still_in(client)
    assert log_out("unknown", acme.sign(made)).status_code == 404
    assert Client().get(f"/sso/{slug}/backchannel-logout").status_code == 405


def test_a_logout_token_is_taken_once(acme, slug):
    token = acme.sign(acme.logout_token(sub=acme.person["sub"]))
    assert log_out(slug, token).status_code == 200
    client = signed_in_by(acme, slug)
    assert log_out(slug, token).status_code == 400
    assert still_in(client)


def test_a_logout_names_nobody_of_another_provider(acme, slug, configure):
    client = signed_in_by(acme, slug, sid="same")
    with FakeProvider() as other:
        elsewhere = configure(other.issuer)
        token = other.sign(other.logout_token(sub=acme.person["sub"], sid="same"))
        assert log_out(elsewhere, token).status_code == 200
    configure(acme.issuer, slug=slug)
    assert still_in(client)
