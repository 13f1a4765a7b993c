"""The OpenAPI document: as committed, named, and with examples that are what it says."""

import ast
import io
import json
import re
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from jsonschema import Draft202012Validator

from broker.problem_pages import problem_types
from broker.reference import FORM, VERBS, resources
from broker.schema import CODES_OF, problem_example

PATH = settings.BASE_DIR / "docs" / "openapi.yaml"
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def text() -> str:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    return out.getvalue()


@pytest.fixture(scope="module")
def document(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def operations(document: Any) -> list[tuple[str, str, Any]]:
    """(path, method, operation), but for what gives the document itself."""
    return [
        (path, method, item[method])
        for path, item in document["paths"].items()
        for method in VERBS
        if method in item
    ]


def faults(document: Any, schema: Any, value: Any) -> list[str]:
    whole = {"components": document["components"], **schema}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{each.json_path}: {each.message}" for each in validator.iter_errors(value)]


def test_the_committed_document_is_the_current_one(text: str) -> None:
    """So that what changes for clients is seen in a review. `make docs` writes it."""
    assert PATH.read_text().strip() == text.strip(), "make docs"


def test_it_is_of_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")


def test_operations_are_named_once_and_readably(document: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z]+(_[a-z]+)+|introspect|revoke|token", name) for name in names)
    assert {"requests_create", "requests_cancel", "grants_credentials_create"} <= set(names)


def test_every_error_is_a_problem_that_has_a_page(document: Any) -> None:
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status < "400":
                continue
            assert list(answer["content"]) == [PROBLEM], (method, path, status)
            codes = answer["content"][PROBLEM]["examples"].keys()
            assert codes, (method, path, status)
            for code in codes:
                assert problem_types()[code].status == int(status)


def test_each_operation_names_what_it_checks_more(document: Any) -> None:
    named = {
        operation["operationId"]: {
            code
            for answer in operation["responses"].values()
            for code in answer.get("content", {}).get(PROBLEM, {}).get("examples", ())
        }
        for _, _, operation in operations(document)
    }
    for name, codes in CODES_OF.items():
        assert set(codes) <= named[name], name


def test_links_lead_to_operations_with_parameters_that_they_have(document: Any) -> None:
    taken = {
        operation["operationId"]: {each["name"] for each in operation.get("parameters", [])}
        for _, _, operation in operations(document)
    }
    found = [
        each
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for each in answer.get("links", {}).values()
    ]
    assert found
    for each in found:
        assert each["parameters"].keys() <= taken[each["operationId"]], each


def test_the_examples_of_bodies_are_valid(document: Any) -> None:
    shown = {(call.path, call.method.lower()): call for r in resources() for call in r.calls}
    found = []
    for path, method, operation in operations(document):
        if (path, method) not in shown:
            continue
        call = shown[path, method]
        ast.parse(call.python)
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            body = re.search("-d '(.*)'", call.curl)
            assert body, call.curl
            schema = content["application/json"]["schema"]
            sent = json.loads(body[1])
            found += [
                (path, method, each)
                for each in faults(document, schema, sent)
                # `required` is also of answers, where it's of what can't be sent too.
                if not re.search(r"'(chat|email)_on' is a required", each)
            ]
        elif content:
            assert FORM in content
            assert "--data-urlencode" in call.curl
        for answer in call.answers:
            if answer.example:
                told = operation["responses"][answer.status]["content"]
                schema = told["application/json"]["schema"]
                value = json.loads(answer.example)
                found += [(path, method, each) for each in faults(document, schema, value)]
    assert not found


def test_the_examples_of_problems_are_valid(document: Any) -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    for code in problem_types():
        assert not faults(document, schema, problem_example(code, "/api/v1/requests/"))
