"""What a caller says of where they come from counts for nothing; other sites can't act for them."""

from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from accessrequests.models import Grant
from accessrequests.states import RequestState
from accounts.models import SignInTry, User
from audit.events import Event
from audit.forwarded import client_address
from audit.models import AuditEvent
from credentials.models import Credential
from tests.api.callers import Caller
from tests.world import PASSWORD, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

FORGED = [
    {"X-Forwarded-For": "203.0.113.66"},
    {"X-Real-IP": "203.0.113.66"},
    {"Forwarded": "for=203.0.113.66;host=evil.example;proto=https"},
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Server": "evil.example"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Port": "6666"},
    {"X-Original-URL": "/record/"},
    {"X-Rewrite-URL": "/record/"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"True-Client-IP": "203.0.113.66"},
    {"CF-Connecting-IP": "203.0.113.66"},
    {"REMOTE_USER": "admin@example.com"},
    {"Remote-User": "admin@example.com"},
    {"X-Remote-User": "admin@example.com"},
]
MINE = "192.0.2.1"


def names(value: object) -> str | None:
    return next(iter(value)) if isinstance(value, dict) else None


@pytest.mark.parametrize("headers", FORGED, ids=names)
def test_the_record_holds_the_address_that_connected(headers: dict[str, str], world: World) -> None:
    user = world.person()
    client = Client(REMOTE_ADDR=MINE)
    client.force_login(user)
    client.get(reverse("grant", args=[world.grant().pk]), headers=headers)
    row = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=user.pk)
    assert (row.address, row.actor) == (MINE, str(user))
    assert row.data["path"].startswith("/grants/")


@pytest.mark.parametrize("headers", FORGED, ids=names)
def test_failed_sign_ins_count_for_the_address_that_connected(
    headers: dict[str, str], world: World
) -> None:
    Client(REMOTE_ADDR=MINE).post(
        reverse("sign-in"),
        {"username": world.person().email, "password": "a wrong guess"},
        headers=headers,
    )
    assert list(SignInTry.objects.values_list("address", flat=True)) == [MINE]


PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.200")]


