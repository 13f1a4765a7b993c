"""Anthropic's API: messages and their tokens."""

import json
from collections.abc import AsyncIterator
from itertools import count as counting
from typing import Any

from aiohttp import web

from tests.upstream.call import Call, Failed
from tests.upstream.turn import Asked, Turn, count, text_of

_ids = counting(1)
STOP = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use"}


def _asked(body: dict[str, Any]) -> Asked:
    last = body["messages"][-1]
    content = last.get("content")
    tools = [tool for tool in body.get("tools") or [] if "input_schema" in tool]
    choice = body.get("tool_choice") or {}
    answered = isinstance(content, list) and any(
        part.get("type") == "tool_result" for part in content if isinstance(part, dict)
    )
    wanted = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        model=str(body["model"]),
        said=text_of(content),
        prompt=count(body["messages"], body.get("system"), tools),
        tools={} if answered else {tool["name"]: tool["input_schema"] for tool in tools},
        choice=choice.get("name") or choice.get("type", "auto"),
        parallel=not choice.get("disable_parallel_tool_use"),
        schema=wanted.get("schema"),
        most=body.get("max_tokens"),
    )


def _usage(call: Call, turn: Turn) -> dict[str, Any] | None:
    usage = call.usage(turn, ("input_tokens", "output_tokens"))
    if usage is not None and call.behaviour.cached:
        # Unlike OpenAI's, these aren't among the input tokens.
        usage["cache_read_input_tokens"] = call.behaviour.cached
        usage["cache_creation_input_tokens"] = 0
    return usage


async def messages(call: Call) -> web.StreamResponse:
    """POST /v1/messages."""
    call.has("model", "messages", "max_tokens")
    if "anthropic-version" not in call.request.headers:
        raise Failed(400, "anthropic-version: header is required", "invalid_request_error")
    thread = call.body.get("thread") or {}
    body = call.body
    if thread.get("type") == "continue":
        kept = call.upstream.threads.get(thread["previous_message_id"])
        if kept is None:
            raise Failed(404, "There is no such thread.", "thread_not_found")
        body = kept | body | {"messages": [*kept["messages"], *body["messages"]]}
    turn = call.turn(_asked(body))
    if call.behaviour.cached:
        call.upstream.count(call.record, prompt=call.behaviour.cached)
    message: dict[str, Any] = {
        "id": f"msg_{next(_ids)}",
        "type": "message",
        "role": "assistant",
        "model": turn.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    if thread:
        said = {"role": "assistant", "content": turn.text or "(called a tool)"}
        call.upstream.threads[message["id"]] = body | {"messages": [*body["messages"], said]}
    if call.body.get("stream"):
        return await call.stream(_events(call, turn, message))
    await call.say(turn)
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}]
    if turn.names:
        content = [
            {
                "type": "tool_use",
                "id": f"toolu_{message['id']}_{index}",
                "name": name,
                "input": _parsed(turn.arguments(index)),
            }
            for index, name in enumerate(turn.names)
        ]
    message |= {"content": content, "stop_reason": STOP[turn.finish]}
    if usage := _usage(call, turn):
        message["usage"] = usage
    return await call.whole(message)


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}  # cut off by the limit


async def _events(call: Call, turn: Turn, message: dict[str, Any]) -> AsyncIterator[bytes]:
    def event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    usage = _usage(call, turn)
    opening = message if usage is None else message | {"usage": usage | {"output_tokens": 1}}
    pieces = call.pieces(turn, streamed=True)
    piece = await anext(pieces, None)
    yield event("message_start", message=opening)
    for index in range(len(turn.names) or 1):
        block: dict[str, Any] = {"type": "text", "text": ""}
        if turn.names:
            block = {
                "type": "tool_use",
                "id": f"toolu_{message['id']}_{index}",
                "name": turn.names[index],
                "input": {},
            }
        yield event("content_block_start", index=index, content_block=block)
        yield event("ping")
        while piece is not None and piece.of in {None, index}:
            delta = (
                {"type": "text_delta", "text": piece.text}
                if piece.of is None
                else {"type": "input_json_delta", "partial_json": piece.text}
            )
            yield event("content_block_delta", index=index, delta=delta)
            piece = await anext(pieces, None)
        yield event("content_block_stop", index=index)
    end: dict[str, Any] = {"stop_reason": STOP[turn.finish], "stop_sequence": None}
    if usage is not None and "output_tokens" in usage:
        yield event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]})
    else:
        yield event("message_delta", delta=end)
    yield event("message_stop")


async def count_tokens(call: Call) -> web.StreamResponse:
    """POST /v1/messages/count_tokens. Costs nothing."""
    call.has("model", "messages")
    return await call.whole({"input_tokens": max(_asked(call.body).prompt, 1)})


ROUTES = [
    ("POST", "/v1/messages", messages),
    ("POST", "/v1/messages/count_tokens", count_tokens),
]
