"""Lists show what can be opened, whichever way they are found."""

import datetime as dt

import pytest

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Grant, Review, sight
from accounts.actions import allow_agent, join_group, leave_group
from accounts.models import User
from credentials.models import Credential
from tests.world import PROVED, World

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


@pytest.mark.parametrize("few", [0, 1000])
def test_each_way_to_see_a_thing_is_one_to_list_it(
    world: World, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sight, "FEW", few)
    monkeypatch.setattr("credentials.models.FEW", few)
    reviewers, askers = world.group(), world.group()
    answers_for, asks_through, named, reviewed, left = (world.person() for _ in range(5))
    agent = world.person(askers, owner=answers_for)
    for person, group in ((asks_through, askers), (reviewed, reviewers), (left, reviewers)):
        join_group(by=None, user=person, group=group)
    profile = world.profile(
        reviewers=reviewers, requesters=askers, endpoint=world.endpoint(with_key=False)
    )
    named_too = {"profile_reviewers": True, "people": [named.email]}
    world.policy(profile=profile, steps=[{"name": "Review", "reviewers": named_too}])
    allow_agent(by=asks_through, agent=agent.email)
    asked = file_request(
        by=agent,
        profile_id=profile.pk,
        justification="For a ticket.",
        duration=dt.timedelta(hours=1),
        on_behalf_of=asks_through.email,
    )
    review_request(by=reviewed, request_id=asked.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    world.grant(profile=world.profile(), ended=True)  # nobody's here
    # By what came to them and what they did; no more by the group.
    for person in (reviewed, left):
        leave_group(by=None, user=person, group=reviewers)
    seen = {}
    for user in (agent, answers_for, asks_through, named, reviewed, profile.endpoint.owner, left):
        for model in (AccessRequest, Grant):
            found = set(model.objects.listed_for(user).values_list("pk", flat=True))
            assert found == set(model.objects.visible_to(user).values_list("pk", flat=True)), user
            seen[user, model] = len(found)
    for user in (agent, answers_for, asks_through, named, reviewed):
        assert seen[user, AccessRequest] == seen[user, Grant] == 1, user
    assert seen[profile.endpoint.owner, Grant] == 1
    assert seen[left, AccessRequest] == seen[left, Grant] == 0


def _shows_something(owner: User, asker: User, reviewer: User) -> None:
    """Of empty sets all are equal."""
    assert Grant.objects.listed_for(owner).count() == 2
    assert AccessRequest.objects.listed_for(asker).count() == 2
    assert AccessRequest.objects.listed_for(reviewer).count() == 4
