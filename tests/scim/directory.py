"""A directory that sends whatever a test wants."""

import json
from typing import Any

from django.test import Client

from tests.world import unique

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


class Directory:
    """Calls /scim/v2/ with this token."""

    def __init__(self, token: str | None) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Text and bytes are sent as they are."""
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.client.generic(
            method,
            f"/scim/v2/{path}",
            "" if body is None else data,
            content_type="application/scim+json",
            headers=self.headers | headers,
        )

    def get(self, path: str, **query: str) -> Any:
        return self.client.get(f"/scim/v2/{path}", query, headers=self.headers)

    def patch(self, path: str, *operations: dict[str, Any], **headers: str) -> Any:
        body = {"schemas": [PATCH], "Operations": list(operations)}
        return self.send("PATCH", path, body, **headers)

    def hire(self, **said: Any) -> dict[str, Any]:
        """A new person, as they were answered."""
        body = {"schemas": [USER], "userName": f"s-{unique()}@example.com", "active": True}
        answer = self.send("POST", "Users", body | {"displayName": "Ada Lovelace"} | said)
        assert answer.status_code == 201, answer.content
        found: dict[str, Any] = answer.json()
        return found

    def group(self, *members: str, **said: Any) -> dict[str, Any]:
        """A new group with these people, as it was answered."""
        body = {
            "schemas": [GROUP],
            "displayName": f"Team {unique()}",
            "members": [{"value": each} for each in members],
        }
        answer = self.send("POST", "Groups", body | said)
        assert answer.status_code == 201, answer.content
        found: dict[str, Any] = answer.json()
        return found


def refused(answer: Any, status: int, kind: str | None = None) -> str:
    """The detail of an error in SCIM's form."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/scim+json"
    said = answer.json()
    assert said["schemas"] == [ERROR]
    assert said["status"] == str(status)
    assert said.get("scimType") == kind
    detail: str = said["detail"]
    return detail
