"""Credentials of the kind `database`, on a PostgreSQL of their own."""

from typing import Any

import pytest

from accessrequests.states import EndReason
from credentials.actions import check_out, end_grant
from credentials.states import CredentialState
from tests.credentials.targets import Target
from tests.world import World

pytestmark = pytest.mark.django_db


def test_a_user_of_ones_own_and_its_end(world: World, target: Target, sweep: Any) -> None:
    grant = world.grant(profile=target.profile(world))
    out = check_out(by=grant.holder, grant_id=grant.pk)
    assert target.opens(out.parts["url"])
    assert out.parts["username"].startswith(out.credential.name)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    sweep()
    out.credential.refresh_from_db()
    assert out.credential.state == CredentialState.REVOKED
    assert target.users() == set()
