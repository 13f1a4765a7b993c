"""Scope: how much of an endpoint a profile may give, a request asks for, a grant holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from broker.errors import InvalidInput

MODEL_NAME_LENGTH = 200


@dataclass(frozen=True)
class Scope:
    """`models`: exact names as the upstream knows them."""

    models: frozenset[str]

    @classmethod
    def parse(cls, data: object) -> Self:
        """The scope in this JSON object. Raises InvalidInput, naming what is wrong with it.

        An unknown key is refused rather than dropped: a narrowing that isn't understood must not
        be taken for none.
        """
        if not isinstance(data, Mapping):
            raise InvalidInput({"scope": 'Must be an object such as {"models": ["small"]}.'})
        unknown = sorted(str(key) for key in data.keys() - {"models"})
        if unknown:
            raise InvalidInput({"scope": f"Unknown: {', '.join(unknown)}. Known: models."})
        models = data.get("models")
        if (
            not isinstance(models, list)
            or not models
            or not all(isinstance(m, str) and 0 < len(m) <= MODEL_NAME_LENGTH for m in models)
        ):
            raise InvalidInput({"scope": "models must be a list of at least one model name."})
        return cls(frozenset(models))

    def as_json(self) -> dict[str, Any]:
        """What is stored and shown: lists in a fixed order."""
        return {"models": sorted(self.models)}

    def beyond(self, ceiling: "Scope") -> frozenset[str]:
        """The models that the ceiling doesn't hold; empty when this is within it."""
        return self.models - ceiling.models

    def __and__(self, other: "Scope") -> "Scope":
        """What both hold. May be empty, which opens nothing."""
        return Scope(self.models & other.models)
