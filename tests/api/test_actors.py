"""Every route as everybody: with a session and its CSRF token, with an API token, and as nobody."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accessrequests.actions import note_absence
from accessrequests.models import Absence, AccessRequest, Grant, Policy
from accessrequests.states import RequestState
from accounts import sessions
from accounts.actions import allow_agent, create_token
from accounts.changes import propose
from accounts.models import AgentConsent, ApiToken, Change, User, WorkloadRule
from accounts.stepup import HEADER, Action, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from credentials.actions import check_out, end_grant, rotate
from credentials.models import Credential, Rotation
from credentials.standing import target_of
from credentials.stopping import stop
from endpoints.api import EndpointSerializer
from endpoints.models import EmergencyStop
from notifications.kinds import Kind
from notifications.models import Notification, Webhook, WebhookMessage
from notifications.outbox import notify
from notifications.webhooks.actions import create_webhook, send_test
from tests.accounts.authenticator import authenticator, code
from tests.accounts.passkey import passkey_of
from tests.api.callers import Caller, problem
from tests.world import PROVED, World, reviewing

pytestmark = pytest.mark.django_db

ACTORS = ("holder", "teammate", "reviewer", "owner", "auditor", "administrator", "stranger")


@dataclass
class Scene:
    pending: AccessRequest
    grant: Grant
    credential: Credential
    owed: Credential
    event: AuditEvent
    notification: Notification
    policy: Policy
    absence: Absence
    stop: EmergencyStop
    change: Change
    token: ApiToken
    colleague: User
    service: User
    consent: AgentConsent
    session: str
    rule: WorkloadRule
    webhook: Webhook
    message: WebhookMessage
    rotation: Rotation
    people: dict[str, User]

    def path(self, template: str) -> str:
        return template.format(
            endpoint=self.grant.request.profile.endpoint_id,
            profile=self.grant.request.profile_id,
            pending=self.pending.pk,
            grant=self.grant.pk,
            credential=self.credential.pk,
            owed=self.owed.pk,
            event=self.event.pk,
            notification=self.notification.pk,
            policy=self.policy.slug,
            issuer=self.rule.issuer_id,
            rule=self.rule.pk,
            absence=self.absence.pk,
            stop=self.stop.pk,
            change=self.change.pk,
            token=self.token.pk,
            colleague=self.colleague.pk,
            service=self.service.pk,
            consent=self.consent.pk,
            session=self.session,
            webhook=self.webhook.pk,
            message=self.message.pk,
            rotation=self.rotation.pk,
            group=self.grant.request.profile.requesters_id,
            slug=self.grant.request.profile.endpoint.slug,
        )

    def purposes(self) -> list[Purpose]:
        """All that a session here may have to prove."""
        profile = self.grant.request.profile
        return [
            *reviewing(self.pending),
            Purpose(Action.ASK, str(profile.pk)),
            Purpose(Action.CHECK_OUT, str(self.grant.pk)),
            Purpose(Action.STOP, str(profile.endpoint.pk)),
            Purpose(Action.LIFT, str(self.stop.pk)),
            Purpose(Action.ROTATE, str(profile.endpoint.pk)),
            Purpose(Action.ROTATE, str(self.rotation.secret.endpoint_id)),
            Purpose(Action.ENDPOINT, str(profile.endpoint.pk)),
            Purpose(Action.POLICY, self.policy.slug),
            Purpose(Action.ISSUER),
            Purpose(Action.ISSUER, str(self.rule.issuer_id)),
            Purpose(Action.ISSUER, str(self.rule.pk)),
            Purpose(Action.CHANGE, str(self.change.pk)),
            Purpose(Action.WEBHOOK),
            Purpose(Action.WEBHOOK, str(self.webhook.pk)),
            Purpose(Action.PEOPLE),
            Purpose(Action.AGENT),
            Purpose(Action.PEOPLE, str(self.colleague.pk)),
            *(Purpose(Action.TOKEN, str(user.pk)) for user in self.people.values()),
            Purpose(Action.PEOPLE, str(self.service.pk)),
            Purpose(Action.PEOPLE, str(profile.requesters_id)),
        ]


@pytest.fixture(scope="module")
def scene(committed_once: None, world: World) -> Scene:
    profile = world.profile(with_key=True)
    holder = world.person(profile.requesters)
    grant = world.grant(profile=profile, requester=holder)
    credential = check_out(by=holder, grant_id=grant.pk).credential
    both: dict[str, Any] = {"requesters": profile.requesters, "reviewers": profile.reviewers}
    over = world.grant(profile=world.profile(endpoint=profile.endpoint, **both), requester=holder)
    owed = check_out(by=holder, grant_id=over.pk).credential
    end_grant(by=holder, grant_id=over.pk)
    pending = world.request(profile=profile, requester=holder)
    # Of the same owner, so that nothing else here is stopped.
    another = world.endpoint(with_key=False, owner=profile.endpoint.owner)
    with transaction.atomic():
        [notification] = notify(
            Kind.DECIDED, to=[holder], about=grant, path="/", sentence="x", occasion="again"
        )
    keyed = world.endpoint(owner=profile.endpoint.owner)
    rotation = rotate(by=None, endpoint=keyed)
    change = propose(
        by=world.person(is_administrator=True),
        kind="group_member",
        about=profile.requesters,
        payload={"person": str(world.person().pk)},
        reason="Joins the team.",
        proofs=PROVED,
    )
    assert change is not None
    colleague = world.person(profile.reviewers)
    passkey_of(world, colleague)
    browser = Client()
    browser.force_login(holder)
    session = sessions.name_of(str(browser.session.session_key))
    agent = world.person(owner=world.person())
    webhook, _ = create_webhook(by=holder, name="CI", url="http://127.0.0.1:9/", proofs=PROVED)
    return Scene(
        pending,
        grant,
        credential,
        owed,
        AuditEvent.objects.filter(event=Event.REQUEST_FILED).about(pending.pk).get(),
        notification,
        world.policy(profile=profile),
        note_absence(by=holder, ends_at=clock.now() + dt.timedelta(days=1)),
        stop(by=another.owner, endpoint=another, reason="Its key leaked.", proofs=PROVED),
        change,
        create_token(by=holder, owner=holder, name="A notebook")[0],
        colleague,
        world.person(owner=profile.endpoint.owner),
        allow_agent(by=holder, agent=agent.email),
        session,
        world.rule(),
        webhook,
        send_test(by=holder, webhook_id=webhook.pk),
        rotation,
        {
            "holder": holder,
            "teammate": world.person(profile.requesters),
            "reviewer": world.person(profile.reviewers),
            "owner": profile.endpoint.owner,
            "auditor": world.person(is_auditor=True),
            "administrator": world.person(is_administrator=True),
            "stranger": world.person(),
        },
    )


@pytest.fixture(scope="module")
def callers(scene: Scene) -> dict[tuple[str, str], Caller]:
    """Everybody with a session that has proved all there is, and with a token for everything."""
    made = {}
    for actor, user in scene.people.items():
        made[actor, "token"] = Caller(user, "token")
        made[actor, "session"] = Caller(user)
        made[actor, "session"].prove(*scene.purposes())
    return made


def row(*statuses: int) -> dict[str, int]:
    return dict(zip(ACTORS, statuses, strict=True))


READ, WRITE, REPLACE, CHANGE, REMOVE = "GET", "POST", "PUT", "PATCH", "DELETE"
#                                            holder mate revw ownr audt admn strngr
MATRIX: dict[tuple[str, str], dict[str, int]] = {
    (READ, "endpoints/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "profiles/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "requests/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "grants/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "credentials/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "audit/events/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "endpoints/{endpoint}/"): row(200, 200, 200, 200, 200, 200, 404),
    (READ, "profiles/{profile}/"): row(200, 200, 200, 200, 200, 200, 404),
    (READ, "requests/{pending}/"): row(200, 404, 200, 404, 200, 200, 404),
    (READ, "requests/{pending}/reviews/"): row(200, 404, 200, 404, 200, 200, 404),
    (READ, "requests/{pending}/comments/"): row(200, 404, 200, 404, 200, 200, 404),
    (READ, "requests/{pending}/hand-over/"): row(200, 404, 200, 404, 200, 200, 404),
    (READ, "approvals/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "approvals/decided/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "approvals/figures/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "absences/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "agents/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "agents/"): row(201, 201, 201, 201, 201, 201, 201),
    # Whoever answers for the agent is none of these.
    (READ, "agents/{consent}/"): row(200, 404, 404, 404, 200, 200, 404),
    (WRITE, "agents/{consent}/take-back/"): row(200, 404, 404, 404, 403, 200, 404),
    (READ, "policies/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "policies/schema/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "policies/check/"): row(404, 404, 404, 404, 403, 200, 404),
    (READ, "policies/{policy}/"): row(404, 404, 404, 404, 200, 200, 404),
    (READ, "policies/{policy}/versions/"): row(404, 404, 404, 404, 200, 200, 404),
    (READ, "issuers/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "issuers/{issuer}/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "issuers/"): row(404, 404, 404, 404, 403, 202, 404),
    (CHANGE, "issuers/{issuer}/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "issuers/{issuer}/retire/"): row(404, 404, 404, 404, 403, 200, 404),
    (READ, "workload-rules/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "workload-rules/{rule}/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "workload-rules/"): row(404, 404, 404, 404, 403, 202, 404),
    # Narrower, which needs nobody else.
    (CHANGE, "workload-rules/{rule}/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "workload-rules/{rule}/retire/"): row(404, 404, 404, 404, 403, 200, 404),
    (READ, "changes/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "changes/{change}/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "changes/{change}/approve/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "changes/{change}/reject/"): row(404, 404, 404, 404, 403, 200, 404),
    # Whoever proposed it is none of these.
    (WRITE, "changes/{change}/withdraw/"): row(404, 404, 404, 404, 403, 403, 404),
    (READ, "me/"): row(200, 200, 200, 200, 200, 200, 200),
    (CHANGE, "me/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "me/sessions/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "me/sessions/end-others/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "me/sessions/{session}/end/"): row(204, 404, 404, 404, 404, 404, 404),
    (READ, "people/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "people/{colleague}/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "people/{colleague}/deactivate/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "people/"): row(403, 403, 403, 403, 403, 201, 403),
    (WRITE, "people/{colleague}/reactivate/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "people/{colleague}/invite/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "people/{colleague}/sign-out/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "people/{colleague}/roles/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "people/{colleague}/reset-factors/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "people/{service}/extend/"): row(404, 404, 404, 200, 403, 200, 404),
    (READ, "groups/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "groups/{group}/"): row(404, 404, 404, 404, 200, 200, 404),
    (READ, "groups/{group}/members/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "groups/{group}/members/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "groups/"): row(403, 403, 403, 403, 403, 201, 403),
    (WRITE, "groups/{group}/owners/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "groups/{group}/owners/remove/"): row(404, 404, 404, 404, 403, 204, 404),
    (WRITE, "groups/{group}/members/remove/"): row(404, 404, 404, 404, 403, 204, 404),
    (READ, "grants/{grant}/"): row(200, 404, 200, 200, 200, 200, 404),
    (READ, "grants/{grant}/calls/"): row(200, 404, 200, 200, 200, 200, 404),
    (READ, "grants/{grant}/usage/"): row(200, 404, 200, 200, 200, 200, 404),
    (READ, "endpoints/{endpoint}/prices/"): row(200, 200, 200, 200, 200, 200, 404),
    (WRITE, "endpoints/{endpoint}/prices/"): row(403, 403, 403, 201, 403, 201, 404),
    (READ, "endpoints/{slug}/prices/"): row(200, 200, 200, 200, 200, 200, 404),
    (WRITE, "endpoints/{slug}/prices/"): row(403, 403, 403, 201, 403, 201, 404),
    (READ, "endpoints/{endpoint}/rotations/"): row(200, 200, 200, 200, 200, 200, 404),
    (READ, "rotations/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "rotations/{rotation}/"): row(404, 404, 404, 200, 200, 200, 404),
    # No old key is to be deleted yet: see test_gaps.py.
    (WRITE, "rotations/{rotation}/confirm/"): row(404, 404, 404, 409, 403, 409, 404),
    (READ, "endpoints/{endpoint}/keys/"): row(200, 200, 200, 200, 200, 200, 404),
    (WRITE, "endpoints/{endpoint}/keys/"): row(403, 403, 403, 201, 403, 201, 404),
    (READ, "endpoints/{endpoint}/upstreams/"): row(404, 404, 404, 200, 200, 200, 404),
    (READ, "operations/"): row(404, 404, 404, 404, 200, 200, 404),
    (WRITE, "operations/try/"): row(404, 404, 404, 404, 403, 200, 404),
    (WRITE, "endpoints/{endpoint}/rotate/"): row(403, 403, 403, 201, 403, 201, 404),
    (WRITE, "endpoints/{endpoint}/report-leak/"): row(201, 201, 201, 201, 201, 201, 404),
    (READ, "live/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "stops/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "stops/{stop}/"): row(404, 404, 404, 200, 200, 200, 404),
    (WRITE, "stops/"): row(403, 403, 403, 201, 403, 201, 404),
    (WRITE, "stops/{stop}/lift/"): row(404, 404, 404, 200, 403, 200, 404),
    (READ, "credentials/{credential}/"): row(200, 404, 200, 200, 200, 200, 404),
    (WRITE, "credentials/{owed}/try-now/"): row(403, 404, 403, 403, 403, 200, 404),
    (READ, "audit/events/{event}/"): row(200, 404, 404, 404, 200, 200, 404),
    (READ, "notifications/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "notification-settings/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "notifications/{notification}/read/"): row(200, 404, 404, 404, 404, 404, 404),
    (READ, "webhooks/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "webhooks/"): row(201, 201, 201, 201, 201, 201, 201),
    (READ, "webhooks/{webhook}/"): row(200, 404, 404, 404, 200, 200, 404),
    (CHANGE, "webhooks/{webhook}/"): row(200, 404, 404, 404, 403, 403, 404),
    (REMOVE, "webhooks/{webhook}/"): row(204, 404, 404, 404, 403, 204, 404),
    (WRITE, "webhooks/{webhook}/rotate-secret/"): row(200, 404, 404, 404, 403, 403, 404),
    (WRITE, "webhooks/{webhook}/enable/"): row(200, 404, 404, 404, 403, 403, 404),
    (WRITE, "webhooks/{webhook}/disable/"): row(200, 404, 404, 404, 403, 200, 404),
    (WRITE, "webhooks/{webhook}/test/"): row(202, 404, 404, 404, 403, 403, 404),
    (WRITE, "webhooks/{webhook}/replay/"): row(202, 404, 404, 404, 403, 403, 404),
    (READ, "webhook-messages/"): row(200, 200, 200, 200, 200, 200, 200),
    (READ, "webhook-messages/{message}/"): row(200, 404, 404, 404, 200, 200, 404),
    (WRITE, "webhook-messages/{message}/replay/"): row(202, 404, 404, 404, 403, 403, 404),
    (WRITE, "notifications/read/"): row(200, 200, 200, 200, 200, 200, 200),
    (REPLACE, "notification-settings/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "requests/"): row(201, 201, 400, 400, 400, 400, 400),
    (WRITE, "requests/preview/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "requests/together/"): row(201, 201, 400, 400, 400, 400, 400),
    (WRITE, "requests/{pending}/reviews/"): row(403, 404, 201, 404, 403, 403, 404),
    (WRITE, "requests/{pending}/comments/"): row(201, 404, 201, 404, 403, 403, 404),
    (WRITE, "requests/{pending}/hand-over/"): row(403, 404, 201, 404, 403, 403, 404),
    (WRITE, "reviews/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "absences/"): row(400, 201, 201, 201, 201, 201, 201),
    (REMOVE, "absences/{absence}/"): row(204, 404, 404, 404, 404, 404, 404),
    (REPLACE, "policies/{policy}/"): row(404, 404, 404, 404, 403, 200, 404),
    (REMOVE, "policies/{policy}/"): row(404, 404, 404, 404, 403, 202, 404),
    (WRITE, "requests/{pending}/cancel/"): row(200, 404, 403, 404, 403, 403, 404),
    (WRITE, "grants/{grant}/credentials/"): row(201, 404, 403, 403, 403, 403, 404),
    # Nothing is out that could be refreshed: see test_refreshing.py.
    (WRITE, "grants/{grant}/credentials/refresh/"): row(409, 404, 403, 403, 403, 403, 404),
    # Not handed out wrapped; what is in one is in test_unwrap.py.
    (WRITE, "credentials/{credential}/unwrap/"): row(409, 404, 409, 409, 409, 409, 404),
    (WRITE, "grants/{grant}/end/"): row(200, 404, 200, 200, 403, 200, 404),
    (READ, "tokens/"): row(200, 200, 200, 200, 200, 200, 200),
    (WRITE, "tokens/"): row(201, 201, 201, 201, 201, 201, 201),
    (READ, "tokens/{token}/"): row(200, 404, 404, 404, 200, 200, 404),
    (WRITE, "tokens/{token}/revoke/"): row(200, 404, 404, 404, 403, 200, 404),
    # The same to everybody; what is in it is in test_introspection.py.
    (WRITE, "introspect/"): row(200, 200, 200, 200, 200, 200, 200),
}
# Whoever has a secret may have it revoked: see test_revoking.py, and tests/abuse/test_tokens.py.
PUBLIC = {"schema/", "docs/", "revoke/", "tokens/report-leak/", "tokens/pattern/"}
# A token alone approves nothing and changes no policy; `me/` takes a session.
IN_PERSON = {
    (WRITE, "requests/{pending}/reviews/"),
    (WRITE, "reviews/"),
    (WRITE, "tokens/"),
    (CHANGE, "me/"),
    (READ, "me/sessions/"),
    (WRITE, "me/sessions/end-others/"),
    (WRITE, "me/sessions/{session}/end/"),
    (WRITE, "people/"),
    (WRITE, "people/{colleague}/deactivate/"),
    (WRITE, "people/{colleague}/reactivate/"),
    (WRITE, "people/{colleague}/invite/"),
    (WRITE, "people/{colleague}/sign-out/"),
    (WRITE, "people/{colleague}/roles/"),
    (WRITE, "people/{colleague}/reset-factors/"),
    (WRITE, "people/{service}/extend/"),
    (WRITE, "agents/"),
    (WRITE, "groups/"),
    (WRITE, "groups/{group}/owners/"),
    (WRITE, "groups/{group}/owners/remove/"),
    (WRITE, "groups/{group}/members/"),
    (WRITE, "groups/{group}/members/remove/"),
    (WRITE, "changes/{change}/approve/"),
    (WRITE, "changes/{change}/reject/"),
    (WRITE, "changes/{change}/withdraw/"),
    (WRITE, "issuers/"),
    (CHANGE, "issuers/{issuer}/"),
    (WRITE, "issuers/{issuer}/retire/"),
    (WRITE, "workload-rules/"),
    (CHANGE, "workload-rules/{rule}/"),
    (WRITE, "workload-rules/{rule}/retire/"),
    (REPLACE, "policies/{policy}/"),
    (REMOVE, "policies/{policy}/"),
    (WRITE, "stops/"),
    (WRITE, "stops/{stop}/lift/"),
    (WRITE, "endpoints/{endpoint}/rotate/"),
    (WRITE, "endpoints/{endpoint}/keys/"),
    (WRITE, "rotations/{rotation}/confirm/"),
    (WRITE, "endpoints/{slug}/prices/"),
    (WRITE, "webhooks/"),
    (WRITE, "webhooks/{webhook}/rotate-secret/"),
    (WRITE, "endpoints/{endpoint}/prices/"),
}


def templates(patterns: Any, prefix: str = "") -> set[str]:
    found = set()
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found |= templates(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and path.startswith("api/v1/"):
            found.add(re.sub(r"<\w+:\w+>", "{}", path.removeprefix("api/v1/")))
    return found


def test_no_route_of_the_api_is_missing_here() -> None:
    """A new route fails this until somebody has said who may do what with it."""
    tested = {re.sub(r"{\w+}", "{}", template) for _, template in MATRIX}
    assert templates(get_resolver().url_patterns) == tested | PUBLIC


def body_for(template: str, scene: Scene) -> dict[str, Any]:
    profile = str(scene.grant.request.profile_id)
    version = scene.policy.current
    assert version is not None
    price = {"model": "demo-small", "input_price": "0.15", "output_price": "0.6"}
    bodies: dict[str, Any] = {
        "endpoints/{slug}/prices/": price,
        "endpoints/{endpoint}/prices/": price,
        "endpoints/{endpoint}/report-leak/": {"reason": "It is in a log."},
        "stops/": {
            "endpoint": scene.grant.request.profile.endpoint.slug,
            "reason": "Its key leaked.",
        },
        "requests/": {"profile": profile, "justification": "Ticket 4711."},
        "requests/preview/": {"profile": profile},
        "requests/together/": {"profiles": [profile], "justification": "Ticket 4711."},
        "requests/{pending}/reviews/": {"verdict": "approve"},
        "requests/{pending}/comments/": {"text": "Which prompt?"},
        "requests/{pending}/hand-over/": {"to": scene.colleague.email},
        "reviews/": {"verdict": "approve", "requests": [str(scene.pending.pk)]},
        "changes/{change}/reject/": {"note": "Not on this team."},
        "me/": {"full_name": "Ana Lima"},
        "people/": {"email": "new@example.com", "full_name": "Noor Aziz"},
        "people/{colleague}/roles/": {"auditor": True, "reason": "New duty."},
        "people/{colleague}/reset-factors/": {"reason": "Lost the phone; called back."},
        "agents/": {"agent": scene.consent.agent.email},
        "people/{service}/extend/": {"ends_at": (clock.now() + dt.timedelta(days=9)).isoformat()},
        "groups/": {"slug": "night-shift", "name": "Night shift"},
        "groups/{group}/owners/": {"person": scene.colleague.email, "reason": "Leads the team."},
        "groups/{group}/owners/remove/": {"person": scene.colleague.email},
        "groups/{group}/members/": {"person": scene.colleague.email, "reason": "Joins the team."},
        "groups/{group}/members/remove/": {"person": scene.people["teammate"].email},
        "policies/check/": {"document": version.document | {"name": "Another"}},
        "endpoints/{endpoint}/keys/": {"key": "sk-another-key"},
        "operations/try/": {"kind": scene.owed.kind, "target": target_of(scene.owed)},
        "absences/": {"ends_at": (clock.now() + dt.timedelta(hours=1)).isoformat()},
        "issuers/": {
            "slug": "ci",
            "name": "CI",
            "issuer": "https://ci.example",
            "audience": "https://keyturn.example",
            "reason": "Its jobs evaluate models.",
        },
        "issuers/{issuer}/": {"audience": "another", "reason": "It moved."},
        "workload-rules/": {
            "issuer": str(scene.rule.issuer_id),
            "name": "Weekly",
            "service_account": scene.rule.service_account.email,
            "claims": {"project": ["7", "8"]},
            "verbs": ["read"],
            "reason": "Its jobs evaluate models.",
        },
        "workload-rules/{rule}/": {"verbs": ["read"]},
        "policies/{policy}/": {"document": version.document | {"name": "Another"}},
        "notification-settings/": told(),
        "webhooks/": {"name": "CI", "url": "http://127.0.0.1:9/", "types": ["grant.ended"]},
        "webhooks/{webhook}/": {"name": "CD"},
        "webhooks/{webhook}/replay/": {"since": (clock.now() - dt.timedelta(days=1)).isoformat()},
        "tokens/": {"name": "A nightly job", "days": 1},
        "introspect/": {"token": "s.x"},
        "credentials/{credential}/unwrap/": {"token": "s.x"},
    }
    body: dict[str, Any] = bodies.get(template, {})
    return body


def told() -> dict[str, Any]:
    email = {f"email_{topic}": "digest" for topic in ("waiting", "access", "comments")}
    chat = {f"chat_{topic}": False for topic in ("waiting", "access", "comments")}
    return email | chat | {"chat_handle": "ana", "digest_hour": 7}


@contextmanager
def undone() -> Iterator[None]:
    """What is written in the block is as if it had never been: the scene serves the next actor."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    ("how", "fewest"),
    [
        ("session", False),
        # With a token in every run those of whom most and least is expected; all in test-slow.
        ("token", True),
        pytest.param("token", False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("method", "template"), MATRIX)
def test_who_may_do_what(
    method: str,
    template: str,
    how: str,
    *,
    fewest: bool,
    scene: Scene,
    callers: dict[tuple[str, str], Caller],
) -> None:
    expected = dict(MATRIX[method, template])
    if fewest:
        kept = {max(expected, key=expected.__getitem__), min(expected, key=expected.__getitem__)}
        expected = {actor: expected[actor] for actor in kept}
    if how == "token" and (method, template) in IN_PERSON:
        expected = {actor: 404 if each == 404 else 403 for actor, each in expected.items()}
    path, found = scene.path(template), {}
    for actor in expected:
        with undone():
            caller = callers[actor, how].again()
            answer = (
                caller.get(path)
                if method == READ
                else caller.send(method, path, json.dumps(body_for(template, scene)))
            )
            found[actor] = answer.status_code
            if answer.status_code >= 400:
                assert_told_and_on_record(answer, scene.people[actor])
    assert found == expected


def assert_told_and_on_record(answer: Any, user: User) -> None:
    code = answer.json()["code"]
    problem(answer, answer.status_code, code)
    if answer.status_code == 400:
        assert code == "invalid-input"
        return
    if answer.status_code == 409:
        assert code == "conflict"
        return
    allowed = {404: {"not-found"}, 403: {"forbidden", "self-review", "needs-person"}}
    if "Authorization" in answer.wsgi_request.headers:
        allowed[403].add("step-up-needed")
    assert code in allowed[answer.status_code]
    refused = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=user.pk)
    assert refused.data["path"] == answer.wsgi_request.path


