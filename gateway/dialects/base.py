"""What every dialect has: how it refuses, what a call asks for, what an answer holds."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from endpoints.scope import SERVER_SIDE, Scope

Body = dict[str, Any]

# A piece of input that isn't text has no bound that its bytes would tell.
TOKENS_OF_A_MEDIUM = 8_000
MOST_TOKENS = 1_000_000_000  # that one call is believed to have
# A budget needs some bound on the output of a call for which neither client nor grant names one.
OUTPUT_WITHOUT_A_CAP = 4_096
MOST_EVENT = 20_000_000  # bytes of one event of a stream; an image may be in it


class Refused(Exception):
    """The gateway answers this call itself. `code` is stable, `message` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry: bool = False,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry = retry
        self.retry_after = retry_after


@dataclass(slots=True)
class Usage:
    """Tokens as the upstream counted them; None where it didn't say. An explicit 0 was said."""

    input: int | None = None
    output: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it can be charged as it stands."""
        return self.input is not None and self.output is not None

    def saw(self, input: object = None, output: object = None) -> None:
        """Take over what is a count."""
        if isinstance(input, int) and not isinstance(input, bool) and input >= 0:
            self.input = min(input, MOST_TOKENS)
        if isinstance(output, int) and not isinstance(output, bool) and output >= 0:
            self.output = min(output, MOST_TOKENS)


@dataclass(slots=True)
class Plan:
    """One call that may be made: what is sent, and how much it can come to."""

    body: Body
    model: str
    streams: bool = False
    tools: list[str] = field(default_factory=list)
    input_bound: int = 0
    output_key: str = ""
    output: int | None = None
    choices: int = 1
    wants_usage: bool = True

    @property
    def output_bound(self) -> int:
        """Tokens of output, over all choices."""
        return 0 if not self.output_key else (self.output or OUTPUT_WITHOUT_A_CAP) * self.choices

    def cap_output(self, most: int) -> None:
        """Have the upstream stop at `most` tokens, over all choices."""
        if self.output_key:
            self.output = max(most // self.choices, 1)
            _put(self.body, self.output_key, self.output)


def _put(body: Body, key: str, value: object) -> None:
    outer, _, inner = key.rpartition(".")
    (body.setdefault(outer, {}) if outer else body)[inner] = value


class Operation:
    """One method and path of a dialect: reads what is asked for, and what is answered."""

    method = "POST"
    path = ""
    output_keys: tuple[str, ...] = ()  # in which a client may cap its output; the first is set
    allowed: frozenset[str] = frozenset()
    streams_by_default = False

    def tools(self, body: Body, scope: Scope) -> list[str]:
        """The tools that this body declares, `server:` before those that the provider runs."""
        return []

    def check_state(self, body: Body, raw: bytes) -> None:
        """Refuse what refers to things kept at the upstream: they may be somebody else's."""

    def prepare(self, plan: Plan, scope: Scope) -> None:
        """Last changes to the body."""

    def read(self, answer: Body, usage: Usage) -> Iterable[str]:
        """Take over the usage of a whole answer, and the names of the tools that it calls."""
        return ()

    def follow(self, plan: Plan, scope: Scope, usage: Usage) -> "Follower":
        """What reads a stream of this operation."""
        return Follower(self, plan, scope, usage)

    def plan(self, body: Body, raw: bytes, scope: Scope, aliases: Mapping[str, str]) -> Plan:
        """What is sent for this body. Raises Refused for what the scope doesn't hold."""
        if unknown := body.keys() - self.allowed:
            name = min(unknown)
            raise Refused(
                400,
                "unknown_parameter",
                f"Keyturn lets through the parameters that it can check; {name[:100]!r} isn't one.",
                param=name[:100],
            )
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise Refused(400, "model_missing", "`model` must be a string.", param="model")
        model = aliases.get(model, model)
        if model not in scope.models:
            raise Refused(
                403,
                "model_not_granted",
                f"This grant doesn't hold the model {model[:200]!r}. It holds: "
                f"{', '.join(sorted(scope.models))}.",
                param="model",
            )
        body["model"] = model
        streams = body.get("stream", self.streams_by_default)
        if not isinstance(streams, bool):
            raise Refused(400, "invalid_value", "`stream` must be true or false.", param="stream")
        self.check_state(body, raw)
        plan = Plan(body, model, streams, self.tools(body, scope))
        plan.choices = self._choices(body)
        self._cap(plan, scope)
        if scope.token_budget is not None or scope.cost_budget is not None:
            plan.input_bound = bound_of_input(body, raw)
        self.prepare(plan, scope)
        return plan

    def _choices(self, body: Body) -> int:
        most = 1
        for key in ("n", "best_of"):
            value = body.get(key)
            if key in self.allowed and value is not None:
                if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 128:
                    raise Refused(
                        400, "invalid_value", f"`{key}` must be from 1 to 128.", param=key
                    )
                most = max(most, value)
        return most

    def _cap(self, plan: Plan, scope: Scope) -> None:
        """The least of what the client wants and the grant holds; none where neither says."""
        if not self.output_keys:
            return
        plan.output_key = self.output_keys[0]
        wanted = []
        for key in self.output_keys:
            outer, _, inner = key.rpartition(".")
            holder = plan.body.get(outer) if outer else plan.body
            value = holder.get(inner) if isinstance(holder, dict) else None
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Refused(
                    400, "invalid_value", f"`{key}` must be a whole number from 1.", param=key
                )
            wanted.append(value)
            plan.output_key = key
        plan.output = min(wanted, default=None)
        if scope.max_output_tokens is not None:
            if scope.max_output_tokens < plan.choices:
                raise Refused(
                    400,
                    "too_many_choices",
                    f"This grant holds {scope.max_output_tokens} tokens of output a call.",
                    param="n",
                )
            each = scope.max_output_tokens // plan.choices
            if plan.output is None or plan.output > each:
                plan.output = each
        if plan.output is not None:
            _put(plan.body, plan.output_key, plan.output)


