"""The request form: what it starts with, what it refuses, and that refusing writes nothing."""

import datetime as dt
from typing import Any

import pytest
from django.urls import reverse

from accessrequests.models import AccessRequest
from audit.models import AuditEvent
from tests.world import World

pytestmark = pytest.mark.django_db

GOOD = {"duration": "60", "models": ["demo-small"], "justification": "Ticket 4711."}


@pytest.fixture
def desk(world: World, signed_in: Any) -> tuple[Any, str, Any]:
    profile = world.profile(default_models=["demo-small"], max_duration=dt.timedelta(hours=4))
    world.person(profile.reviewers, full_name="Ben Okafor")
    client = signed_in(world.person(profile.requesters))
    return client, reverse("request-new", kwargs={"profile_id": profile.pk}), profile


def test_it_starts_at_the_default_and_not_at_the_ceiling(desk: Any) -> None:
    client, url, _ = desk
    page = client.get(url).content.decode()
    assert 'value="60" checked' in page
    assert page.count('name="models"') == 4
    assert page.count('checked><span class="mono">') == 1
    assert "Ben Okafor" in page


def test_asking(desk: Any) -> None:
    client, url, profile = desk
    response = client.post(url, GOOD, follow=True)
    row = AccessRequest.objects.get(profile=profile)
    assert response.redirect_chain == [(reverse("request", kwargs={"pk": row.pk}), 302)]
    assert (row.duration, row.scope) == (dt.timedelta(hours=1), {"models": ["demo-small"]})
    assert "Ben Okafor" in response.content.decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"justification": "  "}, "Say what you need it for"),
        ({"justification": "x" * 2001}, "at most 2000 characters"),
        ({"duration": "other", "minutes": "0"}, "at least 1 minute and at most 4 hours"),
        ({"duration": "other", "minutes": "-5"}, "at least 1 minute"),
        ({"duration": "other", "minutes": "241"}, "at most 4 hours"),
        ({"duration": "other", "minutes": "9" * 30}, "at most 4 hours"),
        ({"duration": "other", "minutes": ""}, "from 1 to 240"),
        ({"duration": "other", "minutes": "soon"}, "whole minutes"),
        ({"duration": "480"}, "Choose one of the durations"),
        ({"duration": ""}, "Choose how long"),
        ({"models": []}, "Choose at least one model"),
        ({"models": ["gpt-9"]}, "gpt-9 is not in this profile"),
    ],
)
def test_what_it_refuses_and_says(desk: Any, change: dict[str, Any], words: str) -> None:
    client, url, profile = desk
    before = AuditEvent.objects.count()
    response = client.post(url, GOOD | change)
    assert response.status_code == 400
    assert words in response.content.decode()
    assert not AccessRequest.objects.filter(profile=profile).exists()
    assert AuditEvent.objects.count() == before


def test_everything_wrong_is_said_at_once(desk: Any) -> None:
    client, url, _ = desk
    wrong = {"duration": "other", "minutes": "900", "models": [], "justification": ""}
    page = client.post(url, wrong).content.decode()
    assert "at most 4 hours" in page
    assert "Choose at least one model" in page
    assert "Say what you need it for" in page


def test_nobody_could_approve(world: World, signed_in: Any) -> None:
    profile = world.profile()
    client = signed_in(world.person(profile.requesters, profile.reviewers))
    response = client.post(reverse("request-new", kwargs={"profile_id": profile.pk}), GOOD)
    assert response.status_code == 400
    assert "Nobody could approve this" in response.content.decode()


def test_the_preview_says_what_would_happen_and_writes_nothing(desk: Any) -> None:
    client, url, _ = desk
    before = (AuditEvent.objects.count(), AccessRequest.objects.count())
    page = client.post(
        f"{url}preview/", GOOD | {"duration": "other", "minutes": "90"}
    ).content.decode()
    assert "Ben Okafor" in page
    assert "1 hour 30 minutes" in page
    assert "30 minutes longer than the default" in page
    too_long = client.post(f"{url}preview/", GOOD | {"duration": "other", "minutes": "900"})
    assert "at most 4 hours" in too_long.content.decode()
    assert (AuditEvent.objects.count(), AccessRequest.objects.count()) == before


def test_asking_again_in_one_click(world: World, signed_in: Any) -> None:
    grant = world.grant(ended=True)
    client = signed_in(grant.holder)
    assert "Ask again" in client.get(reverse("home")).content.decode()
    client.post(reverse("request-again", kwargs={"pk": grant.request_id}))
    again = AccessRequest.objects.filter(requester=grant.holder).exclude(pk=grant.request_id).get()
    assert (again.profile_id, again.duration) == (grant.request.profile_id, grant.request.duration)


def test_what_was_typed_is_shown_as_text(desk: Any) -> None:
    client, url, _ = desk
    nasty = "</textarea><script>alert(1)</script>"
    client.post(url, GOOD | {"justification": nasty})
    row = AccessRequest.objects.latest("id")
    page = client.get(reverse("request", kwargs={"pk": row.pk})).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
