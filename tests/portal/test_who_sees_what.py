"""Owner, teammate, stranger, nobody: for every page with something of somebody's on it."""

import uuid
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accessrequests.models import AccessRequest
from accessrequests.states import RequestState
from accounts.models import User
from audit.events import Event
from audit.models import AuditEvent
from tests.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]


@pytest.fixture
def cast(world: World) -> dict[str, Any]:
    profile = world.profile()
    ana, ben = world.person(profile.requesters), world.person(profile.reviewers)
    return {
        "profile": profile,
        "owner": ana,
        "reviewer": ben,
        "teammate": world.person(profile.requesters),
        "stranger": world.person(),
        "auditor": world.person(is_auditor=True),
        "pending": world.request(profile=profile, requester=ana, reviewer=ben),
        "grant": world.grant(profile=profile, requester=ana, reviewer=ben),
    }


def _url(name: str, cast: dict[str, Any]) -> str:
    of = {
        "request": cast["pending"].pk,
        "request-review": cast["pending"].pk,
        "request-comment": cast["pending"].pk,
        "request-hand-over": cast["pending"].pk,
        "request-cancel": cast["pending"].pk,
        "request-again": cast["pending"].pk,
        "grant": cast["grant"].pk,
        "grant-end": cast["grant"].pk,
        "grant-check-out": cast["grant"].pk,
        "grant-open": cast["grant"].pk,
    }
    return reverse(name, kwargs={"pk": of[name]})


@pytest.mark.parametrize(
    ("name", "who", "status"),
    [
        ("request", "owner", 200),
        ("request", "reviewer", 200),
        ("request", "auditor", 200),
        ("request", "teammate", 404),
        ("request", "stranger", 404),
        ("grant", "owner", 200),
        ("grant", "reviewer", 200),
        ("grant", "auditor", 200),
        ("grant", "teammate", 404),
        ("grant", "stranger", 404),
    ],
)
def test_reading(cast: dict[str, Any], signed_in: Any, name: str, who: str, status: int) -> None:
    response = signed_in(cast[who]).get(_url(name, cast))
    assert response.status_code == status
    assert (str(cast["profile"].endpoint) in response.content.decode()) == (status == 200)


@pytest.mark.parametrize(
    ("name", "who", "status"),
    [
        ("request-cancel", "owner", 302),
        ("request-cancel", "reviewer", 403),
        ("request-cancel", "teammate", 404),
        ("request-cancel", "stranger", 404),
        ("request-again", "reviewer", 404),
        ("request-again", "stranger", 404),
        ("request-review", "reviewer", 302),
        ("request-review", "owner", 403),
        ("request-review", "auditor", 403),
        ("request-review", "teammate", 404),
        ("request-review", "stranger", 404),
        ("request-comment", "reviewer", 302),
        ("request-comment", "owner", 302),
        ("request-comment", "auditor", 403),
        ("request-comment", "teammate", 404),
        ("request-comment", "stranger", 404),
        ("request-hand-over", "owner", 403),
        ("request-hand-over", "auditor", 403),
        ("request-hand-over", "teammate", 404),
        ("request-hand-over", "stranger", 404),
        ("grant-end", "owner", 302),
        ("grant-end", "reviewer", 302),
        ("grant-end", "auditor", 403),
        ("grant-end", "teammate", 404),
        ("grant-end", "stranger", 404),
        ("grant-check-out", "reviewer", 403),
        ("grant-check-out", "auditor", 403),
        ("grant-check-out", "teammate", 404),
        ("grant-check-out", "stranger", 404),
        ("grant-open", "reviewer", 403),
        ("grant-open", "auditor", 403),
        ("grant-open", "teammate", 404),
        ("grant-open", "stranger", 404),
    ],
)
def test_doing(cast: dict[str, Any], signed_in: Any, name: str, who: str, status: int) -> None:
    response = signed_in(cast[who]).post(
        _url(name, cast), {"verdict": "approve", "text": "What for?"}
    )
    assert response.status_code == status
    refused = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=cast[who].pk)
    assert refused.exists() == (status in {403, 404})


@pytest.mark.parametrize(
    "name",
    [
        "request-review",
        "request-comment",
        "request-hand-over",
        "request-cancel",
        "request-again",
        "grant-end",
        "grant-check-out",
        "grant-open",
    ],
)
def test_a_link_never_acts(cast: dict[str, Any], signed_in: Any, name: str) -> None:
    before = AccessRequest.objects.get(pk=cast["pending"].pk).state
    response = signed_in(cast["owner"]).get(_url(name, cast))
    assert response.status_code in {302, 405}
    assert AccessRequest.objects.get(pk=cast["pending"].pk).state == before == RequestState.PENDING
    assert not cast["grant"].credentials.exists()


def test_unknown_and_foreign_look_the_same(cast: dict[str, Any], signed_in: Any) -> None:
    client = signed_in(cast["stranger"])
    foreign = client.get(_url("grant", cast))
    unknown = client.get(reverse("grant", kwargs={"pk": uuid.uuid4()}))
    traces = (foreign["X-Request-Id"], unknown["X-Request-Id"])
    pages = [
        page.content.decode().replace(trace, "")
        for page, trace in zip((foreign, unknown), traces, strict=True)
    ]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    "name", ["home", "catalogue", "approvals", "approvals-decided", "requests", "record"]
)
def test_nobody_is_asked_to_sign_in_and_comes_back(name: str) -> None:
    path = reverse(name)
    response = Client().get(path)
    assert response.status_code == 302
    assert response["Location"] == f"{reverse('sign-in')}?next={path}"


def test_a_profile_of_another_group_can_not_be_asked_for(world: World, signed_in: Any) -> None:
    profile = world.profile()
    outsider: User = world.person()
    url = reverse("request-new", kwargs={"profile_id": profile.pk})
    client = signed_in(outsider)
    asked = {"duration": "60", "models": ["demo-small"], "justification": "why"}
    assert client.get(url).status_code == 404
    assert client.post(url, asked).status_code == 404
    assert client.post(f"{url}preview/", asked).status_code == 404
    assert not AccessRequest.objects.filter(requester=outsider).exists()


def test_an_endpoint_that_one_may_not_see(world: World, signed_in: Any) -> None:
    endpoint = world.profile().endpoint
    url = reverse("endpoint", kwargs={"slug": endpoint.slug})
    assert signed_in(world.person()).get(url).status_code == 404
    assert signed_in(endpoint.owner).get(url).status_code == 200


def test_the_record_shows_everybody_their_own(cast: dict[str, Any], signed_in: Any) -> None:
    name = str(cast["profile"].endpoint)
    assert name in signed_in(cast["auditor"]).get(reverse("record")).content.decode()
    assert name in signed_in(cast["owner"]).get(reverse("record")).content.decode()
    assert name not in signed_in(cast["stranger"]).get(reverse("record")).content.decode()
    row = AuditEvent.objects.filter(subject_id=cast["grant"].pk).latest("id")
    url = reverse("record-event", kwargs={"pk": row.pk})
    assert signed_in(cast["owner"]).get(url).status_code == 200
    assert signed_in(cast["stranger"]).get(url).status_code == 404
