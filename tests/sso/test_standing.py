"""The provider is asked again before reviews and check-outs, and what it says holds."""

import datetime as dt
import threading

import pytest
from allauth.socialaccount.models import SocialAccount
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection
from django.db.models import F
from django.test import Client

from accessrequests.states import RequestState
from accounts import changes, published
from accounts.actions import join_group
from accounts.models import ProviderSignIn, Session, User
from accounts.sso import actions
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import SignInAgain, Unavailable
from tests.sso.providers import come_back
from tests.world import PROVED, unique


def signed_in(acme, slug):
    sub = acme.person.get("sub") or unique()
    acme.person = {"sub": sub, "email": f"{sub}@example.com", "email_verified": True}
    client = Client()
    come_back(client, slug, acme)
    acme.calls.clear()
    return client, User.objects.get(email=acme.person["email"])


def a_minute_later():
    ProviderSignIn.objects.update(asked_at=F("asked_at") - dt.timedelta(seconds=61))


def granted(world, user):
    profile = world.profile(with_key=True)
    join_group(by=None, user=user, group=profile.requesters)
    return world.grant(profile=profile, requester=user)


@pytest.fixture
def ana(db, acme, configure):
    slug = configure(acme.issuer, new_accounts=True)
    return signed_in(acme, slug)


def test_it_is_asked_at_most_once_a_minute_and_its_tokens_go_on(acme, ana, world):
    client, user = ana
    grant = granted(world, user)
    for expected in ([], ["refresh_token", "userinfo"], ["refresh_token", "userinfo"]):
        assert client.post(f"/grants/{grant.pk}/check-out/").status_code in {200, 403}
        assert acme.calls == expected
        if expected:
            client.post(f"/grants/{grant.pk}/check-out/")
            assert acme.calls == expected
        acme.calls.clear()
        a_minute_later()


PATHS = [
    "/grants/{grant}/check-out/",
    "/grants/{grant}/refresh/",
    "/requests/{pending}/review/",
    "/approvals/decide/",
    "/changes/{change}/decide/",
    "/api/v1/grants/{grant}/credentials/",
    "/api/v1/grants/{grant}/credentials/refresh/",
    "/api/v1/requests/{pending}/reviews/",
    "/api/v1/reviews/",
    "/api/v1/changes/{change}/approve/",
    "/api/v1/changes/{change}/reject/",
]


@pytest.fixture
def scene(ana, world):
    """What Ana could decide and check out."""
    _, user = ana
    profile = world.profile()
    join_group(by=None, user=user, group=profile.reviewers)
    proposer = world.person(is_administrator=True)
    User.objects.filter(pk=user.pk).update(is_administrator=True)
    return {
        "pending": world.request(RequestState.PENDING, profile=profile),
        "grant": granted(world, user),
        "change": changes.propose(
            kind="group_member",
            by=proposer,
            about=profile.requesters,
            payload={"person": str(world.person().pk)},
            reason="Joins the team.",
            proofs=PROVED,
        ),
    }


def send(client, path, scene):
    a_minute_later()
    at = path.format(**{name: row.pk for name, row in scene.items()})
    said: dict[str, object] = {"verdict": "approve"}
    if path in {"/api/v1/reviews/", "/approvals/decide/"}:
        said["requests"] = [str(scene["pending"].pk)]
    if path.startswith("/api/"):
        if "verdict" in said and not path.endswith("reviews/"):
            said = {}
        return client.post(at, said, content_type="application/json")
    return client.post(at, said)


def nothing_was_done(scene):
    for row in (scene["pending"], scene["change"]):
        before = row.state
        row.refresh_from_db()
        assert row.state == before == "pending"
    return not scene["grant"].credentials.exists()


def test_while_it_is_down_nothing_is_reviewed_or_checked_out(acme, ana, scene):
    client, _ = ana
    acme.status = 500
    for path in PATHS:
        assert send(client, path, scene).status_code == 503, path
    assert client.get("/").status_code == 200
    assert nothing_was_done(scene)


def test_once_it_refuses_nothing_is_reviewed_or_checked_out(acme, ana, scene, configure):
    client, user = ana
    slug = SocialAccount.objects.get(user=user).provider
    for path in PATHS:
        acme.refused = True
        answer = send(client, path, scene)
        if path.startswith("/api/"):
            said = answer.json()["type"].split("/")[-2]
            assert (answer.status_code, said) == (401, "sign-in-again"), path
        else:
            assert answer["Location"].startswith("/sign-in/?next="), path
            assert "no longer stands for you" in client.get("/sign-in/").content.decode()
        assert not Session.objects.filter(person=user).exists(), path
        row = AuditEvent.objects.filter(event=Event.PROVIDER_ENDED).latest("pk")
        assert (row.subject_id, row.data["why"]) == (user.pk, "refresh: invalid_grant")
        acme.refused = False
        come_back(client, slug, acme)
    assert nothing_was_done(scene)


