"""A policy as its administrators write it: plain data, checked whole.

One definition gives the types that the code works with, the errors that an editor reads, and the
JSON Schema that docs/policy.schema.json publishes.
"""

import datetime as dt
import difflib
import re
import types
import unicodedata
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from accessrequests.policy import cel
from broker.errors import InvalidInput

SHORTEST, LONGEST = dt.timedelta(minutes=1), dt.timedelta(days=365)

RESERVED = frozenset({"new", "schema"})  # they stand where a policy's slug does in addresses
_SLUG = r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"
_PROFILE = r"^[a-z0-9-]{1,50}/[a-z0-9-]{1,50}$"
_EMAIL = r"^[^@\s]+@[^@\s]+$"
_ISO = (
    r"^P(?=[0-9T])(([0-9]{1,3})W)?(([0-9]{1,4})D)?"
    r"(T(?=[0-9])(([0-9]{1,5})H)?(([0-9]{1,6})M)?(([0-9]{1,8})S)?)?$"
)
_IN_WORDS = {
    _SLUG: "Use up to 50 lower-case letters, digits and hyphens, with no hyphen at either end",
    _PROFILE: "Name a profile as <endpoint>/<profile>, such as research-models/experiment",
    _EMAIL: "Give an email address",
}


def _readable(text: str) -> str:
    """Refuse what YAML, PostgreSQL or a terminal would not take as it is."""
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n" for c in text):
        raise PydanticCustomError("characters", "Leave control characters out", {})
    return text


def _compiled(expression: str) -> str:
    try:
        cel.compile(expression)
    except cel.BadExpression as error:
        raise PydanticCustomError("cel", "{why}", {"why": str(error)}) from error
    return expression


def _pattern(text: str) -> str:
    try:
        cel.check_pattern(text)
    except cel.BadExpression as error:
        raise PydanticCustomError("pattern", "{why}", {"why": str(error)}) from error
    return text


def _iso_duration(value: object) -> dt.timedelta:
    """Nothing but ISO 8601 text: a bare number has no unit, and months have no length."""
    if isinstance(value, dt.timedelta):
        return value
    found = re.fullmatch(_ISO, value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "duration",
            "Give an ISO 8601 duration such as PT30M, PT8H or P7D, without months or years",
            {},
        )
    weeks, days, hours, minutes, seconds = (int(found[n] or 0) for n in (2, 4, 7, 9, 11))
    return dt.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def _within(value: dt.timedelta) -> dt.timedelta:
    if not SHORTEST <= value <= LONGEST:
        raise PydanticCustomError(
            "duration",
            "Must be from {least} to {most}",
            {"least": iso(SHORTEST), "most": iso(LONGEST)},
        )
    return value


Flag = Annotated[bool, Strict()]
Slug = Annotated[str, StringConstraints(pattern=_SLUG)]
ProfileName = Annotated[str, StringConstraints(pattern=_PROFILE)]
Email = Annotated[
    str, StringConstraints(pattern=_EMAIL, to_lower=True, max_length=254), AfterValidator(_readable)
]
Expression = Annotated[
    str, StringConstraints(min_length=1, max_length=cel.LONGEST), AfterValidator(_compiled)
]
Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_iso_duration),
    AfterValidator(_within),
    PlainSerializer(lambda value: iso(value), return_type=str),
    WithJsonSchema({"type": "string", "format": "duration", "pattern": _ISO}),
]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=cel.LONGEST_PATTERN),
    AfterValidator(_readable),
    AfterValidator(_pattern),
]
Sentence = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=300),
    AfterValidator(_readable),
]


def iso(value: dt.timedelta) -> str:
    """A duration as ISO 8601 has it, without parts that are nil: `PT1H30M`."""
    seconds = int(value.total_seconds())
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    date = f"{days}D" if days else ""
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
    return f"P{date}" + (f"T{time}" if time else "") if date or time else "PT0S"


