"""A fake of OpenAI's Administration API, as far as service accounts of projects go.

It follows OpenAI's API reference (Administration, Project service accounts) as the `openai` package
for Python has it, version 3.54.0, which is generated from OpenAI's OpenAPI document. The facts are
in schemas/openai_admin.json. Nobody publishes what a deleted account's keys answer, or how errors
of this API are worded; both are as OpenAI's other APIs have it.
"""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.server import Call, Fake, Refusal

ACCOUNTS = "/v1/organization/projects/{project_id}/service_accounts"


@dataclass
class Account:
    id: str
    name: str
    key: str
    created_at: int = field(default_factory=lambda: int(time.time()))


class OpenAIAdmin(Fake):
    """One organization with one project."""

    schema = "openai_admin.json"

    def __init__(self, *, admin_key: str, project: str = "proj_abc") -> None:
        super().__init__()
        self.admin_key = admin_key
        self.project = project
        self.accounts: list[Account] = []
        self.longest: int | None = None  # what the organization lets a key live, in seconds

    def takes(self, key: str) -> bool:
        """Whether this key opens the API."""
        return any(secrets.compare_digest(account.key, key) for account in self.accounts)

    def forget(self, key: str) -> None:
        """A person deletes the account of this key."""
        self.accounts = [account for account in self.accounts if account.key != key]

    def add(self, name: str) -> Account:
        """An account, with a key."""
        made = Account(f"user-{secrets.token_hex(8)}", name, f"sk-svcacct-{secrets.token_hex(24)}")
        self.accounts.append(made)
        return made

    def error(self, status: int, message: str) -> Any:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def authorize(self, call: Call) -> None:
        if call.headers.get("authorization") != f"Bearer {self.admin_key}":
            raise Refusal(401, self.error(401, "Incorrect API key provided."))
        if call.path["project_id"] != self.project:
            raise Refusal(404, self.error(404, "No such project."))

    def listed(self, call: Call) -> Any:
        """A page of accounts, from the one after `after`."""
        ids = [account.id for account in self.accounts]
        begin = 0
        if "after" in call.query:
            if call.query["after"] not in ids:
                raise Refusal(400, self.error(400, "No such cursor."))
            begin = ids.index(call.query["after"]) + 1
        end = begin + int(call.query.get("limit", 20))
        page = self.accounts[begin:end]
        return {
            "object": "list",
            "data": [_account(each) for each in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": end < len(ids),
        }

    def create(self, call: Call) -> Any:
        """An account and its key."""
        life = call.body.get("expires_in_seconds")
        if self.longest is not None and (life is None or life > self.longest):
            raise Refusal(400, self.error(400, "This organization's keys have to expire."))
        made = self.add(call.body["name"])
        key = {
            "object": "organization.project.service_account.api_key",
            "value": made.key,
            "name": "Secret Key",
            "created_at": made.created_at,
            "id": f"key_{secrets.token_hex(8)}",
            "expires_at": None if life is None else made.created_at + life,
        }
        return _account(made) | {"api_key": key}

    def delete(self, call: Call) -> Any:
        """End an account."""
        account = call.path["service_account_id"]
        if all(each.id != account for each in self.accounts):
            raise Refusal(404, self.error(404, "No such service account."))
        self.accounts = [each for each in self.accounts if each.id != account]
        return {
            "object": "organization.project.service_account.deleted",
            "id": account,
            "deleted": True,
        }

    routes = {
        f"GET {ACCOUNTS}": listed,
        f"POST {ACCOUNTS}": create,
        f"DELETE {ACCOUNTS}/{{service_account_id}}": delete,
    }


def _account(account: Account) -> dict[str, Any]:
    return {
        "object": "organization.project.service_account",
        "id": account.id,
        "name": account.name,
        "role": "member",
        "created_at": account.created_at,
    }
