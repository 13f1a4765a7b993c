"""OpenAI's API, as its own SDK and most open servers speak it."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

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

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def _error(refused: Refused, trace: str) -> Body:
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": refused.message,
            "type": _TYPES.get(refused.status, kind),
            "param": refused.param,
            "code": refused.code,
        }
    }


def _models(names: frozenset[str]) -> Body:
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "keyturn"}
            for name in sorted(names)
        ],
    }


OPENAI = Dialect("openai", _error, _models)

# Parameters of OpenAI's, and of the sampling of vLLM, llama.cpp and Ollama, that open nothing. A
# router's own (base URLs, keys, fallback models, plug-ins) aren't here: they'd go round the grant.
_SAMPLING = words(
    """
    frequency_penalty grammar guided_choice guided_grammar guided_json guided_regex
    ignore_eos length_penalty logit_bias logprobs min_p min_tokens mirostat mirostat_eta
    mirostat_tau model presence_penalty prompt_cache_key prompt_cache_retention
    repeat_penalty repetition_penalty safety_identifier seed skip_special_tokens stop
    stop_token_ids stream stream_options structured_outputs temperature top_k top_logprobs
    top_p typical_p user
    """
)


def _wants_usage(body: Body) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise Refused(
            400, "invalid_value", "`stream_options` must be an object.", param="stream_options"
        )
    return bool(options.get("include_usage"))


def _normal_tier(body: Body) -> None:
    # Another tier costs more, or is somebody's reserved capacity.
    if body.get("service_tier") not in {None, "default"}:
        body["service_tier"] = "default"


def _usage(answer: Body, usage: Usage) -> None:
    counted = answer.get("usage")
    if isinstance(counted, dict):
        usage.saw(
            counted.get("prompt_tokens", counted.get("input_tokens")),
            counted.get("completion_tokens", counted.get("output_tokens")),
        )


class Completions(Operation):
    """`POST /v1/completions`."""

    path = "/v1/completions"
    output_keys: tuple[str, ...] = ("max_tokens",)
    allowed = _SAMPLING | {"prompt", "best_of", "echo", "max_tokens", "n", "suffix"}

    def _choices(self, body: Body) -> int:
        prompts = body.get("prompt")
        # A list of numbers is one prompt of tokens; a list of anything else is several prompts.
        several = isinstance(prompts, list) and not all(isinstance(p, int) for p in prompts)
        return super()._choices(body) * (len(prompts or [1]) if several else 1)

    def prepare(self, plan: Plan, scope: Scope) -> None:
        """Have usage counted in a stream too."""
        if plan.streams:
            plan.wants_usage = _wants_usage(plan.body)
            plan.body["stream_options"] = {"include_usage": True}

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Completions call no tools."""
        _usage(answer, usage)
        return ()

    def follow(self, plan: Plan, scope: Scope, usage: Usage) -> Follower:
        """Deltas of `choices`."""
        return _Chunks(self, plan, scope, usage)


