"""Azure OpenAI: an account has two keys, each in a slot, and either can be made anew.

The handle says which slot is in use. A new key goes into the other one; the old one is retired by
making its slot anew and looking at neither.
"""

import json
from typing import Literal
from urllib.parse import quote, urlencode

from pydantic import Field

from credentials.rotators.base import Job, New, ProviderError, Rotator
from credentials.rotators.base import Settings as Base
from credentials.rotators.calling import Answered, BaseUrl, Provider, bearer

API_VERSION = "2025-09-01"

Slot = Literal["Key1", "Key2"]


class Settings(Base):
    tenant_id: str = Field(pattern=r"^[A-Za-z0-9.-]{1,100}$", description="of Microsoft Entra")
    subscription_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$")
    resource_group: str = Field(pattern=r"^[\w().-]{0,89}[\w()-]$")
    account_name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,63}$")
    slot_in_use: Slot = Field(
        description="where the key is that a person stored; afterwards Keyturn knows"
    )
    management_url: BaseUrl = "https://management.azure.com"
    login_url: BaseUrl = "https://login.microsoftonline.com"


class _Token(Answered):
    access_token: str = Field(repr=False)


class _Keys(Answered):
    key1: str = Field(repr=False)
    key2: str = Field(repr=False)


class AzureOpenAI(Rotator):
    slug = "azure_openai"
    label = "Azure OpenAI account key"
    Settings = Settings

    def create(self, job: Job) -> New:
        """Make the key anew in the slot that isn't in use."""
        return _regenerate(job, _other(_in_use(job)))

    def retire(self, job: Job) -> None:
        """Make the old slot's key anew, so that the value that people know is none."""
        _regenerate(job, _in_use(job))


def _in_use(job: Job) -> Slot:
    settings = Settings.model_validate(dict(job.settings))
    slot: Slot = job.old.get("slot", settings.slot_in_use)
    return slot


def _other(slot: Slot) -> Slot:
    return "Key2" if slot == "Key1" else "Key1"


def _regenerate(job: Job, slot: Slot) -> New:
    settings = Settings.model_validate(dict(job.settings))
    url = (
        f"{settings.management_url}/subscriptions/{settings.subscription_id}"
        f"/resourceGroups/{quote(settings.resource_group, safe='')}"
        f"/providers/Microsoft.CognitiveServices/accounts/{settings.account_name}"
        f"/regenerateKey?api-version={API_VERSION}"
    )
    reply = Provider("Azure", bearer(_token(job.admin_key, settings))).call(
        f"make {slot} anew", "POST", url, json={"keyName": slot}, changes=True
    )
    keys = reply.read(_Keys)
    return reply.new(keys.key1 if slot == "Key1" else keys.key2, {"slot": slot})


def _token(admin_key: str, settings: Settings) -> str:
    """A token for a service principal's id and secret, or the token that was stored itself."""
    if not admin_key.lstrip().startswith("{"):
        return admin_key
    try:
        principal = json.loads(admin_key)
        asked = {
            "grant_type": "client_credentials",
            "client_id": str(principal["client_id"]),
            "client_secret": str(principal["client_secret"]),
            "scope": f"{settings.management_url}/.default",
        }
    except (ValueError, KeyError):
        raise ProviderError(
            "The admin key that is stored isn’t JSON with client_id and client_secret."
        ) from None
    reply = Provider("Microsoft Entra", {}).call(
        "give a token",
        "POST",
        f"{settings.login_url}/{settings.tenant_id}/oauth2/v2.0/token",
        body=urlencode(asked).encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    return reply.read(_Token).access_token


ROTATOR = AzureOpenAI()
