# ruff: noqa: ARG002
"""A mail server and a chat service that really listen."""

import email.policy
import json
import socket
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.db import connection

from notifications.models import Delivery


class MailServer:
    """Takes mail by SMTP on loopback. `answer` is what it says to each; None takes it."""

    def __init__(self) -> None:
        self.inbox: list[EmailMessage] = []
        self.raw: list[bytes] = []
        self.answer: str | None = None
        self.refused: set[str] = set()
        self.port = 0
        self._running: Controller | None = None

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", self.port))
            self.port = probe.getsockname()[1]
        self._running = Controller(self, hostname="127.0.0.1", port=self.port)
        self._running.start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    # Named and called by aiosmtpd.
    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answer is not None:
            return self.answer
        self.raw.append(envelope.content)
        parsed = BytesParser(policy=email.policy.default).parsebytes(envelope.content)
        self.inbox.append(parsed)
        assert envelope.rcpt_tos == [parsed["To"]]
        return "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        return [mail for mail in self.inbox if mail["To"] == address]


class ChatServer:
    """Takes JSON by HTTP, as apprise's `json://` posts it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.heard.append((self.path, json.loads(body)))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mail(settings: Any) -> Iterator[MailServer]:
    server = MailServer()
    server.start()
    settings.KEYTURN_EMAIL = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    yield server
    server.stop()


@pytest.fixture
def chat(settings: Any) -> Iterator[ChatServer]:
    server = ChatServer()
    settings.KEYTURN_CHAT_URL = f"json://127.0.0.1:{server.port}/hooks/T0pS3cretT0ken/{{handle}}"
    yield server
    server.close()


@pytest.fixture
def outbox(committed: None) -> None:
    """A database in which tests commit, with nothing of other tests' left to send."""
    Delivery.objects.filter(state=Delivery.State.DUE).update(state=Delivery.State.WITHDRAWN)
    assert not connection.in_atomic_block
