"""Where two rules meet, the narrower one holds."""

import datetime as dt

import pytest

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Review
from accounts.actions import leave_group
from broker.errors import AlreadyDecided, AuthorityLost, InvalidInput
from credentials.actions import check_out
from endpoints.models import AccessProfile
from tests.world import World

pytestmark = pytest.mark.django_db

APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY


def test_a_denial_stands_against_any_number_of_approvals(world: World) -> None:
    request = world.request()
    people = [world.person(request.profile.reviewers) for _ in range(3)]
    review_request(by=people[0], request_id=request.pk, verdict=DENY, reason="No.")
    for person in people:
        with pytest.raises(AlreadyDecided, match="denied"):
            review_request(by=person, request_id=request.pk, verdict=APPROVE)


def test_a_profile_that_was_widened_gives_nobody_more_than_was_approved(world: World) -> None:
    profile = world.profile(models=["demo-small"], max_duration=dt.timedelta(hours=1))
    grant = world.grant(profile=profile)
    AccessProfile.objects.filter(pk=profile.pk).update(
        scope={"models": ["demo-small", "demo-large"]}, max_duration=dt.timedelta(days=7)
    )
    out = check_out(by=grant.holder, grant_id=grant.pk)
    out.credential.grant.refresh_from_db()
    assert out.credential.grant.scope == {"models": ["demo-small"]}
    assert out.credential.grant.ends_at == grant.ends_at


def test_of_what_was_filed_and_what_holds_now_the_narrower_counts(world: World) -> None:
    request = world.request(models=["demo-small", "demo-large"])
    AccessProfile.objects.filter(pk=request.profile_id).update(scope={"models": ["demo-small"]})
    with pytest.raises(AuthorityLost, match="narrowed"):
        review_request(
            by=world.person(request.profile.reviewers), request_id=request.pk, verdict=APPROVE
        )


def test_the_default_is_within_the_ceiling_whatever_it_says(world: World) -> None:
    profile = world.profile(models=["demo-small"], default_models=["demo-small", "demo-large"])
    assert profile.default_scope.models == {"demo-small"}
    profile.default_models = ["demo-large"]
    assert profile.default_scope.models == {"demo-small"}


def test_every_fault_counts_and_every_field_is_named(world: World) -> None:
    profile = world.profile()
    with pytest.raises(InvalidInput) as caught:
        file_request(
            by=world.person(profile.requesters),
            profile_id=profile.pk,
            justification=" ",
            duration=dt.timedelta(days=300),
            models=["another"],
        )
    assert set(caught.value.errors) == {"justification", "duration", "models", "profile"}
    assert not AccessRequest.objects.filter(profile=profile).exists()


def test_being_in_both_groups_gives_neither_more(world: World) -> None:
    """A reviewer who leaves the requesters can't ask, whatever they may review."""
    profile = world.profile()
    both = world.person(profile.requesters, profile.reviewers)
    world.person(profile.reviewers)
    leave_group(by=None, user=both, group=profile.requesters)
    with pytest.raises(InvalidInput, match="no such profile"):
        file_request(by=both, profile_id=profile.pk, justification="Let me.")
