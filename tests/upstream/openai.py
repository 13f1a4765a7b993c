"""OpenAI's API: models, chat completions, completions, responses, embeddings."""

import base64
import hashlib
import json
import struct
import time
from collections.abc import AsyncIterator
from itertools import count as counting
from typing import Any

from aiohttp import web

from broker.demo.upstream import MODELS
from tests.upstream.call import Call, Failed
from tests.upstream.turn import Asked, Turn, count, text_of

_ids = counting(1)


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(data).encode() + b"\n\n"


def _model(call: Call, name: str) -> dict[str, Any]:
    if call.record["dialect"] == "anthropic":
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
            "lifecycle": "active",
        }
    return {"id": name, "object": "model", "created": 0, "owned_by": "upstream"}


async def models(call: Call) -> web.StreamResponse:
    """GET /v1/models, in Anthropic's shape for Anthropic's SDK."""
    found: dict[str, Any] = {"object": "list"}
    if call.record["dialect"] == "anthropic":
        found = {"has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
    return await call.whole(found | {"data": [_model(call, name) for name in MODELS]})


async def model(call: Call) -> web.StreamResponse:
    """GET /v1/models/{id}."""
    name = call.request.match_info["id"]
    if name not in MODELS:
        raise Failed(404, f"The model '{name}' does not exist.", "model_not_found")
    return await call.whole(_model(call, name))


# Chat completions


def _schema(response_format: Any) -> dict[str, Any] | None:
    """The schema of the answer that is asked for; any object does for plain JSON."""
    kind = (response_format or {}).get("type")
    if kind == "json_schema":
        found = response_format.get("json_schema", response_format).get("schema")
        return found if isinstance(found, dict) else {}
    if kind == "json_object":
        return {"type": "object", "properties": {"said": {"type": "string"}}}
    return None


def _chat_asked(body: dict[str, Any]) -> Asked:
    messages = body["messages"]
    last = messages[-1] if isinstance(messages[-1], dict) else {}
    offered = [t.get("function") or t.get("custom") or {} for t in body.get("tools") or []]
    offered += body.get("functions") or []
    choice = body.get("tool_choice", body.get("function_call", "auto"))
    if isinstance(choice, dict):
        choice = (choice.get("function") or choice).get("name", "auto")
    answered = last.get("role") in {"tool", "function"}
    return Asked(
        model=str(body["model"]),
        said=text_of(last.get("content")),
        prompt=count(messages, offered),
        tools={} if answered else {f["name"]: f.get("parameters") or {} for f in offered},
        choice=choice,
        parallel=body.get("parallel_tool_calls") is not False and "functions" not in body,
        schema=_schema(body.get("response_format")),
        most=body.get("max_completion_tokens", body.get("max_tokens")),
    )


def _chat_usage(call: Call, turn: Turn, times: int) -> dict[str, Any] | None:
    usage = call.usage(turn, ("prompt_tokens", "completion_tokens"), times)
    if usage is not None and "completion_tokens" in usage:
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        usage["prompt_tokens_details"] = {"cached_tokens": call.behaviour.cached}
    return usage


def _finish(turn: Turn, *, legacy: bool) -> str:
    if turn.finish == "tools":
        return "function_call" if legacy else "tool_calls"
    return turn.finish


async def chat(call: Call) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    call.has("model", "messages")
    body = call.body
    times = int(body.get("n") or 1)
    turn = call.turn(_chat_asked(body))
    legacy = "functions" in body and "tools" not in body
    about = {
        "id": f"chatcmpl-{next(_ids)}",
        "created": int(time.time()),
        "model": turn.model,
        "system_fingerprint": "fp_upstream",
    }
    if body.get("stream"):
        return await call.stream(_chat_events(call, turn, about, times, legacy=legacy))
    await call.say(turn, times)
    message: dict[str, Any] = {"role": "assistant", "content": turn.text, "refusal": None}
    if turn.names and legacy:
        function = {"name": turn.names[0], "arguments": turn.arguments(0)}
        message |= {"content": None, "function_call": function}
    elif turn.names:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": f"call_{about['id']}_{index}",
                "type": "function",
                "function": {"name": name, "arguments": turn.arguments(index)},
            }
            for index, name in enumerate(turn.names)
        ]
    answer = about | {
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": _finish(turn, legacy=legacy),
            }
            for index in range(times)
        ],
    }
    if usage := _chat_usage(call, turn, times):
        answer["usage"] = usage
    return await call.whole(answer)


