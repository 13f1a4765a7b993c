"""The proxy itself: what it does wrong is what it was asked to."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy, before, status


class Parrot:
    """A server that repeats each line, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            while data := client.recv(100):
                self.heard.append(data)
                client.sendall(data)


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def proxy(parrot: Parrot) -> Iterator[Proxy]:
    with before(parrot.url) as running:
        yield running


def say(proxy: Proxy, *lines: bytes, timeout: float = 2) -> list[bytes]:
    """The replies to these over one connection, up to the one where it ended."""
    replies = []
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout) as client:
        for line in lines:
            try:
                client.sendall(line)
                replies.append(client.recv(1000))
            except TimeoutError:
                replies.append(b"timed out")
            except OSError:
                replies.append(b"")
            if replies[-1] in (b"", b"timed out"):
                break
    return replies


def test_without_a_fault_it_passes_everything_on(proxy: Proxy) -> None:
    assert say(proxy, b"one", b"two") == [b"one", b"two"]


def test_it_drops_the_reply_to_the_nth_and_no_other(proxy: Proxy, parrot: Parrot) -> None:
    fault = proxy.drop_reply(b"two", nth=2)
    assert say(proxy, b"one", b"two", b"two", b"three") == [b"one", b"two", b""]
    assert say(proxy, b"two") == [b"two"]
    assert parrot.heard == [b"one", b"two", b"two", b"two"], "the server did it"
    assert (fault.struck, fault.came_by) == (1, 3)


def test_it_loses_a_reply_in_silence(proxy: Proxy, parrot: Parrot) -> None:
    proxy.lose_reply(b"two")
    assert say(proxy, b"one", b"two", timeout=0.3) == [b"one", b"timed out"]
    assert parrot.heard == [b"one", b"two"]


def test_it_resets_before_the_server_hears(proxy: Proxy, parrot: Parrot) -> None:
    proxy.reset(b"two")
    assert say(proxy, b"one", b"two") == [b"one", b""]
    assert parrot.heard == [b"one"]
    assert say(proxy, b"two") == [b"two"]


def test_it_delivers_late_though_the_client_has_gone(proxy: Proxy, parrot: Parrot) -> None:
    proxy.deliver_late(b"two", 0.4)
    assert say(proxy, b"two", timeout=0.1) == [b"timed out"]
    assert parrot.heard == []
    time.sleep(0.6)
    assert parrot.heard == [b"two"]


def test_it_answers_itself(proxy: Proxy, parrot: Parrot) -> None:
    proxy.answer(b"two", status(429, "Too Many Requests"))
    assert say(proxy, b"two")[0].startswith(b"HTTP/1.1 429 ")
    assert parrot.heard == []


def test_healed_it_passes_everything_on_again(proxy: Proxy) -> None:
    proxy.reset(times=99)
    assert say(proxy, b"one") == [b""]
    proxy.heal()
    assert say(proxy, b"one") == [b"one"]
