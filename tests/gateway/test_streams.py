"""Reading streams: however their bytes are cut, the same goes on, is counted and is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.scope import Scope
from gateway.dialects import ROUTES, Follower, Plan, Refused, Usage

SCOPE = Scope(models=frozenset({"m"}), tools=frozenset({"look_up", "look", "server:web_search"}))


def follower(path: bytes, *, wants_usage: bool = True) -> Follower:
    operation = ROUTES[path].operation
    assert operation is not None
    plan = Plan({"model": "m"}, "m", streams=True, wants_usage=wants_usage)
    return operation.follow(plan, SCOPE, Usage())


def events(*data: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(each)}\n\n" for each in data]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def tool(name: str | None = None, arguments: str = "", index: int = 0) -> dict[str, Any]:
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return delta(tool_calls=[{"index": index, "function": function}])


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
CHAT = b"/v1/chat/completions"


def whole(reader: Follower, data: bytes, cuts: list[int]) -> tuple[bytes, str]:
    """What went on, and the code of a refusal if there was one."""
    out, begin = b"", 0
    try:
        for cut in [*sorted(cuts), len(data)]:
            if begin < cut <= len(data):
                out += reader.feed(data[begin:cut])
                begin = cut
        out += reader.finish()
    except Refused as refused:
        return out, refused.code
    return out, ""


STREAMS = {
    "text": (CHAT, events(delta(content="a\n\nb"), delta(content="é"), END, USAGE)),
    "split name": (
        CHAT,
        events(tool("look"), tool("_up"), tool(None, '{"q"'), tool(None, ":1}"), END, USAGE),
    ),
    "parallel": (
        CHAT,
        events(tool("look_up", "{}"), tool("look", "{}", index=1), END, USAGE),
    ),
    "refused": (CHAT, events(delta(content="a"), tool("drop_all", "{}"), END, USAGE)),
    "refused in pieces": (CHAT, events(tool("look_up"), tool("_all"), tool(None, "{}"), END)),
    "refused without arguments": (CHAT, events(tool("drop_all"), END)),
    "refused at the end mark": (CHAT, events(tool("drop_all"))),
    "refused without an end mark": (CHAT, events(tool("drop_all"), done=False)),
    "refused behind its usage": (CHAT, events(tool("rm"), USAGE, done=False)),
    "refused behind another choice": (
        CHAT,
        events(tool("rm"), {"choices": [{"index": 1, "delta": {"content": "a"}}]}, done=False),
    ),
    "function_call": (CHAT, events(delta(function_call={"name": "rm", "arguments": "{}"}), END)),
    "malformed": (CHAT, b"data: {\n\ndata: [DONE]\n\n"),
    "malformed: a line that ends otherwise": (
        CHAT,
        events(tool("rm", "{}")).replace(b"data:", b": ping\rdata:"),
    ),
    "crlf": (CHAT, events(delta(content="a"), END, USAGE).replace(b"\n", b"\r\n")),
    "comments": (CHAT, b": ping\n\n" + events(delta(content="a"), END, USAGE)),
    "responses": (
        b"/v1/responses",
        events(
            {"type": "response.output_item.added", "item": {"type": "web_search_call"}},
            {"type": "response.output_text.delta", "delta": "a"},
            {
                "type": "response.completed",
                "response": {"usage": {"input_tokens": 7, "output_tokens": 5}},
            },
            done=False,
        ),
    ),
    "responses refused": (
        b"/v1/responses",
        events({"type": "response.output_item.added", "item": {"type": "computer_call"}}),
    ),
    "responses refused when it's done": (
        b"/v1/responses",
        events(
            {"type": "response.output_item.done", "item": {"type": "function_call", "name": "rm"}}
        ),
    ),
    "responses refused at the end": (
        b"/v1/responses",
        events(
            {
                "type": "response.completed",
                "response": {"output": [{"type": "function_call", "name": "rm"}]},
            }
        ),
    ),
    "anthropic": (
        b"/v1/messages",
        events(
            {
                "type": "message_start",
                "message": {
                    "usage": {
                        "input_tokens": 3,
                        "cache_read_input_tokens": 4,
                        "output_tokens": 1,
                    }
                },
            },
            {
                "type": "content_block_start",
                "content_block": {"type": "tool_use", "name": "look_up"},
            },
            {"type": "content_block_delta", "delta": {}},
            {"type": "message_delta", "usage": {"output_tokens": 5}},
            done=False,
        ),
    ),
    "anthropic refused": (
        b"/v1/messages",
        events(
            {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "rm"}}
        ),
    ),
    "ollama": (
        b"/api/chat",
        b'{"message":{"content":"a"},"done":false}\n'
        b'{"message":{"tool_calls":[{"function":{"name":"look"}}]},"done":false}\n'
        b'{"done":true,"prompt_eval_count":7,"eval_count":5}\n',
    ),
    "ollama refused": (
        b"/api/chat",
        b'{"message":{"tool_calls":[{"function":{"name":"rm"}}]},"done":false}\n',
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=st.lists(st.integers(1, 900), max_size=12))
def test_wherever_it_is_cut(name: str, cuts: list[int]) -> None:
    path, data = STREAMS[name]
    once, often = follower(path), follower(path)
    assert whole(often, data, cuts)[1] == whole(once, data, [])[1]
    assert (often.usage, often.called) == (once.usage, once.called)


@pytest.mark.parametrize("name", STREAMS)
def test_each_ends_as_its_name_says(name: str) -> None:
    path, data = STREAMS[name]
    reader = follower(path)
    out, code = whole(reader, data, list(range(1, len(data))))
    if "refused" in name or name == "function_call":
        assert code == "tool_not_granted"
        assert b"rm" not in out
        assert b"{}" not in out.replace(b'"delta": {}', b""), "no arguments of it"
    elif name.startswith("malformed"):
        assert code == "upstream_malformed"
    else:
        assert code == ""
        assert out == data.replace(b"\r\n", b"\n")
        assert (reader.usage.input, reader.usage.output) == (7, 5)


def test_an_event_without_an_end() -> None:
    reader = follower(CHAT)
    for _ in range(20):
        assert reader.feed(b"x" * 1_000_000) == b""
    with pytest.raises(Refused, match="without an end"):
        reader.feed(b"x")


def test_usage_that_nobody_asked_for_stays_here() -> None:
    reader = follower(CHAT, wants_usage=False)
    out, _ = whole(reader, STREAMS["text"][1], [])
    assert b"prompt_tokens" not in out
    assert (reader.usage.input, reader.usage.output) == (7, 5)


def said(stream: bytes) -> list[bytes]:
    return [line for line in stream.split(b"\n") if line.strip()]


@given(st.binary(max_size=300), st.lists(st.integers(1, 300), max_size=6))
def test_noise_is_passed_whole_or_refused(noise: bytes, cuts: list[int]) -> None:
    reader = follower(CHAT)
    out, code = whole(reader, noise, cuts)
    assert code in {"", "upstream_malformed", "tool_not_granted"}
    if b"data:" not in noise and b"\r" not in noise:
        # Lines of blanks alone say nothing, and may go.
        assert said(out) == said(noise)


@pytest.mark.parametrize(
    ("path", "data", "pieces"),
    [
        (CHAT, events(delta(role="assistant", content=""), delta(content="a"), END), 1),
        (CHAT, events(tool("look", ""), tool(None, "{"), tool(None, "}"), END), 2),
        (b"/v1/completions", events({"choices": [{"text": "a"}]}, {"choices": [{"text": ""}]}), 1),
        (
            b"/v1/messages",
            events(
                {"type": "content_block_delta", "delta": {"partial_json": ""}},
                {"type": "content_block_delta", "delta": {"partial_json": "{}"}},
                {"type": "content_block_delta", "delta": {"signature": "x"}},
            ),
            1,
        ),
        (
            b"/api/chat",
            b'{"message":{"content":"a"},"done":false}\n{"message":{},"done":true}\n',
            1,
        ),
    ],
)
def test_what_counts_as_a_piece(path: bytes, data: bytes, pieces: int) -> None:
    """An answer that ends at its cap has so many: one more would have it cut."""
    reader = follower(path)
    assert whole(reader, data, [])[1] == ""
    assert reader.pieces == pieces
