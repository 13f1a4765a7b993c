"""A policy as its administrators write it: plain data, checked whole.

One definition gives the types that the code works with, the errors that an editor reads, and the
JSON Schema that docs/policy.schema.json publishes.
"""

import datetime as dt
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from accessrequests.policy import cel
from broker.errors import InvalidInput

LONGEST_PATTERN = 200

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$")]
ProfileName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9-]{1,50}/[a-z0-9-]{1,50}$", strict=True)
]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", to_lower=True)]


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


def _duration(least: dt.timedelta) -> AfterValidator:
    def check(value: dt.timedelta) -> dt.timedelta:
        if value < least:
            raise PydanticCustomError("duration", "Must be at least {least}", {"least": iso(least)})
        return value

    return AfterValidator(check)


Expression = Annotated[str, StringConstraints(min_length=1), AfterValidator(_compiled)]
Duration = Annotated[
    dt.timedelta,
    _duration(dt.timedelta(minutes=1)),
    PlainSerializer(lambda value: iso(value), return_type=str),
]
Pattern = Annotated[str, StringConstraints(max_length=LONGEST_PATTERN), AfterValidator(_pattern)]
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


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
    endpoint_owner: bool = Field(default=False, description="the endpoint's owner at that moment")
    requester_manager: bool = Field(
        default=False, description="the requester's manager at that moment"
    )
    profile_reviewers: bool = Field(default=False, description="the group that the profile names")

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
    required: bool = True


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
                "limits", "default_duration must not be longer than max_duration", {}
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


class PolicyDocument(Part):
    """A policy."""

    slug: Slug
    name: Sentence
    description: str = ""
    applies_to: AppliesTo = AppliesTo()
    steps: tuple[Step, ...] = Field(min_length=1, max_length=10)
    constraints: tuple[Constraint, ...] = Field(default=(), max_length=20)
    auto_approve_when: Expression | None = Field(
        default=None, description="CEL; no person is needed then"
    )
    auto_approve_critical: bool = Field(
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


def errors_by_key(error: ValidationError) -> dict[str, str]:
    """All that is wrong, by its dotted key; what concerns the whole is under `policy`."""
    found: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"]) or "policy"
        text = "Unknown key" if item["type"] == "extra_forbidden" else item["msg"]
        found.setdefault(key, []).append(text[0].upper() + text[1:] + ".")
    return {key: " ".join(texts) for key, texts in found.items()}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | (
        PolicyDocument.model_json_schema()
    )


def duration_of(text: str) -> dt.timedelta:
    """The duration that `iso` wrote."""
    return _DURATION.validate_python(text)


_DURATION = TypeAdapter(dt.timedelta)
