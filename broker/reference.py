"""The API's reference page, made from the OpenAPI document, so that the two can't disagree."""

import functools
import json
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

VERBS = ("get", "post", "put", "patch", "delete")
# What a reader meets first: asking, then what comes of it.
ORDER = (
    "me",
    "endpoints",
    "profiles",
    "requests",
    "approvals",
    "absences",
    "grants",
    "live",
    "credentials",
    "rotations",
    "operations",
    "notifications",
    "policies",
    "changes",
    "people",
    "groups",
    "tokens",
    "audit",
)
_SAMPLES = {
    "uuid": "0199f3a2-6c1e-7b5a-9d0e-3f6a1c2b4d5e",
    "date-time": "2026-11-23T10:00:00Z",
    "email": "ana@example.com",
    "uri": "https://keyturn.example.com/",
    "duration": "PT1H",
    "justification": "Find out why ticket 4711 failed.",
    "reason": "Two hours are enough for this.",
    "text": "Which prompt is it about?",
    "note": "As agreed on Monday.",
    "ends_at": "2026-11-30T08:00:00Z",
    "chat_handle": "ana",
    "ticket": "INC-4711",
    "models": "small",
    "model": "small",
    "endpoint": "research-models",
    "input_price": "0.15",
    "output_price": "0.60",
    "token": "the-secret",
    "document": {
        "slug": "two-people",
        "name": "Two people for production",
        "applies_to": {"endpoints": ["research-models"]},
        "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}, "approvals": 2}],
    },
}
# What most bodies leave out; with all of it at once an example would be refused.
_LEFT_OUT = {
    "extends",
    "raises",
    "break_glass",
    "scope",
    "starts_at",
    "token_type_hint",
    "open_again",
    "since",
}


@dataclass
class Field:
    """One field or parameter, as a row."""

    name: str
    type: str
    about: str = ""
    required: bool = False
    values: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """One status that a call can answer with."""

    status: str
    words: str
    fields: list[Field] = field(default_factory=list)


@dataclass
class Call:
    """One operation."""

    key: str
    method: str
    path: str
    about: str
    parameters: list[Field]
    body: list[Field]
    answers: list[Answer]
    example: str

    @property
    def problems(self) -> list[str]:
        """The statuses that come with problem details."""
        return [answer.status for answer in self.answers if answer.words == "a problem"]


@dataclass
class Resource:
    """Calls of the same first part of the path."""

    name: str
    calls: list[Call]


