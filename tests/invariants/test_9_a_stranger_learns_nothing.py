import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from django_otp_webauthn.models import WebAuthnCredential

from accessrequests.actions import note_absence
from accessrequests.models import Absence, AccessRequest, Grant, Policy
from accounts import sessions
from accounts.actions import allow_agent, create_token
from accounts.changes import propose
from accounts.models import AgentConsent, ApiToken, Change, User, WorkloadRule
from accounts.scopes import Verb
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from credentials.actions import check_out, rotate
from credentials.models import Credential, Rotation
from credentials.stopping import end_all
from endpoints.models import EmergencyStop
from notifications.kinds import Kind
from notifications.models import Notification, Webhook, WebhookMessage
from notifications.outbox import notify
from notifications.webhooks.actions import create_webhook, send_test
from tests.accounts.passkey import passkey_of
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db

GET, POST, PUT, PATCH, DELETE = "GET", "POST", "PUT", "PATCH", "DELETE"
# Every route that names an object, how it's called, and which object it names.
ROUTES = {
    ("api-endpoint-detail", GET): "endpoint",
    ("api-profile-detail", GET): "profile",
    ("api-request-detail", GET): "request",
    ("api-request-reviews", GET): "request",
    ("api-request-reviews", POST): "request",
    ("api-request-comments", GET): "request",
    ("api-request-comments", POST): "request",
    ("api-request-hand-over", GET): "request",
    ("api-request-hand-over", POST): "request",
    ("api-request-cancel", POST): "request",
    ("api-absence-detail", DELETE): "absence",
    ("api-agent-detail", GET): "consent",
    ("api-agent-take-back", POST): "consent",
    ("api-policy-detail", GET): "policy",
    ("api-policy-detail", PUT): "policy",
    ("api-policy-detail", DELETE): "policy",
    ("api-policy-versions", GET): "policy",
    ("api-token-detail", GET): "api_token",
    ("api-token-revoke", POST): "api_token",
    ("api-grant-detail", GET): "grant",
    ("api-grant-credentials", POST): "grant",
    ("api-grant-refresh", POST): "grant",
    ("api-grant-end", POST): "grant",
    ("api-grant-calls", GET): "grant",
    ("api-grant-usage", GET): "grant",
    ("api-endpoint-prices", GET): "endpoint",
    ("api-endpoint-prices", POST): "endpoint",
    ("api-endpoint-prices-by-slug", GET): "slug",
    ("api-endpoint-prices-by-slug", POST): "slug",
    ("api-stop-detail", GET): "stop",
    ("api-stop-lift", POST): "stop",
    ("api-credential-detail", GET): "credential",
    ("api-credential-unwrap", POST): "credential",
    ("api-credential-try-now", POST): "credential",
    ("api-audit-event-detail", GET): "event",
    ("endpoint", GET): "slug",
    ("request-new", GET): "profile",
    ("request-new", POST): "profile",
    ("request-preview", POST): "profile",
    ("request", GET): "request",
    ("request-review", POST): "request",
    ("request-comment", POST): "request",
    ("request-hand-over", POST): "request",
    ("request-cancel", POST): "request",
    ("request-again", POST): "request",
    ("grant", GET): "grant",
    ("grant-check-out", POST): "grant",
    ("grant-refresh", POST): "grant",
    ("grant-open", POST): "grant",
    ("grant-end", POST): "grant",
    ("grant-extend", GET): "grant",
    ("grant-extend", POST): "grant",
    ("grant-extend-preview", POST): "grant",
    ("grant-raise", GET): "grant",
    ("grant-raise", POST): "grant",
    ("grant-raise-preview", POST): "grant",
    ("grant-usage", GET): "grant",
    ("price-set", POST): "slug",
    ("api-endpoint-keys", GET): "endpoint",
    ("api-endpoint-keys", POST): "endpoint",
    ("api-endpoint-upstreams", GET): "owned",
    ("api-rotation-detail", GET): "rotation",
    ("api-rotation-confirm", POST): "rotation",
    ("api-endpoint-rotations", GET): "endpoint",
    ("api-endpoint-rotate", POST): "endpoint",
    ("api-endpoint-report-leak", POST): "endpoint",
    ("upstream-key", GET): "slug",
    ("upstream-key-rotate", POST): "slug",
    ("upstream-key-store", POST): "slug",
    ("upstream-key-leak", GET): "slug",
    ("upstream-key-leak", POST): "slug",
    ("rotation-confirm", POST): "rotation",
    ("upstreams", GET): "owned_slug",
    ("stop", GET): "stop",
    ("stop-lift", POST): "stop",
    ("absence-drop", POST): "absence",
    ("agent-take-back", POST): "consent",
    ("passkey-rename", POST): "passkey",
    ("passkey-remove", POST): "passkey",
    ("record-event", GET): "event",
    ("api-notification-read", POST): "notification",
    ("notification-read", POST): "notification",
    ("api-change-detail", GET): "change",
    ("api-change-approve", POST): "change",
    ("api-change-reject", POST): "change",
    ("api-change-withdraw", POST): "change",
    ("change", GET): "change",
    ("change-decide", POST): "change",
    ("change-withdraw", POST): "change",
    ("policy", GET): "policy",
    ("policy-edit", GET): "policy",
    ("policy-edit", POST): "policy",
    ("policy-check", POST): "policy",
    ("policy-retire", POST): "policy",
    ("api-person-detail", GET): "person",
    ("api-person-deactivate", POST): "person",
    ("api-person-reactivate", POST): "person",
    ("api-person-invite", POST): "person",
    ("api-person-sign-out", POST): "person",
    ("api-person-roles", POST): "person",
    ("api-person-reset-factors", POST): "person",
    ("api-person-extend", POST): "person",
    ("api-session-end", POST): "session",
    ("api-group-owners", POST): "group",
    ("api-group-drop-owner", POST): "group",
    ("api-group-detail", GET): "group",
    ("api-group-members", GET): "group",
    ("api-group-members", POST): "group",
    ("api-group-leave", POST): "group",
    ("person", GET): "person",
    ("person-access", GET): "person",
    ("person-deactivate", POST): "person",
    ("person-reactivate", POST): "person",
    ("person-invite", POST): "person",
    ("person-sign-out", POST): "person",
    ("person-roles", POST): "person",
    ("person-reset", POST): "person",
    ("service-extend", POST): "person",
    ("group", GET): "group",
    ("group-join", POST): "group",
    ("group-leave", POST): "group",
    ("group-owner", POST): "group",
    ("token-revoke", POST): "api_token",
    ("api-issuer-detail", GET): "issuer",
    ("api-issuer-detail", PATCH): "issuer",
    ("api-issuer-retire", POST): "issuer",
    ("api-workload-rule-detail", GET): "rule",
    ("api-workload-rule-detail", PATCH): "rule",
    ("api-workload-rule-retire", POST): "rule",
    ("workload-issuer", GET): "issuer",
    ("workload-issuer-change", POST): "issuer",
    ("workload-issuer-retire", POST): "issuer",
    ("workload-rule-new", POST): "issuer",
    ("workload-rule", POST): "rule",
    ("workload-rule-retire", POST): "rule",
    ("api-webhook-detail", GET): "webhook",
    ("api-webhook-detail", PATCH): "webhook",
    ("api-webhook-detail", DELETE): "webhook",
    ("api-webhook-rotate-secret", POST): "webhook",
    ("api-webhook-enable", POST): "webhook",
    ("api-webhook-disable", POST): "webhook",
    ("api-webhook-test", POST): "webhook",
    ("api-webhook-replay", POST): "webhook",
    ("api-webhook-message-detail", GET): "message",
    ("api-webhook-message-replay", POST): "message",
    ("webhook", GET): "webhook",
    ("webhook-edit", GET): "webhook",
    ("webhook-edit", POST): "webhook",
    ("webhook-rotate", POST): "webhook",
    ("webhook-test", POST): "webhook",
    ("webhook-replay", POST): "webhook",
    ("webhook-enable", POST): "webhook",
    ("webhook-disable", POST): "webhook",
    ("webhook-delete", POST): "webhook",
    ("webhook-message-replay", POST): "message",
}
# These name nothing of anybody's.
OPEN = {"problem", "sso-start", "sso-callback", "sso-backchannel-logout", "welcome"}
# These answer a directory's token alone, whoever is signed in: tests/scim/.
DIRECTORY = {"scim-type", "scim-schema", "scim-person", "scim-group", "scim-nowhere"}
ADMINISTERED = {
    "policy",
    "stop",
    "owned",
    "owned_slug",
    "change",
    "person",
    "group",
    "issuer",
    "rule",
}
TEAMMATE_SEES = {"endpoint", "profile", "slug"}
PRICE = {"model": "demo-small", "input_price": "1", "output_price": "2"}
BODIES = {
    "api-endpoint-prices": PRICE,
    "api-endpoint-prices-by-slug": PRICE,
    "api-credential-unwrap": {"token": "s.x"},
    "api-request-reviews": {"verdict": "approve"},
    "api-request-comments": {"text": "Let me in."},
    "api-change-reject": {"note": "No."},
    "api-group-members": {"person": "noor@example.com"},
    "api-group-leave": {"person": "noor@example.com"},
    "api-endpoint-keys": {"key": "sk-mine"},
    "api-person-roles": {"auditor": True},
    "api-person-reset-factors": {"reason": "It is me."},
    "api-group-owners": {"person": "noor@example.com"},
    "api-group-drop-owner": {"person": "noor@example.com"},
    "change-decide": {"verdict": "approve"},
    "api-request-hand-over": {"to": "ben@example.com"},
    "api-endpoint-report-leak": {"reason": "It is in a log."},
    "upstream-key-leak": {"reason": "It is in a log."},
    "upstream-key-store": {"key": "sk-mine"},
    "passkey-rename": {"name": "Mine"},
    "request-review": {"verdict": "approve"},
    "request-comment": {"text": "What for?", "kind": "question"},
    "request-hand-over": {"to": "me@example.com"},
    "request-new": {"justification": "Let me in.", "duration": "60"},
    "grant-raise": {"justification": "Let me spend.", "token_budget": "1000"},
    "api-webhook-detail": {"name": "Mine"},
    "api-webhook-replay": {"since": "2026-01-01T00:00:00Z"},
    "webhook-replay": {"since": "2026-01-01T00:00"},
    "grant-extend": {"justification": "Let me stay.", "duration": "60"},
}


