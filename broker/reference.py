"""The API's reference page, made from the OpenAPI document, so that the two can't disagree."""

import functools
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from broker.problems import MEDIA_TYPE as PROBLEM
from broker.schema import problem_example

FORM = "application/x-www-form-urlencoded"
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
    "date": "2026-11-23",
    "email": "ana@example.com",
    "uri": "https://keyturn.example.com/",
    "duration": "PT1H",
    "justification": "Find out why ticket 4711 failed.",
    "reason": "Two hours are enough for this.",
    "full_name": "Noor Aziz",
    "time_zone": "Europe/Berlin",
    "name": "Night shift",
    "slug": "night-shift",
    "text": "Which prompt is it about?",
    "note": "As agreed on Monday.",
    "ends_at": "2026-11-30T08:00:00Z",
    "chat_handle": "ana",
    "ticket": "INC-4711",
    "models": "small",
    "model": "small",
    "endpoint": "research-models",
    "endpoints": "research-models",
    "input_price": "0.15",
    "output_price": "0.60",
    "token": "the-secret",
    "key": "the-key",
    "kind": "database",
    "target": "research-models",
    "secret": "kt_gw_01m84q1zrttqn9xq3ffrf6j55h_…",
    "base_url": "https://gateway.keyturn.example.com/e/research-models",
    "gateway_url": "https://gateway.keyturn.example.com/e/research-models",
    "url": "https://keyturn.example.com/requests/0199f3a2-6c1e-7b5a-9d0e-3f6a1c2b4d5e/",
    "groups": "engineers",
    "description": "For experiments, with nobody's data.",
    "connected_systems": "the CRM",
    "dialects": "openai",
    "label": "Make Mei Tanaka a member of Engineers",
    "what": "Members",
    "before": "5 people",
    "after": "also Mei Tanaka",
    "tools": "get_weather",
    "mcp_hosts": "mcp.example.com",
    "operations": "GET /api/",
    "cost_budget": "12.50",
    "cost": "0.0012",
    "sentence": "Ben approved your access to Research models.",
    "value": "1 hour",
    "quote": "As agreed on Monday.",
    "decided_by": "",
    "ended_by": "",
    "end_reason": "",
    "state": "pending",
    "event": "access_request:filed",
    "actor": "Ana Silva (ana@example.com)",
    "via": "api",
    "address": "203.0.113.7",
    "trace": "0199f3a2-6c1e-7b5a-9d0e-3f6a1c2b4d5e",
    "subject_kind": "access_request",
    "subject": "Research models, Experiment",
    "proof": "Vault doesn't know its accessor any more.",
    "method": "POST",
    "path": "/v1/chat/completions",
    "client": "openai-python",
    "credential": "A key for this endpoint at Keyturn's gateway, and for nothing else.",
    "profile": "experiment",
    "rotator": "openai_admin",
    "message": "Must be at most 12 hours for this profile.",
    "field": "duration",
    "differences": "2 hours instead of 1 hour",
    "scope": "small",
    "username": "ana@example.com",
    "aud": "research-models",
    "token_type": "Bearer",
    "aliases": "fast",
    "default_models": "small",
    "requesters": "engineers",
    "reviewers": "leads",
    "created_by": "Keyturn",
    "changed_by": "Keyturn",
    "why": "asked",
    "owns_groups": "engineers",
    "id": "01m84q1zrttqn9xq3ffrf6j55h",
    "how": "passkey",
    "browser": "Firefox on Linux",
    "run": "https://gitlab.example.com/acme/evals/-/jobs/4711",
    "task": "Nightly evaluation",
    "issuer": "https://token.actions.githubusercontent.com",
    "audience": "https://keyturn.example.com",
    "jwks_uri": "",
    "up_to": "PT1H",
    "default_duration": "PT1H",
    "max_duration": "PT12H",
    "credential_kind": "gateway_token",
    "last_error": "",
    "waits_for": "",
    "refusal": "",
    "tools_declared": "get_weather",
    "tools_called": "get_weather",
    "document": {
        "slug": "two-people",
        "name": "Two people for production",
        "applies_to": {"endpoints": ["research-models"]},
        "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}, "approvals": 2}],
    },
}
_NUMBERS = {
    "token_budget": 200000,
    "digest_hour": 8,
    "status": 200,
    "input_tokens": 12,
    "output_tokens": 48,
    "charged_tokens": 60,
    "request_bytes": 310,
    "response_bytes": 822,
    "first_byte_ms": 180,
    "duration_ms": 640,
    "days": 30,
    "total": 1,
    "iat": 1795428000,
    "nbf": 1795428000,
    "exp": 1795431600,
}
# What an example says no to, and what it has none of.
_FALSE = {
    "automatic",
    "break_glass",
    "skipped",
    "is_administrator",
    "is_auditor",
    "is_rota",
    "wrapped",
    "wrap",
    "stop",
    "open_again",
    "streamed",
}
_NULL = {
    "next",
    "previous",
    "extends",
    "extended_by",
    "raises",
    "together",
    "review_owed",
    "retired_at",
    "revoking_since",
    "revoked_at",
    "stuck_since",
    "next_attempt_at",
    "lifted_at",
    "lifted_by",
    "manager",
    "owner",
    "ends_at",
    "read_at",
    "expires_at",
    "decided_at",
    "needs_factor_within",
    "ended_at",
    "grant",
    "decided_by",
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
class Problem:
    """One error that a call can answer with."""

    status: str
    code: str
    title: str
    example: str


@dataclass
class Answer:
    """One status that a call can answer with."""

    status: str
    words: str
    fields: list[Field] = field(default_factory=list)
    example: str = ""


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
    problems: list[Problem]
    curl: str
    python: str


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

    def sample(self, schema: dict[str, Any], name: str = "", *, answer: bool = False) -> Any:
        """A value that shows what to send, or what an answer has."""
        if answer and name in _NULL and "null" in self.type(schema):
            return None
        schema = self.whole(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            likely = (_SAMPLES.get(name), "active", schema["enum"][0])
            return next(each for each in likely if each in schema["enum"])
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next(each for each in kind if each != "null")
        if kind == "object" and "properties" in schema:
            needed = schema.get("required", [])
            shown = {*needed, "models", "token_budget"} if answer else {*needed}
            return {
                key: self.sample(inner, key, answer=answer)
                for key, inner in schema["properties"].items()
                if key in shown or not (answer or key in _LEFT_OUT)
                if answer or not inner.get("readOnly")
            }
        if kind == "object" or name == "data":
            return _SAMPLES["document"] if name == "document" else {}
        if kind == "array":
            return [self.sample(schema["items"], name, answer=answer)]
        if kind == "string" and schema.get("format") in {"uuid", "email"}:
            return _SAMPLES[schema["format"]]
        if name in _SAMPLES and kind in {"string", None}:
            return _SAMPLES[name]
        if kind == "string" and schema.get("format") in _SAMPLES:
            return _SAMPLES[schema["format"]]
        if kind == "boolean":
            return name not in _FALSE
        if kind in {"integer", "number"}:
            return _NUMBERS.get(name, schema.get("minimum", 1))
        return name.replace("_", " ") if answer else "text"

    def call(self, path: str, method: str, operation: dict[str, Any]) -> Call:
        """One operation as the page shows it."""
        bodies: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
        media_type = next(iter(bodies), "")
        body = bodies[media_type]["schema"] if bodies else None
        answers: list[Answer] = []
        problems: list[Problem] = []
        for status, answer in sorted(operation["responses"].items()):
            told: dict[str, Any] = answer.get("content", {})
            if PROBLEM in told:
                problems += self.problems(status, path, told[PROBLEM])
                continue
            schema: dict[str, Any] = next((each["schema"] for each in told.values()), {})
            words = "a page of" if "Paginated" in json.dumps(schema) else ""
            example = json.dumps(self.sample(schema, answer=True), indent=2) if schema else ""
            answers.append(Answer(status, words, self.fields(schema) if schema else [], example))
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
            problems=problems,
            curl=self.curl(path, method, media_type, body, operation.get("security", [])),
            python=self.python(path, method, media_type, body, operation.get("security", [])),
        )

    def problems(self, status: str, path: str, content: dict[str, Any]) -> list[Problem]:
        """The errors that a call of `path` can answer with by this status."""
        examples = {code: problem_example(code, path) for code in content["examples"]}
        return [
            Problem(status, code, example["title"], json.dumps(example, indent=2))
            for code, example in examples.items()
        ]

    def curl(
        self,
        path: str,
        method: str,
        media_type: str,
        body: dict[str, Any] | None,
        ways: list[dict[str, Any]],
    ) -> str:
        """The call with curl, by a token where one will do."""
        lines = [f"curl {settings.KEYTURN_BASE_URL}{path}"]
        if method != "get":
            lines[0] = f"curl -X {method.upper()} {settings.KEYTURN_BASE_URL}{path}"
        if {} in ways:
            pass
        elif any("apiToken" in way for way in ways):
            lines.append('-H "Authorization: Bearer $KEYTURN_TOKEN"')
            if any("secondFactor" in way for way in ways):
                lines.append('-H "Keyturn-Second-Factor: 123456"')
        else:
            names = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)
            lines.append('-b "{}=$SESSION; {}=$CSRF"'.format(*names))
            lines.append('-H "X-CSRFToken: $CSRF"')
        if body and media_type == FORM:
            sample = self.sample(body)
            lines += [f"--data-urlencode '{name}={value}'" for name, value in sample.items()]
        elif body:
            lines.append('-H "Content-Type: application/json"')
            lines.append(f"-d '{json.dumps(self.sample(body))}'".replace("'s ", "’s "))
        return " \\\n  ".join(lines)

    def python(
        self,
        path: str,
        method: str,
        media_type: str,
        body: dict[str, Any] | None,
        ways: list[dict[str, Any]],
    ) -> str:
        """The same in Python, with httpx."""
        given = []
        imports = "import httpx"
        if {} in ways:
            pass
        elif any("apiToken" in way for way in ways):
            imports = "import os\n\nimport httpx"
            headers = ['"Authorization": f"Bearer {os.environ[\'KEYTURN_TOKEN\']}"']
            if any("secondFactor" in way for way in ways):
                headers.append('"Keyturn-Second-Factor": "123456"')
            given += ["headers={", *(f"    {each}," for each in headers), "},"]
        else:
            session, csrf = settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME
            imports = "import os\n\nimport httpx"
            given += [
                "cookies={",
                f'    "{session}": os.environ["SESSION"],',
                f'    "{csrf}": os.environ["CSRF"],',
                "},",
                'headers={"X-CSRFToken": os.environ["CSRF"]},',
            ]
        if body:
            text = json.dumps(self.sample(body), indent=4, ensure_ascii=False)
            for here, there in (("true", "True"), ("false", "False"), ("null", "None")):
                text = re.sub(rf"(: |^ +){here}\b", rf"\g<1>{there}", text)
            name = "data" if media_type == FORM else "json"
            given += f"{name}={text},".splitlines()
        lines = [f'"{settings.KEYTURN_BASE_URL}{path}",', *given]
        arguments = "".join(f"    {line}\n" for line in lines)
        shown = "" if method == "delete" else "\nprint(answer.json())"
        if {} in ways:
            shown = ""
        return (
            f"{imports}\n\nanswer = httpx.{method}(\n{arguments})\nanswer.raise_for_status(){shown}"
        )


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
