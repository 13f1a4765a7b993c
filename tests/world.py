"""A company to test in: anything at any state, made by the same actions as in production."""

import datetime as dt
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pgtrigger
from django.db.models import CheckConstraint, F
from django.test import Client
from ulid import ULID

from accessrequests.actions import (
    cancel_request,
    expire_requests,
    file_request,
    review_request,
    save_policy,
)
from accessrequests.models import AccessRequest, Grant, Policy, Review
from accessrequests.policy.document import parse
from accessrequests.states import EndReason, RequestState
from accounts import changes
from accounts.actions import create_group, create_user, join_group
from accounts.models import Change, Group, User, WorkloadRule
from accounts.stepup import FRESH, PROOFS, Action, Proofs, Purpose
from accounts.workloads.actions import add_rule, trust_issuer
from audit import clock
from credentials.actions import end_grant, store_upstream_key
from endpoints.actions import create_endpoint, create_profile
from endpoints.models import AccessProfile, Endpoint

P = ParamSpec("P")
R = TypeVar("R")
UPSTREAM_KEY = "sk-upstream-canary-7f3b9c2e51d84a06"
PASSWORD = "correct horse battery staple"
MODELS = ["demo-embed", "demo-large", "demo-slow", "demo-small"]


@dataclass(frozen=True)
class Proved(Proofs):
    """As if everything had been proved so long ago."""

    ago: dt.timedelta = dt.timedelta(0)

    def fresh(self, purpose: Purpose, age: dt.timedelta = FRESH) -> bool:  # noqa: ARG002
        return self.ago <= age


PROVED = Proved()


def prove(client: Client, *purposes: Purpose, ago: dt.timedelta = dt.timedelta(0)) -> None:
    """Let this client's session have proved a second factor for these."""
    session = client.session
    at = (clock.now() - ago).isoformat()
    session[PROOFS] = session.get(PROOFS, {}) | {str(purpose): at for purpose in purposes}
    session.save()


def reviewing(*requests: AccessRequest) -> list[Purpose]:
    """What is proved to review these."""
    return [Purpose(Action.REVIEW, str(request.pk)) for request in requests]


def unique() -> str:
    return str(ULID()).lower()[-12:]


_making: ContextVar[bool] = ContextVar("making", default=False)
_validate = CheckConstraint.validate


def _unless_making(self: CheckConstraint, *args: Any, **options: Any) -> None:
    if not _making.get():
        _validate(self, *args, **options)


CheckConstraint.validate = _unless_making  # type: ignore[method-assign]


def _made(make: Callable[P, R]) -> Callable[P, R]:
    """Before a row is written Django asks PostgreSQL about each of its check constraints, which
    is most of the time in which a scene is made. PostgreSQL still refuses what breaks one."""

    @wraps(make)
    def made(*args: P.args, **options: P.kwargs) -> R:
        before = _making.set(True)
        try:
            return make(*args, **options)
        finally:
            _making.reset(before)

    return made