class Part(BaseModel):
    """What every part of a policy has in common: no unknown key, no change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_max_length=2000)


class Reviewers(Part):
    """Who may review: members of groups, people, and people by what they are to the request."""

    groups: tuple[Slug, ...] = ()
    people: tuple[Email, ...] = ()
    endpoint_owner: Flag = Field(default=False, description="the endpoint's owner at that moment")
    requester_manager: Flag = Field(
        default=False, description="the requester's manager at that moment"
    )
    profile_reviewers: Flag = Field(default=False, description="the group that the profile names")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise PydanticCustomError(
                "reviewers",
                "Names nobody. Give groups, people, endpoint_owner, requester_manager or "
                "profile_reviewers",
                {},
            )
        return self


class Escalation(Part):
    """Who may review as well, once a step has waited for so long."""

    after: Duration = Field(description="since the step began to wait")
    to: Reviewers


class Step(Part):
    """One step: so many different people of those named must approve."""

    name: Sentence
    reviewers: Reviewers
    approvals: int = Field(default=1, ge=1, le=10, strict=True)
    skip_when: Expression | None = Field(
        default=None, description="CEL; the step isn't needed then"
    )
    escalation: tuple[Escalation, ...] = Field(
        default=(), description="the last one is the fallback; its groups must have active members"
    )

    @model_validator(mode="after")
    def _later_and_later(self) -> Self:
        waits = [entry.after for entry in self.escalation]
        if waits != sorted(set(waits)):
            raise PydanticCustomError("escalation", "Each `after` must be longer than the last", {})
        if self.escalation and not self.escalation[-1].to.groups:
            raise PydanticCustomError(
                "escalation", "The last one is the fallback and must name a group", {}
            )
        return self


class Constraint(Part):
    """What must hold, at submission and again at approval and check-out."""

    expression: Expression = Field(description="CEL")
    message: Sentence = Field(description="what the requester reads when it doesn't hold")


class Ticket(Part):
    """The ticket that a request names."""

    pattern: Pattern | None = Field(default=None, description="the whole ticket must match it")
    required: Flag = True


class Limits(Part):
    """How long, how late, how sure. What isn't given is the profile's, or unlimited."""

    default_duration: Duration | None = None
    max_duration: Duration | None = None
    pending_timeout: Duration | None = None
    latest_start: Duration | None = Field(
        default=None,
        description="how far ahead a start may lie; without it, requests start at approval",
    )
    ticket: Ticket | None = None
    justification_length: int = Field(
        default=1, ge=1, le=2000, strict=True, description="characters"
    )
    requester_factor_age: Duration | None = Field(
        default=None, description="how long ago the requester may have proved their second factor"
    )
    reviewer_factor_age: Duration | None = Field(
        default=None, description="how long ago a reviewer may have proved their second factor"
    )

    @model_validator(mode="after")
    def _default_within(self) -> Self:
        if (
            self.default_duration
            and self.max_duration
            and self.default_duration > self.max_duration
        ):
            raise PydanticCustomError(
                "limits", "The default_duration must not be longer than max_duration", {}
            )
        return self


class BreakGlass(Part):
    """Access before review, for members of these groups alone. An empty list means nobody."""

    groups: tuple[Slug, ...] = ()
    max_duration: Duration = dt.timedelta(minutes=30)
    review_within: Duration = Field(
        default=dt.timedelta(days=1), description="the review afterwards is owed within this"
    )


class AppliesTo(Part):
    """The profiles and endpoints that this policy governs. Each has one policy at most."""

    profiles: tuple[ProfileName, ...] = Field(default=(), description="<endpoint>/<profile>")
    endpoints: tuple[Slug, ...] = ()


def _free(slug: str) -> str:
    if slug in RESERVED:
        raise PydanticCustomError("slug", "Is the name of a page; use another", {})
    return slug


class PolicyDocument(Part):
    """A policy."""

    slug: Annotated[Slug, AfterValidator(_free)]
    name: Sentence
    description: Annotated[str, AfterValidator(_readable)] = ""
    applies_to: AppliesTo = AppliesTo()
    steps: tuple[Step, ...] = Field(min_length=1, max_length=10)
    constraints: tuple[Constraint, ...] = Field(default=(), max_length=20)
    auto_approve_when: Expression | None = Field(
        default=None, description="CEL; no person is needed then"
    )
    auto_approve_critical: Flag = Field(
        default=False, description="whether auto_approve_when counts on critical endpoints too"
    )
    limits: Limits = Limits()
    break_glass: BreakGlass | None = None

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [step.name for step in self.steps]
        if len(names) != len(set(names)):
            raise PydanticCustomError("steps", "Each step needs a name of its own", {})
        return self

    def as_data(self) -> dict[str, Any]:
        """Plain data without what is at its default; `parse` gives the same policy back."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return data