def routes(patterns: Any = None, names: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns)
        else:
            yield str(pattern.name), pattern


def test_no_route_that_names_an_object_is_missing_here() -> None:
    """A new route fails this until it's in the table above, and so is tested below."""
    named = {name for name, pattern in routes() if pattern.pattern.converters}
    assert named == {name for name, _ in ROUTES} | OPEN | DIRECTORY


@dataclass(frozen=True)
class Theirs:
    """What belongs to others: everything that a route can name."""

    request: AccessRequest
    grant: Grant
    credential: Credential
    event: AuditEvent
    notification: Notification
    policy: Policy
    absence: Absence
    consent: AgentConsent
    stop: EmergencyStop
    rotation: Rotation
    change: Change
    passkey: WebAuthnCredential
    api_token: ApiToken
    session: str
    rule: WorkloadRule
    webhook: Webhook
    message: WebhookMessage

    def id_of(self, kind: str) -> Any:
        match kind:
            case "endpoint" | "owned":
                return self.request.profile.endpoint_id
            case "slug" | "owned_slug":
                return self.request.profile.endpoint.slug
            case "profile":
                return self.request.profile_id
            case "policy":
                return self.policy.slug
            case "person":
                return self.grant.holder_id
            case "issuer":
                return self.rule.issuer_id
            case "group":
                return self.request.profile.requesters_id
            case "session":
                return self.session
            case _:
                return getattr(self, kind).pk

    @staticmethod
    def missing(kind: str) -> Any:
        return {
            "slug": "no-such-endpoint",
            "owned_slug": "no-such-endpoint",
            "policy": "no-such-policy",
            "session": "no-such-session",
            "event": 2**62,
            "passkey": 2**62,
        }.get(kind) or new_id()


