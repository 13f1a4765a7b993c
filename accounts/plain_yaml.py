"""YAML as plain data without whatever could surprise, and where in it each key stands."""

from collections.abc import Sequence
from typing import Any

import yaml

from broker.errors import InvalidInput

LARGEST = 1_000_000
DEEPEST = 20

# libyaml is ten times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Constructor(yaml.constructor.SafeConstructor):
    """Dates stay text: nothing here is one, and what looks like one is a name or a mistake."""

    yaml_constructors = yaml.constructor.SafeConstructor.yaml_constructors | {
        "tag:yaml.org,2002:timestamp": yaml.constructor.SafeConstructor.construct_yaml_str
    }


def nodes(text: str) -> list[yaml.Node]:
    """The documents of this YAML, not yet made into data, without whatever could surprise.

    Aliases (a few lines of them can mean gigabytes), tags, repeated keys and merges are refused.
    """
    if len(text.encode(errors="replace")) > LARGEST:
        raise InvalidInput({"file": f"Must be at most {LARGEST:,} bytes."})
    try:
        _plain(text)
        found = [node for node in yaml.compose_all(text, Loader=_Loader) if node is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise InvalidInput({where: f"No YAML: {what}."}) from error
    except UnicodeEncodeError as error:
        raise InvalidInput({"file": "Must be UTF-8."}) from error
    for node in found:
        _keys_once(node)
    return found


def _plain(text: str) -> None:
    """Look at the events, which come one by one, before anything recurses into what they mean."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark: Any = event.start_mark
        where = f"line {mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidInput({where: "Anchors and aliases (& and *) aren't taken: write it out."})
        if tag := getattr(event, "tag", None):
            raise InvalidInput({where: f"Tags such as {tag} aren't taken: leave it out."})
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise InvalidInput({where: f"Nested deeper than {DEEPEST}."})


def _keys_once(node: yaml.Node, path: str = "") -> None:
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            _keys_once(entry, f"{path}{number}.")
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"line {line_at(key)}, {path}{key.value}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise InvalidInput({f"line {line_at(key)}": "A key must be a plain word."})
            if key.value in seen:
                raise InvalidInput({where: "This key is here twice."})
            seen.add(key.value)
            _keys_once(value, f"{path}{key.value}.")


def data_of(node: yaml.Node) -> Any:
    """The plain data of a node that `nodes` gave. Raises InvalidInput for what has no value."""
    try:
        return _Constructor().construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InvalidInput({"": f"Not readable: {getattr(error, 'problem', error)}."}) from error


def located(
    errors: dict[str, str], node: yaml.Node, path: Sequence[str] = (), *, whole: str = "policy"
) -> dict[str, str]:
    """The same errors by line and key; `path` leads from the document to what they are about, and
    `whole` is the key of what concerns all of that."""
    found = {}
    for key, message in errors.items():
        parts = [*path, *(part for part in key.split(".") if part)]
        if key == whole:
            parts = list(path) or [whole]
        found[f"line {line_of(node, parts)}, {'.'.join(parts)}".rstrip(", ")] = message
    return found


def line_of(node: yaml.Node, path: Sequence[str]) -> int:
    """Where this key stands; where its nearest parent does, if it's missing."""
    line = line_at(node)
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            pair = (node.value[int(part)], node.value[int(part)])
        else:
            pair = None
        if pair is None:
            break
        line, node = line_at(pair[0]), pair[1]
    return line


def line_at(node: yaml.Node) -> int:
    """The line on which this node begins."""
    number: int = node.start_mark.line + 1
    return number
