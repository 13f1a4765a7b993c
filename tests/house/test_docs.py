"""What the documentation says exists: files, links, names, commands, settings, problem types."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import get_commands
from django.test import Client, RequestFactory
from rest_framework import exceptions

from accessrequests.management.commands.policy import PATH as SCHEMA
from accessrequests.management.commands.policy import schema
from broker import errors, problem_pages
from broker.errors import KeyturnError
from broker.management.commands.request_states import PATH, page
from broker.problems import problem_response

ROOT = settings.BASE_DIR
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))

# The words of the design, each of which docs/glossary.md defines.
WORDS = (
    "endpoint",
    "access profile",
    "scope",
    "access request",
    "review",
    "grant",
    "credential",
    "check out",
    "lease",
    "accessor",
    "TTL",
    "revoke",
    "wrap",
    "rotate",
    "policy decision point (PDP)",
    "policy enforcement point (PEP)",
    "step-up",
    "break-glass",
    "finding",
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks in running text."""
    return re.findall("`([^`\n]+)`", FENCE.sub("", text))


def code(text: str) -> str:
    """All code of a page: its blocks and its spans, one a line."""
    return "\n".join([*FENCE.findall(text), *spans(text)])


def heading_ids(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


# Links, files, names, commands, settings


@each_page
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match("https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in heading_ids(there), target


@each_page
def test_files_and_folders_exist(path):
    for name in spans(path.read_text()):
        if re.fullmatch(r"[\w.][\w./-]*\.(?:py|md|hcl|ya?ml|html|css|js|toml|txt|in)", name):
            exists = (ROOT / name).exists() or ("/" not in name and any(ROOT.glob(f"*/{name}")))
            assert exists, f"there is no file {name}"
        elif re.fullmatch(r"[a-z][\w-]*/(?:[\w-]+/)*", name):
            assert (ROOT / name).is_dir(), f"there is no folder {name}"


@each_page
def test_names_are_in_the_file_that_is_named_with_them(path):
    text = FENCE.sub("", path.read_text())
    for name, file in re.findall(r"`([A-Za-z_][\w.]*)` in\s`([\w./-]+\.(?:py|hcl))`", text):
        last = name.rpartition(".")[2]
        assert re.search(rf"\b{last}\b", (ROOT / file).read_text()), f"{name} isn't in {file}"


@each_page
def test_commands_exist(path):
    text = code(path.read_text())
    targets = set(re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())


@each_page
def test_variables_are_those_of_the_example(path):
    example = (ROOT / ".env.example").read_text()
    known = set(re.findall("^#([A-Z_]+)=", example, re.MULTILINE))
    pattern = r"\b(?:KEYTURN|VAULT|GRANIAN|UVICORN)_[A-Z_]+[A-Z]\b"
    named = set(re.findall(pattern, path.read_text())) - known
    assert {name.removesuffix("_FILE") for name in named} <= known


def test_readme_opens_with_the_two_commands():
    first = FENCE.findall((ROOT / "README.md").read_text())[0]
    assert re.findall("^make .+?(?= *#|$)", first, re.MULTILINE)[:2] == ["make up", "make test"]


@each_page
def test_lines_are_short_and_clean(path):
    for line in FENCE.sub("", path.read_text()).splitlines():
        assert line == line.rstrip(), f"ends in white space: {line}"
        assert line.startswith("|") or "](" in line or len(line) <= 100, f"too long: {line}"


# The glossary and the decisions


def test_the_glossary_has_every_word():
    headings = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert set(WORDS) <= set(headings)
    assert headings == sorted(headings, key=str.lower)


def test_decisions_are_numbered_without_gaps():
    numbers = [int(path.name[:4]) for path in ADRS]
    assert numbers == list(range(1, len(ADRS) + 1))


def test_the_architecture_lists_every_decision_by_its_title():
    listed = re.findall(
        r"^(\d+\. )\[(.+)\]\(adr/(.+)\)$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    titles = [(path.read_text().split("\n")[0], path.name) for path in ADRS]
    assert [(f"# {number}{title}", name) for number, title, name in listed] == titles


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_each_decision_has_its_three_parts(path):
    text = path.read_text()
    assert re.match(rf"# {int(path.name[:4])}\. \w.+\n", text)
    parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequences"]


# docs/request-states.md


def test_request_states_are_those_of_the_code():
    assert PATH.read_text() == page(), "docs/request-states.md is stale: run `make docs`"


# docs/policy.schema.json


def test_the_schema_of_policies_is_that_of_the_code():
    assert SCHEMA.read_text() == schema(), "docs/policy.schema.json is stale: run `make docs`"


# /problems/<code>/


def tree(error: type[KeyturnError]) -> Iterator[type[KeyturnError]]:
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


OURS = [error for error in tree(KeyturnError) if error.__module__ == errors.__name__]
FRAMEWORKS = [
    exceptions.ParseError(),
    exceptions.MethodNotAllowed("PUT"),
    exceptions.NotAcceptable(),
    exceptions.UnsupportedMediaType("text/plain"),
    exceptions.ValidationError("no"),
    exceptions.NotAuthenticated(),
    exceptions.AuthenticationFailed(),
    exceptions.PermissionDenied(),
    exceptions.NotFound(),
]


def instance(error: type[KeyturnError]) -> KeyturnError:
    if issubclass(error, errors.InvalidInput):
        return error({"duration": "Must be shorter."})
    if issubclass(error, errors.TooManyTries):
        return error(retry_after=1)
    return error()


def answer(error: Exception) -> dict[str, Any]:
    request = RequestFactory().get("/api/v1/requests/")
    request.user = None  # type: ignore[assignment]  # so that no refusal is put on record
    response = problem_response(error, {"request": request})
    assert response is not None
    return dict(response.data)


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_each_problem_type_has_a_page(error):
    found = problem_pages.problem_types()[error.code]
    assert (found.status, found.title) == (error.status, error.title)
    assert error.__doc__.startswith(found.about[:20])
    assert error.code in problem_pages.WHAT_TO_DO


def test_no_page_is_about_nothing():
    assert set(problem_pages.WHAT_TO_DO) == {error.code for error in OURS}


@pytest.mark.parametrize(
    "error", [*map(instance, OURS), *FRAMEWORKS], ids=lambda error: type(error).__name__
)
def test_the_type_of_each_problem_is_the_address_of_its_page(error):
    said = answer(error)
    assert said["type"].startswith(settings.KEYTURN_BASE_URL + "/")
    response = Client().get(said["type"].removeprefix(settings.KEYTURN_BASE_URL))
    assert response.status_code == 200  # a stranger's, and not by way of a redirect
    assert "What to do" in response.content.decode()
    found = problem_pages.problem_types()[said["code"]]
    assert (found.status, found.title) == (said["status"], said["title"])


def test_the_index_lists_them_all():
    shown = Client().get("/problems/").content.decode()
    for code_ in problem_pages.problem_types():
        assert f'href="/problems/{code_}/"' in shown


def test_an_unknown_code_is_nothing():
    assert Client().get("/problems/no-such-problem/").status_code == 404
