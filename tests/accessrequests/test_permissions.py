"""Who may, by name: each verb's whole list of people, and nobody else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accessrequests import permissions
from accessrequests.actions import review_request
from accessrequests.models import AccessRequest, Grant, Policy, Review
from accounts.models import User
from audit import clock
from broker.errors import Forbidden, NotFound, SelfReview
from endpoints import permissions as on_endpoints
from endpoints.models import EmergencyStop, Endpoint
from tests.accessrequests.policies import govern, step
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db


class Scene:
    """One request that waits, one grant of the same profile, and everybody around them."""

    def __init__(self, world: World) -> None:
        self.said = set[str]()  # to whoever was refused
        self.owner = world.person()
        self.endpoint: Endpoint = world.endpoint(owner=self.owner, with_key=False)
        profile = world.profile(endpoint=self.endpoint)
        self.requester = world.person(profile.requesters)
        self.pending: AccessRequest = world.request(profile=profile, requester=self.requester)
        self.service = world.person(profile.requesters, owner=world.person())
        self.for_service: AccessRequest = world.request(profile=profile, requester=self.service)
        self.grant: Grant = world.grant(profile=profile, requester=self.requester)
        self.people: dict[str, User] = {
            "requester": self.requester,
            "reviewer": world.person(profile.reviewers),
            "owner": self.owner,
            "administrator": world.person(is_administrator=True),
            "auditor": world.person(is_auditor=True),
            "colleague": world.person(profile.requesters),
            "stranger": world.person(),
        }
        self.people["gone reviewer"] = world.person(profile.reviewers, is_active=False)
        self.people["gone administrator"] = world.person(is_administrator=True, is_active=False)
        self.owners_stop = self._stopped_by(self.owner)
        self.administrators_stop = self._stopped_by(self.people["administrator"])

    def _stopped_by(self, person: User) -> EmergencyStop:
        return EmergencyStop(endpoint=self.endpoint, reason="Leaked.", stopped_by=person)

    def may(self, check: Callable[..., Any], *of: Any) -> set[str]:
        """Those of whom this check of something raises nothing, or says yes."""
        allowed = set()
        for name, person in self.people.items():
            try:
                if check(person, *of) is not False:
                    allowed.add(name)
            except SelfReview:
                continue
            except Forbidden as refused:
                self.said.add(refused.detail)
        return allowed


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    scene = Scene(world)
    yield scene
    assert all(sentence.startswith("Only ") for sentence in scene.said), scene.said


def test_requests(scene: Scene) -> None:
    pending = scene.pending
    assert scene.may(permissions.check_review, pending) == {"reviewer"}
    assert scene.may(permissions.can_review, pending) == {"reviewer"}
    both = {"requester", "reviewer"}
    assert scene.may(permissions.check_comment, pending) == both
    assert scene.may(permissions.can_comment, pending) == both
    assert scene.may(permissions.check_cancel, pending) == {"requester"}
    with pytest.raises(SelfReview):
        permissions.check_review(scene.requester, pending)
    with pytest.raises(Forbidden, match=f"Only {pending.profile.reviewers.name} may review"):
        permissions.check_review(scene.people["stranger"], pending)


def test_who_decided_may_comment_though_they_decide_no_more(scene: Scene) -> None:
    reviewer = scene.people["reviewer"]
    review_request(
        by=reviewer,
        request_id=scene.pending.pk,
        verdict=Review.Verdict.DENY,
        reason="No.",
        proofs=PROVED,
    )
    profile = scene.pending.profile
    profile.reviewers.memberships.filter(user=reviewer).delete()
    assert permissions.can_comment(reviewer, scene.pending)


def test_a_service_account_s_owner_acts_for_it_and_reviews_nothing_of_it(scene: Scene) -> None:
    owner = scene.service.owner
    assert owner is not None
    permissions.check_cancel(owner, scene.for_service)
    permissions.check_comment(owner, scene.for_service)
    with pytest.raises(SelfReview):
        permissions.check_review(owner, scene.for_service)
    assert scene.may(permissions.check_cancel, scene.for_service) == set()


def test_grants(scene: Scene) -> None:
    assert scene.may(permissions.check_hold, scene.grant) == {"requester"}
    enders = {"requester", "reviewer", "owner", "administrator"}
    assert scene.may(permissions.can_end, scene.grant) == enders
    assert scene.may(permissions.check_end, scene.grant) == enders
    scene.grant.request.profile.reviewers.memberships.all().delete()
    enders.remove("reviewer")
    assert scene.may(permissions.can_end, scene.grant) == enders


def test_whom_a_policy_names_and_whom_the_profile_names_each_end_a_grant(world: World) -> None:
    endpoint = world.endpoint(owner=world.person(), with_key=False)
    profile = world.profile(endpoint=endpoint)
    approver = world.person(world.group())
    govern(profile, step(*approver.member_of.all()))
    request = world.request(profile=profile, requester=world.person(profile.requesters))
    review_request(
        by=approver, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
    )
    grant = Grant.objects.get(request=request)
    assert permissions.can_end(approver, grant)
    assert permissions.can_end(world.person(profile.reviewers), grant)
    assert not permissions.can_end(world.person(), grant)


def test_who_reviews_anything_at_all(world: World) -> None:
    def reviews(*people: User) -> list[bool]:
        return [permissions.is_reviewer(person) for person in people]

    profile = world.profile(endpoint=world.endpoint(owner=world.person(), with_key=False))
    member, owner = world.person(profile.reviewers), profile.endpoint.owner
    named, in_group, later = (
        world.person(),
        world.person(world.group()),
        world.person(world.group()),
    )
    manager = world.person()
    world.person(manager=manager)
    others = (named, in_group, later, owner, manager)
    assert reviews(member, *others) == [True] + [False] * 5
    chain = [{"after": "PT1H", "to": {"groups": [later.member_of.get().slug]}}]
    policy = govern(
        profile,
        step(reviewers={"people": [named.email]}, escalation=chain),
        step(*in_group.member_of.all(), name="Second"),
        step(reviewers={"endpoint_owner": True}, name="Third"),
        step(reviewers={"requester_manager": True}, name="Fourth"),
    )
    assert reviews(member, *others, world.person()) == [True] * 6 + [False]
    govern(profile, step(reviewers={"people": [named.email]}))
    world.endpoint(owner=named, with_key=False)
    world.person(manager=named)
    assert reviews(*others) == [True] + [False] * 4, "an older version names nobody"
    Policy.objects.filter(pk=policy.pk).update(retired_at=clock.now())
    assert reviews(*others) == [False] * 5


def test_policies(scene: Scene) -> None:
    assert scene.may(permissions.check_administer) == {"administrator"}


def test_endpoints(scene: Scene) -> None:
    there, both = scene.endpoint, {"owner", "administrator"}
    for check in (
        on_endpoints.can_stop,
        on_endpoints.check_stop,
        on_endpoints.check_price,
        on_endpoints.check_rotate,
    ):
        assert scene.may(check, there) == both, check
    assert scene.may(on_endpoints.can_stop, None) == {"administrator"}
    with pytest.raises(Forbidden, match="stop everything"):
        on_endpoints.check_stop(scene.owner, None)
    with pytest.raises(Forbidden, match="stop an endpoint"):
        on_endpoints.check_stop(scene.people["stranger"], there)
    for can in (on_endpoints.can_lift, on_endpoints.check_lift):
        assert scene.may(can, scene.owners_stop) == both
        assert scene.may(can, scene.administrators_stop) == {"administrator"}
    assert str(there) in on_endpoints.changing_in_words(scene.owner, str(there.pk))
    with pytest.raises(NotFound):
        on_endpoints.changing_in_words(scene.people["stranger"], str(there.pk))
