"""The types of events that webhooks are told of, and what is said of one.

A type is the name of the audit event with a dot: `grant:ended` is told as `grant.ended`. PostgreSQL
goes by that too (migration 0006). Types are for ever: receivers go by them.
"""

import functools
import json
import uuid
from typing import Any

from django.conf import settings
from django.urls import reverse

from audit.events import Event
from audit.models import AuditEvent

TEST = "webhook.test"
MOST = 20_000  # bytes of a payload
FACT = 200  # characters of what is said of one

# What isn't here isn't told: who signed in, by what, and who was refused are the record's alone.
TOLD: dict[Event, str] = {
    Event.REQUEST_FILED: "Somebody asked for access.",
    Event.REQUEST_REVIEWED: "A reviewer approved one step; more are needed.",
    Event.REQUEST_COMMENTED: "Somebody commented on the request.",
    Event.REQUEST_QUESTIONED: "A reviewer asked the requester something.",
    Event.REQUEST_HANDED_OVER: "A reviewer handed the request over.",
    Event.REQUEST_ESCALATED: "Nobody decided in time, so that others were asked.",
    Event.REQUEST_ROUTED: "Its reviewers were found anew.",
    Event.REQUEST_APPROVED: "The request is approved.",
    Event.REQUEST_DENIED: "The request is denied.",
    Event.REQUEST_CANCELLED: "The request was taken back.",
    Event.REQUEST_EXPIRED: "Nobody decided the request in time.",
    Event.BREAK_GLASS_TAKEN: "Somebody took access before a review.",
    Event.BREAK_GLASS_REVIEWED: "Access taken before a review was reviewed.",
    Event.GRANT_SCHEDULED: "There is a grant, which starts later.",
    Event.GRANT_STARTED: "The grant opens what it is for.",
    Event.GRANT_RAISED: "The grant's budget is higher now.",
    Event.GRANT_ENDED: "The grant is over, by its time or before it.",
    Event.CREDENTIAL_ISSUED: "A credential was checked out.",
    Event.CREDENTIAL_REFRESHED: "A credential was refreshed.",
    Event.CREDENTIAL_UNWRAPPED: "A wrapped credential was unwrapped.",
    Event.CREDENTIAL_UNWRAP_REFUSED: "A wrapped credential had been unwrapped by another before.",
    Event.CREDENTIAL_REVOKING: "The credential is being revoked.",
    Event.CREDENTIAL_REVOKED: "The credential is proved to be gone.",
    Event.CREDENTIAL_STUCK: "The credential couldn't be revoked yet; Keyturn goes on trying.",
    Event.ORPHAN_FOUND: "A credential was found that no record accounts for.",
    Event.ORPHAN_ENDED: "A credential that no record accounted for was ended.",
    Event.ROTATION_DUE: "A key of an endpoint is to be rotated.",
    Event.ROTATION_CREATED: "The new key was made and stored.",
    Event.ROTATION_PUBLISHED: "The new key is in use.",
    Event.ROTATION_CONFIRMED: "Somebody said that they deleted the old key.",
    Event.ROTATION_RETIRED: "The old key is proved to be refused.",
    Event.ROTATION_STUCK: "The rotation can't go on yet; Keyturn goes on trying.",
    Event.SECRET_STORED: "A key of an endpoint was stored.",
    Event.SECRET_EXPOSED: "An endpoint's own key was handed out.",
    Event.SECRET_LEAKED: "A key of an endpoint was reported as leaked.",
    Event.STOP_DECLARED: "An endpoint, or everything, was stopped.",
    Event.STOP_LIFTED: "A stop was lifted.",
    Event.ALL_ENDED: "All that was live was ended.",
    Event.ENDPOINT_CREATED: "There is a new endpoint.",
    Event.ENDPOINT_CHANGED: "An endpoint was changed.",
    Event.ENDPOINT_RETIRED: "An endpoint was retired.",
    Event.PRICE_SET: "What a model costs on an endpoint was set.",
    Event.PROFILE_CREATED: "There is a new access profile.",
    Event.PROFILE_CHANGED: "An access profile was changed.",
    Event.POLICY_CREATED: "There is a new policy.",
    Event.POLICY_CHANGED: "A policy was changed.",
    Event.POLICY_RETIRED: "A policy was retired.",
    Event.CHANGE_PROPOSED: "A change waits for a second administrator.",
    Event.CHANGE_APPROVED: "A second administrator agreed, and it is done.",
    Event.CHANGE_REJECTED: "A second administrator rejected the change.",
    Event.CHANGE_WITHDRAWN: "Whoever proposed the change withdrew it.",
    Event.CHANGE_EXPIRED: "Nobody decided the change in time.",
    Event.USER_CREATED: "There is a new person or service account.",
    Event.USER_CHANGED: "A person's profile was changed.",
    Event.USER_EXTENDED: "A service account ends later now.",
    Event.USER_DEACTIVATED: "A person or service account was deactivated.",
    Event.USER_REACTIVATED: "A person or service account is active again.",
    Event.MANAGER_SET: "A person has another manager.",
    Event.ROLES_SET: "A person's roles were set.",
    Event.GROUP_CREATED: "There is a new group.",
    Event.GROUP_RENAMED: "A group was renamed.",
    Event.GROUP_JOINED: "Somebody was added to a group.",
    Event.GROUP_LEFT: "Somebody was removed from a group.",
    Event.TOKEN_CREATED: "There is a new API token.",
    Event.TOKEN_REVOKED: "An API token was revoked.",
    Event.TOKEN_LEAKED: "An API token was reported as leaked, and revoked.",
    Event.TOKEN_IN_URL: "An API token was sent in a URL, and refused.",
    Event.AGENT_ALLOWED: "Somebody lets an agent act on their behalf.",
    Event.AGENT_DISALLOWED: "Somebody no longer lets an agent act on their behalf.",
    Event.ISSUER_TRUSTED: "There is a new trusted issuer.",
    Event.ISSUER_CHANGED: "A trusted issuer was changed.",
    Event.ISSUER_RETIRED: "An issuer is no longer trusted.",
    Event.RULE_ADDED: "There is a new rule by which workloads are let in.",
    Event.RULE_CHANGED: "A rule by which workloads are let in was changed.",
    Event.RULE_RETIRED: "A rule by which workloads were let in was retired.",
    Event.WEBHOOK_CREATED: "There is a new webhook.",
    Event.WEBHOOK_CHANGED: "A webhook was changed.",
    Event.WEBHOOK_DELETED: "A webhook was deleted.",
    Event.WEBHOOK_SECRET_ROTATED: "A webhook has another signing secret.",
    Event.WEBHOOK_DISABLED: "A webhook was disabled.",
    Event.WEBHOOK_ENABLED: "A webhook is enabled again.",
}
# Of what concerns an endpoint, its owner sees these. A request at it is for its reviewers.
OF_ENDPOINTS = (
    "grant:",
    "credential:",
    "rotation:",
    "upstream_secret:",
    "emergency_stop:",
    "endpoint:",
    "access_profile:",
)