@pytest.mark.parametrize(
    ("peer", "named", "caller"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.66, 203.0.113.9", "203.0.113.9"),  # the left one is invented
        ("10.0.0.1", "203.0.113.9, 192.0.2.200, 10.9.9.9", "203.0.113.9"),
        ("10.0.0.1", "10.0.0.7", "10.0.0.7"),
        ("10.0.0.1", "203.0.113.66, what?", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.66, , 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("fd00::1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("192.0.2.201", "203.0.113.66", "192.0.2.201"),  # no proxy of ours
        ("203.0.113.9", "10.0.0.1", "203.0.113.9"),
        ("", "203.0.113.66", ""),  # by a socket that has no address
    ],
)
def test_only_what_our_proxies_wrote_is_believed(
    peer: str, named: str, caller: str, settings: Any
) -> None:
    settings.KEYTURN_TRUSTED_PROXIES = PROXIES
    assert client_address(peer, [named]) == caller
    assert client_address(peer, named.split(", ")) == caller, "in headers of their own"
    settings.KEYTURN_TRUSTED_PROXIES = []
    assert client_address(peer, [named]) == peer


def test_tries_and_the_record_hold_whom_a_proxy_of_ours_names(world: World, settings: Any) -> None:
    settings.KEYTURN_TRUSTED_PROXIES = PROXIES
    named = {"X-Forwarded-For": "203.0.113.66, 203.0.113.9"}
    wrong = {"username": world.person().email, "password": "a wrong guess"}
    Client(REMOTE_ADDR="10.0.0.1").post(reverse("sign-in"), wrong, headers=named)
    Client(REMOTE_ADDR=MINE).post(reverse("sign-in"), wrong, headers=named)
    there = ["203.0.113.9", MINE]
    assert list(SignInTry.objects.order_by("at").values_list("address", flat=True)) == there
    rows = AuditEvent.objects.filter(event=Event.SIGN_IN_REFUSED).order_by("pk")
    assert list(rows.values_list("address", flat=True)) == there


@pytest.mark.parametrize(
    ("peer", "scheme", "status"),
    [("10.0.0.1", "https", 200), ("10.0.0.1", "https, http", 301), (MINE, "https", 301)],
)
def test_only_a_proxy_of_ours_says_that_a_call_came_by_tls(
    peer: str, scheme: str, status: int, settings: Any
) -> None:
    settings.KEYTURN_TRUSTED_PROXIES = PROXIES
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_SSL_REDIRECT = True
    client = Client(REMOTE_ADDR=peer)
    assert client.get(reverse("sign-in"), headers={"X-Forwarded-Proto": scheme}).status_code == (
        status
    )


def test_a_program_is_not_sent_on_to_https_but_refused(world: World, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    caller = Caller(world.person(), "token")
    answer = caller.get("requests/")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "Location" not in answer
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.KEYTURN_BEHIND_PROXY = True
    caller.headers["X-Forwarded-Proto"] = "https"
    assert caller.get("requests/").status_code == 200


@pytest.mark.parametrize(
    "headers", [*FORGED, {"Host": "localhost:6666"}, {"Host": "127.0.0.1"}], ids=names
)
def test_links_are_built_from_the_setting(headers: dict[str, str], world: World) -> None:
    profile = world.profile()
    requester = world.person(profile.requesters)
    for _ in range(2):
        world.request(profile=profile, requester=requester)
    caller = Caller(requester, "token")
    caller.headers |= headers
    answer = caller.get("requests/", limit=1)
    assert answer.status_code == 200
    assert answer.json()["next"].startswith(f"{settings.KEYTURN_BASE_URL}/api/v1/requests/?")
    assert "evil" not in answer.content.decode()
    missing = caller.get(f"requests/{requester.pk}/").json()
    assert missing["type"].startswith(settings.KEYTURN_BASE_URL)


def test_a_host_that_is_not_ours_gets_nothing(world: World) -> None:
    caller = Caller(world.person(), "token")
    caller.headers["Host"] = "evil.example"
    assert caller.get("requests/").status_code == 400


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)",
     "http:evil.example", "\t//evil.example", "https:///evil.example"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(wanted: str, world: World) -> None:
    user = world.person(password=PASSWORD)
    answer = Client().post(
        reverse("sign-in"), {"username": user.email, "password": PASSWORD, "next": wanted}
    )
    assert answer.status_code == 302
    assert answer["Location"] == "/"


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
def test_a_form_of_another_site_changes_nothing(
    origin: str | None, grant: Grant, world: World
) -> None:
    pending = world.request(profile=grant.request.profile, requester=grant.holder)
    reviewer = world.person(grant.request.profile.reviewers)
    headers = {"Origin": origin} if origin else {}
    moves: list[tuple[User, str, object]] = [
        (reviewer, "request-review", pending.pk),
        (grant.holder, "request-cancel", pending.pk),
        (grant.holder, "request-again", pending.pk),
        (grant.holder, "request-new", pending.profile_id),
        (grant.holder, "grant-check-out", grant.pk),
        (grant.holder, "grant-open", grant.pk),
        (grant.holder, "grant-end", grant.pk),
    ]
    for user, name, pk in moves:
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        answer = client.post(
            reverse(name, args=[pk]), {"verdict": "approve", "justification": "x"}, headers=headers
        )
        assert answer.status_code == 403, name
    pending.refresh_from_db()
    grant.refresh_from_db()
    assert pending.state == RequestState.PENDING
    assert grant.ended_at is None
    assert not Credential.objects.filter(grant=grant).exists()
    assert grant.holder.access_requests.count() == 2


def test_no_page_is_framed_and_no_script_of_a_page_runs(grant: Grant) -> None:
    client = Client()
    client.force_login(grant.holder)
    for page in (reverse("home"), reverse("grant", args=[grant.pk]), "/nothing/"):
        answer = client.get(page)
        policy = answer["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Type"] == "text/html; charset=utf-8"
        assert "Access-Control-Allow-Origin" not in answer
        assert "<script>" not in answer.content.decode()
        assert " style=" not in answer.content.decode()


@pytest.mark.parametrize(
    "name", ["request-review", "request-cancel", "grant-check-out", "grant-open", "grant-end"]
)
def test_following_a_link_changes_nothing(name: str, grant: Grant, world: World) -> None:
    pending = world.request(profile=grant.request.profile, requester=grant.holder)
    client = Client()
    client.force_login(grant.holder)
    pk = pending.pk if name.startswith("request") else grant.pk
    assert client.get(reverse(name, args=[pk])).status_code in {302, 405}
    assert not Credential.objects.filter(grant=grant).exists()
    grant.refresh_from_db()
    assert grant.ended_at is None
