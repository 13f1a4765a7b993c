"""Lists show what can be opened, whichever way they are found."""

import pytest

from accessrequests.models import AccessRequest, Grant, sight
from accounts.models import User
from credentials.models import Credential
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("few", [0, 1, 1000])
def test_lists_hold_what_is_visible(
    world: World, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sight, "FEW", few)
    monkeypatch.setattr("credentials.models.FEW", few)
    reviewers, askers = world.group(), world.group()
    owner, asker, reviewer = world.person(), world.person(askers), world.person(reviewers)
    profile = world.profile(
        reviewers=reviewers, requesters=askers, endpoint=world.endpoint(owner=owner, with_key=False)
    )
    for _ in range(2):
        world.grant(profile=profile, requester=asker, ended=True)
        world.request(profile=profile, requester=world.person(askers))
    for user in (owner, asker, reviewer, world.person(), world.person(is_auditor=True)):
        for model in (AccessRequest, Grant, Credential):
            seen = model.objects.visible_to(user)
            found = model.objects.listed_for(user)
            assert set(found) == set(seen), (model, user)
            assert found.count() == seen.count()
    _shows_something(owner, asker, reviewer)


def _shows_something(owner: User, asker: User, reviewer: User) -> None:
    """Of empty sets all are equal."""
    assert Grant.objects.listed_for(owner).count() == 2
    assert AccessRequest.objects.listed_for(asker).count() == 2
    assert AccessRequest.objects.listed_for(reviewer).count() == 4
