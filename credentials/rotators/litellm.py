"""LiteLLM's proxy: a virtual key for each rotation, found and ended by its alias."""

from typing import Any
from urllib.parse import quote

from pydantic import Field

from credentials.rotators.base import Job, New, ProviderError, Rotator
from credentials.rotators.base import Settings as Base
from credentials.rotators.calling import Answered, BaseUrl, Provider, bearer


class Settings(Base):
    management_url: BaseUrl | None = Field(
        default=None, description="the proxy's own URL, where it isn't the endpoint's"
    )
    models: list[str] = Field(default=[], description="that the key opens; empty: all")
    team_id: str | None = None
    max_budget: float | None = Field(default=None, gt=0, description="in US dollars")
    budget_duration: str | None = Field(default=None, pattern=r"^\d+(s|m|h|d|mo)$")
    tpm_limit: int | None = Field(default=None, gt=0)
    rpm_limit: int | None = Field(default=None, gt=0)


class _Generated(Answered):
    key: str = Field(repr=False)
    key_alias: str


class _Listed(Answered):
    key_alias: str | None = None


class _Keys(Answered):
    keys: list[_Listed]


class _Deleted(Answered):
    deleted_keys: list[str]


class LiteLLM(Rotator):
    slug = "litellm"
    label = "LiteLLM virtual key"
    Settings = Settings

    def create(self, job: Job) -> New:
        """Make a key whose alias is this name."""
        api = _Api(job)
        api.delete(job.name)
        return api.create(job.name)

    def retire(self, job: Job) -> None:
        """Delete the key with the old alias."""
        alias = job.old.get("key_alias")
        if not alias:
            raise ProviderError("The old key isn’t one that Keyturn made: delete it in LiteLLM.")
        _Api(job).delete(str(alias))


class _Api:
    """The keys of one proxy."""

    def __init__(self, job: Job) -> None:
        settings = Settings.model_validate(dict(job.settings))
        self._provider = Provider("LiteLLM", bearer(job.admin_key))
        self._url = settings.management_url or job.upstream_url.rstrip("/").removesuffix("/v1")
        self._wanted = settings.model_dump(exclude={"management_url"}, exclude_none=True)

    def create(self, alias: str) -> New:
        # A key that calls models and nothing else: not one that manages keys.
        asked: dict[str, Any] = {"key_alias": alias, "key_type": "llm_api"} | self._wanted
        reply = self._provider.call(
            "make a key", "POST", f"{self._url}/key/generate", json=asked, changes=True
        )
        made = reply.read(_Generated)
        if made.key_alias != alias:
            raise reply.wrong("no key of that alias came back.")
        return reply.new(made.key, {"key_alias": alias})

    def delete(self, alias: str) -> None:
        """The key of this alias, if there is one. An alias is one key's."""
        if not self._has(alias):
            return
        reply = self._provider.call(
            "delete a key",
            "POST",
            f"{self._url}/key/delete",
            json={"key_aliases": [alias]},
            changes=True,
            fine={404},
        )
        if reply.status != 404 and alias not in reply.read(_Deleted).deleted_keys:
            raise reply.wrong("it wasn’t deleted.")

    def _has(self, alias: str) -> bool:
        # Proxies of some versions answer with all aliases that contain this one.
        query = f"key_alias={quote(alias, safe='')}&return_full_object=true&size=100"
        reply = self._provider.call("look for a key", "GET", f"{self._url}/key/list?{query}")
        return any(key.key_alias == alias for key in reply.read(_Keys).keys)


ROTATOR = LiteLLM()
