"""Whom schemathesis and the generated client call as, and what there is for them to find."""

from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import Client

from accessrequests.actions import note_absence
from accounts.actions import create_token, join_group
from accounts.changes import propose
from accounts.models import ApiToken, User
from accounts.scopes import Verb
from audit import clock
from credentials.actions import check_out, end_grant
from credentials.stopping import stop
from endpoints.models import AccessProfile
from notifications.kinds import Kind
from notifications.outbox import notify
from tests.world import PROVED, World


@dataclass(frozen=True)
class Scene:
    """An administrator who asks and reviews as well, with something of everything to see."""

    caller: User
    token: str
    session: str
    profile: AccessProfile


def token_of(user: User, *verbs: Verb) -> str:
    """An API token of theirs, for everything where no verbs are named."""
    row, text = create_token(by=user, owner=user, name="openapi")
    ApiToken.objects.filter(pk=row.pk).update(verbs=[verb.value for verb in verbs or Verb])
    return text


@pytest.fixture(scope="module")
def scene(committed_once: None, world: World) -> Scene:
    caller = world.person(is_administrator=True, is_auditor=True)
    profile = world.profile(with_key=True)
    for group in (profile.requesters, profile.reviewers):
        join_group(by=None, user=caller, group=group)
    both: dict[str, Any] = {"requesters": profile.requesters, "reviewers": profile.reviewers}
    # Three profiles are more than the same requests can be in each other's way.
    profiles = [profile, *(world.profile(endpoint=profile.endpoint, **both) for _ in range(2))]
    for each in profiles:
        world.request(profile=each)
        world.request(profile=each, requester=caller)
    world.policy(profile=profiles[1])
    held = world.grant(profile=profile, requester=world.person(profile.requesters))
    check_out(by=held.holder, grant_id=held.pk)
    over = world.grant(profile=profiles[1], requester=held.holder)
    check_out(by=held.holder, grant_id=over.pk)
    end_grant(by=held.holder, grant_id=over.pk)
    note_absence(by=caller, ends_at=clock.now().replace(year=clock.now().year + 1))
    with transaction.atomic():
        notify(Kind.DECIDED, to=[caller], about=held, path="/", sentence="x", occasion="openapi")
    propose(
        by=world.person(is_administrator=True),
        kind="group_member",
        about=profile.requesters,
        payload={"person": str(world.person().pk)},
        reason="Joins the team.",
        proofs=PROVED,
    )
    elsewhere = world.endpoint(with_key=False)
    stop(by=elsewhere.owner, endpoint=elsewhere, reason="A key was found.", proofs=PROVED)
    browser = Client()
    browser.force_login(caller)
    return Scene(
        caller, token_of(caller), browser.cookies[settings.SESSION_COOKIE_NAME].value, profile
    )
