"""The OpenAPI document's idea of the API."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from django.conf import settings
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import get_lib_doc_excludes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.fields import ListField
from rest_framework.permissions import SAFE_METHODS, AllowAny

from accounts import idempotency
from accounts.api import ApiView, StrictSerializer, WordsField
from accounts.deprecation import Deprecation
from accounts.scope_permission import verb_for
from accounts.waiting import LONGEST, NAME
from broker.problem_pages import problem_types


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, in the form of RFC 9457."""

    type = serializers.URLField(help_text="Names the kind of problem, and has a page about it")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(required=False)
    code = serializers.CharField(help_text="the last part of `type`")
    errors = serializers.ListField(  # type: ignore[assignment]
        child=serializers.DictField(child=serializers.CharField()),
        required=False,
        help_text="for `invalid-input`: each field at fault, with its message",
    )


# Which problems of a status every call can answer with. Of other statuses it is all there are.
CODES = {
    "400": ["invalid-input"],
    "403": ["forbidden"],
    "409": ["conflict"],
    "422": ["idempotency-key-reused"],
}
# What those answer that take a person with a second factor.
_PROVED = ("needs-person", "step-up-needed")
_CHECKED_OUT = ("step-up-needed", "grant-not-live", "authority-lost", "checkout-in-progress")
# What else those calls can answer with that check more. The tests of the API meet no problem that
# the document doesn't name (tests/api/callers.py).
CODES_OF: dict[str, Sequence[str]] = {
    **dict.fromkeys(
        [
            "agents_create",
            "endpoints_prices_by_slug_create",
            "endpoints_prices_create",
            "endpoints_report_leak",
            "groups_create",
            "groups_members_create",
            "groups_members_remove",
            "groups_owners_create",
            "groups_owners_remove",
            "issuers_create",
            "issuers_partial_update",
            "issuers_retire",
            "people_create",
            "people_deactivate",
            "people_extend",
            "people_invite",
            "people_reactivate",
            "people_reset_factors_create",
            "people_roles_create",
            "people_sign_out",
            "policies_destroy",
            "requests_create",
            "requests_together",
            "reviews_create",
            "rotations_confirm",
            "stops_create",
            "stops_lift",
            "tokens_create",
            "workload_rules_create",
            "workload_rules_partial_update",
            "workload_rules_retire",
        ],
        _PROVED,
    ),
    **dict.fromkeys(
        ["me_change", "me_sessions_list", "me_session_end", "me_sessions_end_others"],
        ("needs-person", "token-scope"),
    ),
    **dict.fromkeys(["grants_credentials_create", "grants_credentials_refresh"], _CHECKED_OUT),
    "endpoints_keys_store": [*_PROVED, "unavailable"],
    "endpoints_rotate": [*_PROVED, "unavailable"],
    "changes_approve": ["second-person", *_PROVED, "stale-change"],
    "changes_reject": ["second-person", *_PROVED],
    "changes_withdraw": _PROVED,
    "credentials_unwrap": ["grant-not-live", "wrap-taken"],
    "policies_update": [*_PROVED, "stale-change"],
    "requests_cancel": ["already-decided"],
    "requests_hand_over": ["self-review", "already-decided"],
    "requests_reviews_create": ["self-review", *_PROVED, "already-decided", "authority-lost"],
    "webhooks_create": ["step-up-needed", "unavailable"],
    "webhooks_partial_update": ["step-up-needed"],
    "webhooks_rotate_secret": ["step-up-needed", "unavailable"],
}
KEY = OpenApiParameter(
    idempotency.HEADER,
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "header",
    description="one of your own for this call: repeated with it, the call is carried out once",
)
RATES = {
    "RateLimit-Policy": "how many calls of this kind in how many seconds",
    "RateLimit": "how many are left, and for how many seconds",
}
RETRY_AFTER = {
    "description": "seconds to wait",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    "405": {"Allow": {"required": True, "schema": {"type": "string"}}},
    "429": {"Retry-After": RETRY_AFTER},
    "503": {"Retry-After": RETRY_AFTER},
}


def doc_excludes() -> list[type[Any]]:
    """Whose docstrings are about code, and no words for readers of the document."""
    return [*get_lib_doc_excludes(), StrictSerializer]  # type: ignore[no-untyped-call]


TAGS = {"type": "string", "pattern": r'^(\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)$'}
MATCH = OpenApiParameter(
    "If-Match", TAGS, "header", description="ETag of what you looked at; if it changed, 412"
)
NONE_MATCH = OpenApiParameter(
    "If-None-Match", TAGS, "header", description="ETag of what you have; if it's still that, 304"
)
UNLESS = OpenApiParameter(
    "If-None-Match", TAGS, "header", description="`*`: only where there is nothing yet; else 412"
)
TAG = OpenApiParameter(
    "ETag", str, "header", description="changes with all that is shown", response=[200]
)
ASK_AGAIN = OpenApiParameter(
    "Retry-After",
    int,
    "header",
    description="seconds until you ask again, where this call didn't wait",
    response=[200],
)
EXPAND_IN = ("list", "retrieve", "decided")