class ChatCompletions(Completions):
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"
    output_keys = ("max_tokens", "max_completion_tokens")
    allowed = _SAMPLING | words(
        """
    audio chat_template_kwargs function_call functions max_completion_tokens max_tokens
    messages metadata modalities n parallel_tool_calls prediction reasoning
    reasoning_effort response_format service_tier store think tool_choice tools verbosity
    web_search_options
    """
    )

    def _choices(self, body: Body) -> int:
        return Operation._choices(self, body)

    def tools(self, body: Body, scope: Scope) -> list[str]:
        """`tools`, the older `functions`, and the search that has a parameter of its own."""
        names = [_tool_name(tool, scope) for tool in as_list(body, "tools")]
        names += [as_name(each.get("name"), "functions") for each in as_list(body, "functions")]
        if body.get("web_search_options") is not None:
            names.append(f"{SERVER_SIDE}web_search")
        return check_tools(names, scope)

    def check_state(self, body: Body, raw: bytes) -> None:
        """Files; and nothing is kept."""
        if b"file_id" in raw and mentions(body.get("messages"), "file_id"):
            raise not_kept("file_id")
        audio = body.get("audio")
        if isinstance(audio, dict) and isinstance(audio.get("voice"), dict):
            raise not_kept("audio.voice")
        if body.get("store"):
            body["store"] = False

    def prepare(self, plan: Plan, scope: Scope) -> None:
        """The ordinary tier, and for reasoning models the only cap that they take."""
        super().prepare(plan, scope)
        _normal_tier(plan.body)
        if plan.output_key == "max_tokens" and _reasons(plan.model):
            plan.output_key = "max_completion_tokens"
            if plan.output is not None:
                plan.body.pop("max_tokens", None)
                plan.body["max_completion_tokens"] = plan.output

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Names in `tool_calls` and `function_call` of every choice."""
        _usage(answer, usage)
        for choice in dicts(answer.get("choices")):
            message = choice.get("message")
            if not isinstance(message, dict):
                continue
            for call in dicts(message.get("tool_calls")):
                yield _called(call)
            if isinstance(message.get("function_call"), dict):
                yield str(message["function_call"].get("name"))


def _reasons(model: str) -> bool:
    # OpenAI's reasoning models refuse `max_tokens`; most open servers know nothing else.
    name = model.rpartition("/")[2]
    return name.startswith(("o1", "o3", "o4", "gpt-5"))


def dicts(value: object) -> Iterable[Body]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _called(call: Body) -> str:
    inner = call.get("function") or call.get("custom")
    return str(inner.get("name")) if isinstance(inner, dict) else f"{SERVER_SIDE}{call.get('type')}"


def mentions(value: object, *keys: str) -> bool:
    if isinstance(value, list):
        return any(mentions(item, *keys) for item in value)
    if isinstance(value, dict):
        return any(value.get(key) for key in keys) or any(
            mentions(item, *keys) for item in value.values()
        )
    return False


def _tool_name(tool: Body, scope: Scope) -> str:
    """A tool of Chat Completions or Responses, as scopes name it."""
    kind = tool.get("type")
    if kind in {"function", "custom"}:
        inner = tool.get(kind)
        return as_name(inner.get("name") if isinstance(inner, dict) else tool.get("name"), "tools")
    kind = as_name(kind, "tools.type")
    if kind == "mcp" and tool.get("connector_id") is None:
        check_host(tool.get("server_url"), scope, "tools.server_url")
        return ""
    if kind == "mcp":
        kind = as_name(tool["connector_id"], "tools.connector_id")
    return SERVER_SIDE + undated(kind)


def undated(kind: str) -> str:
    # web_search_preview_2025_03_11 and web_search_20250305 are versions of one tool.
    return kind.rstrip("0123456789_").removesuffix("_preview")


def check_host(url: object, scope: Scope, param: str) -> None:
    """Raise Refused unless the scope holds the host of this MCP server."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host = parts.netloc.lower()
    except ValueError:
        host = ""
    if not host or parts.scheme != "https" or host not in scope.mcp_hosts:
        raise Refused(
            403,
            "mcp_host_not_granted",
            f"This grant doesn't hold the MCP server {str(url)[:200]!r}. It holds: "
            f"{', '.join(sorted(scope.mcp_hosts)) or 'none'}.",
            param=param,
        )


def _says(delta: Body) -> bool:
    """Whether it has a piece of output: the role alone, or the name of a call, is none."""
    calls = [each.get("function") or each.get("custom") for each in dicts(delta.get("tool_calls"))]
    return any(
        value for key, value in delta.items() if key not in {"role", "tool_calls", "function_call"}
    ) or any(
        call.get("arguments") or call.get("input")
        for call in dicts([*calls, delta.get("function_call")])
    )


class _Chunks(Follower):
    """Chunks of chat completions and completions."""

    def __init__(self, operation: Operation, plan: Plan, scope: Scope, usage: Usage) -> None:
        super().__init__(operation, plan, scope, usage)
        self._names: dict[tuple[Any, Any], str] = {}
        self._held: list[bytes] = []

    def see(self, data: Body, whole: bytes) -> bytes:
        """Tool calls wait until their names are known; usage goes to those who asked."""
        choices = data.get("choices")
        if data.get("usage"):
            _usage(data, self.usage)
            if not choices and not self.plan.wants_usage:
                return b""
        waits = False
        for choice in dicts(choices):
            delta = choice.get("delta")
            if isinstance(delta, dict):
                waits |= self._names_in(choice, delta)
            if choice.get("finish_reason"):
                self._check_names()
                waits = False
            self.pieces += _says(delta) if isinstance(delta, dict) else bool(choice.get("text"))
        if waits or (self._held and not all(map(self.scope.holds_tool, self._names.values()))):
            self._held.append(whole)
            return b""
        return self._release() + whole if self._held else whole

    def _release(self) -> bytes:
        held, self._held = b"".join(self._held), []
        return held

    def _names_in(self, choice: Body, delta: Body) -> bool:
        calls = [
            (each.get("index"), each.get("function") or each.get("custom") or {})
            for each in dicts(delta.get("tool_calls"))
        ]
        if isinstance(delta.get("function_call"), dict):
            calls.append(("function_call", delta["function_call"]))
        waits = False
        for index, inner in calls:
            key = (choice.get("index"), index)
            name = self._names.get(key, "") + str(inner.get("name") or "")
            self._names[key] = name
            if inner.get("arguments") or inner.get("input"):
                self._settle(key, name)
            elif not self.scope.holds_tool(name):
                waits = True  # perhaps the rest of its name is still to come
        return waits

    def _settle(self, key: tuple[Any, Any], name: str) -> None:
        if name not in self.called or not self.scope.holds_tool(name):
            self.call(name)

    def _check_names(self) -> None:
        for key, name in self._names.items():
            self._settle(key, name)

    def last(self, whole: bytes) -> bytes:
        """`[DONE]`: nothing may be waiting for its name any more."""
        self._check_names()
        return self._release() + whole

    def finish(self) -> bytes:
        """The same where there is no `[DONE]`."""
        rest = super().finish()
        self._check_names()
        return self._release() + rest