class World:
    """Names are unique, so that tests which commit don't meet."""

    def __init__(self, upstream_url: str) -> None:
        self.upstream_url = upstream_url

    @_made
    def person(self, *groups: Group, password: str | None = None, **fields: Any) -> User:
        mark = unique()
        user = create_user(
            by=None,
            email=f"p-{mark}@example.com",
            full_name=fields.pop("full_name", f"Person {mark}"),
            password=password,
            **fields,
        )
        for group in groups:
            join_group(by=None, user=user, group=group)
        return user

    def agree(self, by: User) -> list[Change]:
        """A second administrator agrees to all that this one proposed and that still waits."""
        second = self.person(is_administrator=True)
        rows = Change.objects.waiting().filter(proposed_by=by)
        return [changes.approve(by=second, change_id=row.pk, proofs=PROVED) for row in rows]

    @_made
    def group(self) -> Group:
        mark = unique()
        return create_group(by=None, slug=f"g-{mark}", name=f"Group {mark}")

    @_made
    def endpoint(self, *, with_key: bool = True, **fields: Any) -> Endpoint:
        mark = unique()
        endpoint = create_endpoint(
            by=None,
            **{
                "slug": f"e-{mark}",
                "name": f"Endpoint {mark}",
                "environment": "production",
                "risk": "elevated",
                "dialects": ["openai", "anthropic"],
                "upstream_url": self.upstream_url,
                "owner": fields.pop("owner", None) or self.person(),
            }
            | fields,
        )
        if with_key:
            store_upstream_key(by=None, endpoint=endpoint, key=UPSTREAM_KEY)
        return endpoint

    @_made
    def profile(self, *, with_key: bool = False, **fields: Any) -> AccessProfile:
        """`scope` is the ceiling; else `models` are, or all of the demo upstream's."""
        endpoint = fields.pop("endpoint", None) or self.endpoint(with_key=with_key)
        if "default_models" in fields:
            fields["defaults"] = {"models": fields.pop("default_models")}
        return create_profile(
            by=None,
            endpoint=endpoint,
            slug=f"p-{unique()}",
            name="Debug",
            models=fields.pop("models", MODELS),
            scope=fields.pop("scope", None),
            requesters=fields.pop("requesters", None) or self.group(),
            reviewers=fields.pop("reviewers", None) or self.group(),
            **fields,
        )

    def policy(
        self,
        *,
        profile: AccessProfile | None = None,
        endpoint: Endpoint | None = None,
        **document: Any,
    ) -> Policy:
        """A policy for this profile or endpoint; what isn't given is one approval by the
        profile's reviewers. The same slug again is another version."""
        applies_to: dict[str, list[str]] = {}
        if profile is not None:
            applies_to["profiles"] = [f"{profile.endpoint.slug}/{profile.slug}"]
        if endpoint is not None:
            applies_to["endpoints"] = [endpoint.slug]
        usual = {
            "slug": f"policy-{unique()}",
            "name": "Policy",
            "applies_to": applies_to,
            "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}}],
        }
        policy, _ = save_policy(by=None, document=parse(usual | document))
        return policy

    @_made
    def rule(self, **fields: Any) -> WorkloadRule:
        """A rule by which workloads come in, of an issuer that nobody runs."""
        mark = unique()
        issuer = trust_issuer(
            by=None,
            slug=f"i-{mark}",
            name=f"Issuer {mark}",
            issuer=f"https://{mark}.example",
            audience="https://keyturn.example",
        )
        account = fields.pop("service_account", None) or self.person(owner=self.person())
        usual = {"name": "Nightly", "claims": {"project": "7"}, "verbs": ["read", "request"]}
        return add_rule(by=None, issuer=issuer, service_account=account, **usual | fields)

    def request(
        self,
        state: RequestState = RequestState.PENDING,
        *,
        profile: AccessProfile | None = None,
        requester: User | None = None,
        reviewer: User | None = None,
        duration: dt.timedelta = dt.timedelta(hours=1),
        models: list[str] | None = None,
        scope: dict[str, Any] | None = None,
    ) -> AccessRequest:
        """A request at this state; requester and reviewer are made as members of its groups."""
        profile = profile or self.profile()
        requester = requester or self.person(profile.requesters)
        if reviewer is None:
            reviewer = self.person(profile.reviewers)
        request = file_request(
            by=requester,
            profile_id=profile.pk,
            justification="Find out why ticket 4711 was answered in French.",
            duration=duration,
            models=models,
            scope=scope,
        )
        match state:
            case RequestState.APPROVED:
                review_request(
                    by=reviewer,
                    request_id=request.pk,
                    verdict=Review.Verdict.APPROVE,
                    proofs=PROVED,
                )
            case RequestState.DENIED:
                review_request(
                    by=reviewer,
                    request_id=request.pk,
                    verdict=Review.Verdict.DENY,
                    reason="Use staging.",
                    proofs=PROVED,
                )
            case RequestState.CANCELLED:
                cancel_request(by=requester, request_id=request.pk)
            case RequestState.EXPIRED:
                move(request, pending_until=dt.timedelta(days=-2))
                expire_requests()
        return AccessRequest.objects.get(pk=request.pk)

    def grant(self, *, ended: bool = False, **fields: Any) -> Grant:
        """A grant, live unless ended."""
        grant = self.request(RequestState.APPROVED, **fields).grant
        if ended:
            end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
            grant.refresh_from_db()
        return grant


def move(row: AccessRequest | Grant, **columns: dt.timedelta) -> None:
    """Shift times of a row, past the triggers that keep them fixed."""
    with pgtrigger.ignore(
        "accessrequests.AccessRequest:request_fixed", "accessrequests.Grant:grant_fixed"
    ):
        type(row).objects.filter(pk=row.pk).update(
            **{column: F(column) + by for column, by in columns.items()}
        )
    row.refresh_from_db()
