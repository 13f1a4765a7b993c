"""Anthropic's Messages API."""

import re
from collections.abc import Iterable

from endpoints.scope import SERVER_SIDE, Scope
from gateway.dialects.base import (
    Body,
    Dialect,
    Follower,
    Operation,
    Plan,
    Refused,
    Usage,
    as_list,
    as_name,
    check_tools,
    not_kept,
    words,
)
from gateway.dialects.openai import check_host, dicts, mentions, undated

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def _error(refused: Refused, trace: str) -> Body:
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    return {
        "type": "error",
        "error": {
            "type": _TYPES.get(refused.status, kind),
            "message": refused.message,
            "details": {"error_code": refused.code},
        },
        "request_id": trace,
    }


def _models(names: frozenset[str]) -> Body:
    ordered = sorted(names)
    return {
        "data": [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "1970-01-01T00:00:00Z",
            }
            for name in ordered
        ],
        "has_more": False,
        "first_id": ordered[0] if ordered else None,
        "last_id": ordered[-1] if ordered else None,
    }


ANTHROPIC = Dialect("anthropic", _error, _models, id_headers=(b"request-id", b"x-request-id"))

# Betas that change the form of what is checked here anyway. Others keep things at the upstream,
# open more of it, or cost more.
_BETA = re.compile(
    r"(advanced-tool-use|code-execution|computer-use|context-management|fine-grained-tool-streaming"
    r"|interleaved-thinking|mcp-client|prompt-caching|structured-outputs|token-counting"
    r"|token-efficient-tools|web-fetch)-[0-9]{4}-[0-9]{2}-[0-9]{2}"
)


def betas(header: bytes) -> str:
    """Of the betas that a client asks for, those that go on; the others are left out."""
    names = header.decode("latin-1").split(",")
    return ",".join(name.strip() for name in names if _BETA.fullmatch(name.strip()))


class CountTokens(Operation):
    """`POST /v1/messages/count_tokens`: free, and opens nothing but what a message would."""

    path = "/v1/messages/count_tokens"
    allowed = words(
        """
    cache_control context_management mcp_servers messages model output_config output_format
    system thinking tool_choice tools
    """
    )

    def tools(self, body: Body, scope: Scope) -> list[str]:
        """Those that the client runs have no type or `custom`; any other is the provider's."""
        names = []
        for tool in as_list(body, "tools"):
            kind = tool.get("type")
            if kind == "mcp_toolset":
                continue  # its server is checked below
            if kind in {None, "custom"}:
                names.append(as_name(tool.get("name"), "tools"))
            else:
                names.append(SERVER_SIDE + undated(as_name(kind, "tools.type")))
        for server in as_list(body, "mcp_servers"):
            check_host(server.get("url"), scope, "mcp_servers.url")
        return check_tools(names, scope)

    def check_state(self, body: Body, raw: bytes) -> None:
        """Files."""
        if b"file_id" in raw and mentions(body, "file_id"):
            raise not_kept("file_id")

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Counting is not charged."""
        usage.saw(0, 0)
        return ()


class Messages(CountTokens):
    """`POST /v1/messages`."""

    path = "/v1/messages"
    output_keys = ("max_tokens",)
    allowed = CountTokens.allowed | words(
        """
    container inference_geo max_tokens metadata service_tier stop_sequences stream temperature
    thread top_k top_p
    """
    )

    def check_state(self, body: Body, raw: bytes) -> None:
        """Files, and containers and threads that were kept from another call."""
        super().check_state(body, raw)
        # A thread is kept as best effort, and no answer says whether it was: a client that wants
        # to go on with one sends the whole conversation when it hears that there is none.
        thread = body.pop("thread", None)
        if isinstance(thread, dict) and thread.get("type") == "continue":
            raise Refused(
                404, "thread_not_found", "Keyturn lets the upstream keep no thread.", param="thread"
            )
        container = body.get("container")
        if container is not None and (not isinstance(container, dict) or container.get("id")):
            raise not_kept("container")

    def prepare(self, plan: Plan, scope: Scope) -> None:
        """The ordinary tier: another one is somebody's reserved capacity."""
        if "service_tier" in plan.body:
            plan.body["service_tier"] = "standard_only"

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Blocks of the content that are calls."""
        _usage(answer.get("usage"), usage)
        for block in dicts(answer.get("content")):
            if name := _block_called(block):
                yield name

    def follow(self, plan: Plan, scope: Scope, usage: Usage) -> Follower:
        """Typed events."""
        return _Events(self, plan, scope, usage)


def _usage(counted: object, usage: Usage) -> None:
    """All input counts, also what was read from or written to the cache."""
    if not isinstance(counted, dict):
        return
    parts = [
        counted.get(key)
        for key in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    ]
    if any(part is not None for part in parts):
        total = sum(part for part in parts if isinstance(part, int))
        # The final count may leave out what the first one said of the cache.
        usage.saw(input=max(total, usage.input or 0))
    usage.saw(output=counted.get("output_tokens"))


def _block_called(block: Body) -> str:
    match block.get("type"):
        case "tool_use":
            return str(block.get("name"))
        case "server_tool_use":
            return SERVER_SIDE + str(block.get("name"))
    return ""


class _Events(Follower):
    """Events of a streamed message: a call's name comes whole, before its input."""

    def see(self, data: Body, whole: bytes) -> bytes:
        """Names at the beginning of a block; usage first of the input, then cumulative."""
        match data.get("type"):
            case "message_start":
                message = data.get("message")
                if isinstance(message, dict):
                    for begun in dicts(message.get("content")):
                        if name := _block_called(begun):
                            self.call(name)
                    _usage(message.get("usage"), self.usage)
                    # What it says of the output here is where the count begins, not a count.
                    self.usage.output = None
            case "message_delta":
                _usage(data.get("usage"), self.usage)
            case "content_block_start":
                block = data.get("content_block")
                if isinstance(block, dict) and (name := _block_called(block)):
                    self.call(name)
            case "content_block_delta":
                piece = data.get("delta")
                if isinstance(piece, dict):
                    self.pieces += any(
                        piece.get(key) for key in ("text", "partial_json", "thinking")
                    )
        return whole


OPERATIONS: dict[str, Operation] = {each.path: each for each in (Messages(), CountTokens())}
