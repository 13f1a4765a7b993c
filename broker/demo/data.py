"""People, groups, endpoints and profiles for a first look, made by the actions that make all."""

import datetime as dt
from dataclasses import dataclass

from django.conf import settings

from accounts.actions import create_group, create_user, join_group
from accounts.models import Group, User
from credentials import vault
from credentials.actions import store_upstream_key
from endpoints.actions import create_endpoint, create_profile, move_endpoint
from endpoints.models import AccessProfile, Endpoint

PASSWORD = "turn-the-key-2026"  # noqa: S105 -- for loopback, and said on the sign-in page
SIGN_INS = [
    ("ana@example.com", PASSWORD, "asks for access"),
    ("ben@example.com", PASSWORD, "approves it"),
    ("chidi@example.com", PASSWORD, "runs security: sees everything"),
]


@dataclass(frozen=True)
class _Person:
    email: str
    full_name: str
    time_zone: str
    groups: tuple[str, ...]
    is_auditor: bool = False
    is_administrator: bool = False


_GROUPS = {
    "engineers": "Engineers",
    "data-science": "Data science",
    "platform-reviewers": "Platform reviewers",
    "security": "Security",
}
_PEOPLE = [
    _Person("ana@example.com", "Ana Castillo", "Europe/Madrid", ("engineers", "data-science")),
    _Person("ben@example.com", "Ben Okafor", "Europe/London", ("engineers", "platform-reviewers")),
    _Person("dana@example.com", "Dana Levi", "Asia/Jerusalem", ("platform-reviewers", "security")),
    _Person(
        "chidi@example.com",
        "Chidi Eze",
        "UTC",
        ("security",),
        is_auditor=True,
        is_administrator=True,
    ),
]
_ENDPOINTS = [
    {
        "slug": "support-assistant",
        "name": "Support assistant",
        "description": "Answers customers in chat, with read access to tickets and orders.",
        "kind": "inference",
        "environment": "production",
        "risk": "critical",
        "connected_systems": ["Ticket database", "Order API", "Refund tool"],
        "profiles": [
            {
                "slug": "debug",
                "name": "Debug in production",
                "description": "Reproduce a customer's answer with the live prompt and tools.",
                "models": ["demo-small", "demo-large", "demo-slow"],
                "default_models": ["demo-small"],
                "default_duration": dt.timedelta(hours=1),
                "max_duration": dt.timedelta(hours=4),
                "requesters": "engineers",
                "reviewers": "platform-reviewers",
            }
        ],
    },
    {
        "slug": "research-models",
        "name": "Research models",
        "description": "Shared playground for prompts and embeddings; no customer data.",
        "kind": "inference",
        "environment": "development",
        "risk": "low",
        "connected_systems": [],
        "profiles": [
            {
                "slug": "experiment",
                "name": "Experiment",
                "description": "Prompts and evaluations against every research model.",
                "models": ["demo-small", "demo-large", "demo-slow", "demo-embed"],
                "default_models": ["demo-small", "demo-embed"],
                "default_duration": dt.timedelta(hours=2),
                "max_duration": dt.timedelta(hours=12),
                "requesters": "data-science",
                "reviewers": "platform-reviewers",
            },
            {
                "slug": "embeddings",
                "name": "Embeddings only",
                "description": "Index documents; no text is generated.",
                "models": ["demo-embed"],
                "default_duration": dt.timedelta(minutes=30),
                "max_duration": dt.timedelta(hours=8),
                "requesters": "engineers",
                "reviewers": "platform-reviewers",
            },
        ],
    },
    {
        "slug": "contract-review",
        "name": "Contract review",
        "description": "Reads uploaded contracts and drafts comments for the legal team.",
        "kind": "inference",
        "environment": "staging",
        "risk": "elevated",
        "connected_systems": ["Document store"],
        "profiles": [
            {
                "slug": "evaluate",
                "name": "Evaluate",
                "description": "Compare drafts against the reference set before a release.",
                "models": ["demo-large"],
                "default_duration": dt.timedelta(hours=1),
                "max_duration": dt.timedelta(hours=8),
                "requesters": "engineers",
                "reviewers": "security",
            }
        ],
    },
]


def create() -> None:
    """Make whatever of the demo isn't there yet, and point it at the demo upstream of today."""
    groups = {slug: _group(slug, name) for slug, name in _GROUPS.items()}
    for person in _PEOPLE:
        _user(person, groups)
    owner = User.objects.get(email="dana@example.com")
    for entry in _ENDPOINTS:
        fields = {key: value for key, value in entry.items() if key != "profiles"}
        endpoint = Endpoint.objects.filter(slug=fields["slug"]).first() or create_endpoint(
            by=None,
            owner=owner,
            dialects=["openai", "anthropic"],
            upstream_url=settings.KEYTURN_DEMO_UPSTREAM_URL,
            **fields,
        )
        move_endpoint(by=None, endpoint=endpoint, upstream_url=settings.KEYTURN_DEMO_UPSTREAM_URL)
        profiles: list[dict[str, object]] = entry["profiles"]  # type: ignore[assignment]
        for profile in profiles:
            _profile(endpoint, profile, groups)
        if not vault.upstream_version(endpoint.slug):
            store_upstream_key(by=None, endpoint=endpoint, key=settings.KEYTURN_DEMO_UPSTREAM_KEY)


def _group(slug: str, name: str) -> Group:
    return Group.objects.filter(slug=slug).first() or create_group(by=None, slug=slug, name=name)


def _user(person: _Person, groups: dict[str, Group]) -> None:
    if User.objects.filter(email=person.email).exists():
        return
    user = create_user(
        by=None,
        email=person.email,
        full_name=person.full_name,
        password=PASSWORD,
        time_zone=person.time_zone,
        is_auditor=person.is_auditor,
        is_administrator=person.is_administrator,
    )
    for slug in person.groups:
        join_group(by=None, user=user, group=groups[slug])


def _profile(endpoint: Endpoint, fields: dict[str, object], groups: dict[str, Group]) -> None:
    if AccessProfile.objects.filter(endpoint=endpoint, slug=fields["slug"]).exists():
        return
    asked = {**fields}
    models: list[str] = asked.pop("models")  # type: ignore[assignment]
    requesters, reviewers = str(asked.pop("requesters")), str(asked.pop("reviewers"))
    create_profile(
        by=None,
        endpoint=endpoint,
        models=models,
        requesters=groups[requesters],
        reviewers=groups[reviewers],
        **asked,
    )
