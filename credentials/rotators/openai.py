"""OpenAI: a service account in a project for each key, which ends with it.

Written against the paths under /organization/projects/{project_id}/service_accounts.
"""

from typing import Annotated, Any

from pydantic import Field

from credentials.rotators.base import Job, New, ProviderError, Rotator
from credentials.rotators.base import Settings as Base
from credentials.rotators.calling import Answered, BaseUrl, Provider, bearer

PAGE = 100
MOST_PAGES = 100

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class Settings(Base):
    project_id: Id = Field(description="proj_…, where the service accounts are made")
    api_url: BaseUrl = "https://api.openai.com/v1"
    expires_in_seconds: int | None = Field(
        default=None, ge=3600, description="where the organization lets no key live for ever"
    )


class _Account(Answered):
    id: Id
    name: str


class _Page(Answered):
    data: list[_Account]
    has_more: bool = False


class _Key(Answered):
    value: str = Field(repr=False)
    expires_at: int | None = None


class _Created(_Account):
    api_key: _Key | None = None


class _Deleted(Answered):
    deleted: bool


class OpenAI(Rotator):
    slug = "openai"
    label = "OpenAI service account"
    Settings = Settings

    def create(self, job: Job) -> New:
        """Make a service account of this name, which comes with a key."""
        api = _Api(job)
        api.delete(name=job.name)
        return api.create(job.name)

    def retire(self, job: Job) -> None:
        """Delete the old service account; its keys end with it."""
        account, name = job.old.get("id"), job.old.get("name")
        if not account or not name:
            raise ProviderError(
                "The old key isn’t of a service account that Keyturn made: delete it at OpenAI."
            )
        # By name too: a creation that was given up may have come through after its repetition.
        _Api(job).delete(name=str(name), id=str(account))


class _Api:
    """The service accounts of one project."""

    def __init__(self, job: Job) -> None:
        settings = Settings.model_validate(dict(job.settings))
        self._provider = Provider("OpenAI", bearer(job.admin_key))
        self._url = f"{settings.api_url}/organization/projects/{settings.project_id}"
        self._url += "/service_accounts"
        self._expires_in = settings.expires_in_seconds

    def accounts(self) -> list[_Account]:
        """All of them."""
        found: list[_Account] = []
        for _ in range(MOST_PAGES):
            after = f"&after={found[-1].id}" if found else ""
            reply = self._provider.call(
                "list service accounts", "GET", f"{self._url}?limit={PAGE}{after}"
            )
            page = reply.read(_Page)
            if not page.has_more:
                return [*found, *page.data]
            if not page.data or (found and page.data[-1].id == found[-1].id):
                raise reply.wrong("its pages don’t end.")
            found += page.data
        raise reply.wrong(f"the project has more than {PAGE * MOST_PAGES:,}.")

    def create(self, name: str) -> New:
        asked: dict[str, Any] = {"name": name}
        if self._expires_in is not None:
            asked["expires_in_seconds"] = self._expires_in
        reply = self._provider.call(
            "create a service account", "POST", self._url, json=asked, changes=True
        )
        made = reply.read(_Created)
        if made.name != name or made.api_key is None:
            raise reply.wrong("no key of that name came back.")
        handle: dict[str, Any] = {"id": made.id, "name": name}
        if made.api_key.expires_at is not None:
            handle["expires_at"] = made.api_key.expires_at
        return reply.new(made.api_key.value, handle)

    def delete(self, *, name: str, id: str = "") -> None:
        """All of this name, and the one with this id. What isn't listed is gone."""
        for account in self.accounts():
            if account.name == name or account.id == id:
                url = f"{self._url}/{account.id}"
                reply = self._provider.call(
                    "delete a service account", "DELETE", url, changes=True, fine={404}
                )
                if reply.status != 404 and not reply.read(_Deleted).deleted:
                    raise reply.wrong("it wasn’t deleted.")


ROTATOR = OpenAI()
