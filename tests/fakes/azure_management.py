"""A fake of Azure's management API, as far as the keys of an account go, with Entra's tokens.

It follows the REST reference of Azure AI services (Account Management, Accounts - Regenerate Key)
in API version 2025-09-01, as the `azure-mgmt-cognitiveservices` package 14.1.0 (October 2025) has
it, and the client credentials flow of the Microsoft identity platform v2.0. The facts are in
schemas/azure_management.json.
"""

import secrets
from typing import Any

from tests.fakes.server import Call, Fake, Refusal

REGENERATE = (
    "POST /subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"
    "/providers/Microsoft.CognitiveServices/accounts/{accountName}/regenerateKey"
)


class AzureManagement(Fake):
    """One account with its two keys, and one service principal that may manage it."""

    schema = "azure_management.json"

    def __init__(
        self, *, client_secret: str, resource_group: str = "llm-prod", account: str = "contoso-llm"
    ) -> None:
        super().__init__()
        self.client_secret = client_secret
        self.resource_group = resource_group
        self.account = account
        self.keys = {"Key1": secrets.token_hex(32), "Key2": secrets.token_hex(32)}
        self.tokens: set[str] = set()

    def takes(self, key: str) -> bool:
        """Whether this key opens the account."""
        return key in self.keys.values()

    def error(self, status: int, message: str) -> Any:
        return {"error": {"code": str(status), "message": message}}

    def authorize(self, call: Call) -> None:
        if call.operation != REGENERATE:
            return
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Refusal(401, self.error(401, "InvalidAuthenticationToken"))
        # Azure doesn't mind the case of a resource group.
        group = call.path["resourceGroupName"].lower()
        if (group, call.path["accountName"]) != (self.resource_group.lower(), self.account):
            raise Refusal(404, self.error(404, "ResourceNotFound"))

    def token(self, call: Call) -> Any:
        """A token for the service principal."""
        if call.body["client_secret"] != self.client_secret:
            raise Refusal(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
        token = secrets.token_urlsafe(48)
        self.tokens.add(token)
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": token}

    def regenerate(self, call: Call) -> Any:
        """Another value in this slot."""
        self.keys[call.body["keyName"]] = secrets.token_hex(32)
        return {"key1": self.keys["Key1"], "key2": self.keys["Key2"]}

    routes = {REGENERATE: regenerate, "POST /{tenant}/oauth2/v2.0/token": token}
