"""A stop and use, as clients of a running gateway meet them: nothing sweeps here."""

import threading
import time
from typing import Any

import openai
import pytest
from django.db import connection

from accessrequests.models import Grant
from credentials.actions import check_out
from credentials.stopping import end_all, lift, stop
from tests.api.callers import Caller
from tests.conftest import RunningGateway
from tests.invariants.races import at_once
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("committed")

SAY: Any = [{"role": "user", "content": "hello there"}]
STREAMS = 4


def client_of(gateway: RunningGateway, grant: Grant) -> openai.OpenAI:
    out = check_out(by=grant.holder, grant_id=grant.pk)
    slug = grant.request.profile.endpoint.slug
    return openai.OpenAI(base_url=gateway.base(slug), api_key=out.secret, max_retries=0)


@pytest.mark.parametrize("verb", [stop, end_all])
def test_it_cuts_every_open_stream_of_the_endpoint_and_no_other(
    verb: Any, gateway: RunningGateway, world: World, django_db_blocker: Any
) -> None:
    profile = world.profile(with_key=True)
    clients = [client_of(gateway, world.grant(profile=profile)) for _ in range(2)]
    elsewhere = client_of(gateway, world.grant(profile=world.profile(with_key=True)))
    streams = [
        client.chat.completions.create(model="demo-slow", messages=SAY, stream=True)
        for client in clients
        for _ in range(STREAMS // 2)
    ]
    for each in streams:
        next(iter(each))
    owner, stopped_at = profile.endpoint.owner, [0.0]

    def declare() -> None:
        with django_db_blocker.unblock():
            verb(by=owner, endpoint=profile.endpoint, reason="Leaked.", proofs=PROVED)
            stopped_at[0] = time.monotonic()
            connection.close()

    def read(stream: Any) -> float:
        with pytest.raises(openai.APIError, match="has ended"):
            for _ in stream:
                pass
        return time.monotonic()

    declaring = threading.Timer(0.5, declare)
    declaring.start()
    cut = at_once([lambda each=each: read(each) for each in streams])  # type: ignore[misc]
    declaring.join()
    assert all(isinstance(moment, float) for moment in cut), cut
    assert max(cut) - stopped_at[0] < 2
    for client in clients:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="demo-small", messages=SAY)
        client.close()
    elsewhere.chat.completions.create(model="demo-small", messages=SAY)
    elsewhere.close()


def until_refused(client: openai.OpenAI) -> None:
    """Call for two seconds at most."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        client.models.list()
        time.sleep(0.05)


def test_lifting_before_any_sweep_opens_nothing_again(
    gateway: RunningGateway, world: World
) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    endpoint = grant.request.profile.endpoint
    with client_of(gateway, grant) as client:
        client.models.list()
        row = stop(by=endpoint.owner, endpoint=endpoint, reason="!", proofs=PROVED)
        lift(by=endpoint.owner, stop_id=row.pk, proofs=PROVED)
        with pytest.raises(openai.AuthenticationError):
            until_refused(client)
        time.sleep(1.2)  # a poll later it's still so
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    with client_of(gateway, world.grant(profile=grant.request.profile)) as again:
        again.models.list()


def test_what_a_running_gateway_recorded_is_on_the_pages(
    gateway: RunningGateway, world: World
) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    with client_of(gateway, grant) as client:
        client.chat.completions.create(model="demo-small", messages=SAY)
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="unheard-of", messages=SAY)
    holder = Caller(grant.holder)
    deadline = time.monotonic() + 5
    while (usage := holder.get(f"grants/{grant.pk}/usage/").json())["calls"] < 2:
        assert time.monotonic() < deadline, usage
        time.sleep(0.1)
    assert usage["refused"] == 1
    assert usage["tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    last, first = holder.get(f"grants/{grant.pk}/calls/").json()["results"]
    assert (first["model"], first["status"], first["refusal"]) == ("demo-small", 200, "")
    assert last["status"] == 403
    assert last["refusal"]
    owner = Caller(grant.request.profile.endpoint.owner)
    [row] = owner.get("live/").json()["results"]
    assert (row["calls_last_minute"], row["refused_last_minute"]) == (2, 1)
