"""docs/policies.md has every key, variable and function."""

import re

from django.conf import settings

from accessrequests.policy import cel
from accessrequests.policy.cases import CaseFile
from accessrequests.policy.document import PolicyDocument, json_schema
from accessrequests.policy.reading import read

PAGE = (settings.BASE_DIR / "docs" / "policies.md").read_text()


def rows() -> list[str]:
    """The table of variables as the code has it."""
    found = []
    for name, parts in cel.VARIABLES.items():
        fields = [("", parts)] if isinstance(parts, cel.Variable) else _fields(parts)
        for suffix, field in fields:
            about = field.about or ", ".join(f"`'{value}'`" for value in field.values)
            found.append(f"| `{name}{suffix}` | {field.type} | {about} |")
    return found


def _fields(parts: dict[str, cel.Variable]) -> list[tuple[str, cel.Variable]]:
    return [(f".{name}", field) for name, field in parts.items()]


def test_the_table_of_variables():
    assert (
        re.findall(
            r"^\| `(?:requester|request|behalf|profile|endpoint|now)\b.*\|$", PAGE, re.MULTILINE
        )[: len(rows())]
        == rows()
    )


def test_every_function_is_there():
    functions = PAGE.partition("Functions:")[2].partition("Operators are")[0]
    named = set(re.findall(r"`\.?(\w+)\(", functions))
    assert named == {*cel.FUNCTIONS, *cel.METHODS, *cel.MACROS}


def test_every_key_is_there():
    models = [json_schema(), CaseFile.model_json_schema()]
    keys = {
        key
        for schema in models
        for part in [schema, *schema["$defs"].values()]
        for key in part["properties"]
    }
    text = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"[a-z_]+", " ".join(re.findall("`([^`\n]+)`", text))))
    assert keys - named - {"cases", "policies", "expression", "message"} == set()


def test_the_examples_on_it_are_policies():
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(read(blocks[0])[0], PolicyDocument)
    for line in blocks[1].splitlines():
        cel.compile(line.removeprefix("- "))
