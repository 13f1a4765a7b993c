"""Policies as YAML: read with line and key of all that is wrong, and written back the same."""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from accessrequests.policy.document import PolicyDocument, parse
from broker.errors import InvalidInput

LARGEST = 1_000_000
DEEPEST = 20

# libyaml is ten times as fast, where PyYAML was built with it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: str) -> list[PolicyDocument]:
    """The policies in this YAML: one, a list under `policies`, or either in several documents.

    Raises InvalidInput by line and key, such as `line 12, steps.0.approvals`.
    """
    found: list[PolicyDocument] = []
    errors: dict[str, str] = {}
    for node in nodes(text):
        for path, entry in _entries(node):
            try:
                document = parse(data_of(entry))
            except InvalidInput as error:
                errors |= located(error.errors, node, path)
                continue
            if any(document.slug == other.slug for other in found):
                errors |= located({"slug": "Another policy here has this slug."}, node, path)
            found.append(document)
    if errors:
        raise InvalidInput(errors)
    return found


def locate(text: str, number: int, errors: dict[str, str]) -> dict[str, str]:
    """Errors of the policy of this number in `read(text)`, by line and key."""
    entries = [(node, path) for node in nodes(text) for path, _ in _entries(node)]
    node, path = entries[number]
    return located(errors, node, path)


def write(documents: Sequence[PolicyDocument]) -> str:
    """YAML that `read` takes, keys in the order of the definition, without what is at its default.

    The same documents give the same text.
    """
    data = [document.as_data() for document in documents]
    return yaml.dump(
        data[0] if len(data) == 1 else {"policies": data},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )


class _Constructor(yaml.constructor.SafeConstructor):
    """Dates stay text: nothing here is one, and what looks like one is a name or a mistake."""

    yaml_constructors = yaml.constructor.SafeConstructor.yaml_constructors | {
        "tag:yaml.org,2002:timestamp": yaml.constructor.SafeConstructor.construct_yaml_str
    }


class _Dumper(yaml.SafeDumper):
    """Lists are set in, as people write them, and nothing becomes an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


# Shared with the cases of `manage.py policy test`


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
            where = f"line {_line(key)}, {path}{key.value}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise InvalidInput({f"line {_line(key)}": "A key must be a plain word."})
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


def located(errors: dict[str, str], node: yaml.Node, path: Sequence[str] = ()) -> dict[str, str]:
    """The same errors by line and key; `path` leads from the document to what they are about."""
    found = {}
    for key, message in errors.items():
        parts = [*path, *(part for part in key.split(".") if part)]
        if key == "policy":
            parts = list(path) or ["policy"]
        found[f"line {line_of(node, parts)}, {'.'.join(parts)}".rstrip(", ")] = message
    return found


def line_of(node: yaml.Node, path: Sequence[str]) -> int:
    """Where this key stands; where its nearest parent does, if it's missing."""
    line = _line(node)
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            pair = (node.value[int(part)], node.value[int(part)])
        else:
            pair = None
        if pair is None:
            break
        line, node = _line(pair[0]), pair[1]
    return line


def _line(node: yaml.Node) -> int:
    number: int = node.start_mark.line + 1
    return number


def _entries(node: yaml.Node) -> Iterator[tuple[list[str], yaml.Node]]:
    """Each policy of a document, and the path that leads to it."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if "policies" in keys:
            listed = node.value[keys.index("policies")][1]
            if len(keys) > 1 or not isinstance(listed, yaml.SequenceNode):
                raise InvalidInput(
                    {f"line {_line(node)}, policies": "Must be a list, with no other key beside."}
                )
            yield from (
                (["policies", str(number)], entry) for number, entry in enumerate(listed.value)
            )
            return
    yield [], node
