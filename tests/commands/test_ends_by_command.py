import io

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from accessrequests.states import EndReason
from tests.world import World

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> None:
    call_command(*arguments, stdout=io.StringIO())


def test_deactivating_a_person_ends_what_they_hold(world: World, sweep) -> None:
    grant = world.grant()
    run("person", "deactivate", grant.holder.email)
    sweep()
    grant.refresh_from_db()
    assert grant.end_reason == EndReason.REQUESTER_DEACTIVATED


def test_retiring_an_endpoint_ends_its_grants(world: World, sweep) -> None:
    grant = world.grant()
    run("endpoint", "retire", grant.request.profile.endpoint.slug)
    sweep()
    grant.refresh_from_db()
    assert grant.end_reason == EndReason.ENDPOINT_RETIRED


def test_leaving_a_group(world: World) -> None:
    group = world.group()
    user = world.person(group)
    run("person", "leave", user.email, group.slug)
    assert not group.has(user)


def test_a_password_comes_from_standard_input(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = world.person()
    monkeypatch.setattr("sys.stdin", io.StringIO("a quite long new password\n"))
    run("person", "password", user.email)
    assert authenticate(username=user.email, password="a quite long new password") == user
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(CommandError, match="at least 12 characters"):
        run("person", "password", user.email)


@pytest.mark.parametrize(
    "arguments",
    [
        ("person", "deactivate", "nobody@example.com"),
        ("endpoint", "retire", "nothing"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], world: World) -> None:
    with pytest.raises(CommandError, match=arguments[2]):
        run(*arguments)