def _wait(states: Sequence[str]) -> OpenApiParameter:
    return OpenApiParameter(
        NAME,
        # The same bounds as accounts.waiting refuses by.
        {"type": "integer", "minimum": 1, "maximum": LONGEST},
        description=f"seconds to wait while it is {' or '.join(states)}",
    )


def _expand(names: list[str]) -> OpenApiParameter:
    return OpenApiParameter(
        "expand",
        {"type": "array", "items": {"type": "string", "enum": names}},
        description="what comes along under `expanded`, with commas between",
        style="form",
        explode=False,
    )


class Schema(AutoSchema):
    """Names operations, and adds to each the problems that it can answer with."""

    def get_tags(self) -> list[str]:
        """Operations are grouped by the resource: the first part of the path."""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def get_operation_id(self) -> str:
        """`requests_create`, `requests_reviews_list`; where the path has a verb, `requests_cancel`.

        Clients are generated with these names: renaming one breaks them.
        """
        name: str = super().get_operation_id()
        if getattr(self.view, "action", "") == "create":
            return name
        # What a POST adds a row to is named in the plural.
        verb = name.removesuffix("_create")
        return name if verb.endswith("s") else verb

    def get_operation(self, *args: Any, **options: Any) -> Any:
        """One operation; the ways to sign in say which verb an API token must be for."""
        operation: Any = super().get_operation(*args, **options)
        verb = verb_for(self.view, self.method)
        scope = {"apiToken": [verb.value]} if verb is not None else {}
        if operation is not None:
            operation["security"] = [
                {name: scope.get(name, []) for name in way} for way in operation["security"]
            ]
        return operation

    def get_override_parameters(self) -> list[Any]:
        """What every call takes that changes something; and tags, `wait` and `expand`."""
        anybodys = AllowAny in self.view.permission_classes
        if self.method in SAFE_METHODS or anybodys or not isinstance(self.view, ApiView):
            return [*self._parameters()]
        return [*self._parameters(), KEY]

    def is_deprecated(self) -> bool:
        """What is to go says so."""
        return hasattr(self.view, "deprecation")

    def get_description(self) -> str:  # type: ignore[override]
        """A list says what it holds; one of its rows needs no more words."""
        if getattr(self.view, "action", "") == "retrieve":
            return "One of them, by its id."
        words: str = super().get_description()
        going: Deprecation | None = getattr(self.view, "deprecation", None)
        if going is not None:
            words += f" Use `{going.instead}` instead: this one ends on {going.sunset}."
        return words

    def _map_serializer_field(self, field: Any, *args: Any, **options: Any) -> Any:
        if isinstance(field, serializers.ChoiceField) and field.read_only:
            # DRF doesn't ask the model of a field that is only read whether it may be blank.
            model = getattr(getattr(field.parent, "Meta", None), "model", None)
            columns = {each.name: each for each in model._meta.fields} if model else {}
            column = columns.get(field.source)
            field.allow_blank = field.allow_blank or bool(column and column.blank)
        return super()._map_serializer_field(field, *args, **options)  # type: ignore[no-untyped-call]

    def _insert_field_validators(self, field: Any, schema: dict[str, Any]) -> None:
        super()._insert_field_validators(field, schema)  # type: ignore[no-untyped-call]
        inside = field.parent.parent if isinstance(field.parent, ListField) else field.parent
        blank = getattr(field, "allow_blank", True) and not isinstance(field, WordsField)
        if isinstance(inside, StrictSerializer) and not field.read_only and not blank:
            schema.setdefault("minLength", 1)

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, StrictSerializer):
            schema["additionalProperties"] = False
        return schema

    def _parameters(self) -> Iterator[OpenApiParameter]:
        view: Any = self.view
        name = getattr(view, "action", None) or self.method.lower()
        if self.method == "GET":
            if name in getattr(view, "tagged", ()):
                yield from (NONE_MATCH, TAG)
            if name == "retrieve" and getattr(view, "waits_while", ()):
                yield from (_wait(view.waits_while), ASK_AGAIN)
            if name in EXPAND_IN and getattr(view, "expansions", {}):
                yield _expand(sorted(view.expansions))
        elif name in getattr(view, "if_match", ()):
            yield MATCH
            if self.method == "PUT":
                yield UNLESS

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        statuses = {"401", "403", "429"}
        # Also without an id in the address: what isn't for the caller isn't there, nor is what a
        # body names and they may not see.
        if "{" in self.path or KEY in self.get_override_parameters():
            statuses.add("404")
        taken = {each.name for each in self._parameters()}
        if MATCH.name in taken:
            statuses.add("412")
        if NONE_MATCH.name in taken and self.method == "GET":
            bodies["304"] = {"description": "it is what If-None-Match names"}
            statuses.add("412")
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses |= {"400", "409", "413", "415"}
        if KEY in self.get_override_parameters():
            statuses |= {"400", "409", "422"}
        if self.method == "GET":
            statuses |= {"400", "404"}  # a filter's value, a cursor
        asks_vault = ("credentials", "introspect", "revoke")
        if self.method == "POST" and any(part in self.path for part in asks_vault):
            statuses.add("503")
        more = CODES_OF.get(self.get_operation_id(), [])
        statuses |= {str(problem_types()[code].status) for code in more}
        for status in sorted(statuses - set(bodies)):
            bodies[status] = self._problem(status)
        for status, body in bodies.items():
            if isinstance(self.view, ApiView) and (status < "300" or status == "429"):
                rates = {name: {"$ref": f"#/components/headers/{name}"} for name in RATES}
                body["headers"] = body.get("headers", {}) | rates
        return bodies

    def _problem(self, status: str) -> dict[str, Any]:
        kinds = problem_types()
        every = [code for code, kind in kinds.items() if kind.status == int(status)]
        codes = [*CODES.get(status, every), *CODES_OF.get(self.get_operation_id(), [])]
        if status == "400" and self.method != "GET":
            codes.append("parse-error")
        if status == "409" and KEY in self.get_override_parameters():
            codes += ["idempotency-in-progress", "idempotency-answer-not-kept"]
        if status == "403" and any("apiToken" in way for way in self.get_auth()):
            codes.append("token-scope")
        mine = [code for code in dict.fromkeys(codes) if code in every]
        body: dict[str, Any] = self._get_response_for_code(  # type: ignore[no-untyped-call]
            ProblemSerializer, status, media_types=["application/problem+json"]
        )
        body["description"] = "; ".join(f"`{code}`: {kinds[code].title}" for code in mine)
        body["content"]["application/problem+json"]["examples"] = {
            code: {"$ref": f"#/components/examples/{code}"} for code in mine
        }
        if headers := body.get("headers", {}) | HEADERS.get(status, {}):
            body["headers"] = headers
        return body