def bound_of_input(body: Body, raw: bytes) -> int:
    """No tokeniser makes more tokens of a text than it has bytes; media are counted apart.

    The chat template's own tokens are within what JSON adds to each message.
    """
    bound = len(raw)
    if b"image" in raw or b"audio" in raw or b"file" in raw or b"document" in raw or b"vid" in raw:
        for payload in _media(body):
            bound += TOKENS_OF_A_MEDIUM - len(payload)
    return max(bound, 1)


def _media(value: object) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _media(item)
    elif isinstance(value, dict):
        kind = value.get("type")
        if kind in {"image_url", "input_image", "image", "input_audio", "file", "input_file",
                    "document", "video_url"}:  # fmt: skip
            yield max(_strings(value), key=len, default="")
        else:
            for key, item in value.items():
                if key == "images" and isinstance(item, list):
                    yield from (image for image in item if isinstance(image, str))
                else:
                    yield from _media(item)


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)


def check_tools(names: list[str], scope: Scope) -> list[str]:
    """These names, all of which the scope holds. Raises Refused."""
    for name in names:
        if not scope.holds_tool(name):
            raise tool_refused(name, scope)
    return names


def tool_refused(name: str, scope: Scope) -> Refused:
    """The answer to a tool that the grant doesn't hold, declared or called."""
    what = (
        f"the provider's own tool {name.removeprefix(SERVER_SIDE)[:200]!r}"
        if name.startswith(SERVER_SIDE)
        else f"the tool {name[:200]!r}"
    )
    holds = ", ".join(sorted(scope.tools)) or "none"
    return Refused(
        403,
        "tool_not_granted",
        f"This grant doesn't hold {what}. Tools that it holds: {holds}.",
        param="tools",
    )


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def as_list(body: Body, key: str) -> list[Body]:
    """The objects under this key. Raises Refused where it is anything but a list of objects."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Refused(400, "invalid_value", f"`{key}` must be a list of objects.", param=key)
    return value


def as_name(value: object, param: str) -> str:
    """A name of 1 to 200 characters. Raises Refused."""
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise Refused(400, "invalid_value", f"`{param}` needs a name.", param=param)
    return value


def not_kept(param: str) -> Refused:
    """The answer to a reference to something kept at the upstream."""
    return Refused(
        404,
        "not_found",
        f"`{param}` refers to something kept at the upstream, which this grant doesn't hold.",
        param=param,
    )


def malformed(what: str) -> Refused:
    """The end of a stream in which the upstream sent this."""
    return Refused(502, "upstream_malformed", f"The upstream sent {what}.", retry=True)


class Follower:
    """Reads one stream: what it passes on, holds back, counts, and must cut."""

    separators: tuple[bytes, ...] = (b"\n\n", b"\r\n\r\n")

    def __init__(self, operation: Operation, plan: Plan, scope: Scope, usage: Usage) -> None:
        self.operation = operation
        self.plan = plan
        self.scope = scope
        self.usage = usage
        self.called: list[str] = []
        self.pieces = 0  # of output, each a token or more
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may go on to the client of what has come so far: whole events only, so that an
        error event never lands inside another one. Raises Refused."""
        data = self._rest + chunk if self._rest else chunk
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(self.separators[0])
        if end < 0:
            if len(data) > MOST_EVENT:
                raise malformed("an event without an end")
            self._rest = data
            return b""
        end += len(self.separators[0])
        self._rest = data[end:]
        passed = [
            out
            for event in data[:end].split(self.separators[0])
            if event and (out := self._event(event))
        ]
        return b"".join(passed)

    def finish(self) -> bytes:
        """What was held back at the end of the stream."""
        rest, self._rest = self._rest, b""
        return self._event(rest.rstrip(b"\r\n")) if rest.strip() else b""

    def _event(self, event: bytes) -> bytes:
        if b"\r" in event:
            # Some read it as the end of a line, and would see events where none was seen here.
            raise malformed("a carriage return within a line")
        data = b"".join(
            line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")
        )
        whole = event + self.separators[0]
        if not data or data == b"[DONE]":
            return self.last(whole) if data else whole
        return self.see(self.parsed(data), whole)

    @staticmethod
    def parsed(data: bytes) -> Body:
        """One JSON object of the upstream's. Raises Refused."""
        try:
            found = orjson.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise malformed("what is no JSON object")
        return found

    def see(self, data: Body, whole: bytes) -> bytes:
        """What of this event goes on. Raises Refused."""
        return whole

    def last(self, whole: bytes) -> bytes:
        """What goes on at the end mark."""
        return whole

    def call_once(self, name: str) -> None:
        """The same, of a call that may have been seen before."""
        if name not in self.called:
            self.call(name)

    def call(self, name: str) -> None:
        """The model calls this tool. Raises Refused where the grant doesn't hold it."""
        self.called.append(name[:200])
        if not self.scope.holds_tool(name):
            raise tool_refused(name, self.scope)


