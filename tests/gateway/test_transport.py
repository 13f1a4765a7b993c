"""What goes out in one piece, and what may not wait for it."""

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from credentials.actions import check_out
from tests.conftest import RunningGateway
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


def test_an_answer_comes_in_one_piece(gateway: RunningGateway, world: World) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    path = f"/e/{grant.request.profile.endpoint.slug}/v1/models"
    url = urlsplit(gateway.url)
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(request.encode())
            head, _, body = client.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["data"]


def test_a_stream_is_not_held_back(gateway: RunningGateway, world: World) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    path = f"/e/{grant.request.profile.endpoint.slug}/v1/chat/completions"
    url = urlsplit(gateway.url)
    say = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": "demo-slow", "messages": say, "stream": True})
    request = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n"
    request += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection((url.hostname, url.port), timeout=10) as client:
        client.sendall(request.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)
        assert b"data: " in client.recv(65536)
