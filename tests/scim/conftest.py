"""A directory of somebody else's: scim2-client over WSGI."""

from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from scim2_client.engines.wsgi import WSGISCIMClient

from accounts.models import ScimToken
from accounts.scim.tokens import create_token
from tests.scim.directory import Directory


@pytest.fixture
def token(db: None) -> tuple[ScimToken, str]:
    return create_token(name="Acme")


@pytest.fixture
def directory(token: tuple[ScimToken, str]) -> Directory:
    """Sends what it's told to, as it is."""
    return Directory(token[1])


@pytest.fixture
def client_of_others(token: tuple[ScimToken, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """scim2-client, which checks what it sends and what it gets by the RFCs."""
    # A handler would close the connection that the test's transaction is on.
    monkeypatch.setattr(connections["default"], "close_if_unusable_or_obsolete", lambda: None)
    return WSGISCIMClient(
        WSGIHandler(),
        base_url="http://localhost/scim/v2",
        headers={"Authorization": f"Bearer {token[1]}"},
    )
