"""Signing in by a provider: who gets in, as whom, in which groups."""

from contextlib import nullcontext
from urllib.parse import urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from accounts import invitations
from accounts.actions import deactivate_user, join_group
from accounts.models import ProviderSignIn, Session, User
from accounts.sso.actions import end
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import NotFound
from tests.accounts.authenticator import authenticator, code
from tests.sso.providers import come_back
from tests.world import PASSWORD, unique

pytestmark = pytest.mark.django_db


def somebody(email=None, **claims):
    sub = unique()
    email = f"{sub}@example.com" if email is None else email
    return {"sub": sub, "email": email, "email_verified": True, "name": "Ana Castillo"} | claims


def signed_in(client):
    return client.session.get("_auth_user_id")


def test_a_first_sign_in_makes_the_account_and_the_second_finds_it(acme, configure):
    slug = configure(acme.issuer, new_accounts=True)
    acme.person = somebody(email=f"Ana.{unique()}@Example.com", sid="their-session")
    client = Client()
    back = come_back(client, slug, acme, next="/catalogue/")
    assert back["Location"] == "/catalogue/"
    user = User.objects.get(email=acme.person["email"].lower())
    assert (user.full_name, user.has_usable_password()) == ("Ana Castillo", False)
    assert not user.is_administrator
    assert not user.is_auditor
    session = Session.objects.get(person=user)
    assert (session.how, session.provider_session) == (slug, f"{slug}/their-session")
    assert AuditEvent.objects.get(event=Event.SIGNED_IN, actor_id=user.pk).data["how"] == slug
    assert "by Acme<" in client.get("/settings/sessions/").content.decode()
    # By `sub` from now on, whatever the address is.
    acme.person |= {"email": "somebody.else@elsewhere.test"}
    again = Client()
    come_back(again, slug, acme)
    assert signed_in(again) == str(user.pk)


def test_nothing_of_the_provider_s_tokens_is_at_rest_in_clear(acme, configure):
    slug = configure(acme.issuer, new_accounts=True)
    acme.person = somebody()
    client = Client()
    come_back(client, slug, acme)
    (refresh,) = acme.good_refresh
    row = ProviderSignIn.objects.get()
    assert row.sealed.startswith("vault:")
    kept = row.sealed + str(dict(client.session)) + str(SocialAccount.objects.get().extra_data)
    assert refresh not in kept
    assert "eyJ" not in kept


def test_a_known_person_is_linked_by_a_verified_address_once(acme, configure, world):
    user, slug = world.person(), configure(acme.issuer)
    acme.person = somebody(email=user.email.upper())
    client = Client()
    come_back(client, slug, acme)
    assert signed_in(client) == str(user.pk)
    # The address was given to somebody else there: that isn't the person whom we know.
    acme.person = somebody(email=user.email)
    other = Client()
    come_back(other, slug, acme)
    assert signed_in(other) is None


def test_whoever_has_a_second_factor_here_proves_it_after_the_provider_too(acme, configure, world):
    user, slug = world.person(), configure(acme.issuer)
    secret = authenticator(user)
    acme.person = somebody(email=user.email, sid="theirs")
    client = Client()
    half_way = come_back(client, slug, acme, next="/catalogue/")["Location"]
    assert half_way == "/sign-in/factor/?next=%2Fcatalogue%2F"
    assert signed_in(client) is None
    assert "/sign-in/" in client.get("/catalogue/")["Location"]
    client.post(half_way, {"code": code(secret)})
    session = Session.objects.get(person=user)
    assert (session.how, session.provider_session) == (slug, f"{slug}/theirs")
    # Who is half-way is signed out by the provider as well.
    other = Client()
    come_back(other, slug, acme)
    assert end(ProviderSignIn.objects.filter(person=user), why="logout token") == 2
    other.post(half_way, {"code": code(secret)})
    assert signed_in(other) is None


@pytest.mark.parametrize(
    ("why", "config", "claims"),
    [
        ("unknown", {}, {}),
        ("email not verified", {"new_accounts": True}, {"email_verified": False}),
        ("email not verified", {"new_accounts": True}, {"email_verified": "true"}),
        ("email not verified", {"new_accounts": True}, {"email_verified": None}),
        ("domain", {"new_accounts": True}, {"email": "ana@sub.example.com"}),
        ("email", {"new_accounts": True}, {"email": "ana@example.com@evil.test"}),
        ("email", {"new_accounts": True}, {"email": ""}),
        ("email", {"new_accounts": True}, {"email": ["ana@example.com"]}),
        ("deactivated", {}, {"email": "deactivated"}),
        ("service account", {}, {"email": "service"}),
    ],
)
def test_who_is_not_let_in_reads_the_same(acme, configure, world, why, config, claims):
    slug = configure(acme.issuer, **config)
    match claims.get("email"):
        case "deactivated":
            user = world.person()
            deactivate_user(by=None, user=user)
            claims = {"email": user.email}
        case "service":
            claims = {"email": world.person(owner=world.person()).email}
    acme.person = somebody(**claims)
    before = User.objects.count()
    client = Client()
    back = come_back(client, slug, acme)
    assert back["Location"] == "/sign-in/"
    page = client.get("/sign-in/").content.decode()
    assert "there is no account here that you may enter" in page
    assert signed_in(client) is None
    assert User.objects.count() == before
    refused = AuditEvent.objects.filter(event=Event.SIGN_IN_REFUSED).latest("pk")
    assert refused.data["provider"] == slug
    assert refused.data["reason"] == why


