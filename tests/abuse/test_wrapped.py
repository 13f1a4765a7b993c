"""Attacks on wrapped delivery and on what can be taken back only by rotation."""

from typing import Any

import pytest

from accessrequests.models import Grant
from audit.events import Event
from audit.models import AuditEvent
from credentials import vault
from notifications.kinds import Kind
from notifications.models import Notification
from tests.api.callers import Caller, problem
from tests.api.test_unwrap import wrapped
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant()


def taken(grant: Grant) -> int:
    return Notification.objects.filter(kind=Kind.WRAP_TAKEN, person=grant.holder).count()


def test_who_intercepts_it_reads_it_once_and_is_found_out(grant: Grant) -> None:
    holder, path, token = wrapped(grant)
    spy = Caller(grant.request.profile.endpoint.owner)
    assert spy.post(path, {"token": token}).status_code == 200
    problem(holder.post(path, {"token": token}), 410, "wrap-taken")
    assert taken(grant) == 1
    read = AuditEvent.objects.get(
        event=Event.CREDENTIAL_UNWRAPPED, subject_id=grant.credentials.get().pk
    )
    assert read.actor_id == spy.user.pk if spy.user else False


def test_a_stranger_with_the_token_learns_and_uses_up_nothing(grant: Grant, world: World) -> None:
    holder, path, token = wrapped(grant)
    for stranger in (world.person(), world.person(grant.request.profile.requesters)):
        for how in ("session", "token"):
            problem(Caller(stranger, how).post(path, {"token": token}), 404, "not-found")
    assert Caller(None).post(path, {"token": token}).status_code == 401
    assert taken(grant) == 0
    assert holder.post(path, {"token": token}).status_code == 200


def test_a_token_in_the_url_is_refused_and_not_used_up(grant: Grant) -> None:
    holder, path, token = wrapped(grant)
    refused = problem(holder.post(f"{path}?token={token}", {}), 400, "invalid-input")
    assert token not in str(refused)
    assert holder.get(path, token=token).status_code == 405
    assert vault.wrapping(token) is not None
    kept = AuditEvent.objects.about(grant.pk)
    assert not any(token in str(vars(row)) for row in kept)


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "x",
        "s." + "x" * 24,
        "../../sys/seal",
        "s.\n",
        "é" * 40,
        "x" * 1001,
        None,
        {"a": 1},
        7,
    ],
    ids=repr,
)
def test_hostile_tokens(grant: Grant, token: Any) -> None:
    holder, path, real = wrapped(grant)
    answer = holder.post(path, {"token": token})
    assert answer.status_code in {400, 410}, answer.content
    assert holder.post(path, {"token": real}).status_code == 200


def test_the_accessor_is_told_to_nobody(grant: Grant) -> None:
    """With it alone nothing can be read, but a wrap could be ended."""
    holder, _, _ = wrapped(grant)
    credential = grant.credentials.get()
    for path in (f"credentials/{credential.pk}/", f"grants/{grant.pk}/"):
        assert credential.wrapped_accessor not in holder.get(path).content.decode()