@pytest.fixture(scope="module")
def theirs(committed_once: None, world: World) -> Theirs:
    profile = world.profile(with_key=True)
    rotation = rotate(by=None, endpoint=profile.endpoint)
    owner = profile.endpoint.owner
    ended = end_all(by=owner, endpoint=profile.endpoint, reason="Its key leaked.", proofs=PROVED)
    grant = world.grant(profile=profile)
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    event = AuditEvent.objects.filter(event=Event.REQUEST_FILED).about(grant.request_id).get()
    with transaction.atomic():
        [notification] = notify(
            Kind.DECIDED, to=[grant.holder], about=grant, path="/", sentence="x", occasion="again"
        )
    policy = world.policy(profile=grant.request.profile)
    until = timezone.now() + dt.timedelta(days=1)
    change = propose(
        by=world.person(is_administrator=True),
        kind="role",
        about=world.person(),
        payload={"auditor": True},
        reason="New duty.",
        proofs=PROVED,
    )
    assert change is not None
    absence = note_absence(by=grant.holder, ends_at=until)
    _, passkey, _ = passkey_of(world, grant.holder)
    token, _ = create_token(by=grant.holder, owner=grant.holder, name="script")
    browser = Client()
    browser.force_login(grant.holder)
    webhook, _ = create_webhook(
        by=grant.holder, name="CI", url="http://127.0.0.1:9/", proofs=PROVED
    )
    return Theirs(
        grant.request,
        grant,
        credential,
        event,
        notification,
        policy,
        absence,
        allow_agent(by=grant.holder, agent=world.person(owner=owner).email, proofs=PROVED),
        ended,
        rotation,
        change,
        passkey,
        token,
        sessions.name_of(str(browser.session.session_key)),
        world.rule(),
        webhook,
        send_test(by=grant.holder, webhook_id=webhook.pk),
    )


