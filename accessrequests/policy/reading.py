"""Policies as YAML: read with line and key of all that is wrong, and written back the same."""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from accessrequests.policy.document import PolicyDocument, parse
from accounts.plain_yaml import data_of, line_at, located, nodes
from broker.errors import InvalidInput


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


class _Dumper(yaml.SafeDumper):
    """Lists are set in, as people write them, and nothing becomes an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _entries(node: yaml.Node) -> Iterator[tuple[list[str], yaml.Node]]:
    """Each policy of a document, and the path that leads to it."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if "policies" in keys:
            listed = node.value[keys.index("policies")][1]
            if len(keys) > 1 or not isinstance(listed, yaml.SequenceNode):
                raise InvalidInput(
                    {f"line {line_at(node)}, policies": "Must be a list, with no other key beside."}
                )
            yield from (
                (["policies", str(number)], entry) for number, entry in enumerate(listed.value)
            )
            return
    yield [], node
