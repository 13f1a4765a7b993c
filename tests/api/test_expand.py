"""`?expand=`: what hangs on a thing, as far as the caller may see it."""

from typing import Any

import pytest

from accessrequests.models import Grant
from credentials.actions import check_out
from tests.api.callers import Caller, faults
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def grant(world: World) -> Grant:
    grant = world.grant(profile=world.profile(with_key=True))
    check_out(by=grant.holder, grant_id=grant.pk)
    return grant


def rows(caller: Caller, path: str, **query: Any) -> list[Any]:
    found: list[Any] = caller.get(path, **query).json()["results"]
    return found


def test_it_is_what_its_own_address_shows(grant: Grant) -> None:
    caller = Caller(grant.holder, "token")
    path = f"requests/{grant.request_id}/"
    found = caller.get(path, expand="profile,grant,reviews").json()
    profile = found["expanded"].pop("profile")
    # There is more at its address: what would come of asking for it.
    assert profile.items() <= caller.get(f"profiles/{profile['id']}/").json().items()
    assert found.pop("expanded") == {
        "grant": caller.get(f"grants/{grant.pk}/").json(),
        "reviews": caller.get(f"{path}reviews/").json(),
    }
    assert found == caller.get(path).json()
    assert found["grant"] == str(grant.pk)


def test_what_is_out_and_what_it_is_of(grant: Grant) -> None:
    caller = Caller(grant.holder, "token")
    found = caller.get(f"grants/{grant.pk}/", expand="request,credential").json()["expanded"]
    assert found["request"]["id"] == str(grant.request_id)
    credential = found["credential"]
    assert credential["state"] == "active"
    shown = caller.get(f"credentials/{credential['id']}/", expand="grant").json()
    assert shown["expanded"]["grant"]["id"] == str(grant.pk)
    caller.post(f"grants/{grant.pk}/end/")
    ended = caller.get(f"grants/{grant.pk}/", expand="credential").json()
    assert ended["expanded"] == {"credential": None}


def test_only_what_is_asked_for_comes_along(grant: Grant) -> None:
    caller = Caller(grant.holder, "token")
    [plain] = rows(caller, "requests/")
    assert "expanded" not in plain
    [found] = rows(caller, "requests/", expand="profile")
    assert list(found["expanded"]) == ["profile"]
    assert "expanded" not in caller.get("requests/", expand="").json()["results"][0]
    twice = caller.client.get(
        "/api/v1/requests/?expand=grant&expand=profile,grant", headers=caller.headers
    )
    assert list(twice.json()["results"][0]["expanded"]) == ["grant", "profile"]


def test_what_one_may_not_see_stays_an_id(grant: Grant, world: World) -> None:
    """The owner of an endpoint sees its grants, but not the requests that they are of."""
    owner = Caller(grant.request.profile.endpoint.owner, "token")
    [found] = rows(owner, "grants/", expand="request,credential")
    assert found["request"] == str(grant.request_id)
    assert found["expanded"]["request"] is None
    assert found["expanded"]["credential"]
    auditor = Caller(world.person(is_auditor=True), "token")
    [seen] = rows(auditor, "grants/", expand="request", request=str(grant.request_id))
    assert seen["expanded"]["request"]["id"] == str(grant.request_id)


def test_a_queue_says_of_what_profile_its_requests_are(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    world.request(profile=profile, reviewer=reviewer)
    [found] = rows(Caller(reviewer), "approvals/", expand="profile")
    assert found["expanded"]["profile"]["id"] == str(profile.pk)


@pytest.mark.parametrize("path", ["requests/", "grants/", "credentials/", "approvals/"])
def test_other_names_are_refused_with_what_could_be(path: str, world: World) -> None:
    found = faults(Caller(world.person(), "token").get(path, expand="secret,profile.owner"))
    assert "Can't expand secret" in found["expand"]
    assert "What can be: " in found["expand"]