def test_a_token_with_a_second_factor_does_what_a_session_with_one_does(scene: Scene) -> None:
    for method, template in IN_PERSON:
        if template.startswith("me/"):
            continue
        expected = MATRIX[method, template]
        actor = min(expected, key=lambda each: expected[each])
        with undone():
            # Another object: setting a factor up changes it, and that would outlast the block.
            user = User.objects.get(pk=scene.people[actor].pk)
            caller = Caller(user, "token")
            caller.headers[HEADER] = code(authenticator(user))
            body = json.dumps(body_for(template, scene))
            answer = caller.send(method, scene.path(template), body)
        assert answer.status_code == expected[actor], (template, answer.content)


def test_a_token_for_another_endpoint_opens_nothing_here(scene: Scene, world: World) -> None:
    """Whatever its owner may do: who finds it gets no further than where it's for."""
    elsewhere = world.endpoint(with_key=False)
    for (method, template), expected in MATRIX.items():
        actor = min(expected, key=lambda each: expected[each])
        with undone():
            caller = Caller(scene.people[actor], "token", endpoints=[elsewhere.pk])
            body = "" if method == READ else json.dumps(body_for(template, scene))
            answer = caller.send(method, scene.path(template), body)
        told = answer.json()
        if template == "introspect/":
            assert told == {"active": False}
        elif template == "me/" and method == READ:
            assert told["token"]["endpoints"] == [str(elsewhere.pk)]
        elif answer.status_code == 200:
            assert "{" not in template, template
            assert told["results"] in ([], [shown(elsewhere)]), template
        else:
            assert told["code"] in {"token-scope", "not-found", "needs-person"}, (template, told)


