"""By hand: the endpoint's owner makes the new key at the provider and stores it in Keyturn."""

import datetime as dt
from typing import Any

from pydantic import Field

from credentials.rotators.base import Rotator
from credentials.rotators.base import Settings as Base


class Settings(Base):
    days: int = Field(default=14, ge=1, le=90, description="for the owner to do it")
    urgent_days: int = Field(default=1, ge=1, le=30, description="once it leaked or is exposed")


class Manual(Rotator):
    slug = "manual"
    label = "By hand"
    Settings = Settings
    by_itself = False

    def time_for(self, settings: dict[str, Any], *, urgent: bool) -> dt.timedelta:
        """How long the owner has for it."""
        said = Settings.model_validate(settings)
        return dt.timedelta(days=said.urgent_days if urgent else said.days)


ROTATOR = Manual()