async def _chat_events(
    call: Call, turn: Turn, about: dict[str, Any], times: int, *, legacy: bool
) -> AsyncIterator[bytes]:
    asked_usage = (call.body.get("stream_options") or {}).get("include_usage")
    about = about | {"object": "chat.completion.chunk"}
    if asked_usage:
        about["usage"] = None

    def events(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return b"".join(
            _event(about | {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
            for index in range(times)
        )

    yield events({"role": "assistant", "content": None if turn.names else "", "refusal": None})
    begun: set[int] = set()
    async for piece in call.pieces(turn, streamed=True, times=times):
        if piece.of is None:
            yield events({"content": piece.text})
            continue
        name = {"name": turn.names[piece.of]} if piece.of not in begun else {}
        function = name | {"arguments": "" if name else piece.text}
        if legacy:
            yield events({"function_call": function})
        else:
            head = {"id": f"call_{about['id']}_{piece.of}", "type": "function"} if name else {}
            yield events({"tool_calls": [{"index": piece.of} | head | {"function": function}]})
        if name:
            begun.add(piece.of)
            rest = {"arguments": piece.text}
            yield events(
                {"function_call": rest}
                if legacy
                else {"tool_calls": [{"index": piece.of, "function": rest}]}
            )
    yield events({}, _finish(turn, legacy=legacy))
    usage = _chat_usage(call, turn, times)
    if asked_usage and usage is not None:
        yield _event(about | {"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


# Completions


async def completions(call: Call) -> web.StreamResponse:
    """POST /v1/completions."""
    call.has("model", "prompt")
    body = call.body
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    if all(isinstance(part, int) for part in prompts):
        prompts = [f"{len(prompts)} tokens"]
    times = int(body.get("n") or 1)
    turns = [
        call.turn(
            Asked(
                model=str(body["model"]),
                said=str(prompt),
                prompt=count(prompt),
                most=body.get("max_tokens", 16),
            )
        )
        for prompt in prompts
    ]
    about = {
        "id": f"cmpl-{next(_ids)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body["model"],
    }
    told = call.usage(turns[0], ("prompt_tokens", "completion_tokens"), times)
    usage = None
    if told is not None:
        usage = {
            "prompt_tokens": sum(turn.prompt for turn in turns),
            "completion_tokens": sum(turn.completion for turn in turns) * times,
        }
        usage["total_tokens"] = sum(usage.values())
        usage = {name: usage[name] for name in usage if name in told or len(told) > 1}

    async def events() -> AsyncIterator[bytes]:
        for index, turn in enumerate(turns * times):
            async for piece in call.pieces(turn, streamed=True):
                choice = {"index": index, "text": piece.text, "finish_reason": None}
                yield _event(about | {"choices": [choice | {"logprobs": None}]})
            choice = {"index": index, "text": "", "finish_reason": turn.finish, "logprobs": None}
            yield _event(about | {"choices": [choice]})
        if (body.get("stream_options") or {}).get("include_usage") and usage is not None:
            yield _event(about | {"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    if body.get("stream"):
        return await call.stream(events())
    for turn in turns:
        await call.say(turn, times)
    choices = [
        {"index": index, "text": turn.text, "finish_reason": turn.finish, "logprobs": None}
        for index, turn in enumerate(turns * times)
    ]
    answer = about | {"choices": choices} | ({"usage": usage} if usage else {})
    return await call.whole(answer)


# Responses


def _responses_asked(body: dict[str, Any], before: dict[str, Any] | None) -> Asked:
    items = body.get("input") or ""
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    last = items[-1]
    offered = [tool for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        choice = choice.get("name", "auto")
    said = text_of(last.get("content"))
    if before is not None:
        said += f" after {before['id']}"
    return Asked(
        model=str(body["model"]),
        said=said,
        prompt=count(items, body.get("instructions"), offered),
        tools={}
        if last.get("type") == "function_call_output"
        else {tool["name"]: tool.get("parameters") or {} for tool in offered},
        choice=choice,
        parallel=body.get("parallel_tool_calls") is not False,
        schema=_schema((body.get("text") or {}).get("format")),
        most=body.get("max_output_tokens"),
    )


def _output(call: Call, turn: Turn, response: str) -> list[dict[str, Any]]:
    """The items of a response: what the provider ran itself, then calls or the message."""
    items: list[dict[str, Any]] = []
    for index, tool in enumerate(call.body.get("tools") or []):
        if tool.get("type") == "web_search":
            action = {"type": "search", "query": "news"}
            items.append({"type": "web_search_call", "id": f"ws_{index}", "action": action})
        elif tool.get("type") == "mcp":
            items.append(
                {
                    "type": "mcp_call",
                    "id": f"mcp_{index}",
                    "name": "look_up",
                    "arguments": "{}",
                    "server_label": tool.get("server_label"),
                    "output": "found",
                }
            )
    for index, name in enumerate(turn.names):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{response}_{index}",
                "call_id": f"call_{response}_{index}",
                "name": name,
                "arguments": turn.arguments(index),
            }
        )
    if not turn.names:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        items.append(
            {"type": "message", "id": f"msg_{response}", "role": "assistant", "content": [part]}
        )
    return [item | {"status": "completed"} for item in items]


def _responses_usage(call: Call, turn: Turn) -> dict[str, Any] | None:
    usage = call.usage(turn, ("input_tokens", "output_tokens"))
    if usage is not None and "output_tokens" in usage:
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
        usage["input_tokens_details"] = {
            "cached_tokens": call.behaviour.cached,
            "cache_write_tokens": 0,
        }
        usage["output_tokens_details"] = {"reasoning_tokens": 0}
    return usage


async def responses(call: Call) -> web.StreamResponse:
    """POST /v1/responses. Keeps the response unless told not to."""
    call.has("model", "input")
    body = call.body
    before = None
    if (previous := body.get("previous_response_id")) is not None:
        before = call.upstream.responses.get(previous)
        if before is None:
            raise Failed(
                400,
                f"Previous response with id '{previous}' not found.",
                "previous_response_not_found",
            )
    turn = call.turn(_responses_asked(body, before))
    response: dict[str, Any] = {
        "id": f"resp_{next(_ids)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": turn.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": previous,
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "metadata": body.get("metadata") or {},
        "usage": None,
    }
    complete = turn.finish != "length"
    final = response | {
        "status": "completed" if complete else "incomplete",
        "incomplete_details": None if complete else {"reason": "max_output_tokens"},
        "output": _output(call, turn, response["id"]),
        "usage": _responses_usage(call, turn),
    }
    if final["store"]:
        call.upstream.responses[final["id"]] = final
    if body.get("stream"):
        return await call.stream(_response_events(call, turn, response, final))
    await call.say(turn)
    return await call.whole(final)


async def _response_events(
    call: Call, turn: Turn, response: dict[str, Any], final: dict[str, Any]
) -> AsyncIterator[bytes]:
    numbers = counting()

    def event(name: str, /, **data: Any) -> bytes:
        kind = f"response.{name}"
        return _event({"type": kind, "sequence_number": next(numbers)} | data, kind)

    pieces = call.pieces(turn, streamed=True)
    piece = await anext(pieces, None)
    yield event("created", response=response)
    yield event("in_progress", response=response)
    calls = 0
    for index, item in enumerate(final["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        begun = item | {"status": "in_progress"}
        match item["type"]:
            case "message":
                [part] = item["content"]
                begun["content"] = []
                inside = at | {"content_index": 0}
                yield event("output_item.added", output_index=index, item=begun)
                yield event("content_part.added", **inside, part=part | {"text": ""})
                while piece is not None:
                    yield event("output_text.delta", **inside, delta=piece.text, logprobs=[])
                    piece = await anext(pieces, None)
                yield event("output_text.done", **inside, text=turn.text, logprobs=[])
                yield event("content_part.done", **inside, part=part)
            case "function_call":
                begun["arguments"] = ""
                yield event("output_item.added", output_index=index, item=begun)
                while piece is not None and piece.of == calls:
                    yield event("function_call_arguments.delta", **at, delta=piece.text)
                    piece = await anext(pieces, None)
                calls += 1
                yield event(
                    "function_call_arguments.done",
                    **at,
                    name=item["name"],
                    arguments=item["arguments"],
                )
            case _:
                yield event("output_item.added", output_index=index, item=begun)
        yield event("output_item.done", output_index=index, item=item)
    yield event(final["status"], response=final)


async def kept_response(call: Call) -> web.StreamResponse:
    """GET and DELETE /v1/responses/{id}."""
    found = call.upstream.responses.get(call.request.match_info["id"])
    if found is None:
        raise Failed(404, "Response not found.", "not_found")
    if call.request.method == "DELETE":
        del call.upstream.responses[found["id"]]
        return await call.whole({"id": found["id"], "object": "response", "deleted": True})
    return await call.whole(found)


# Embeddings


async def embeddings(call: Call) -> web.StreamResponse:
    """POST /v1/embeddings: eight numbers made of a hash, the same for the same text."""
    call.has("model", "input")
    body = call.body
    if body["model"] != "demo-embed":
        raise Failed(404, f"The model '{body['model']}' does not exist.", "model_not_found")
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors = [
        [byte / 255 for byte in hashlib.sha256(str(text).encode()).digest()[:8]] for text in texts
    ]
    prompt = max(sum(count(text) for text in texts), 1)
    call.upstream.count(call.record, prompt=prompt)
    encoded: list[Any] = vectors
    if body.get("encoding_format") == "base64":
        encoded = [base64.b64encode(struct.pack("<8f", *v)).decode() for v in vectors]
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(encoded)
    ]
    answer = {"object": "list", "model": body["model"], "data": data}
    if call.behaviour.usage != "missing":
        answer["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt}
    return await call.whole(answer)


ROUTES = [
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{id}", model),
    ("POST", "/v1/chat/completions", chat),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/responses", responses),
    ("GET", "/v1/responses/{id}", kept_response),
    ("DELETE", "/v1/responses/{id}", kept_response),
    ("POST", "/v1/embeddings", embeddings),
]