@pytest.fixture
def stranger(world: World) -> User:
    return world.person()


@pytest.fixture
def teammate(world: World, theirs: Theirs) -> User:
    """May ask for the same things, and sees no more of others' requests than a stranger."""
    return world.person(theirs.request.profile.requesters)


def call(user: User, route: tuple[str, str], pk: Any, *, with_token: bool = False) -> Any:
    name, method = route
    client = Client()
    headers = {}
    if with_token:
        _, text = create_token(by=user, owner=user, name="script", verbs=Verb.values)
        headers = {"Authorization": f"Bearer {text}"}
    else:
        client.force_login(user)
    body = BODIES.get(name, {})
    if name.startswith("api-"):
        return client.generic(
            method,
            reverse(name, args=[pk]),
            json.dumps(body),
            content_type="application/json",
            headers=headers,
        )
    if method == POST:
        return client.post(reverse(name, args=[pk]), body)
    return client.get(reverse(name, args=[pk]))


def told(answer: Any, pk: Any) -> str:
    """The answer without what is the caller's own or random: id asked for, trace, CSRF token."""
    asked_for = str(pk) if not str(pk).isdigit() else f"/{pk}/"
    text: str = answer.content.decode().replace(asked_for, "<id>")
    text = text.replace(answer["X-Request-Id"], "<trace>")
    return re.sub(r'(csrfmiddlewaretoken" value="|X-CSRFToken": ?")[^"]+', r"\1<csrf>", text)


def named(value: str | tuple[str, str]) -> str:
    return value if isinstance(value, str) else " ".join(value)


CALLS = [(route, "session") for route in ROUTES] + [
    (route, "token") for route in ROUTES if route[0].startswith("api-")
]


@pytest.mark.parametrize(
    ("route", "how"), CALLS, ids=lambda each: each if isinstance(each, str) else " ".join(each)
)
def test_a_stranger_is_told_the_same_of_anothers_and_of_nothing(
    route: tuple[str, str], how: str, theirs: Theirs, stranger: User
) -> None:
    kind = ROUTES[route]
    foreign, missing = theirs.id_of(kind), Theirs.missing(kind)
    refusals = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=stranger.pk)
    there = call(stranger, route, foreign, with_token=how == "token")
    assert there.status_code == 404
    row = refusals.get()
    assert row.data["path"] == reverse(route[0], args=[foreign])
    assert row.data["code"] == "not-found"
    gone = call(stranger, route, missing, with_token=how == "token")
    assert gone.status_code == 404
    assert refusals.count() == 2
    assert told(there, foreign) == told(gone, missing)


