"""What a rotator is: create the new secret at the provider, retire the old one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from broker.errors import InvalidInput


class ProviderError(Exception):
    """The provider did not do this. `unknown` says that it may have all the same.

    Its text is shown to people: it names what was asked and what was answered, nothing secret.
    """

    def __init__(self, why: str, *, unknown: bool = False) -> None:
        super().__init__(why)
        self.unknown = unknown


class Settings(BaseModel):
    """What an endpoint must say for its rotator; nothing of it is secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Job:
    """One rotation, as a rotator sees it.

    `name` is on record before anything is asked of the provider, is the same at each repetition,
    and goes into the new secret's name there, so that what a lost answer left behind can be found.
    `admin_key` is what the provider takes for managing keys, from Vault. `old` is the handle of
    the secret that is to be replaced; empty where it wasn't made by this rotator.
    """

    name: str
    endpoint: str
    upstream_url: str
    settings: Mapping[str, Any]
    old: Mapping[str, Any]
    admin_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class New:
    """A secret that was just created. `handle` names it at the provider and isn't secret."""

    secret: str = field(repr=False)
    handle: dict[str, Any]


class Rotator:
    """One way of rotating. Each call may come twice: a crash repeats the step that it was in."""

    slug: ClassVar[str]
    label: ClassVar[str]
    Settings: ClassVar[type[Settings]] = Settings
    # False where the provider holds one secret at a time, so that the old one ends as the new one
    # begins.
    keeps_both: ClassVar[bool] = True
    # False where a person does it and the steps wait for them.
    by_itself: ClassVar[bool] = True

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoint's settings, whole. Raises InvalidInput by setting."""
        try:
            return self.Settings.model_validate(dict(settings)).model_dump(mode="json")
        except ValidationError as error:
            raise InvalidInput(
                {".".join(map(str, each["loc"])): f"{each['msg']}." for each in error.errors()}
            ) from error

    def create(self, job: Job) -> New:
        """A new secret at the provider. What an earlier try under the same name left there, whose
        secret nobody knows any more, is removed first. Raises ProviderError."""
        raise NotImplementedError

    def retire(self, job: Job) -> None:
        """End the old secret (`job.old`) at the provider; one that is gone already is fine.
        Raises ProviderError."""
        raise NotImplementedError
