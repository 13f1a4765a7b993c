"""Ollama's API: chat, generate, embed, tags, version, and what manages models."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from broker.demo.upstream import MODELS
from tests.upstream.call import Call, Failed
from tests.upstream.turn import IMAGE_TOKENS, Asked, Turn, count

AT = "2026-01-01T00:00:00Z"


def _schema(wanted: Any) -> dict[str, Any] | None:
    if wanted == "json":
        return {"type": "object", "properties": {"said": {"type": "string"}}}
    return wanted if isinstance(wanted, dict) else None


def _usage(call: Call, turn: Turn) -> dict[str, Any]:
    usage = call.usage(turn, ("prompt_eval_count", "eval_count")) or {}
    return usage | {"total_duration": 5, "load_duration": 1}


async def _answer(call: Call, turn: Turn, chat: bool) -> web.StreamResponse:
    about = {"model": turn.model, "created_at": AT}
    reason = "length" if turn.finish == "length" else "stop"
    end = {"done": True, "done_reason": reason} | _usage(call, turn)
    tools = [
        {"function": {"name": name, "arguments": json.loads(turn.arguments(index))}}
        for index, name in enumerate(turn.names)
        if turn.finish != "length"
    ]

    def said(text: str, **more: Any) -> dict[str, Any]:
        if not chat:
            return about | {"response": text}
        return about | {"message": {"role": "assistant", "content": text} | more}

    async def lines() -> AsyncIterator[bytes]:
        async for piece in call.pieces(turn, streamed=True):
            if piece.of is None:
                yield json.dumps(said(piece.text) | {"done": False}).encode() + b"\n"
        if tools:  # whole, unlike in other dialects
            yield json.dumps(said("", tool_calls=tools) | {"done": False}).encode() + b"\n"
        yield json.dumps(said("") | end).encode() + b"\n"

    if call.body.get("stream") is not False:
        return await call.stream(lines(), "application/x-ndjson")
    await call.say(turn)
    return await call.whole(said(turn.text, **({"tool_calls": tools} if tools else {})) | end)


async def chat(call: Call) -> web.StreamResponse:
    """POST /api/chat."""
    call.has("model", "messages")
    body = call.body
    last = body["messages"][-1]
    offered = [tool["function"] for tool in body.get("tools") or []]
    images = sum(len(message.get("images") or []) for message in body["messages"])
    asked = Asked(
        model=str(body["model"]),
        said=str(last.get("content", "")),
        prompt=count([m.get("content") for m in body["messages"]], offered) + images * IMAGE_TOKENS,
        tools={}
        if last.get("role") == "tool"
        else {tool["name"]: tool.get("parameters") or {} for tool in offered},
        schema=_schema(body.get("format")),
        most=(body.get("options") or {}).get("num_predict"),
    )
    return await _answer(call, call.turn(asked), chat=True)


async def generate(call: Call) -> web.StreamResponse:
    """POST /api/generate."""
    call.has("model")
    body = call.body
    prompt = str(body.get("prompt", ""))
    asked = Asked(
        model=str(body["model"]),
        said=prompt,
        prompt=count(prompt, body.get("system")) + len(body.get("images") or []) * IMAGE_TOKENS,
        schema=_schema(body.get("format")),
        most=(body.get("options") or {}).get("num_predict"),
    )
    return await _answer(call, call.turn(asked), chat=False)


async def embed(call: Call) -> web.StreamResponse:
    """POST /api/embed."""
    call.has("model", "input")
    body = call.body
    if body["model"] not in MODELS:
        raise Failed(404, f"model '{body['model']}' not found", "not_found")
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    prompt = max(sum(count(text) for text in texts), 1)
    call.upstream.count(call.record, prompt=prompt)
    vectors = [[b / 255 for b in hashlib.sha256(t.encode()).digest()[:8]] for t in texts]
    return await call.whole(
        {"model": body["model"], "embeddings": vectors, "prompt_eval_count": prompt}
    )


async def tags(call: Call) -> web.StreamResponse:
    """GET /api/tags."""
    models = [
        {
            "name": name,
            "model": name,
            "modified_at": AT,
            "size": 0,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": {"format": "gguf", "family": "demo"},
        }
        for name in MODELS
    ]
    return await call.whole({"models": models})


async def version(call: Call) -> web.StreamResponse:
    """GET /api/version."""
    return await call.whole({"version": "0.0.1"})


async def manage(call: Call) -> web.StreamResponse:
    """What changes the models that there are; nothing here does."""
    return await call.whole({"status": "success"})


ROUTES = [
    ("POST", "/api/chat", chat),
    ("POST", "/api/generate", generate),
    ("POST", "/api/embed", embed),
    ("GET", "/api/tags", tags),
    ("GET", "/api/version", version),
    ("POST", "/api/pull", manage),
    ("POST", "/api/push", manage),
    ("POST", "/api/create", manage),
    ("DELETE", "/api/delete", manage),
]