# The members that these have of their own.
EXTRA: dict[str, dict[str, Any]] = {
    "invalid-input": {
        "detail": "duration: Must be at most 12 hours for this profile.",
        "errors": [
            {"field": "duration", "message": "Must be at most 12 hours for this profile."},
        ],
    },
    "already-decided": {
        "state": "denied",
        "decided_at": "2026-11-23T10:00:00Z",
        "decided_by": "Ben Okafor (ben@example.com)",
    },
    "step-up-needed": {"purposes": ["review:0199f3a2-6c1e-7b5a-9d0e-3f6a1c2b4d5e"]},
}


def problem_example(code: str, path: str) -> dict[str, Any]:
    """What an answer with this problem, to a call of `path`, looks like."""
    kind = problem_types()[code]
    return {
        "type": f"{settings.KEYTURN_BASE_URL}/problems/{code}/",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.about,
        "instance": path,
        "code": code,
        **EXTRA.get(code, {}),
    }


def add_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Put an example of each problem, and headers, where the answers refer to them. A
    postprocessing hook."""
    result["components"]["headers"] = {
        name: {"description": about, "schema": {"type": "string"}} for name, about in RATES.items()
    }
    result["components"]["examples"] = {
        code: {"value": problem_example(code, "/api/v1/requests/")} for code in problem_types()
    }
    return result


def link(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Tell by OpenAPI links what can follow: from a list or what was made to its rows' own calls,
    and from a request by its grant to a credential. A postprocessing hook."""
    paths = result["paths"]
    for path, item in paths.items():
        row = f"{path}{{id}}/"
        within = {
            operation["operationId"]
            for other, operations in paths.items()
            if other.startswith(row) and other.count("{") == 1
            for operation in operations.values()
        }
        for method, status, pointer in (("get", "200", "/results/0/id"), ("post", "201", "/id")):
            answer = item.get(method, {}).get("responses", {}).get(status)
            if answer and within:
                found = {name: _to(name, id=f"$response.body#{pointer}") for name in sorted(within)}
                answer["links"] = found
    for (path, method, status), names in FOLLOWS.items():
        answer = paths[path][method]["responses"][status]
        answer.setdefault("links", {}).update(
            {name: _to(name, **parameters) for name, parameters in names.items()}
        )
    return result


def _to(operation: str, **parameters: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": parameters}


# From (path, method, status) to operations, with where their parameters come from.
FOLLOWS = {
    ("/api/v1/requests/", "post", "201"): {"grants_list": {"request": "$response.body#/id"}},
    ("/api/v1/requests/{id}/", "get", "200"): {
        "grants_list": {"request": "$response.body#/id"},
        "grants_credentials_create": {"id": "$response.body#/grant"},
    },
    ("/api/v1/grants/{id}/credentials/", "post", "201"): {
        "credentials_retrieve": {"id": "$response.body#/credential/id"},
        "credentials_unwrap": {"id": "$response.body#/credential/id"},
        "grants_end": {"id": "$response.body#/credential/grant"},
    },
    ("/api/v1/grants/{id}/end/", "post", "200"): {
        "credentials_list": {"grant": "$response.body#/id"}
    },
}