# Where the API has the things that events are about: the name of the route, which takes the id.
ROUTES = {
    "accessrequest": "api-request-detail",
    "grant": "api-grant-detail",
    "credential": "api-credential-detail",
    "endpoint": "api-endpoint-detail",
    "accessprofile": "api-profile-detail",
    "emergencystop": "api-stop-detail",
    "user": "api-person-detail",
    "group": "api-group-detail",
    "change": "api-change-detail",
    "webhook": "api-webhook-detail",
}


def type_of(event: Event) -> str:
    """The type that this event is told as."""
    return event.value.replace(":", ".")


TYPES: dict[str, str] = {type_of(event): words for event, words in TOLD.items()}
_EVENTS = frozenset(event.value for event in TOLD)


def is_told(event: AuditEvent) -> bool:
    """Whether webhooks are told of such an event at all."""
    return event.event in _EVENTS


def payload(event: AuditEvent) -> dict[str, Any]:
    """What is sent of an audit row: which thing it is about, who did what, and where to ask for
    the rest. Of its data only short facts; nothing at all of them where they are many."""
    data: dict[str, Any] = {
        "event": event.pk,
        "subject": {
            "kind": event.subject_kind,
            "id": _text(event.subject_id),
            "name": event.subject,
            "url": url_of(event.subject_kind, event.subject_id),
        },
        "actor": {"id": _text(event.actor_id), "name": event.actor},
        "related": [str(pk) for pk in event.related[:50]],
        "facts": {
            key: value
            for key, value in event.data.items()
            if value is None or isinstance(value, bool | int | float) or _short(value)
        },
    }
    sent = {"type": event.event.replace(":", "."), "timestamp": event.at.isoformat(), "data": data}
    if len(json.dumps(sent)) > MOST:
        data["facts"] = {}
    return sent


def url_of(kind: str, pk: object) -> str | None:
    """The API's address of a thing; None where it has none."""
    if pk is None or kind not in ROUTES:
        return None
    return f"{settings.KEYTURN_BASE_URL}{reverse(ROUTES[kind], args=[pk])}"


@functools.cache
def load_addresses() -> None:
    """Have the addresses of the API known. The first to ask for one imports every view, for which
    no transaction is to wait."""
    reverse(ROUTES["grant"], args=[uuid.UUID(int=0)])


def _short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= FACT


def _text(pk: object) -> str | None:
    return None if pk is None else str(pk)
