"""What policies should come to, as cases kept beside them: `manage.py policy test`.

A case needs nothing of the database, and is judged by the function that judges requests.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from accessrequests.policy import reading
from accessrequests.policy.document import (
    Duration,
    Email,
    Flag,
    Part,
    PolicyDocument,
    ProfileName,
    Sentence,
    Slug,
    errors_by_key,
)
from accessrequests.policy.effective import Effective, Ruling, Source, effective
from accessrequests.policy.facts import Behalf, Facts
from accounts import plain_yaml
from broker.errors import InvalidInput
from endpoints.kinds import Revocation
from endpoints.models import AccessProfile, Endpoint

SUFFIX = ".cases.yaml"
# A Wednesday morning, so that a case means the same whenever it is run.
NOW = dt.datetime(2026, 1, 7, 10, tzinfo=dt.UTC)


_USUAL = AccessProfile()


class _Profile(Part):
    default_duration: Duration = _USUAL.default_duration
    max_duration: Duration = _USUAL.max_duration
    pending_timeout: Duration = _USUAL.pending_timeout
    kind: str = "gateway_token"
    revocation: Literal[tuple(Revocation.values)] = "immediate"  # type: ignore[valid-type]


class _Endpoint(Part):
    kind: Literal[tuple(Endpoint.Kind.values)] = "inference"  # type: ignore[valid-type]
    environment: Literal[tuple(Endpoint.Environment.values)]  # type: ignore[valid-type]
    risk: Literal[tuple(Endpoint.Risk.values)]  # type: ignore[valid-type]
    connected_systems: tuple[str, ...] = ()
    profiles: dict[Slug, _Profile]


class _Requester(Part):
    email: Email = "somebody@example.com"
    groups: tuple[Slug, ...] = ()
    kind: Literal["person", "service"] = "person"
    on_call: Flag = False


class _Behalf(Part):
    email: Email = "somebody@example.com"
    groups: tuple[Slug, ...] = ()
    on_call: Flag = False


Limit = Annotated[int, Field(ge=1, strict=True)] | None


class _Request(Part):
    profile: ProfileName
    duration: Duration | None = None
    models: tuple[str, ...] = ("model",)
    tools: tuple[str, ...] = ()
    mcp_hosts: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    max_output_tokens: Limit = None
    requests_per_minute: Limit = None
    concurrency: Limit = None
    token_budget: Limit = None
    cost_budget: Limit = None
    ticket: str = ""
    justification: str = "To find out what went wrong for a customer."
    starts_in: Duration | None = None
    extension: Flag = False
    raises: Flag = False
    run: str = ""
    task: str = ""


def _step(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class _ExpectedStep(Part):
    name: Sentence
    approvals: int | None = Field(default=None, ge=1, le=10, strict=True)

    def __str__(self) -> str:
        return self.name if self.approvals is None else f"{self.name} ({self.approvals})"


class _Expected(Part):
    refused: Sentence | None = None
    automatic: Literal[True] | None = None
    steps: tuple[Annotated[_ExpectedStep, BeforeValidator(_step)], ...] | None = None
    break_glass: Literal["allowed", "refused"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        also_why = self.break_glass == "refused" and self.refused is not None
        if len(self.model_fields_set) != 1 + also_why:
            raise PydanticCustomError(
                "expect",
                "Expect one of refused, automatic, steps and break_glass; refused may say why "
                "break-glass is",
                {},
            )
        return self


class Case(Part):
    """Who asks for what, and what should happen."""

    name: Sentence
    requester: _Requester = _Requester()
    behalf: _Behalf | None = None
    request: _Request
    now: AwareDatetime = NOW
    expect: _Expected


class CaseFile(Part):
    """The cases of a file, and the endpoints that they are about."""

    policies: tuple[str, ...] = Field(default=(), description="files, as seen from this one")
    endpoints: dict[Slug, _Endpoint]
    cases: tuple[Case, ...] = Field(min_length=1)

    def endpoint_of(self, case: Case) -> tuple[str, str]:
        """The slugs of a case's endpoint and profile."""
        endpoint, _, profile = case.request.profile.partition("/")
        return endpoint, profile


@dataclass(frozen=True)
class Outcome:
    """How one case went."""

    name: str
    line: int
    expected: str
    got: str
    passed: bool


def run(path: Path) -> Iterator[Outcome]:
    """Run the cases in this file on the policies that it names, or that it is named after.

    Raises InvalidInput by file, line and key for what can't be read.
    """
    file, lines = _read(path)
    names = file.policies or (path.name.removesuffix(SUFFIX) + ".yaml",)
    documents = [document for name in names for document in _policies(path.parent / name)]
    for number, case in enumerate(file.cases):
        yield _outcome(case, file, documents, lines[number])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise InvalidInput({str(path): f"Can't be read: {why}."}) from error


def _in_file(path: Path, errors: dict[str, str]) -> InvalidInput:
    return InvalidInput({f"{path}, {where}": message for where, message in errors.items()})


def _policies(path: Path) -> list[PolicyDocument]:
    try:
        return reading.read(_text(path))
    except InvalidInput as error:
        if str(path) in error.errors:
            raise
        raise _in_file(path, error.errors) from error


