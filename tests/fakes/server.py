"""A fake's server: routes, state, checks by schema, and faults that a test orders."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parent / "schemas"
PROBE = "/v1/models"


class Refusal(Exception):
    """The provider's own kind of error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass
class Fault:
    """What happens instead, or afterwards where it's `lost`: done, and no answer comes."""

    operation: str
    status: int = 0
    body: bytes = b"{}"
    headers: Mapping[str, str] | None = None
    lost: bool = False
    silent: float = 0
    times: int = 1


@dataclass(frozen=True)
class Call:
    """A request that was understood."""

    operation: str
    path: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    raw: bytes


class Fake:
    """Serves on a port of loopback from `with` to its end.

    `done` names each operation that was carried out, `violations` what was against the schema:
    a test asks at its end that there are none.
    """

    schema: ClassVar[str] = ""
    routes: ClassVar[dict[str, Callable[[Any, Call], Any]]] = {}

    def __init__(self) -> None:
        self.done: list[str] = []
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.lock = threading.Lock()
        self._faults: list[Fault] = []
        self._published = json.loads((SCHEMAS / self.schema).read_text()) if self.schema else {}

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def serve(self) -> None:
                fake.serve(self)

            do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def going_wrong(self, operation: str, **fields: Any) -> Iterator[None]:
        """The next call whose operation contains this meets this fault."""
        fault = Fault(operation, **fields)
        self._faults.append(fault)
        try:
            yield
        finally:
            self._faults.remove(fault)

    def error(self, status: int, message: str) -> Any:
        """The body of this provider's errors."""
        return {"error": {"code": status, "message": message}}

    def takes(self, key: str) -> bool:
        """Whether this key opens what the provider is for."""
        raise NotImplementedError

    def authorize(self, call: Call) -> None:
        """Raise Refusal unless the caller may do this."""

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        url = urlsplit(handler.path)
        if url.path == PROBE:
            # Not the management of keys, but what the keys are for.
            sent = handler.headers.get("api-key") or handler.headers.get("Authorization") or ""
            status = 200 if self.takes(sent.removeprefix("Bearer ")) else 401
            return _answer(handler, status, b'{"object": "list", "data": []}')
        operation, found = self._route(handler.command, url.path)
        if not operation:
            self.violations.append(f"{handler.command} {url.path} isn't published")
            return _answer(handler, 404, json.dumps(self.error(404, "no such path")).encode())
        headers = {name.lower(): value for name, value in handler.headers.items()}
        form = "form-urlencoded" in headers.get("content-type", "")
        try:
            body = dict(parse_qsl(raw.decode())) if form else json.loads(raw) if raw else None
        except ValueError:
            body = None
        call = Call(operation, found, dict(parse_qsl(url.query)), headers, body, raw)
        self.calls.append(call)
        fault = next((f for f in self._faults if f.operation in operation and f.times > 0), None)
        if fault is not None:
            fault.times -= 1
            if not fault.lost:
                time.sleep(fault.silent)
                return _answer(handler, fault.status, fault.body, fault.headers)
        with self.lock:
            status, answer = self._carry_out(call)
        if fault is not None:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return None
        return _answer(handler, status, json.dumps(answer).encode())

    def _route(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        for operation in self.routes:
            its_method, _, template = operation.partition(" ")
            pattern = re.sub(
                r"\{(\w+)\}",
                r"(?P<\1>[^/]+)",
                re.escape(template).replace(r"\{", "{").replace(r"\}", "}"),
            )
            if its_method == method and (match := re.fullmatch(pattern, path)):
                return operation, {
                    name: unquote(value) for name, value in match.groupdict().items()
                }
        return "", {}

    def _carry_out(self, call: Call) -> tuple[int, Any]:
        published = self._published.get("operations", {}).get(call.operation, {})
        wrong = [
            *self._against("path", published.get("path", {}), call.path),
            *self._against("query", published.get("query", {}), call.query),
            *self._against("request", published.get("request", {}), call.body),
        ]
        try:
            self.authorize(call)
            if wrong:
                self.violations += [f"{call.operation}: {each}" for each in wrong]
                raise Refusal(400, self.error(400, wrong[0]))
            status, answer = 200, self.routes[call.operation](self, call)
            self.done.append(call.operation)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
        answers = published.get("responses", {})
        schema = answers.get(str(status), answers.get("default", {}))
        self.violations += [
            f"{call.operation}: {each}" for each in self._against("response", schema, answer)
        ]
        return status, answer

    def _against(self, what: str, schema: Any, instance: Any) -> list[str]:
        whole = {"$defs": self._published.get("$defs", {}), **schema}
        return [
            f"{what}: {error.json_path} {error.message}"
            for error in Draft202012Validator(whole).iter_errors(instance)
        ]


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> None:
    with contextlib.suppress(OSError):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
