"""The demo upstream: stands in for a company's LLM server in `make up` and `make demo`.

It is no language model and says so in every answer. What it does for real is what a gateway has
to get right: it refuses unknown keys, streams in OpenAI's, Anthropic's and Ollama's dialects,
reports usage, calls tools, and can be slow. Models: demo-small, demo-large, demo-slow (one word a
second), demo-embed. It has a dashboard too.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientConnectionResetError, web

from broker.demo import console

LABEL = "[Keyturn demo upstream, not a language model]"
MODELS = ("demo-small", "demo-large", "demo-slow", "demo-embed")
KEY = web.AppKey("key", str)


def _error(status: int, message: str, code: str) -> web.Response:
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    return web.json_response(
        {
            "type": "error",
            "error": {"message": message, "type": kind, "param": None, "code": code},
        },
        status=status,
    )


@web.middleware
async def _check_key(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path == "/healthz":
        response: web.StreamResponse = await handler(request)
        return response
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    given = bearer or request.headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode(), request.app[KEY].encode()):
        return _error(401, "Incorrect API key provided.", "invalid_api_key")
    answer: web.StreamResponse = await handler(request)
    return answer


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _words(body: dict[str, Any]) -> list[str]:
    messages = body.get("messages") or [{}]
    said = _text_of(messages[-1].get("content"))[:500]
    return [*LABEL.split(), "You", "said:", *said.split()]


def _pause(model: str) -> float:
    return 1.0 if model == "demo-slow" else 0.02


def _usage(body: dict[str, Any], words: list[str]) -> tuple[int, int]:
    prompt = sum(len(_text_of(m.get("content")).split()) for m in body.get("messages", []))
    return max(prompt, 1), len(words)


def _tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The call of the first tool offered, unless its result has come already."""
    tools = body.get("tools")
    messages = body.get("messages") or [{}]
    if not tools or messages[-1].get("role") == "tool" or body.get("tool_choice") == "none":
        return None
    name = tools[0].get("function", tools[0]).get("name", "")
    return {"id": "call_demo_1", "type": "function", "function": {"name": name, "arguments": "{}"}}


async def _stream(
    request: web.Request, events: AsyncIterator[bytes], kind: str = "text/event-stream"
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    with contextlib.suppress(ClientConnectionResetError):  # the client hung up
        async for event in events:
            await response.write(event)
        await response.write_eof()
    return response


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    body = await request.json()
    model = body.get("model", "")
    if model not in MODELS or model == "demo-embed":
        return _error(404, f"The model {model!r} does not exist.", "model_not_found")
    words, tool = _words(body), _tool(body)
    prompt, completion = _usage(body, words)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    about = {"id": "chatcmpl-demo", "created": int(time.time()), "model": model}
    if not body.get("stream"):
        if model == "demo-slow":
            await asyncio.sleep(len(words) * _pause(model))
        message: dict[str, Any] = {"role": "assistant", "content": " ".join(words)}
        if tool:
            message = {"role": "assistant", "content": None, "tool_calls": [tool]}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if tool else "stop",
        }
        return web.json_response(
            {**about, "object": "chat.completion", "choices": [choice], "usage": usage}
        )

    async def events() -> AsyncIterator[bytes]:
        def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            chunk = {**about, "object": "chat.completion.chunk", "choices": [choice]}
            return b"data: " + json.dumps(chunk).encode() + b"\n\n"

        yield event({"role": "assistant", "content": ""})
        if tool:
            yield event({"tool_calls": [{"index": 0, **tool}]})
        else:
            for word in words:
                await asyncio.sleep(_pause(model))
                yield event({"content": word + " "})
        yield event({}, "tool_calls" if tool else "stop")
        if (body.get("stream_options") or {}).get("include_usage"):
            chunk = {**about, "object": "chat.completion.chunk", "choices": [], "usage": usage}
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    return await _stream(request, events())


