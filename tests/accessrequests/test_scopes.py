"""Asking for a part of what a profile gives, and approving less, in each part of a scope."""

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from accessrequests.actions import file_request, preview_request, review_request
from accessrequests.dossier import dossier
from accessrequests.models import AccessRequest, Grant, Review
from audit import clock
from audit.ids import new_id
from broker.errors import AuthorityLost, InvalidInput
from credentials.actions import check_out
from endpoints.actions import change
from endpoints.models import AccessProfile
from endpoints.scope import Scope
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db

CEILING = {
    "models": ["demo-large", "demo-small"],
    "tools": ["lookup_order", "refund", "server:web_search"],
    "mcp_hosts": ["mcp.example.com"],
    "max_output_tokens": 4000,
    "requests_per_minute": 60,
    "concurrency": 8,
    "token_budget": 1_000_000,
    "cost_budget": "25",
}
DEFAULTS = {"models": ["demo-small"], "tools": ["lookup_order"], "token_budget": 100_000}
USUAL = CEILING | DEFAULTS
del USUAL["mcp_hosts"]


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile(scope=CEILING, defaults=DEFAULTS, with_key=True)


def asked(world: World, profile: AccessProfile, **ask: Any) -> AccessRequest:
    return world.request(profile=profile, **ask)


def test_what_is_not_named_is_as_by_default(world: World, profile: AccessProfile) -> None:
    assert asked(world, profile).scope == USUAL
    some = asked(world, profile, scope={"tools": ["refund"], "concurrency": 2})
    assert some.scope == USUAL | {"tools": ["refund"], "concurrency": 2}
    none = asked(world, profile, scope={"tools": [], "token_budget": None})
    assert none.asked == Scope.parse({k: v for k, v in USUAL.items() if k != "tools"})
    assert asked(world, profile, models=["demo-large"]).scope["models"] == ["demo-large"]


def test_up_to_the_ceiling(world: World, profile: AccessProfile) -> None:
    assert asked(world, profile, scope=CEILING).asked == profile.ceiling


def test_the_least_of_what_has_no_default(world: World) -> None:
    profile = world.profile(scope=CEILING)
    assert profile.default_scope == Scope.parse(
        {key: part for key, part in CEILING.items() if key not in ("tools", "mcp_hosts")}
    )


@pytest.mark.parametrize(
    ("scope", "field", "says"),
    [
        ({"models": ["gpt-9"]}, "scope.models", "demo-large, demo-small"),
        ({"models": []}, "scope.models", "at least one model"),
        ({"tools": ["*"]}, "scope.tools", r"\*"),
        ({"tools": ["server:code"]}, "scope.tools", "server:code"),
        ({"mcp_hosts": ["evil.example.com"]}, "scope.mcp_hosts", "mcp.example.com"),
        ({"operations": ["GET /"]}, "scope.operations", "none"),
        ({"max_output_tokens": 4001}, "scope.max_output_tokens", "4,000 tokens in each answer"),
        ({"requests_per_minute": 61}, "scope.requests_per_minute", "60 calls a minute"),
        ({"concurrency": 9}, "scope.concurrency", "8 calls at once"),
        ({"token_budget": 1_000_001}, "scope.token_budget", "1,000,000 tokens in all"),
        ({"cost_budget": "25.01"}, "scope.cost_budget", r"\$25.00 in all"),
        ({"cost_budget": "x"}, "scope.cost_budget", "US dollars"),
        ({"budget": 1}, "scope", "Unknown: budget"),
        ([], "scope", "object"),
    ],
)
def test_beyond_the_ceiling_is_refused_by_field(
    scope: Any, field: str, says: str, world: World, profile: AccessProfile
) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        asked(world, profile, scope=scope)
    assert list(refused.value.errors) == [field]


def test_of_a_plain_endpoint(world: World) -> None:
    profile = world.profile(scope={"operations": ["GET /", "* /api/"]})
    assert asked(world, profile).scope == {"operations": ["* /api/", "GET /"]}
    some = asked(world, profile, scope={"operations": ["GET /"]})
    assert some.scope == {"operations": ["GET /"]}
    with pytest.raises(InvalidInput, match="at least one operation"):
        asked(world, profile, scope={"operations": []})


