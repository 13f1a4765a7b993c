"""Ollama's own API: one JSON object a line where it streams, which it does unless told not to."""

from collections.abc import Iterable

from endpoints.scope import Scope
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
    words,
)
from gateway.dialects.openai import dicts


def _error(refused: Refused, trace: str) -> Body:
    return {"error": refused.message, "code": refused.code}


def _models(names: frozenset[str]) -> Body:
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": "1970-01-01T00:00:00Z",
                "size": 0,
                "digest": "",
                "details": {},
            }
            for name in sorted(names)
        ]
    }


OLLAMA = Dialect("ollama", _error, _models, streams_as="application/x-ndjson")


class Chat(Operation):
    """`POST /api/chat`."""

    path = "/api/chat"
    streams_by_default = True
    output_keys = ("options.num_predict",)
    allowed = words(
        """
    format keep_alive logprobs messages model options stream think tools top_logprobs
    """
    )

    def tools(self, body: Body, scope: Scope) -> list[str]:
        """Functions."""
        names = []
        for tool in as_list(body, "tools"):
            inner = tool.get("function")
            names.append(as_name(inner.get("name") if isinstance(inner, dict) else None, "tools"))
        return check_tools(names, scope)

    def check_state(self, body: Body, raw: bytes) -> None:
        """How long a model stays loaded is the server's business, and so is generating for ever."""
        body.pop("keep_alive", None)
        options = body.get("options")
        if options is not None and not isinstance(options, dict):
            raise Refused(400, "invalid_value", "`options` must be an object.", param="options")
        if isinstance(options, dict) and options.get("num_predict") in {-1, -2}:
            del options["num_predict"]

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Calls come whole."""
        if answer.get("done") is not False:
            usage.saw(answer.get("prompt_eval_count", 0), answer.get("eval_count"))
        message = answer.get("message")
        if isinstance(message, dict):
            for call in dicts(message.get("tool_calls")):
                inner = call.get("function")
                yield str(inner.get("name") if isinstance(inner, dict) else None)

    def follow(self, plan: Plan, scope: Scope, usage: Usage) -> Follower:
        """Lines."""
        return _Lines(self, plan, scope, usage)


class Generate(Chat):
    """`POST /api/generate`."""

    path = "/api/generate"
    allowed = words(
        """
    context format images keep_alive logprobs model options prompt raw stream suffix system
    template think top_logprobs
    """
    )


class Embed(Operation):
    """`POST /api/embed`."""

    path = "/api/embed"
    allowed = frozenset({"dimensions", "input", "keep_alive", "model", "options", "truncate"})

    def check_state(self, body: Body, raw: bytes) -> None:
        """As for chat."""
        body.pop("keep_alive", None)

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Embeddings have no output tokens."""
        usage.saw(answer.get("prompt_eval_count"), 0)
        return ()


class _Lines(Follower):
    separators = (b"\n",)

    def _event(self, event: bytes) -> bytes:
        data = self.parsed(event)
        for name in self.operation.read(data, self.usage):
            self.call(name)
        message = data.get("message")
        said = message if isinstance(message, dict) else data
        self.pieces += any(said.get(key) for key in ("content", "response", "thinking"))
        return event + b"\n"


OPERATIONS: dict[str, Operation] = {each.path: each for each in (Chat(), Generate(), Embed())}
