import datetime as dt
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from django.db import connection

from accessrequests.models import Grant
from accounts.models import User
from credentials.actions import check_out, end_grant, store_upstream_key
from endpoints.actions import retire_endpoint
from tests.conftest import RunningGateway
from tests.upstream import Upstream
from tests.world import UPSTREAM_KEY, World, move

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def grant(world: World) -> Grant:
    """A live grant of two models on an endpoint with a stored upstream key."""
    return world.grant(
        profile=world.profile(with_key=True), models=["demo-small", "demo-slow", "demo-embed"]
    )


@pytest.fixture
def secret(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


@pytest.fixture
def slug(grant: Grant) -> str:
    return grant.request.profile.endpoint.slug


@pytest.fixture
def client(gateway: RunningGateway, slug: str, secret: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base(slug), api_key=secret, max_retries=0) as client:
        yield client


SAY: Any = [{"role": "user", "content": "hello there"}]


def test_completion(client: openai.OpenAI, upstream: Upstream, secret: str) -> None:
    answer = client.chat.completions.create(model="demo-small", messages=SAY)
    assert "hello there" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    seen = upstream.calls[-1]["headers"]
    assert seen["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert secret not in str(seen)


def test_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo-small", messages=SAY, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "hello there" in text
    assert chunks[-1].usage is not None


def test_a_tool_that_nobody_granted(client: openai.OpenAI, upstream: Upstream) -> None:
    before = len(upstream.calls)
    with pytest.raises(openai.PermissionDeniedError, match="'look_up'") as caught:
        client.chat.completions.create(
            model="demo-small",
            messages=SAY,
            tools=[{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
        )
    assert caught.value.code == "tool_not_granted"
    assert len(upstream.calls) == before


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="demo-embed", input=["a", "b"], encoding_format="float")
    assert len(answer.data) == 2


def test_models_are_the_grants_own(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["demo-embed", "demo-slow", "demo-small"]


def test_anthropic_client(gateway: RunningGateway, slug: str, secret: str) -> None:
    with anthropic.Anthropic(
        base_url=f"{gateway.url}/e/{slug}", api_key=secret, max_retries=0
    ) as client:
        message = client.messages.create(model="demo-small", max_tokens=99, messages=SAY)
        assert message.content[0].type == "text"
        assert "hello there" in message.content[0].text
        with client.messages.stream(model="demo-small", max_tokens=99, messages=SAY) as stream:
            assert "hello there" in stream.get_final_text()
        with pytest.raises(anthropic.PermissionDeniedError, match="demo-large"):
            client.messages.create(model="demo-large", max_tokens=99, messages=SAY)


def test_a_model_outside_of_the_grant(client: openai.OpenAI, upstream: Upstream) -> None:
    before = len(upstream.calls)
    with pytest.raises(openai.PermissionDeniedError, match="demo-large") as caught:
        client.chat.completions.create(model="demo-large", messages=SAY)
    assert caught.value.code == "model_not_granted"
    assert len(upstream.calls) == before


def test_an_unknown_key(gateway: RunningGateway, slug: str) -> None:
    with (
        openai.OpenAI(base_url=gateway.base(slug), api_key="s." + "x" * 24) as client,
        pytest.raises(openai.AuthenticationError, match="unknown, expired or revoked"),
    ):
        client.chat.completions.create(model="demo-small", messages=SAY)


def test_another_endpoint(gateway: RunningGateway, world: World, secret: str) -> None:
    other = world.endpoint(with_key=True)
    with (
        openai.OpenAI(base_url=gateway.base(other.slug), api_key=secret) as client,
        pytest.raises(openai.PermissionDeniedError, match="another endpoint"),
    ):
        client.chat.completions.create(model="demo-small", messages=SAY)


def test_ending_cuts_an_open_stream_and_refuses(
    client: openai.OpenAI, grant: Grant, django_db_blocker
) -> None:
    stream = client.chat.completions.create(model="demo-slow", messages=SAY, stream=True)
    begun = next(iter(stream))
    assert begun.choices
    ended_at = 0.0

    def give_back() -> None:
        nonlocal ended_at
        with django_db_blocker.unblock():
            time.sleep(1)
            end_grant(grant_id=grant.pk, by=User.objects.get(pk=grant.holder_id))
            ended_at = time.monotonic()
            connection.close()

    ending = threading.Thread(target=give_back)
    ending.start()
    with pytest.raises(openai.APIError, match="has ended") as caught:
        for _ in stream:
            pass
    cut = time.monotonic()
    ending.join()
    assert caught.value.code == "grant_ended"
    assert cut - ended_at < 1
    with pytest.raises(openai.AuthenticationError, match="has ended"):
        client.chat.completions.create(model="demo-small", messages=SAY)


def test_an_expired_grant_with_no_worker_at_all(client: openai.OpenAI, grant: Grant) -> None:
    """Nothing sweeps here: the deadline alone must do."""
    move(grant, ends_at=dt.timedelta(minutes=-59, seconds=-57), starts_at=dt.timedelta(hours=-1))
    client.models.list()
    stream = client.chat.completions.create(model="demo-slow", messages=SAY, stream=True)
    with pytest.raises(openai.APIError, match="has ended"):
        for _ in stream:
            pass
    over = time.time() - grant.ends_at.timestamp()
    assert -0.5 < over < 1, over  # the gateway counts from when it asked: early, never late
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="demo-small", messages=SAY)


@pytest.mark.parametrize("how", ["holder deactivated", "endpoint retired", "replaced"])
def test_what_else_ends_it_within_two_seconds(
    how: str, client: openai.OpenAI, grant: Grant
) -> None:
    client.models.list()
    match how:
        case "holder deactivated":
            User.objects.filter(pk=grant.holder_id).update(is_active=False)
        case "endpoint retired":
            retire_endpoint(by=None, endpoint=grant.request.profile.endpoint)
        case "replaced":
            check_out(by=grant.holder, grant_id=grant.pk)

    def until_refused() -> None:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            client.models.list()
            time.sleep(0.05)

    with pytest.raises(openai.AuthenticationError):
        until_refused()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/files", 404),
        ("/v1/../v1/models", 404),
        ("//v1/models", 404),
        ("/v1%2fmodels", 404),
        ("/V1/models", 404),
        ("/v1/models/", 404),
        ("/v1/models?api_key=x", 401),
    ],
)
def test_paths_that_are_not_on_the_list(
    path: str, status: int, gateway: RunningGateway, slug: str, secret: str
) -> None:
    # httpx and requests tidy a path up before they send it.
    wire = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
    wire.request("GET", f"/e/{slug}{path}", headers={"Authorization": f"Bearer {secret}"})
    answer = wire.getresponse()
    text = answer.read().decode()
    wire.close()
    assert answer.status == status
    assert json.loads(text)["error"]["message"]
    assert secret not in text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"model": "demo-small", "model": "demo-large"}', "duplicate_key"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": 3}', "model_missing"),
        (b'{"x":' + b"[" * 20_000, "invalid_json"),
    ],
)
def test_bodies_that_are_refused(
    body: bytes, code: str, gateway: RunningGateway, slug: str, secret: str, upstream: Upstream
) -> None:
    before = len(upstream.calls)
    answer = httpx.post(
        f"{gateway.base(slug)}/chat/completions",
        content=body,
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert len(upstream.calls) == before


def test_two_keys(gateway: RunningGateway, slug: str, secret: str) -> None:
    answer = httpx.get(
        f"{gateway.base(slug)}/models",
        headers={"Authorization": f"Bearer {secret}", "x-api-key": "another"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "two_keys"


def test_a_body_that_is_too_large(gateway: RunningGateway, slug: str, secret: str) -> None:
    answer = httpx.post(
        f"{gateway.base(slug)}/chat/completions",
        content=b"x" * 10_000_001,
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert answer.status_code == 413


def test_the_upstream_refusing_its_key_is_not_the_clients_fault(
    gateway: RunningGateway, world: World
) -> None:
    grant = world.grant(profile=world.profile(with_key=False))
    endpoint = grant.request.profile.endpoint
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    with openai.OpenAI(
        base_url=gateway.base(endpoint.slug), api_key=secret, max_retries=0
    ) as client:
        with pytest.raises(openai.InternalServerError, match="No upstream key"):
            client.chat.completions.create(model="demo-small", messages=SAY)
        store_upstream_key(by=None, endpoint=endpoint, key="sk-wrong-key-0000000000")
        with pytest.raises(openai.InternalServerError, match="doesn't take the key"):
            client.chat.completions.create(model="demo-small", messages=SAY)
        store_upstream_key(by=None, endpoint=endpoint, key=UPSTREAM_KEY)
        client.chat.completions.create(model="demo-small", messages=SAY)
