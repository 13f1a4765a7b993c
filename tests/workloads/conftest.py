import hashlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

import pytest
from django.test import Client

from accounts import published
from accounts.models import TrustedIssuer, User, WorkloadRule
from accounts.workloads.actions import add_rule, trust_issuer
from accounts.workloads.views import GRANT_TYPE, SUBJECT_TYPES
from audit import clock
from tests.fakes.issuers import AUDIENCE, Issuer
from tests.world import World, unique


@pytest.fixture(scope="session")
def running() -> Iterator[Issuer]:
    with Issuer("RS256") as issuer:
        yield issuer


@pytest.fixture
def github(running: Issuer) -> Iterator[Issuer]:
    """An issuer in the shape of GitHub's, of whom nobody has heard yet."""
    published._kept.clear()
    running.calls.clear()
    # A machine that is busy with tests takes longer than an issuer may.
    with patch.object(published, "TIMEOUT", 60.0):
        yield running


def trusted(issuer: Issuer, **fields: Any) -> TrustedIssuer:
    """This issuer in the database."""
    earlier = TrustedIssuer.objects.filter(issuer=issuer.url, retired_at=None)
    earlier.update(retired_at=clock.now())
    mark = unique()
    usual = {"slug": f"i-{mark}", "name": f"Issuer {mark}", "audience": AUDIENCE}
    return trust_issuer(by=None, issuer=issuer.url, **usual | fields)


def service_account(world: World) -> User:
    return world.person(owner=world.person())


def rule_of(issuer: TrustedIssuer, world: World, **fields: Any) -> WorkloadRule:
    """A rule that the tokens of `Issuer.github` fit."""
    usual = {"name": "Nightly", "claims": {"repository_id": "74"}, "verbs": ["read", "request"]}
    account = fields.pop("service_account", None) or service_account(world)
    return add_rule(by=None, issuer=issuer, service_account=account, **usual | fields)


def exchanged(token: str, *, came_from: str = "", **said: str) -> Any:
    """What /oauth/token answers to this, called by a program of its own."""
    body = {"grant_type": GRANT_TYPE, "subject_token_type": SUBJECT_TYPES[0]}
    # An address of its own, so that refusals of other tests don't count.
    mark = hashlib.sha256(token.encode()).digest()[:3]
    return Client(raise_request_exception=False).generic(
        "POST",
        "/oauth/token",
        urlencode(body | {"subject_token": token} | said),
        content_type="application/x-www-form-urlencoded",
        REMOTE_ADDR=came_from or "10." + ".".join(str(each) for each in mark),
    )
