"""A TCP proxy between the broker and one of its servers, which does one thing wrong on purpose.

Each fault is for what the client sends and names bytes of it, such as b"POST /v1/auth/token/create"
or b"COMMIT"; it strikes from the `nth` time on that they come by, for `times` times.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

# Reset what is closed, rather than end it politely.
LINGER = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """One thing that goes wrong. `struck` counts how often it did, `came_by` how often it could."""

    what: Literal["drop the reply", "lose the reply", "reset", "deliver late", "answer"]
    containing: bytes
    nth: int = 1
    times: int = 1
    seconds: float = 0.0
    reply: bytes = b""
    struck: int = 0
    came_by: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def strikes(self, data: bytes) -> bool:
        """Whether it's this one's turn."""
        if self.containing not in data:
            return False
        with self._lock:
            self.came_by += 1
            turn = self.nth <= self.came_by < self.nth + self.times
            self.struck += turn
            return turn


class Proxy:
    """Stands before the server of `url`; `self.url` is the same one through here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._faults: list[Fault] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self.port}")
        threading.Thread(target=self._accept, daemon=True).start()

    def drop_reply(self, containing: bytes, *, nth: int = 1, times: int = 1) -> Fault:
        """The server does it; its reply is thrown away, and the connection reset."""
        return self._add(Fault("drop the reply", containing, nth, times))

    def lose_reply(self, containing: bytes, *, nth: int = 1, times: int = 1) -> Fault:
        """The server does it; the client waits for a reply that never comes."""
        return self._add(Fault("lose the reply", containing, nth, times))

    def reset(self, containing: bytes = b"", *, nth: int = 1, times: int = 1) -> Fault:
        """The server never hears of it."""
        return self._add(Fault("reset", containing, nth, times))

    def deliver_late(self, containing: bytes, seconds: float, *, nth: int = 1) -> Fault:
        """The server hears of it after so long, whether or not the client still waits."""
        return self._add(Fault("deliver late", containing, nth, seconds=seconds))

    def answer(self, containing: bytes, reply: bytes, *, nth: int = 1, times: int = 1) -> Fault:
        """The server never hears of it; this is the reply."""
        return self._add(Fault("answer", containing, nth, times, reply=reply))

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self._faults = []

    def close(self) -> None:
        self._listener.close()
        for each in list(self._open):
            _reset(each)

    def _add(self, fault: Fault) -> Fault:
        self._faults = [*self._faults, fault]
        return fault

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server, timeout=5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {client, server}
            pair = _Pair(client, server, self)
            for pump in (pair.forth, pair.back):
                threading.Thread(target=pump, daemon=True).start()

    def _striking(self, data: bytes) -> Fault | None:
        return next((fault for fault in self._faults if fault.strikes(data)), None)

    def _forget(self, *ended: socket.socket) -> None:
        self._open -= set(ended)


class _Pair:
    """One connection of a client, and the server's for it."""

    def __init__(self, client: socket.socket, server: socket.socket, proxy: Proxy) -> None:
        self._client, self._server, self._proxy = client, server, proxy
        self._fault: Fault | None = None

    def forth(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                fault = self._proxy._striking(data)
                match fault and fault.what:
                    case "reset":
                        break
                    case "answer":
                        assert fault is not None
                        self._client.sendall(fault.reply)
                        self._client.shutdown(socket.SHUT_WR)
                        # Reads the rest of the request: a reset could overtake the reply.
                        while self._client.recv(65536):
                            pass
                        break
                    case "deliver late":
                        assert fault is not None
                        time.sleep(fault.seconds)
                self._fault = fault or self._fault
                self._server.sendall(data)
            else:
                # A server that saw its client go would stop half-way; it's to end what it began.
                if self._fault is not None:
                    return
        self._end()

    def back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65536):
                what = self._fault and self._fault.what
                if what == "drop the reply":
                    break
                if what == "lose the reply":
                    continue
                self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        _reset(self._client)
        _reset(self._server)
        self._proxy._forget(self._client, self._server)


def _reset(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def status(code: int, words: str, *headers: str) -> bytes:
    """An answer of Vault's with nothing in it but its status."""
    lines = [f"HTTP/1.1 {code} {words}", "Content-Type: application/json", *headers]
    body = '{"errors":[]}'
    return "\r\n".join(
        [*lines, f"Content-Length: {len(body)}", "Connection: close", "", body]
    ).encode()


@contextlib.contextmanager
def before(url: str) -> Iterator[Proxy]:
    """A proxy before this server until the block ends."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