def shown(endpoint: Any) -> dict[str, Any]:
    return dict(EndpointSerializer(endpoint).data)


def test_head_is_a_read_without_its_body(scene: Scene) -> None:
    caller = Caller(scene.people["administrator"])
    for method, template in MATRIX:
        if method == READ and MATRIX[method, template]["administrator"] == 200:
            answer = caller.send("HEAD", scene.path(template))
            assert (answer.status_code, answer.content) == (200, b""), template


def test_nobody_is_told_to_sign_in(scene: Scene) -> None:
    for method, template in MATRIX:
        answer = Caller(None).send(method, scene.path(template), b"{}")
        problem(answer, 401, "not-signed-in")
        assert answer["WWW-Authenticate"]


@pytest.mark.parametrize("csrf", ["", "d" * 32])
def test_a_session_without_its_csrf_token_changes_nothing(csrf: str, scene: Scene) -> None:
    caller = Caller(scene.people["holder"])
    caller.headers = {"X-CSRFToken": csrf} if csrf else {}
    for method, template in MATRIX:
        if method != READ:
            body = json.dumps(body_for(template, scene))
            answer = caller.send(method, scene.path(template), body)
            problem(answer, 403, "forbidden")
    scene.pending.refresh_from_db()
    scene.grant.refresh_from_db()
    assert scene.pending.state == RequestState.PENDING
    assert scene.grant.ended_at is None
    assert Credential.objects.filter(grant=scene.grant).count() == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_no_other_method_does_anything(method: str, scene: Scene) -> None:
    caller = Caller(scene.people["administrator"])
    for template in {each for _, each in MATRIX} - {each for how, each in MATRIX if how == method}:
        problem(caller.send(method, scene.path(template), b"{}"), 405, "method-not-allowed")


def test_options_tell_nothing_of_anothers(scene: Scene) -> None:
    caller = Caller(scene.people["stranger"])
    for template in {each for _, each in MATRIX if "{" in each}:
        answer = caller.send("OPTIONS", scene.path(template))
        assert scene.grant.holder.email not in answer.content.decode()
        assert scene.grant.request.justification not in answer.content.decode()


def test_a_deactivated_person_is_nobody(scene: Scene) -> None:
    callers = [Caller(scene.people["holder"]), Caller(scene.people["holder"], "token")]
    User.objects.filter(pk=scene.people["holder"].pk).update(is_active=False)
    for caller in callers:
        problem(caller.get("grants/"), 401, "not-signed-in")