async def responses(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses: text only, and nothing is kept."""
    body = await request.json()
    model = body.get("model", "")
    if model not in MODELS or model == "demo-embed":
        return _error(404, f"The model {model!r} does not exist.", "model_not_found")
    asked = body.get("input")
    said = {"messages": asked if isinstance(asked, list) else [{"content": asked}]}
    words = _words(said)
    prompt, completion = _usage(said, words)
    part = {"type": "output_text", "text": " ".join(words), "annotations": []}
    item = {"id": "msg_demo", "type": "message", "role": "assistant", "status": "completed"}
    begun: dict[str, Any] = {
        "id": "resp_demo",
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "store": False,
    }
    done = begun | {
        "status": "completed",
        "output": [item | {"content": [part]}],
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
    }
    if not body.get("stream"):
        return web.json_response(done)

    async def events() -> AsyncIterator[bytes]:
        number = 0

        def event(kind: str, **data: Any) -> bytes:
            nonlocal number
            number += 1
            payload = json.dumps({"type": kind, "sequence_number": number, **data}).encode()
            return b"event: " + kind.encode() + b"\ndata: " + payload + b"\n\n"

        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        empty = item | {"content": [], "status": "in_progress"}
        yield event("response.created", response=begun)
        yield event("response.output_item.added", output_index=0, item=empty)
        yield event("response.content_part.added", **at, part=part | {"text": ""})
        for word in words:
            await asyncio.sleep(_pause(model))
            yield event("response.output_text.delta", **at, delta=word + " ", logprobs=[])
        yield event("response.output_text.done", **at, text=part["text"], logprobs=[])
        yield event("response.content_part.done", **at, part=part)
        yield event("response.output_item.done", output_index=0, item=done["output"][0])
        yield event("response.completed", response=done)

    return await _stream(request, events())


async def ollama_chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat, Ollama's dialect: a line of JSON for each word unless told otherwise."""
    body = await request.json()
    model = body.get("model", "")
    if model not in MODELS or model == "demo-embed":
        return web.json_response({"error": f"model {model!r} not found"}, status=404)
    words = _words(body)
    prompt, completion = _usage(body, words)
    about = {"model": model, "created_at": dt.datetime.now(dt.UTC).isoformat()}
    end = {"done": True, "done_reason": "stop"}
    end |= {"prompt_eval_count": prompt, "eval_count": completion}

    def said(text: str, **more: Any) -> dict[str, Any]:
        return {**about, "message": {"role": "assistant", "content": text}, "done": False, **more}

    if body.get("stream") is False:
        return web.json_response(said(" ".join(words), **end))

    async def lines() -> AsyncIterator[bytes]:
        for word in words:
            await asyncio.sleep(_pause(model))
            yield json.dumps(said(word + " ")).encode() + b"\n"
        yield json.dumps(said("", **end)).encode() + b"\n"

    return await _stream(request, lines(), "application/x-ndjson")


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings: eight numbers made of a hash, the same for the same text."""
    body = await request.json()
    if body.get("model") not in MODELS:
        return _error(404, "The model does not exist.", "model_not_found")
    texts = body.get("input")
    texts = texts if isinstance(texts, list) else [texts]
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [b / 255 for b in hashlib.sha256(str(text).encode()).digest()[:8]],
        }
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return web.json_response(
        {"object": "list", "model": body["model"], "data": data, "usage": usage}
    )


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages, Anthropic's dialect."""
    body = await request.json()
    model = body.get("model", "")
    if model not in MODELS or model == "demo-embed":
        return _error(404, f"model: {model}", "not_found_error")
    words = _words(body)
    prompt, completion = _usage(body, words)
    message = {
        "id": "msg_demo",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": " ".join(words)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": completion},
    }
    if not body.get("stream"):
        return web.json_response(message)

    async def events() -> AsyncIterator[bytes]:
        def event(kind: str, **data: Any) -> bytes:
            payload = json.dumps({"type": kind, **data}).encode()
            return b"event: " + kind.encode() + b"\ndata: " + payload + b"\n\n"

        opening = {
            **message,
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": prompt, "output_tokens": 1},
        }
        yield event("message_start", message=opening)
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in words:
            await asyncio.sleep(_pause(model))
            delta = {"type": "text_delta", "text": word + " "}
            yield event("content_block_delta", index=0, delta=delta)
        yield event("content_block_stop", index=0)
        yield event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": completion},
        )
        yield event("message_stop")

    return await _stream(request, events())


async def models(_: web.Request) -> web.Response:
    """GET /v1/models."""
    data = [{"id": m, "object": "model", "created": 0, "owned_by": "keyturn-demo"} for m in MODELS]
    return web.json_response({"object": "list", "data": data})


async def healthz(_: web.Request) -> web.Response:
    """GET /healthz, without a key."""
    return web.json_response({"status": "ok"})


def make_app(key: str) -> web.Application:
    """The server, which takes this key alone."""
    if not key:
        raise ValueError("the demo upstream needs a key to check")
    app = web.Application(middlewares=[_check_key], client_max_size=20_000_000)
    app[KEY] = key
    console.add_to(app, LABEL, MODELS)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_post("/v1/responses", responses)
    app.router.add_post("/api/chat", ollama_chat)
    app.router.add_post("/v1/messages", messages)
    return app


def main() -> None:
    """Serve on KEYTURN_DEMO_UPSTREAM_PORT of loopback until told to stop."""
    file = os.environ.get("KEYTURN_DEMO_UPSTREAM_KEY_FILE")
    key = Path(file).read_text().strip() if file else os.environ["KEYTURN_DEMO_UPSTREAM_KEY"]
    port = int(os.environ.get("KEYTURN_DEMO_UPSTREAM_PORT", "8090"))
    sys.stderr.write(f"{LABEL} on http://127.0.0.1:{port}\n")
    web.run_app(make_app(key), host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