class _Document:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """With references followed, one level."""
        while True:
            if "$ref" in schema:
                name = schema["$ref"].rpartition("/")[2]
                schema = self.document["components"]["schemas"][name]
            elif len(schema.get("allOf", [])) == 1:
                outer = {key: value for key, value in schema.items() if key != "allOf"}
                schema = {**self.schema(schema["allOf"][0]), **outer}
            else:
                return schema

    def type(self, schema: dict[str, Any]) -> str:
        """Words for a type: `string (uuid) or null`, `list of string`."""
        schema = self.schema(schema)
        options = schema.get("oneOf") or schema.get("anyOf")
        if options:
            return " or ".join(dict.fromkeys(self.type(option) for option in options))
        kinds = schema.get("type", "any")
        words = []
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if kind == "array":
                words.append(f"list of {self.type(schema.get('items', {}))}")
            elif kind == "string" and schema.get("format"):
                words.append(f"string ({schema['format']})")
            else:
                words.append(kind)
        return " or ".join(words)

    def values(self, schema: dict[str, Any]) -> list[str]:
        """What an enumeration allows."""
        schema = self.schema(schema)
        found = [str(value) for value in schema.get("enum", []) if value not in {None, ""}]
        for option in [*schema.get("oneOf", []), *([schema["items"]] if "items" in schema else [])]:
            found += self.values(option)
        return found

    def fields(self, schema: dict[str, Any], *, writing: bool = False) -> list[Field]:
        """The fields of an object, or of the rows of a page; `steps[].name` is of each step."""
        schema = self.schema(schema)
        if "items" in schema:
            return self.fields(schema["items"])
        if "results" in schema.get("properties", {}):
            return self.fields(schema["properties"]["results"])
        needed = schema.get("required", []) if writing else []
        found = []
        for name, inner in schema.get("properties", {}).items():
            found.append(
                Field(
                    name=name,
                    type=self.type(inner),
                    about=inner.get("description", ""),
                    required=name in needed,
                    values=self.values(inner),
                )
            )
            within = f"{name}[]." if self.schema(inner).get("type") == "array" else f"{name}."
            found += [
                replace(each, name=within + each.name)
                for each in self.fields(self.whole(inner), writing=writing)
            ]
        return found

    def whole(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Without the alternative that it's null."""
        schema = self.schema(schema)
        return self.schema(schema["oneOf"][0]) if "oneOf" in schema else schema

    def sample(self, schema: dict[str, Any], name: str = "") -> Any:
        """A value that shows what to send."""
        schema = self.whole(schema)
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next(each for each in kind if each != "null")
        if kind == "object" and "properties" in schema:
            return {
                key: self.sample(inner, key)
                for key, inner in schema["properties"].items()
                if key not in _LEFT_OUT and not inner.get("readOnly")
            }
        if kind == "array":
            return [self.sample(schema["items"], name)]
        if name in _SAMPLES:
            return _SAMPLES[name]
        if kind == "string" and schema.get("format") in _SAMPLES:
            return _SAMPLES[schema["format"]]
        if kind in {"boolean", "integer", "number"}:
            return kind == "boolean" or 1
        return "text"

    def call(self, path: str, method: str, operation: dict[str, Any]) -> Call:
        """One operation as the page shows it."""
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        body = content.get("schema")
        answers = []
        for status, answer in sorted(operation["responses"].items()):
            bodies: list[dict[str, Any]] = list(answer.get("content", {}).values())
            schema = bodies[0].get("schema", {}) if bodies else {}
            problem = "Problem" in json.dumps(schema)
            fields = [] if problem or not schema else self.fields(schema)
            paged = "Paginated" in json.dumps(schema)
            words = "a problem" if problem else "a page of" if paged else ""
            answers.append(Answer(status, words, fields))
        parameters = [
            Field(
                name=item["name"],
                type=self.type(item["schema"]),
                about=item.get("description", ""),
                required=item.get("required", False),
                values=self.values(item["schema"]),
            )
            for item in operation.get("parameters", [])
        ]
        return Call(
            key=operation["operationId"].replace("_", "-"),
            method=method.upper(),
            path=path,
            about=operation.get("description", ""),
            parameters=parameters,
            body=self.fields(body, writing=True) if body else [],
            answers=answers,
            example=self.example(path, method, body, operation.get("security", [])),
        )

    def example(
        self, path: str, method: str, body: dict[str, Any] | None, ways: list[dict[str, Any]]
    ) -> str:
        """The call with curl, by a token where one will do."""
        lines = [f"curl {settings.KEYTURN_BASE_URL}{path}"]
        if method != "get":
            lines[0] = f"curl -X {method.upper()} {settings.KEYTURN_BASE_URL}{path}"
        if any("apiToken" in way for way in ways):
            lines.append('-H "Authorization: Bearer $KEYTURN_TOKEN"')
        else:
            names = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)
            lines.append('-b "{}=$SESSION; {}=$CSRF"'.format(*names))
            lines.append('-H "X-CSRFToken: $CSRF"')
        if body:
            lines.append('-H "Content-Type: application/json"')
            lines.append(f"-d '{json.dumps(self.sample(body))}'".replace("'s ", "’s "))
        return " \\\n  ".join(lines)



def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


@functools.cache
def resources() -> list[Resource]:
    """Everything that the OpenAPI document holds, grouped and in reading order."""
    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    reader = _Document(document)
    found: dict[str, list[Call]] = {}
    for path, item in document["paths"].items():
        for method in VERBS:
            if method in item and path != "/api/v1/schema/":
                call = reader.call(path, method, item[method])
                found.setdefault(item[method]["tags"][0], []).append(call)
    return [Resource(name, found[name]) for name in sorted(found, key=_place)]


@login_not_required
@require_safe
def api_reference(request: HttpRequest) -> HttpResponse:
    """Every call, with its fields, answers and an example."""
    return render(
        request,
        "reference.html",
        {"resources": resources(), "base_url": settings.KEYTURN_BASE_URL},
    )
