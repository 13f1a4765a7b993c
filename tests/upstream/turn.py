"""What the pretended model answers, whatever the dialect it is asked in."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from broker.demo.upstream import LABEL

IMAGE_TOKENS = 85
PIECE = 6  # characters of a tool call's arguments that come at once


@dataclass(frozen=True)
class Asked:
    """A call, in no dialect."""

    model: str
    said: str = ""
    prompt: int = 1
    tools: dict[str, Any] = field(default_factory=dict)  # parameters by name
    choice: str = "auto"  # auto, none, or a tool's name
    parallel: bool = True
    schema: dict[str, Any] | None = None  # that the answer must have
    most: int | None = None


@dataclass(frozen=True)
class Piece:
    """One token of an answer: of its text, or of a tool call's arguments."""

    text: str
    of: int | None = None


@dataclass(frozen=True)
class Turn:
    """A whole answer."""

    model: str
    prompt: int
    pieces: list[Piece]
    names: list[str]  # of the tools called
    finish: Literal["stop", "length", "tools"]

    @property
    def completion(self) -> int:
        return len(self.pieces)

    @property
    def text(self) -> str:
        return "".join(p.text for p in self.pieces if p.of is None)

    def arguments(self, index: int) -> str:
        return "".join(p.text for p in self.pieces if p.of == index)


def count(*values: Any) -> int:
    """Tokens of these: a word is one, and so is each word of a tool's description."""
    total = 0
    for value in values:
        if isinstance(value, str):
            total += len(value.split())
        elif isinstance(value, dict):
            if value.get("type") in {"image", "image_url", "input_image"}:
                total += IMAGE_TOKENS
            else:
                total += count(*value.values())
        elif isinstance(value, list):
            total += count(*value)
    return total


def text_of(content: Any) -> str:
    """The text in a message's content."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def example(schema: Any, said: str, root: dict[str, Any] | None = None) -> Any:
    """Something that this JSON schema takes, with what was said as its texts."""
    root = root or schema
    if "$ref" in schema:
        return example(root["$defs"][schema["$ref"].rpartition("/")[2]], said, root)
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return example(schema[several][0], said, root)
    match schema.get("type"):
        case "string":
            return said
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "array":
            return [example(schema.get("items") or {}, said, root)]
        case "object" | None:
            parts = schema.get("properties") or {}
            return {name: example(part, said, root) for name, part in parts.items()}
    return None


def answer(
    asked: Asked,
    *,
    calls: tuple[tuple[str, str], ...] | None = None,
    words: int | None = None,
    obeys: bool = True,
) -> Turn:
    """What the model says: a tool is called if any is offered, and all those that are named.

    `calls` are made whatever was offered; `words` is the length of the text; `obeys` the limit.
    """
    chosen = list(calls or ())
    if calls is None and asked.tools and asked.choice != "none":
        named = [name for name in asked.tools if name in asked.said.split()]
        if asked.choice in asked.tools:
            named = [asked.choice]
        named = named or list(asked.tools)[:1]
        for name in named if asked.parallel else named[:1]:
            chosen.append((name, json.dumps(example(asked.tools[name] or {}, asked.said))))
    if chosen:
        pieces = [
            Piece(arguments[at : at + PIECE], index)
            for index, (_, arguments) in enumerate(chosen)
            for at in range(0, len(arguments), PIECE)
        ]
    elif asked.schema is not None:
        said = json.dumps(example(asked.schema, asked.said))
        pieces = [Piece(said[at : at + PIECE]) for at in range(0, len(said), PIECE)]
    elif words is not None:
        pieces = [Piece("word ")] * words
    else:
        said = f"{LABEL} You said: {asked.said[:500]}"
        pieces = [Piece(word + " ") for word in said.split()]
        pieces[-1] = Piece(pieces[-1].text.rstrip())
    if obeys and asked.most is not None and len(pieces) > asked.most:
        return Turn(asked.model, asked.prompt, pieces[: asked.most], _names(chosen), "length")
    finish: Literal["stop", "tools"] = "tools" if chosen else "stop"
    return Turn(asked.model, asked.prompt, pieces, _names(chosen), finish)


def _names(calls: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in calls]