def test_any_tool_may_be_narrowed_to_some(world: World) -> None:
    profile = world.profile(scope={"models": ["demo-small"], "tools": ["*", "server:web_search"]})
    request = asked(world, profile, scope={"tools": ["*"]})
    reviewer = world.person(profile.reviewers)
    review = approve(request, by=reviewer, scope={"tools": ["refund"]})
    assert review.request.grant.scope == {"models": ["demo-small"], "tools": ["refund"]}
    with pytest.raises(InvalidInput, match="server:web_search"):
        approve(
            asked(world, profile, scope={"tools": ["*"]}),
            by=reviewer,
            scope={"tools": ["server:web_search"]},
        )


def approve(request: AccessRequest, by: Any, **less: Any) -> Review:
    return review_request(
        by=by, request_id=request.pk, verdict=Review.Verdict.APPROVE, **less, proofs=PROVED
    )


@pytest.mark.parametrize(
    "less",
    [
        {"models": ["demo-small"]},
        {"tools": ["refund"]},
        {"tools": []},
        {"mcp_hosts": []},
        {"max_output_tokens": 100},
        {"requests_per_minute": 1},
        {"concurrency": 1},
        {"token_budget": 99_999},
        {"cost_budget": "0.5"},
    ],
)
def test_less_is_approved_in_each_part(
    less: dict[str, Any], world: World, profile: AccessProfile
) -> None:
    request = asked(world, profile, scope=CEILING)
    review = approve(request, world.person(profile.reviewers), scope=less)
    wanted = Scope.parse({k: v for k, v in (CEILING | less).items() if v != []})
    assert review.scope is not None
    assert Scope.parse(review.scope) == review.request.grant.allowed == wanted


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"models": ["demo-small", "demo-large"]}, "scope.models", "demo-small"),
        ({"models": []}, "scope.models", "Leave at least one"),
        ({"tools": ["refund"]}, "scope.tools", "lookup_order"),
        ({"token_budget": 100_001}, "scope.token_budget", "100,000 tokens in all, as asked"),
    ],
)
def test_more_is_not_approved(
    more: dict[str, Any], field: str, says: str, world: World, profile: AccessProfile
) -> None:
    request = asked(world, profile)
    with pytest.raises(InvalidInput, match=says) as refused:
        approve(request, world.person(profile.reviewers), scope=more)
    assert list(refused.value.errors) == [field]
    request.refresh_from_db()
    assert request.state == "pending"


def test_approvals_narrow_together(world: World, profile: AccessProfile) -> None:
    two = {"name": "Two", "approvals": 2, "reviewers": {"profile_reviewers": True}}
    world.policy(profile=profile, steps=[two])
    one, other = (world.person(profile.reviewers) for _ in range(2))
    request = asked(world, profile, scope=CEILING, reviewer=one)
    approve(request, one, scope={"token_budget": 500, "tools": ["refund"]})
    with pytest.raises(InvalidInput, match="500 tokens in all"):
        approve(request, other, scope={"token_budget": 501})
    grant = approve(request, other, scope={"cost_budget": "1"}).request.grant
    assert grant.allowed.token_budget == 500
    assert grant.allowed.tools == {"refund"}
    assert grant.scope["cost_budget"] == "1"


def test_an_extension_keeps_the_limits(world: World, profile: AccessProfile) -> None:
    grant = world.grant(profile=profile, scope={"token_budget": 500, "tools": []})
    how: dict[str, Any] = {
        "by": grant.holder,
        "profile_id": profile.pk,
        "justification": "Not done.",
        "extends": grant.pk,
    }
    with pytest.raises(InvalidInput, match="500 tokens in all"):
        file_request(**how, scope={"token_budget": 501})
    with pytest.raises(InvalidInput, match="Not in this grant: lookup_order"):
        file_request(**how, scope={"tools": ["lookup_order"]})
    assert file_request(**how).asked == grant.allowed


