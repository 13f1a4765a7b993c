"""What kinds of change there are, and what each must say of itself."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from django.db.models import Model

from accounts.models import User
from accounts.stepup import Action, Purpose
from broker.errors import Forbidden, InvalidInput

Payload = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One thing that would be otherwise, to be read."""

    what: str
    before: str
    after: str

    def as_json(self) -> dict[str, str]:
        """As it is stored with a change."""
        return asdict(self)


class Kind(ABC):
    """One kind of change. `row` is what it changes, None for something new, and is locked."""

    name: ClassVar[str]  # for ever: rows keep it
    words: ClassVar[str]  # what it is, to be read, such as "Give a role"
    action: ClassVar[Action]  # what proposing it takes a fresh second factor for

    @abstractmethod
    def find(self, about: Any, *, lock: bool) -> Model | None:
        """The row with this id. Raises NotFound."""

    @abstractmethod
    def label(self, row: Any, payload: Payload) -> str:
        """What would be done, as a reader names it."""

    @abstractmethod
    def path(self, row: Any) -> str:
        """The portal's page of what it changes; empty where there is none."""

    @abstractmethod
    def checked(self, row: Any, payload: Mapping[str, Any]) -> Payload:
        """The payload, whole and as it's stored. Raises InvalidInput by field."""

    @abstractmethod
    def state(self, row: Any, payload: Payload) -> Any:
        """All that this change was made from, as JSON: once it differs, the change is stale."""

    @abstractmethod
    def difference(self, row: Any, payload: Payload) -> list[Line]:
        """What would be otherwise."""

    @abstractmethod
    def widens(self, row: Any, payload: Payload) -> bool:
        """Whether anybody could do more by it than before; True wherever that isn't certain."""

    @abstractmethod
    def gains(self, person: User, row: Any, payload: Payload) -> bool:
        """Whether this person, or a program of theirs, could do more by it than before."""

    @abstractmethod
    def apply(self, *, by: User, proposed_by: User | None, row: Any, payload: Payload) -> None:
        """Do it. `by` decided, or asked for what takes nobody else (`proposed_by` is None)."""

    def check_may_propose(self, by: User, row: Any) -> None:
        """Raise Forbidden unless this person may ask for it. Theirs are the rows of now."""
        if not by.is_administrator:
            raise Forbidden("Only administrators propose this.")

    def part(self, row: Any, payload: Payload) -> str:
        """Which part of the row it changes, where several may wait at once."""
        return ""

    def purpose(self, row: Any, payload: Payload) -> Purpose:
        """What proposing it takes a fresh second factor for."""
        return Purpose(self.action, "" if row is None else str(row.pk))

    def concerned(self, row: Any, payload: Payload) -> Iterable[User]:
        """Who is told that it was done, beside administrators and who proposed it."""
        return ()

    def base(self, row: Any, payload: Payload) -> str:
        """A digest of all that this change was made from."""
        text = json.dumps(self.state(row, payload), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


_known: dict[str, Kind] = {}


def make_known(kind: Kind) -> None:
    """Register a kind of change. An app does so when it starts."""
    _known[kind.name] = kind


def kind_of(name: str) -> Kind:
    """The kind of this name. Raises InvalidInput."""
    if name not in _known:
        raise InvalidInput({"kind": f"Must be one of {', '.join(sorted(_known))}."})
    return _known[name]


def kinds() -> list[Kind]:
    """All that are known, by name."""
    return [_known[name] for name in sorted(_known)]
