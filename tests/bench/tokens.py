"""An upstream that talks as slowly as it is told to: `python -m tests.bench.tokens PORT`.

A message that says `12 tokens, 50 ms` is answered with twelve tokens, the first at once and each
other 50 ms after the one before; without `stream` all of them together at the end. It counts what
it would bill: all of a call's tokens as soon as the call arrives, since no client's hanging up
makes a model's work undone. GET tells the count.
"""

import asyncio
import json
import re
import sys
from typing import Any, cast

import uvloop

SHAPE = re.compile(rb"(\d+) tokens, (\d+) ms")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

counted = {"calls": 0, "tokens": 0}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(choices: list[Any], usage: dict[str, int] | None = None) -> bytes:
    body = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1}
    body |= {"model": "bench", "choices": choices} | ({"usage": usage} if usage else {})
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _delta(text: str, finish: str | None = None) -> list[Any]:
    delta = {"role": "assistant", "content": text} if text else {}
    return [{"index": 0, "delta": delta, "finish_reason": finish}]


# By turns: LiteLLM ends a stream that says the same a hundred times.
TOKENS = (_event(_delta("word ")), _event(_delta("other ")))
LAST = _event(_delta("", "stop"))
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def usage(prompt: int, tokens: int) -> dict[str, int]:
    """What is billed for a call."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
    }


class Tokens(asyncio.Protocol):
    """One connection, one call after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        found = LENGTH.search(self.buffer, 0, end + 2)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(self.buffer) < size:
            return
        head, body, self.buffer = self.buffer[:end], self.buffer[end + 4 : size], b""
        if head.startswith(b"GET"):
            self._answer(counted)
            return
        shape = SHAPE.search(body)
        tokens, apart = (int(shape[1]), int(shape[2]) / 1000) if shape else (1, 0.0)
        asked = json.loads(body)
        tokens = min(
            tokens, asked.get("max_tokens") or asked.get("max_completion_tokens") or tokens
        )
        prompt = sum(len(message["content"]) for message in asked["messages"]) // 4
        counted["calls"] += 1
        counted["tokens"] += prompt + tokens
        billed = usage(prompt, tokens)
        if asked.get("stream"):
            wanted = (asked.get("stream_options") or {}).get("include_usage")
            self.transport.write(HEAD + TOKENS[0])
            last = LAST + (_event([], billed) if wanted else b"") + DONE
            self._next(tokens - 1, apart, last)
        else:
            self._later(apart * tokens, self._answer, completion("word " * tokens, billed))

    def _later(self, seconds: float, call: Any, *args: Any) -> None:
        self.timer = self.loop.call_later(seconds, call, *args)

    def _next(self, left: int, apart: float, last: bytes) -> None:
        if left:
            self._later(apart, self._token, left, apart, last)
        else:
            self.transport.write(last)

    def _token(self, left: int, apart: float, last: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOKENS[left % 2])
            self._next(left - 1, apart, last)

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(data), data)
        )


def completion(text: str, billed: dict[str, int]) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": billed,
    }


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Tokens, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
