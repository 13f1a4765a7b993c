import io

import pytest
from django.core.management import CommandError, call_command

from accounts.actions import token_owner
from credentials import vault
from tests.world import World

pytestmark = pytest.mark.django_db


def printed(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_a_token_is_printed_once_and_is_its_owners(world: World) -> None:
    owner = world.person()
    text = printed("token", "create", f"--owner={owner.email.upper()}", "--name=CI").strip()
    found = token_owner(text)
    assert found is not None
    assert found[0] == owner


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--owner=nobody@example.com", "--name=CI"], "--owner: there is no person"),
        (["--owner={owner}", "--name= "], "--name: Say what will use it"),
        (["--owner={owner}", "--name=CI", "--days=91"], "--days: Must be from 1 to 90"),
    ],
)
def test_a_token_that_is_refused(arguments: list[str], says: str, world: World) -> None:
    owner = world.person().email
    with pytest.raises(CommandError, match=says):
        printed("token", "create", *(part.format(owner=owner) for part in arguments))


def test_an_upstream_key_goes_from_standard_input_to_vault(
    world: World, role, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = world.endpoint(with_key=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-from-standard-input\n"))
    assert printed("upstream_key", endpoint.slug) == "Stored as version 1.\n"
    with role("gateway"):
        assert vault.upstream_key(endpoint.slug) == "sk-from-standard-input"


def test_an_empty_upstream_key_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = world.endpoint(with_key=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(CommandError, match="key: Must be one line and not empty"):
        printed("upstream_key", endpoint.slug)
    assert vault.upstream_version(endpoint.slug) == 0


def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    text = printed("token", "create", f"--owner={world.person().email}", "--name=CI").strip()
    assert "is revoked" in printed("token", "revoke", text.split("_")[2])
    assert token_owner(text) is None
    with pytest.raises(CommandError, match="no such API token"):
        printed("token", "revoke", "unknown")
