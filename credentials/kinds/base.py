"""What a credential kind is: mint, revoke, is it gone?, describe."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.conf import settings
from pydantic import BaseModel, ConfigDict, ValidationError

from broker.errors import InvalidInput
from credentials import vault
from credentials.models import Credential
from endpoints.kinds import Revocation


class NotYet(Exception):
    """It isn't proven gone, though nothing failed: ask again soon."""


class TargetDown(Exception):
    """What the credential opens can't be reached, so nothing can be taken back there yet.

    `target` names it: others of the same target needn't be tried meanwhile.
    """

    def __init__(self, target: str, why: str) -> None:
        super().__init__(why)
        self.target = target


class Settings(BaseModel):
    """What a profile must say for its kind. Names go into Vault's paths, so each has a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass
class Minted:
    """What Vault has made so far. `mint` fills it in as it goes, so that a failure half-way leaves
    behind what is needed to take it back.

    `parts` are the secret, by name, for the one response that hands it over: `parts["secret"]` is
    what one pastes where a key is asked for.
    """

    parts: dict[str, str] = field(default_factory=dict, repr=False)
    accessor: str = ""
    handles: dict[str, Any] = field(default_factory=dict)
    expires_at: dt.datetime | None = None


@dataclass(frozen=True)
class Recognised:
    """Which credential a secret is of. Whether it holds is another question.

    Where the secret ends earlier than its credential, it says so itself: when, for whom it is, and
    by what name.
    """

    credential: uuid.UUID
    expires_at: dt.datetime | None = None
    issued_at: dt.datetime | None = None
    audience: str = ""
    token: str = ""


@dataclass(frozen=True)
class Stray:
    """Something of ours that a look around found at Vault or at a target, and how to name it.

    `credential` is the id that it bears; `key` what `end_stray` needs.
    """

    where: str
    name: str
    credential: str
    key: str


class Kind:
    """One kind of credential. Nothing of it is kept between calls; none holds a transaction."""

    slug: ClassVar[str]
    label: ClassVar[str]
    # At most so many seconds between two looks at what was revoked and isn't proven gone.
    pace: ClassVar[float] = 5.0
    Settings: ClassVar[type[Settings]] = Settings
    # How long a secret of it lives at most, where that is shorter than a grant: `refresh` gives
    # the next one. None where it can't be refreshed.
    short: ClassVar[dt.timedelta | None] = None

    # Known without minting (endpoints/kinds.py)

    def check(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The profile's settings, whole. Raises InvalidInput by setting."""
        try:
            return self.Settings.model_validate(dict(settings)).model_dump(mode="json")
        except ValidationError as error:
            raise InvalidInput(
                {".".join(map(str, each["loc"])): f"{each['msg']}." for each in error.errors()}
            ) from error

    def revocation(self, settings: Mapping[str, Any]) -> Revocation:
        """How one that is minted by these settings can be taken back."""
        return Revocation.IMMEDIATE

    def describe(self, settings: Mapping[str, Any]) -> str:
        """What one gets and how it ends, in a sentence or two for whoever asks or reviews."""
        raise NotImplementedError

    # Minting: web

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        """Make it, to die by itself within a minute unless `confirm` follows, and never to live
        for more than `lifetime` seconds. Fills `minted` in as it goes.

        Raises VaultError, after which it may exist all the same.
        """
        raise NotImplementedError

    def confirm(self, credential: Credential, lifetime: int) -> None:
        """It's on record: let it live for `lifetime` seconds from now. Raises VaultError."""

    def refresh(self, credential: Credential) -> dict[str, str]:
        """Another secret of the same credential, until its `expires_at`, which was put off just
        now and is on record. Raises VaultError."""
        raise NotImplementedError

    def recognise(self, secret: str) -> Recognised | None:
        """Which credential of this kind this secret is of. Raises VaultError, which says nothing
        of the secret."""
        return None

    # Taking back: worker

    def not_before(self, credential: Credential) -> dt.datetime | None:
        """The moment before which nothing and nobody can make it gone, if there is one: until then
        nothing is asked, and it isn't late."""
        return None

    def patience(self) -> dt.timedelta:
        """For how long after its beginning a mint without an answer may still land."""
        return dt.timedelta(seconds=vault.UNCONFIRMED_TTL + 2 * settings.VAULT_TIMEOUT)

    def target(self, credential: Credential) -> str:
        """What has to be up for it to be taken back, beside Vault; empty if nothing."""
        return ""

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        """By credential id, what finds those whose mint was never answered: `accessor`, and
        handles. For those that aren't there, nothing. Raises VaultError and TargetDown."""
        raise NotImplementedError

    def revoke(self, credential: Credential) -> None:
        """Have it taken back; doing so twice does no harm. Its success proves nothing.

        Raises VaultError and TargetDown.
        """
        raise NotImplementedError

    def waits_for(self, credential: Credential) -> str:
        """What people read while it was revoked and isn't proven gone."""
        return "it's still there after the revoke"

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        """By credential id, how those that are gone are known to be: by the word of what they
        open. Raises VaultError and TargetDown."""
        raise NotImplementedError

    # Looking around: worker, every five minutes

    def strays(self) -> Iterable[Stray]:
        """All of this kind that is out there and bears a credential's name, owned or not.
        Raises VaultError and TargetDown."""
        return ()

    def end_stray(self, stray: Stray) -> None:
        """Take back what nobody owns. Raises VaultError and TargetDown."""