def test_a_policy_judges_by_tools_and_budgets(world: World, profile: AccessProfile) -> None:
    world.policy(
        profile=profile,
        auto_approve_when="size(request.tools) == 0 && request.cost_budget <= 5",
        constraints=[
            {"expression": "request.token_budget <= 200000", "message": "Ask for less, or by mail."}
        ],
    )
    requester = world.person(profile.requesters)
    world.person(profile.reviewers)

    def preview(**scope: Any) -> Any:
        return preview_request(by=requester, profile_id=profile.pk, scope=scope)

    assert preview(tools=[], cost_budget="5").automatic
    assert not preview(tools=[], cost_budget="5.01").automatic
    assert not preview(tools=["refund"], cost_budget="5").automatic
    with pytest.raises(InvalidInput, match="Ask for less"):
        preview(token_budget=200_001)


def test_no_limit_is_more_than_any(world: World) -> None:
    profile = world.profile(models=["demo-small"])
    world.policy(profile=profile, auto_approve_when="request.token_budget < 1000000000000")
    world.person(profile.reviewers)
    requester = world.person(profile.requesters)
    assert not preview_request(by=requester, profile_id=profile.pk).automatic
    some = preview_request(by=requester, profile_id=profile.pk, scope={"token_budget": 10**11})
    assert some.automatic


def test_a_reviewer_reads_what_differs(world: World, profile: AccessProfile) -> None:
    request = asked(
        world,
        profile,
        scope=CEILING | {"tools": ["refund"], "requests_per_minute": 6, "cost_budget": "12.50"},
    )
    found = dossier(request, clock.now())
    assert found.difference == [
        "more models than the default: demo-large",
        "more tools than the default: refund",
        "fewer tools than the default: without lookup_order",
        "more MCP hosts than the default: mcp.example.com",
        "6 calls a minute instead of the default’s 60",
        "1,000,000 tokens in all instead of the default’s 100,000",
        "$12.50 in all instead of the default’s $25.00",
    ]
    assert not any("widest" in signal.text for signal in found.signals)
    widest = dossier(asked(world, profile, scope=CEILING), clock.now())
    assert any("widest" in signal.text for signal in widest.signals)


def test_a_profile_that_got_narrower_refuses_the_check_out(
    world: World, profile: AccessProfile
) -> None:
    grant = world.grant(profile=profile)
    change(profile, by=None, scope=CEILING | {"concurrency": 7})
    with pytest.raises(AuthorityLost, match="narrowed"):
        check_out(by=grant.holder, grant_id=grant.pk)


@pytest.mark.parametrize(
    "scope",
    [
        CEILING | {"token_budget": 1_000_001},
        CEILING | {"cost_budget": "100"},
        {key: part for key, part in CEILING.items() if key != "concurrency"},
        CEILING | {"tools": ["*"]},
        {key: part for key, part in CEILING.items() if key != "models"},
    ],
)
def test_past_the_code_the_database_refuses(
    scope: dict[str, Any], world: World, profile: AccessProfile
) -> None:
    request = asked(world, profile, scope=CEILING)
    reviewer = world.person(profile.reviewers)
    request.pk, request.scope = new_id(), scope
    with pytest.raises(IntegrityError, match="beyond its profile"), transaction.atomic():
        request.save(force_insert=True)
    if "models" in scope:
        request = asked(world, profile, scope=CEILING)
        with pytest.raises(IntegrityError, match="only narrows"), transaction.atomic():
            Review.objects.create(
                request=request, reviewer=reviewer, verdict=Review.Verdict.APPROVE, scope=scope
            )
    granted = world.grant(profile=profile)
    with pytest.raises(IntegrityError, match="beyond what was approved"), transaction.atomic():
        Grant.objects.create(
            request=granted.request,
            holder=granted.holder,
            scope=scope,
            starts_at=granted.starts_at,
            ends_at=granted.ends_at,
        )
    assert Grant.objects.filter(request__profile=profile).count() == 1
