"""One call of the tests' upstream: what came, how to behave, what is counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import ClientConnectionResetError, web

from broker.demo.upstream import MODELS
from tests.upstream.turn import Asked, Piece, Turn, answer

if TYPE_CHECKING:
    from tests.upstream.server import Upstream

Dialect = Literal["openai", "anthropic", "ollama", "http"]


@dataclass(frozen=True)
class Behaviour:
    """How calls are answered while a test says so; see `Upstream.behaving`."""

    first_byte: float = 0  # seconds before anything is answered
    pause: float | None = None  # seconds before each word
    words: int | None = None  # that many of them
    dies_after: int | None = None  # words; then the connection breaks
    status: int = 200  # another one is answered as an error of the dialect
    retry_after: str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # besides its own
    body: bytes | None = None  # instead of an answer, as JSON
    redirect: str | None = None
    usage: Literal["whole", "missing", "partial", "zero"] = "whole"
    cached: int = 0  # tokens of the prompt, said to come from a cache
    obeys: bool = True  # the caller's limit of output tokens
    calls: tuple[tuple[str, str], ...] | None = None  # tools and arguments, offered or not
    model: str | None = None  # only calls of this one
    key: str | None = None  # only calls with this one
    times: int | None = None  # only so many calls


class Failed(Exception):
    """The provider refuses."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error"}


def error(dialect: Dialect, failed: Failed) -> web.Response:
    """An error as this dialect has it."""
    body: dict[str, Any]
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(failed.status, "api_error")
        body = {
            "type": "error",
            "error": {
                "type": kind,
                "message": str(failed),
                "details": {"error_code": failed.code},
            },
            "request_id": "req_upstream",
        }
    elif dialect == "ollama":
        body = {"error": str(failed)}
    else:
        kind = _OPENAI_TYPES.get(failed.status, "invalid_request_error")
        body = {"error": {"message": str(failed), "type": kind, "param": None, "code": failed.code}}
    return web.json_response(body, status=failed.status)


class Call:
    """A call whose key was right."""

    def __init__(
        self,
        upstream: "Upstream",
        request: web.Request,
        record: dict[str, Any],
        behaviour: Behaviour,
    ) -> None:
        self.upstream = upstream
        self.request = request
        self.record = record
        self.behaviour = behaviour

    @property
    def body(self) -> dict[str, Any]:
        body = self.record["body"]
        if not isinstance(body, dict):
            raise Failed(400, "We could not parse the JSON body of your request.", "invalid_json")
        return body

    def has(self, *names: str) -> None:
        """Refuse a body that lacks one of these."""
        for name in names:
            if not self.body.get(name):
                raise Failed(400, f"Missing required parameter: '{name}'.", "missing_parameter")

    def turn(self, asked: Asked) -> Turn:
        """What is answered. Its prompt counts at once."""
        if asked.model not in MODELS or asked.model == "demo-embed":
            raise Failed(404, f"The model '{asked.model}' does not exist.", "model_not_found")
        asked = replace(asked, prompt=max(asked.prompt, 1))
        how = self.behaviour
        turn = answer(asked, calls=how.calls, words=how.words, obeys=how.obeys)
        self.upstream.count(self.record, prompt=asked.prompt)
        return turn

    async def pieces(self, turn: Turn, *, streamed: bool, times: int = 1) -> AsyncIterator[Piece]:
        """One by one, each as long as it takes, counted when it is said."""
        pause = self.behaviour.pause
        if pause is None:
            pause = 1.0 if turn.model == "demo-slow" else 0.001 if streamed else None
        for said, piece in enumerate(turn.pieces):
            if pause is not None:
                await asyncio.sleep(pause)
            if streamed and self.behaviour.dies_after == said:
                self.die()
            self.upstream.count(self.record, completion=times)
            yield piece

    async def say(self, turn: Turn, times: int = 1) -> None:
        """The whole answer at once, after the time that it takes."""
        async for _ in self.pieces(turn, streamed=False, times=times):
            pass

    def die(self) -> None:
        """Break the connection."""
        self.record["died"] = True
        if self.request.transport is not None:
            self.request.transport.abort()
        raise asyncio.CancelledError  # as if the server had been killed

    async def whole(self, body: dict[str, Any]) -> web.StreamResponse:
        """A plain answer; half of it where it should die."""
        data = json.dumps(body).encode()
        if self.behaviour.dies_after is None:
            return web.Response(
                body=data, content_type="application/json", headers=self.behaviour.headers
            )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(data)
        await response.prepare(self.request)
        await response.write(data[: len(data) // 2])
        await asyncio.sleep(0.02)
        self.die()
        return response

    async def stream(
        self, events: AsyncIterator[bytes], kind: str = "text/event-stream"
    ) -> web.StreamResponse:
        """These events as they come."""
        response = web.StreamResponse(headers={"Content-Type": kind})
        response.headers.extend(self.behaviour.headers)
        await response.prepare(self.request)
        try:
            async for event in events:
                await response.write(event)
            await response.write_eof()
        except ClientConnectionResetError:
            self.record["hung_up"] = True
        return response

    def usage(self, turn: Turn, names: tuple[str, str], times: int = 1) -> dict[str, Any] | None:
        """The tokens of input and output by these names, as far as it is told to report them."""
        prompt, completion = names
        completed = turn.completion * times
        match self.behaviour.usage:
            case "missing":
                return None
            case "partial":
                return {prompt: turn.prompt}
            case "zero":
                return {prompt: turn.prompt, completion: 0}
        return {prompt: turn.prompt, completion: completed}


CALL = web.RequestKey("call", Call)
