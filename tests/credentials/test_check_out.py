from typing import Any

import pytest

from credentials.actions import check_out
from credentials.states import CredentialState
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.django_db


def vault_says(servers: Servers, token: str) -> dict[str, Any]:
    """What OpenBao itself knows of this secret."""
    data: dict[str, Any] = servers.vault("POST", "auth/token/lookup", {"token": token})["data"]
    return data


def test_a_holder_checks_a_credential_out(world: World, servers: Servers) -> None:
    grant = world.grant()
    out = check_out(by=grant.holder, grant_id=grant.pk)
    held = vault_says(servers, out.secret)
    assert held["meta"]["grant"] == str(grant.pk)
    assert held["meta"]["credential"] == str(out.credential.pk)
    assert held["policies"] == ["gateway-token"]
    assert held["orphan"] is True
    assert 3590 <= held["ttl"] <= 3600, "raised from its first minute to the end of the grant"
    assert held["explicit_max_ttl"] <= 3600
    assert out.credential.state == CredentialState.ACTIVE
    assert out.secret not in repr(out)
