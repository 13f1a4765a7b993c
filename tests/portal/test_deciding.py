"""The queue and its decisions."""

from typing import Any

import pytest
from django.urls import reverse

from accessrequests.actions import review_request
from accessrequests.models import AccessRequest, Grant, Review
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(world: World, signed_in: Any) -> tuple[Any, AccessRequest, Any]:
    profile = world.profile()
    ben = world.person(profile.reviewers, full_name="Ben Okafor")
    row = world.request(profile=profile, reviewer=ben)
    return signed_in(ben), row, ben


def _review(row: AccessRequest) -> str:
    return reverse("request-review", kwargs={"pk": row.pk})


def test_the_queue_shows_what_a_reviewer_needs(desk: Any) -> None:
    client, row, _ = desk
    page = client.get(reverse("approvals")).content.decode()
    for words in (
        str(row.requester), str(row.profile.endpoint), row.justification,
        "First time that they ask", "Immediately, at any moment", "One approval",
    ):  # fmt: skip
        assert words in page


def test_approving(desk: Any) -> None:
    client, row, _ = desk
    client.post(_review(row), {"verdict": "approve", "from": "approvals"})
    assert Grant.objects.get(request=row).holder == row.requester
    assert "Nothing waits for you" in client.get(reverse("approvals")).content.decode()


def test_denying_takes_a_reason(desk: Any) -> None:
    client, row, _ = desk
    response = client.post(_review(row), {"verdict": "deny"})
    assert response.status_code == 400
    assert "Say why" in response.content.decode()
    assert not Review.objects.filter(request=row).exists()
    client.post(_review(row), {"verdict": "deny", "reason": "Use staging."})
    row.refresh_from_db()
    assert row.state == "denied"


def test_a_verdict_that_does_not_exist(desk: Any) -> None:
    client, row, _ = desk
    response = client.post(_review(row), {"verdict": "maybe"})
    assert response.status_code == 400
    assert "Choose to approve or to deny" in response.content.decode()


@pytest.mark.parametrize("htmx", [False, True])
def test_a_lost_race_says_who_was_first(desk: Any, world: World, htmx: bool) -> None:
    client, row, _ = desk
    dana = world.person(row.profile.reviewers, full_name="Dana Levi")
    review_request(by=dana, request_id=row.pk, verdict=Review.Verdict.APPROVE)
    headers = {"HX-Request": "true"} if htmx else {}
    data = {"verdict": "approve", "from": "approvals" if htmx else ""}
    response = client.post(_review(row), data, headers=headers)
    assert response.status_code == 409
    assert "Already approved by Dana Levi" in response.content.decode()
    assert Grant.objects.filter(request=row).count() == 1


def test_from_the_queue_the_next_one_follows(desk: Any, world: World) -> None:
    client, row, ben = desk
    second = world.request(profile=row.profile, reviewer=ben)
    response = client.post(
        _review(row), {"verdict": "approve", "from": "approvals"}, headers={"HX-Request": "true"}
    )
    page = response.content.decode()
    assert str(second.requester) in page
    assert f"q-{row.pk}" not in page
    assert response["HX-Push-Url"].endswith(f"?request={second.pk}")
    assert 'hx-swap-oob="true"' in page


def test_ones_own_request_is_not_in_ones_queue(world: World, signed_in: Any) -> None:
    profile = world.profile()
    both = world.person(profile.requesters, profile.reviewers)
    row = world.request(profile=profile, requester=both, reviewer=world.person(profile.reviewers))
    client = signed_in(both)
    assert "Nothing waits for you" in client.get(reverse("approvals")).content.decode()
    page = client.get(reverse("request", kwargs={"pk": row.pk})).content.decode()
    assert "data-approve" not in page
    response = client.post(_review(row), {"verdict": "approve"})
    assert response.status_code == 403
    assert "Nobody reviews their own" in response.content.decode()