def _read(path: Path) -> tuple[CaseFile, list[int]]:
    """The cases of a file and the line of each."""
    text = _text(path)
    try:
        found = plain_yaml.nodes(text)
        if len(found) != 1:
            raise InvalidInput({"file": "Give endpoints and cases."})
        file = CaseFile.model_validate(plain_yaml.data_of(found[0]))
        errors = {
            f"cases.{number}.request.profile": "Describe this endpoint and profile under endpoints."
            for number, case in enumerate(file.cases)
            if not _described(file, case)
        }
        if errors:
            raise InvalidInput(plain_yaml.located(errors, found[0]))
    except ValidationError as error:
        keyed = errors_by_key(error, CaseFile)
        raise _in_file(path, plain_yaml.located(keyed, found[0])) from error
    except InvalidInput as error:
        raise _in_file(path, error.errors) from error
    paths = [["cases", str(number)] for number in range(len(file.cases))]
    return file, [plain_yaml.line_of(found[0], path) for path in paths]


def _described(file: CaseFile, case: Case) -> bool:
    endpoint, profile = file.endpoint_of(case)
    return endpoint in file.endpoints and profile in file.endpoints[endpoint].profiles


def _outcome(case: Case, file: CaseFile, documents: Sequence[PolicyDocument], line: int) -> Outcome:
    slug, profile_slug = file.endpoint_of(case)
    endpoint = file.endpoints[slug]
    profile = endpoint.profiles[profile_slug]
    # As in production, the endpoint's policy comes before the profile's.
    governing = [d for d in documents if slug in d.applies_to.endpoints]
    governing += [
        d for d in documents if case.request.profile in d.applies_to.profiles and d not in governing
    ]
    holds = effective(
        [Source(document.slug, 1, document) for document in governing],
        default_duration=profile.default_duration,
        max_duration=profile.max_duration,
        pending_timeout=profile.pending_timeout,
    )
    ruling = holds.decide(_facts(case, slug, profile_slug, endpoint, holds))
    expected, got = _words(case.expect), _happened(ruling, case)
    return Outcome(case.name, line, expected, got, _passed(case.expect, ruling))


def _facts(case: Case, slug: str, profile: str, endpoint: _Endpoint, holds: Effective) -> Facts:
    requester, request, behalf = case.requester, case.request, case.behalf
    break_glass = case.expect.break_glass is not None
    usual = holds.default_duration
    if break_glass and holds.break_glass is not None:
        usual = min(usual, holds.break_glass.max_duration)
    return Facts(
        email=requester.email,
        groups=frozenset(requester.groups),
        is_service=requester.kind == "service",
        on_call=requester.on_call,
        profile=profile,
        duration=request.duration or usual,
        models=frozenset(request.models),
        ticket=request.ticket,
        justification=request.justification,
        starts_at=case.now + request.starts_in if request.starts_in else None,
        extension=request.extension,
        raises=request.raises,
        break_glass=break_glass,
        endpoint=slug,
        kind=endpoint.kind,
        environment=endpoint.environment,
        risk=endpoint.risk,
        connected_systems=endpoint.connected_systems,
        now=case.now,
        credential=endpoint.profiles[profile].kind,
        revocation=endpoint.profiles[profile].revocation,
        tools=frozenset(request.tools),
        mcp_hosts=frozenset(request.mcp_hosts),
        operations=frozenset(request.operations),
        max_output_tokens=request.max_output_tokens,
        requests_per_minute=request.requests_per_minute,
        concurrency=request.concurrency,
        token_budget=request.token_budget,
        cost_budget=Decimal(request.cost_budget) if request.cost_budget else None,
        agent=requester.kind == "service",
        behalf=None
        if behalf is None
        else Behalf(behalf.email, frozenset(behalf.groups), behalf.on_call),
        run=request.run,
        task=request.task,
    )


def _remaining(ruling: Ruling) -> list[_ExpectedStep]:
    return [
        _ExpectedStep(name=needed.step.name, approvals=needed.step.approvals)
        for needed in ruling.steps
        if not needed.skipped
    ]


def _said(ruling: Ruling) -> str:
    return " ".join(f"{field}: {message}" for field, message in ruling.problems.items())


def _passed(expected: _Expected, ruling: Ruling) -> bool:
    if expected.refused is not None:
        return bool(ruling.problems) and expected.refused in _said(ruling)
    if expected.break_glass is not None:
        return bool(ruling.problems) == (expected.break_glass == "refused")
    if ruling.problems:
        return False
    if expected.steps is None:
        return ruling.automatic
    remaining = _remaining(ruling)
    return (
        not ruling.automatic
        and len(remaining) == len(expected.steps)
        and all(
            step.name == wanted.name and wanted.approvals in (None, step.approvals)
            for step, wanted in zip(remaining, expected.steps, strict=True)
        )
    )


def _words(expected: _Expected) -> str:
    glass = f"break-glass {expected.break_glass}" if expected.break_glass else ""
    if expected.refused is not None:
        return f"{glass or 'refused'}: {expected.refused}"
    if expected.steps is not None:
        return f"steps: {', '.join(map(str, expected.steps)) or 'none'}"
    return glass or "automatic"


def _happened(ruling: Ruling, case: Case) -> str:
    glass = case.expect.break_glass is not None
    if ruling.problems:
        return f"{'break-glass refused' if glass else 'refused'}: {_said(ruling)}"
    if glass:
        return "break-glass allowed"
    if ruling.automatic:
        return "automatic"
    return f"steps: {', '.join(map(str, _remaining(ruling)))}"
