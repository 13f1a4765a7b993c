"""The queue and its decisions."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accessrequests.actions import file_request, file_together, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accounts.actions import leave_group
from audit import clock
from tests.world import MODELS, PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


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
    review_request(by=dana, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
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


def test_less_is_approved(desk: Any) -> None:
    client, row, _ = desk
    form = {"verdict": "approve", "length": "30", "models": ["demo-small"]}
    client.post(_review(row), form)
    grant = Grant.objects.get(request=row)
    assert grant.ends_at - grant.starts_at == dt.timedelta(minutes=30)
    assert grant.allowed.models == {"demo-small"}


def test_the_form_as_it_comes_approves_all_of_it(desk: Any) -> None:
    client, row, _ = desk
    form = {"verdict": "approve", "length": "60", "models": MODELS, "starts_at": ""}
    client.post(_review(row), form)
    review = Review.objects.get(request=row)
    assert (review.scope, review.duration, review.starts_at) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": "120"}, "Choose one of the durations"),
        ({"models": []}, "Leave at least one model"),
        ({"models": ["another"]}, "isn’t asked for"),
        ({"starts_at": "x"}, "Give a date and a time"),
        ({"starts_at": "2020-01-01T00:00"}, "Must be later than now"),
    ],
)
def test_more_is_not_approved(desk: Any, change: dict[str, Any], words: str) -> None:
    client, row, _ = desk
    form = {"verdict": "approve", "length": "60", "models": MODELS} | change
    response = client.post(_review(row), form)
    assert response.status_code == 400
    assert words in response.content.decode()
    assert not Review.objects.filter(request=row).exists()


def test_what_is_wrong_with_less_does_not_keep_from_denying(desk: Any) -> None:
    client, row, _ = desk
    form = {"verdict": "deny", "reason": "No.", "length": "9999", "models": []}
    assert client.post(_review(row), form).status_code == 302
    assert Review.objects.get(request=row).verdict == "deny"


def test_access_may_begin_later(desk: Any) -> None:
    client, row, _ = desk
    start = timezone.localtime(clock.now() + dt.timedelta(hours=5)).replace(second=0, microsecond=0)
    form = {"verdict": "approve", "length": "60", "models": MODELS}
    response = client.post(
        _review(row), form | {"starts_at": f"{start:%Y-%m-%dT%H:%M}"}, follow=True
    )
    assert Grant.objects.get(request=row).starts_at == start
    assert "will have access" in response.content.decode()


def test_a_step_that_is_not_the_last(desk: Any, world: World) -> None:
    _, row, ben = desk
    profile = row.profile
    security = world.group()
    chidi = world.person(security, full_name="Chidi Eze")
    world.policy(
        profile=profile,
        name="Two pairs of eyes",
        steps=[
            {"name": "Review", "reviewers": {"profile_reviewers": True}},
            {"name": "Security", "reviewers": {"groups": [security.slug]}},
        ],
    )
    asked = world.request(profile=profile, reviewer=ben)
    client = Client()
    client.force_login(ben)
    form = {"verdict": "approve", "from": "approvals", "length": "15", "models": MODELS}
    response = client.post(_review(asked), form, follow=True)
    html = response.content.decode()
    assert "It still waits for “Security”" in html
    assert "Approved less: 15 minutes instead of 1 hour" in html
    client.force_login(chidi)
    html = client.get(reverse("approvals")).content.decode()
    assert "Step 2 of 2" in html
    assert "Two pairs of eyes, version 1" in html
    assert "Approve 15 minutes" in html
    assert "Ben Okafor approved" in html
    # The second step's reviewer needn't see the endpoint itself.
    assert reverse("endpoint", kwargs={"slug": profile.endpoint.slug}) not in html
    client.post(_review(asked), {"verdict": "approve"})
    grant = Grant.objects.get(request=asked)
    assert grant.ends_at - grant.starts_at == dt.timedelta(minutes=15)


def test_an_approval_that_would_be_refused_says_so_before(desk: Any, world: World) -> None:
    client, row, _ = desk
    leave_group(by=None, user=row.requester, group=row.profile.requesters)
    html = client.get(reverse("approvals")).content.decode()
    assert "would be refused at this moment" in html
    assert f"is no longer in {row.profile.requesters}" in html


def test_a_review_afterwards(desk: Any, world: World) -> None:
    client, row, _ = desk
    group = world.group()
    ana = world.person(row.profile.requesters, group)
    world.policy(profile=row.profile, break_glass={"groups": [group.slug]})
    taken = file_request(
        by=ana,
        profile_id=row.profile.pk,
        justification="Down.",
        duration=dt.timedelta(minutes=20),
        break_glass=True,
        proofs=PROVED,
    )
    html = client.get(reverse("approvals") + f"?request={taken.pk}").content.decode()
    assert "This access is already on" in html
    assert "Deny and end it now" in html
    assert "less-fold" not in html
    response = client.post(_review(taken), {"verdict": "deny", "reason": "Not so."}, follow=True)
    assert "Their access has ended" in response.content.decode()
    assert Grant.objects.get(request=taken).end_reason == "review_denied"


def test_others_that_were_asked_for_together(desk: Any, world: World) -> None:
    client, row, _ = desk
    mine = world.profile(requesters=row.profile.requesters, reviewers=row.profile.reviewers)
    theirs = world.profile(requesters=row.profile.requesters)
    world.person(theirs.reviewers)
    first, *others = file_together(
        by=row.requester,
        profile_ids=[row.profile.pk, mine.pk, theirs.pk],
        justification="A migration.",
    )
    html = client.get(reverse("approvals") + f"?request={first.pk}").content.decode()
    assert "Asked together with" in html
    assert reverse("request", kwargs={"pk": others[0].pk}) in html
    assert reverse("request", kwargs={"pk": others[1].pk}) not in html