@pytest.mark.parametrize(
    "route", [each for each, kind in ROUTES.items() if kind not in TEAMMATE_SEES], ids=" ".join
)
def test_a_teammate_sees_nothing_of_anothers_request(
    route: tuple[str, str], theirs: Theirs, teammate: User
) -> None:
    assert call(teammate, route, theirs.id_of(ROUTES[route])).status_code == 404


@pytest.mark.parametrize(
    "route", [each for each in ROUTES if each[1] == GET], ids=lambda each: each[0]
)
def test_the_owner_sees_each_of_them(route: tuple[str, str], theirs: Theirs, world: World) -> None:
    """So that the refusals above are about who asks, not about what is asked."""
    kind = ROUTES[route]
    theirs_alone = kind not in {
        "policy",
        "stop",
        "owned",
        "owned_slug",
        "change",
        "person",
        "group",
        "issuer",
        "rule",
        "rotation",
    }
    owner = theirs.grant.holder if theirs_alone else world.person(is_administrator=True)
    answer = call(owner, route, theirs.id_of(kind))
    assert answer.status_code == 200


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_nobody_at_all_is_sent_to_sign_in(route: tuple[str, str], theirs: Theirs) -> None:
    name, method = route
    answer = Client().generic(method, reverse(name, args=[theirs.id_of(ROUTES[route])]))
    if name.startswith("api-"):
        assert answer.status_code == 401
    else:
        assert answer.status_code == 302
        assert answer["Location"].startswith("/sign-in/")


@pytest.mark.parametrize("name", sorted({name for name, _ in routes() if name.endswith("-list")}))
def test_a_strangers_lists_hold_nothing_of_anybodys(
    name: str, theirs: Theirs, stranger: User
) -> None:
    client = Client()
    client.force_login(stranger)
    answer = client.get(reverse(name))
    assert answer.status_code == 200
    text = answer.content.decode()
    for kind in ("endpoint", "slug", "profile", "request", "grant", "credential", "stop"):
        assert str(theirs.id_of(kind)) not in text


@pytest.mark.parametrize(
    "page",
    [
        "home",
        "catalogue",
        "requests",
        "approvals",
        "approvals-decided",
        "approvals-others",
        "approvals-figures",
        "absences",
        "agents",
        "record",
        "notifications",
        "groups",
        "services",
        "sessions",
        "tokens",
        "webhooks",
        "profile",
    ],
)
def test_a_strangers_pages_hold_nothing_of_anybodys(
    page: str, theirs: Theirs, stranger: User
) -> None:
    client = Client()
    client.force_login(stranger)
    text = client.get(reverse(page)).content.decode()
    for kind in ("endpoint", "slug", "profile", "request", "grant", "credential", "group"):
        assert str(theirs.id_of(kind)) not in text
    assert theirs.grant.holder.email not in text


@pytest.mark.parametrize("kind", ["request", "grant", "credential", "endpoint", "profile"])
def test_a_filter_finds_no_more_than_the_list(kind: str, theirs: Theirs, stranger: User) -> None:
    client = Client()
    client.force_login(stranger)
    answer = client.get("/api/v1/audit/events/", {"about": str(theirs.id_of(kind))})
    assert answer.json()["results"] == []


@pytest.mark.parametrize("profile", ["another's", "none"])
def test_filing_for_a_profile_that_one_may_not_ask_for(
    profile: str, theirs: Theirs, stranger: User
) -> None:
    client = Client()
    client.force_login(stranger)
    pk = theirs.request.profile_id if profile == "another's" else uuid.uuid4()
    answer = client.post(
        "/api/v1/requests/",
        {"profile": str(pk), "justification": "Let me in."},
        content_type="application/json",
    )
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"field": "profile", "message": "There is no such profile that you may ask for."}
    ]