@dataclass(frozen=True)
class Dialect:
    """One client-side API: how it refuses, lists models and carries keys."""

    name: str
    error: Callable[[Refused, str], Body]
    models: Callable[[frozenset[str]], Body]
    streams_as: str = "text/event-stream"
    id_headers: tuple[bytes, ...] = (b"x-request-id",)  # in which its SDK looks for a call's id

    def event(self, refused: Refused, trace: str) -> bytes:
        """What ends a stream with an error."""
        data = json.dumps(self.error(refused, trace)).encode()
        if self.streams_as != "text/event-stream":
            return data + b"\n"
        prefix = b"event: error\n" if self.name == "anthropic" else b""
        return prefix + b"data: " + data + b"\n\n"

    def upstream_headers(self, key: str, key_header: str) -> dict[str, str]:
        """What is sent on, beside what `incoming` lets through. Nothing else of the client's
        headers is: no credential, cookie, forwarding or vendor control header reaches the
        upstream."""
        sent = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "keyturn-gateway",
        }
        if key_header == "none":
            return sent
        if key_header:
            sent[key_header] = key
        elif self.name == "anthropic":
            sent["x-api-key"] = key
        else:
            sent["Authorization"] = f"Bearer {key}"
        return sent


def cost_of(usage_in: int, usage_out: int, price: tuple[float, float]) -> int:
    """Millionths of a US dollar, rounded up; the price is in dollars per million tokens."""
    return math.ceil(usage_in * price[0] + usage_out * price[1])
