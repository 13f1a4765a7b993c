"""The server: keys, records, and how it is told to behave."""

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from broker.demo.upstream import healthz
from tests.upstream import anthropic, dashboard, keys, ollama, openai
from tests.upstream.call import CALL, Behaviour, Call, Dialect, Failed, error

MOST_CALLS = 20_000
USUAL = {"authorization", "x-api-key"}
# Anthropic takes it in either: its SDK went from the one to the other.
KEY_HEADERS: dict[Dialect, set[str]] = {
    "openai": {"authorization"},
    "ollama": {"authorization"},
    "anthropic": USUAL,
    "http": USUAL,
}


@dataclass
class _Told:
    how: Behaviour
    left: float  # calls that it still holds for


def spoken(request: web.Request) -> Dialect:
    """The dialect that a request is in."""
    if request.path.startswith("/v1/messages") or "anthropic-version" in request.headers:
        return "anthropic"
    if request.path.startswith("/v1/"):
        return "openai"
    return "ollama" if request.path.startswith("/api/") else "http"


class Upstream:
    """Serves on a port of loopback from `with` to its end.

    `calls` is what reached it with a right key; `refused` what came with none. Each is a dict:
    method, path, query, headers, body (parsed where it's JSON), at, key, dialect, model,
    prompt_tokens, completion_tokens, hung_up, died, status, done.
    """

    def __init__(self, *given: str, port: int = 0) -> None:
        if not given:
            raise ValueError("an upstream needs a key to check")
        self.keys = set(given)
        self.admin_key = f"sk-admin-{secrets.token_hex(12)}"  # manages keys, and calls nothing
        self.managed: dict[str, tuple[str, str]] = {}  # name and key of those that it made, by id
        self.manages = True  # else its management of keys is down
        self.port = port
        self.url = ""
        self.calls: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.open = 0
        self.tokens: Counter[tuple[str, str]] = Counter()  # by key and model
        self.responses: dict[str, dict[str, Any]] = {}  # kept by the Responses API
        self.threads: dict[str, dict[str, Any]] = {}  # kept by the Messages API
        self._told: list[_Told] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._serve], client_max_size=50_000_000)
        app.router.add_get("/healthz", healthz)
        for routes in (openai.ROUTES, anthropic.ROUTES, ollama.ROUTES, dashboard.ROUTES):
            for method, path, handler in routes:
                app.router.add_route(method, path, _handled(handler))
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @contextlib.contextmanager
    def behaving(self, **fields: Any) -> Iterator[None]:
        """Answer so until the block ends; see `Behaviour`. The innermost that fits a call holds."""
        how = Behaviour(**fields)
        told = _Told(how, float("inf") if how.times is None else how.times)
        self._told.insert(0, told)
        try:
            yield
        finally:
            self._told = [other for other in self._told if other is not told]

    def count(self, record: dict[str, Any], *, prompt: int = 0, completion: int = 0) -> None:
        """Add tokens that this call costs, whether or not anybody is still there to hear."""
        record["prompt_tokens"] += prompt
        record["completion_tokens"] += completion
        self.tokens[record["key"], record["model"]] += prompt + completion

    def spent(self, *, key: str | None = None, model: str | None = None) -> int:
        """Tokens that all calls cost, or those with this key, of this model."""
        return sum(
            tokens
            for (its_key, its_model), tokens in list(self.tokens.items())
            if key in {None, its_key} and model in {None, its_model}
        )

    def wait(self, fits: Callable[[Self], bool], seconds: float = 5) -> None:
        """Until this holds of it, such as that no call is open."""
        until = time.monotonic() + seconds
        while not fits(self):
            if time.monotonic() > until:
                raise AssertionError(f"not within {seconds} s")
            time.sleep(0.01)

    def _behaviour(self, record: dict[str, Any]) -> Behaviour:
        for told in self._told:
            how = told.how
            fits = how.model in {None, record["model"]} and how.key in {None, record["key"]}
            if fits and told.left > 0:
                told.left -= 1
                return how
        return Behaviour()

    def _key(self, request: web.Request, dialect: Dialect) -> str:
        """The key that was sent, where this dialect has it; a header of another name also does."""
        for name, value in request.headers.items():
            given = value.removeprefix("Bearer ")
            elsewhere = name.lower() in USUAL - KEY_HEADERS[dialect]
            if given in self.keys and not elsewhere:
                return given
        return ""

    @web.middleware
    async def _serve(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path == "/healthz":
            return await handler(request)
        if request.path.startswith(keys.PATH):
            return await keys.serve(self, request)
        dialect = spoken(request)
        record: dict[str, Any] = {
            "method": request.method,
            "path": request.path,
            "raw_path": request.raw_path,
            "query": request.query_string,
            "headers": dict(request.headers),
            "at": time.time(),
            "key": self._key(request, dialect),
            "dialect": dialect,
            "model": "",
            "body": None,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "hung_up": False,
            "died": False,
            "status": None,
            "done": False,
        }
        if not record["key"]:
            self.refused.append(record)
            return error(dialect, Failed(401, "Incorrect API key provided.", "invalid_api_key"))
        del self.calls[:-MOST_CALLS]
        self.calls.append(record)
        self.open += 1
        try:
            record["body"] = raw = await request.read()
            with contextlib.suppress(ValueError):
                record["body"] = json.loads(raw)
            if isinstance(record["body"], dict):
                record["model"] = str(record["body"].get("model", ""))
            answer = await self._answer(request, handler, record, dialect)
            record["status"] = answer.status
        except (asyncio.CancelledError, ConnectionResetError):
            record["hung_up"] = not record["died"]
            raise
        else:
            return answer
        finally:
            record["done"] = True
            self.open -= 1

    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        record: dict[str, Any],
        dialect: Dialect,
    ) -> web.StreamResponse:
        how = self._behaviour(record)
        if how.first_byte:
            await asyncio.sleep(how.first_byte)
        if how.redirect is not None:
            return web.Response(status=302, headers={"Location": how.redirect})
        if how.body is not None:
            return web.Response(body=how.body, status=how.status, content_type="application/json")
        request[CALL] = Call(self, request, record, how)
        try:
            if how.status != 200:
                raise Failed(how.status, f"The upstream says {how.status}.", "as_told")
            return await handler(request)
        except Failed as failed:
            refusal = error(dialect, failed)
            refusal.headers.extend(how.headers)
            if how.retry_after is not None:
                refusal.headers["Retry-After"] = how.retry_after
            return refusal


def _handled(
    handler: Callable[[Call], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request[CALL])

    return handle
