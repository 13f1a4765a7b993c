"""What there is of a scope in the forms and on the pages, and asking for larger budgets."""

from typing import Any

import pytest
from django.urls import reverse

from accessrequests.models import AccessRequest, Grant
from accounts.models import User
from endpoints.models import AccessProfile
from endpoints.scope import Scope
from tests.accessrequests.test_raises import CEILING, DEFAULTS, HELD, held
from tests.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


@pytest.fixture
def profile(world: World) -> AccessProfile:
    return world.profile(scope=CEILING, defaults=DEFAULTS)


@pytest.fixture
def reviewer(world: World, profile: AccessProfile) -> User:
    return world.person(profile.reviewers)


@pytest.fixture
def grant(world: World, profile: AccessProfile, reviewer: User) -> Grant:
    return world.grant(profile=profile, reviewer=reviewer)


def test_the_form_offers_what_the_profile_has(
    world: World, profile: AccessProfile, reviewer: User, signed_in: Any
) -> None:
    client = signed_in(world.person(profile.requesters))
    url = reverse("request-new", args=[profile.pk])
    page = client.get(url).content.decode()
    assert "Tools and limits" in page
    assert 'name="tools" value="refund">' in page
    assert 'name="token_budget" value="1000"' in page
    assert 'name="requests_per_minute"' not in page
    assert "At most 1,000,000." in page
    body = {"duration": "60", "models": ["demo-small"], "justification": "Ticket 4711."}
    wrong = client.post(url, body | {"token_budget": "1000001", "tools": ["drop"]})
    assert wrong.status_code == 400
    text = wrong.content.decode()
    assert "drop is not in this profile" in text
    assert '<details class="fold further" id="further-fold" open>' in text
    wrong = client.post(url, body | {"token_budget": "1000001"})
    assert "This profile gives at most 1,000,000 tokens in all" in wrong.content.decode()
    chosen = body | {"tools": ["refund"], "token_budget": "2000", "cost_budget": "1.5"}
    preview = client.post(reverse("request-preview", args=[profile.pk]), chosen).content.decode()
    assert "more tools than the default: refund" in preview
    assert "2,000 tokens in all" in preview
    client.post(url, chosen)
    filed = AccessRequest.objects.get(profile=profile)
    wanted = HELD | {"tools": ["refund"], "token_budget": 2000, "cost_budget": "1.5"}
    assert filed.asked == Scope.parse(wanted)
    again = client.get(f"{url}?again={filed.pk}").content.decode()
    assert 'name="tools" value="refund" checked' in again
    assert 'name="token_budget" value="2000"' in again


def test_a_reviewer_approves_less(
    world: World, profile: AccessProfile, reviewer: User, signed_in: Any
) -> None:
    row = world.request(profile=profile, reviewer=reviewer, scope={"tools": ["refund"]})
    client = signed_in(reviewer)
    shown = client.get(reverse("request", args=[row.pk])).content.decode()
    assert 'name="tools" value="refund" checked' in shown
    assert "1,000 tokens in all" in shown
    body = {"verdict": "approve", "length": "60", "models": ["demo-small"], "token_budget": "500"}
    told = client.post(reverse("request-review", args=[row.pk]), body, follow=True)
    assert "without refund" in told.content.decode()
    row.refresh_from_db()
    wanted = {key: part for key, part in HELD.items() if key != "tools"} | {"token_budget": 500}
    assert row.grant.allowed == Scope.parse(wanted)
    page = client.get(reverse("grant", args=[row.grant.pk])).content.decode()
    assert "500 tokens in all" in page


def test_a_plain_endpoint_has_operations(world: World, reviewer: User, signed_in: Any) -> None:
    profile = world.profile(scope={"operations": ["GET /", "POST /models/"]})
    grant = world.grant(profile=profile, scope={"operations": ["GET /"]})
    client = signed_in(grant.holder)
    form = client.get(reverse("request-new", args=[profile.pk])).content.decode()
    assert 'name="operations" value="GET /" checked' in form
    assert 'name="models"' not in form
    for url in (reverse("grant", args=[grant.pk]), reverse("home"), reverse("catalogue")):
        assert "GET /" in client.get(url).content.decode()
    page = client.get(reverse("request", args=[grant.request_id])).content.decode()
    assert "<code>GET /</code>" in page


def test_in_the_portal(grant: Grant, reviewer: User, signed_in: Any) -> None:
    client = signed_in(grant.holder)
    url = reverse("grant-raise", args=[grant.pk])
    assert url in client.get(reverse("grant", args=[grant.pk])).content.decode()
    page = client.get(url).content.decode()
    assert 'name="token_budget" value="2000"' in page
    assert 'name="cost_budget" value="10"' in page
    assert 'name="duration"' not in page
    assert 'name="models"' not in page
    wrong = client.post(url, {"token_budget": "999", "justification": "More."})
    assert wrong.status_code == 400
    assert "can only grow" in wrong.content.decode()
    body = {"token_budget": "4000", "cost_budget": "", "justification": "More."}
    preview = client.post(reverse("grant-raise-preview", args=[grant.pk]), body).content.decode()
    assert "Your credential goes on working" in preview
    assert "4,000 tokens in all instead of 1,000" in preview
    told = client.post(url, body, follow=True).content.decode()
    assert "a budget of 4,000 tokens and $5.00" in told
    request = grant.raises_asked.get()
    waits = client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert "waits for a decision" in waits
    assert url not in waits
    assert client.get(reverse("home")).status_code == 200
    reviews = signed_in(reviewer)
    shown = reviews.get(reverse("request", args=[request.pk])).content.decode()
    assert 'name="length"' not in shown
    assert 'name="token_budget" value="4000"' in shown
    assert 'name="concurrency"' not in shown
    done = reviews.post(
        reverse("request-review", args=[request.pk]),
        {"verdict": "approve", "token_budget": "3000", "cost_budget": "5"},
        follow=True,
    ).content.decode()
    assert "Approved less" in done
    assert held(grant).token_budget == 3000
    for name in ("requests", "home"):
        assert client.get(reverse(name)).status_code == 200
    assert "3,000 tokens in all" in client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert client.post(reverse("request-again", args=[request.pk])).status_code == 404