def test_a_provider_that_vouches_needs_no_verified_mark(acme, configure):
    slug = configure(acme.issuer, new_accounts=True, vouches_for_email=True)
    acme.person = somebody(email_verified=None)
    client = Client()
    come_back(client, slug, acme)
    assert signed_in(client)


def test_a_known_person_who_is_deactivated_gets_in_no_more(acme, configure):
    slug = configure(acme.issuer, new_accounts=True)
    acme.person = somebody()
    come_back(Client(), slug, acme)
    deactivate_user(by=None, user=User.objects.get(email=acme.person["email"]))
    client = Client()
    come_back(client, slug, acme)
    assert signed_in(client) is None


def test_groups_follow_the_claim_where_the_provider_governs_them(acme, configure, world):
    ml, oncall, own = world.group(), world.group(), world.group()
    slug = configure(
        acme.issuer,
        new_accounts=True,
        groups={"claim": "teams", "members": {"ML Platform": ml.slug, "On call": oncall.slug}},
    )
    acme.person = somebody(
        teams=["ML Platform", own.slug, "administrator"], is_administrator=True, roles=["auditor"]
    )
    come_back(Client(), slug, acme)
    user = User.objects.get(email=acme.person["email"])
    join_group(by=None, user=user, group=own)
    assert set(user.member_of.all()) == {ml, own}
    assert not user.sees_everything
    acme.person |= {"teams": "On call"}
    come_back(Client(), slug, acme)
    assert set(user.member_of.all()) == {oncall, own}
    del acme.person["teams"]
    come_back(Client(), slug, acme)
    assert set(user.member_of.all()) == {own}


def test_the_page_offers_providers_and_passwords_as_configured(acme, configure, world, settings):
    assert b"Continue with" not in Client().get("/sign-in/").content
    slug = configure(acme.issuer)
    page = Client().get("/sign-in/?next=/catalogue/").content.decode()
    assert f'href="/sso/{slug}/login/?next=/catalogue/">Continue with Acme' in page
    assert 'name="password"' in page
    settings.KEYTURN_PASSWORD_SIGN_IN = False
    assert b'name="password"' not in Client().get("/sign-in/").content
    assert b'name="password"' in Client().get("/sign-in/?password").content
    for user in (
        world.person(password=PASSWORD),
        world.person(password=PASSWORD, is_administrator=True),
    ):
        client = Client()
        said = {"username": user.email, "password": PASSWORD}
        assert client.post("/sign-in/", said).status_code == 400
        assert signed_in(client) is None


def test_without_passwords_invitations_are_for_administrators(acme, configure, world, settings):
    configure(acme.issuer)
    settings.KEYTURN_PASSWORD_SIGN_IN = False
    for person, leads_to in (
        (world.person(), "/sign-in/"),
        (world.person(is_administrator=True), "/welcome/"),
    ):
        link = invitations.invite(by=None, person=person)
        token = urlsplit(link).path
        client = Client()
        assert client.get(token)["Location"] == leads_to
        stored = invitations.digest(token.strip("/").rpartition("/")[2])
        with nullcontext() if person.is_administrator else pytest.raises(NotFound):
            invitations.claim(stored=stored, password=PASSWORD)


def test_signing_out_leads_to_the_provider_and_forgets_its_tokens(acme, configure):
    slug = configure(acme.issuer, new_accounts=True)
    acme.person = somebody()
    client = Client()
    come_back(client, slug, acme)
    page = client.post("/sign-out/").content.decode()
    assert f'content="0; url={acme.issuer}/end?client_id=keyturn&amp;post_logout_re' in page
    assert "id_token_hint=eyJ" in page
    assert signed_in(client) is None
    assert not ProviderSignIn.objects.exists()


def test_a_provider_that_is_down_is_said_and_nothing_else_happens(acme, configure):
    slug = configure("http://127.0.0.1:9")
    client = Client()
    assert client.get(f"/sso/{slug}/login/")["Location"] == "/sign-in/"
    assert "didn’t work" in client.get("/sign-in/").content.decode().replace("&#x27;", "’")
    assert client.get("/sso/unknown/login/").status_code == 404
    assert client.get("/sso/unknown/callback/").status_code == 404