class Embeddings(Operation):
    """`POST /v1/embeddings`."""

    path = "/v1/embeddings"
    allowed = frozenset({"model", "input", "dimensions", "encoding_format", "user"})

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Embeddings have no output tokens."""
        _usage(answer, usage)
        if usage.input is not None:
            usage.saw(output=0)
        return ()


class Responses(Operation):
    """`POST /v1/responses`."""

    path = "/v1/responses"
    output_keys = ("max_output_tokens",)
    allowed = words(
        """
    background conversation include input instructions max_output_tokens max_tool_calls
    metadata model parallel_tool_calls previous_response_id prompt prompt_cache_key
    prompt_cache_retention reasoning safety_identifier service_tier store stream
    stream_options temperature text tool_choice tools top_logprobs top_p truncation user
    """
    )

    def tools(self, body: Body, scope: Scope) -> list[str]:
        """Functions, the provider's own, and MCP servers."""
        names = [name for tool in as_list(body, "tools") if (name := _tool_name(tool, scope))]
        return check_tools(names, scope)

    def check_state(self, body: Body, raw: bytes) -> None:
        """Whatever it refers to was kept for somebody, and nothing is kept for this grant."""
        for key in ("previous_response_id", "conversation", "prompt"):
            if body.get(key) is not None:
                raise not_kept(key)
        if body.get("background"):
            raise Refused(
                400,
                "background_refused",
                "A response in the background would run on after the grant.",
                param="background",
            )
        if b"file_id" in raw and mentions(body.get("input"), "file_id"):
            raise not_kept("file_id")
        if b"item_reference" in raw and any(
            item.get("type") == "item_reference" for item in dicts(body.get("input"))
        ):
            raise not_kept("input")
        if b"vector_store_ids" in raw and mentions(body.get("tools"), "vector_store_ids"):
            raise not_kept("tools.vector_store_ids")
        if b"container" in raw and any(
            isinstance(tool.get("container"), str) for tool in dicts(body.get("tools"))
        ):
            raise not_kept("tools.container")
        body["store"] = False

    def prepare(self, plan: Plan, scope: Scope) -> None:
        """The ordinary tier."""
        _normal_tier(plan.body)

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Items of the output that are calls."""
        _usage(answer, usage)
        for item in dicts(answer.get("output")):
            if name := _item_called(item):
                yield name

    def follow(self, plan: Plan, scope: Scope, usage: Usage) -> Follower:
        """Typed events."""
        return _Events(self, plan, scope, usage)


def _item_called(item: Body) -> str:
    """The tool that this item of an output calls, if it's a call."""
    kind = str(item.get("type"))
    if kind in {"function_call", "custom_tool_call"}:
        return str(item.get("name"))
    if kind.endswith("_call") and kind != "mcp_call":
        name = kind.removesuffix("_call")
        return SERVER_SIDE + ("computer_use" if name == "computer" else name)
    return ""


class _Events(Follower):
    """Events of a streamed response: a call's name comes whole, before its arguments."""

    def see(self, data: Body, whole: bytes) -> bytes:
        """Names at the beginning of an item; usage at the end."""
        kind = str(data.get("type"))
        if kind == "response.output_item.added":
            item = data.get("item")
            if isinstance(item, dict) and (name := _item_called(item)):
                self.call(name)
        elif kind == "response.output_item.done":
            self._call_in([data.get("item")])
        elif kind.endswith(".delta"):
            self.pieces += bool(data.get("delta"))
        elif kind in {"response.completed", "response.incomplete", "response.failed"}:
            response = data.get("response")
            if isinstance(response, dict):
                _usage(response, self.usage)
                self._call_in(response.get("output"))
        return whole

    def _call_in(self, items: object) -> None:
        # Some servers never say that an item begins.
        for item in dicts(items):
            if name := _item_called(item):
                self.call_once(name)


def dumps(body: Body) -> bytes:
    """JSON as it's sent on. Raises Refused for what JSON can't say, such as half a character."""
    try:
        return orjson.dumps(body)
    except (TypeError, ValueError) as error:
        raise Refused(
            400, "invalid_json", "The body holds a number or text that can't be sent on."
        ) from error


OPERATIONS: dict[str, Operation] = {
    each.path: each for each in (ChatCompletions(), Completions(), Embeddings(), Responses())
}