def test_without_a_refresh_token_userinfo_says(acme, db, configure):
    acme.refresh_tokens = False
    _, user = signed_in(acme, configure(acme.issuer, new_accounts=True))
    row = ProviderSignIn.objects.get(person=user)
    a_minute_later()
    actions.ask_again(key=row.pk)
    assert acme.calls == ["userinfo"]
    a_minute_later()
    acme.userinfo = {"sub": "somebody else"}
    with pytest.raises(SignInAgain):
        actions.ask_again(key=row.pk)
    assert not ProviderSignIn.objects.exists()


def test_a_refresh_token_that_was_used_up_is_replaced_whatever_follows(acme, ana):
    _, user = ana
    row = ProviderSignIn.objects.get(person=user)
    a_minute_later()
    acme.userinfo_fails = True
    with pytest.raises(Unavailable):
        actions.ask_again(key=row.pk)
    acme.userinfo_fails = False
    actions.ask_again(key=row.pk)
    assert acme.calls == ["refresh_token", "userinfo", "refresh_token", "userinfo"]


def test_groups_that_were_taken_there_are_gone_here_at_the_next_asking(acme, db, configure, world):
    group = world.group()
    slug = configure(acme.issuer, new_accounts=True, groups={"members": {"ml": group.slug}})
    acme.userinfo = {"groups": ["ml"]}
    _, user = signed_in(acme, slug)
    row = ProviderSignIn.objects.get(person=user)
    assert group.has(user)
    acme.userinfo = {"groups": []}
    a_minute_later()
    actions.ask_again(key=row.pk)
    assert not group.has(user)


def test_groups_that_only_id_tokens_name_are_not_lost_by_userinfo(acme, db, configure, world):
    group = world.group()
    slug = configure(acme.issuer, new_accounts=True, groups={"members": {"ml": group.slug}})
    acme.claims = {"groups": ["ml"]}
    acme.userinfo = {"groups": None}
    _, user = signed_in(acme, slug)
    row = ProviderSignIn.objects.get(person=user)
    for again, groups, member in ((False, [], True), (True, ["ml"], True), (True, [], False)):
        acme.id_tokens_again = again
        acme.claims = {"groups": groups}
        a_minute_later()
        actions.ask_again(key=row.pk)
        assert group.has(user) == member, (again, groups)


def test_a_provider_that_was_taken_out_of_the_file_stands_for_nobody(acme, ana, settings, world):
    client, user = ana
    grant = granted(world, user)
    settings.KEYTURN_SSO_FILE = ""
    a_minute_later()
    assert client.post(f"/grants/{grant.pk}/check-out/")["Location"].startswith("/sign-in/")


def test_other_sessions_and_tokens_pass(acme, db, world, configure):
    configure(acme.issuer)
    grant = world.grant()
    client = Client()
    client.force_login(grant.request.requester)
    client.post(f"/grants/{grant.pk}/check-out/")
    assert acme.calls == []


def test_two_at_once_use_a_refresh_token_once(acme, committed, configure):
    slug = configure(acme.issuer, new_accounts=True)
    _, user = signed_in(acme, slug)
    row = ProviderSignIn.objects.get(person=user)
    a_minute_later()
    barrier, failed = threading.Barrier(4), []

    def ask():
        try:
            barrier.wait(60)
            actions.ask_again(key=row.pk)
        except Exception as error:  # noqa: BLE001
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert acme.calls == ["refresh_token", "userinfo"]


def test_tokens_that_vault_does_not_unseal_let_nobody_pass_on_an_older_answer(
    acme, committed, configure
):
    _, user = signed_in(acme, configure(acme.issuer, new_accounts=True))
    row = ProviderSignIn.objects.get(person=user)
    a_minute_later()
    sealed = row.sealed
    ProviderSignIn.objects.update(sealed="vault:v1:" + "A" * 40)
    with pytest.raises(Unavailable):
        actions.ask_again(key=row.pk)
    ProviderSignIn.objects.update(sealed=sealed)
    actions.ask_again(key=row.pk)


def test_keys_that_a_provider_changes_are_read_anew(acme, db, configure, monkeypatch):
    slug = configure(acme.issuer, new_accounts=True)
    signed_in(acme, slug)
    monkeypatch.setattr(published, "KEYS_AGAIN", 0.0)
    acme.kid = "k2"
    monkeypatch.setattr(acme, "key", ec.generate_private_key(ec.SECP256R1()))
    client, _ = signed_in(acme, slug)
    assert client.session.get("_auth_user_id")