def parse(data: object) -> PolicyDocument:
    """The policy in this plain data.

    Raises InvalidInput by key, such as `steps.0.approvals`, with what would be right.
    """
    try:
        return PolicyDocument.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(errors_by_key(error)) from error


def errors_by_key(
    error: ValidationError, model: type[BaseModel] = PolicyDocument
) -> dict[str, str]:
    """All that is wrong, by its dotted key; what concerns the whole is under `policy`."""
    found: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"]) or "policy"
        found.setdefault(key, []).append(_sentence(item, model))
    # A list whose entries are wrong counts as too short as well.
    for key in [key for key in found if any(other.startswith(f"{key}.") for other in found)]:
        found[key] = [text for text in found[key] if not text.startswith("Give at least")]
        if not found[key]:
            del found[key]
    return {key: " ".join(texts) for key, texts in found.items()}


def _sentence(item: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong, as a sentence that says what would be right."""
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            known = _part_at(model, item["loc"][:-1]).model_fields
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."
            return f"Unknown key. {hint}"
        case "int_type" | "greater_than_equal" | "less_than_equal":
            least, most = _bounds(model, item["loc"])
            return f"Use a whole number from {least} to {most}."
        case "string_pattern_mismatch":
            return _IN_WORDS[context["pattern"]] + "."
        case "too_short" | "too_long" as which:
            least = context.get("min_length" if which == "too_short" else "max_length", 0)
            return f"Give at {'least' if which == 'too_short' else 'most'} {least}."
        case "string_too_long":
            return f"Use at most {context['max_length']} characters."
        case kind if kind in _SENTENCES:
            return _SENTENCES[kind]
    text = item["msg"].rstrip(".")
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else ".")


_SENTENCES = {
    "missing": "This is needed.",
    "string_type": "Give text; in quotes, if it looks like a number, a date, yes or no.",
    "string_too_short": "Write something.",
    "string_unicode": "Give text in UTF-8.",
    "bool_type": "Use true or false.",
    "tuple_type": "Give a list, such as [a, b].",
    "model_type": "Give keys and their values.",
    "model_attributes_type": "Give keys and their values.",
}


def _part_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that describes what is at this path."""
    for name in path:
        # What is no field is a number in a list or a key of a dictionary.
        if field := model.model_fields.get(str(name)):
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model that a field is, or holds several of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType):
        return next(filter(None, map(_model_in, get_args(annotation))), None)
    return None


def _bounds(model: type[BaseModel], path: tuple[int | str, ...]) -> tuple[int, int]:
    field = _part_at(model, path[:-1]).model_fields[str(path[-1])]
    ends = [(getattr(item, "ge", None), getattr(item, "le", None)) for item in field.metadata]
    return max(low for low, _ in ends if low), min(high for _, high in ends if high)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | (
        PolicyDocument.model_json_schema()
    )


def duration_of(text: str) -> dt.timedelta:
    """The duration that `iso` wrote."""
    return _DURATION.validate_python(text)


_DURATION = TypeAdapter(dt.timedelta)
