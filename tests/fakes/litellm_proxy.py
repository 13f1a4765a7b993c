"""A fake of the key management of LiteLLM's proxy, which needs a database engine of its own.

It follows litellm 1.106.0 (2026): the models in litellm/proxy/_types.py and the proxy's OpenAPI
document. The facts are in schemas/litellm_proxy.json. Aliases are unique, a delete that finds
nothing answers 404, and older proxies list all aliases that contain the one asked for, as this one
does with `contains`.
"""

import secrets
from typing import Any

from tests.fakes.server import Call, Fake, Refusal


class LiteLLMProxy(Fake):
    """One proxy and its keys."""

    schema = "litellm_proxy.json"

    def __init__(self, *, master_key: str, contains: bool = False) -> None:
        super().__init__()
        self.master_key = master_key
        self.contains = contains
        self.keys: dict[str, str] = {}  # by alias
        self.made: list[dict[str, Any]] = []

    def takes(self, key: str) -> bool:
        """Whether this key opens the proxy."""
        return key in self.keys.values()

    def forget(self, key: str) -> None:
        """A person deletes this key."""
        self.keys = {alias: other for alias, other in self.keys.items() if other != key}

    def add(self, alias: str) -> str:
        """A key."""
        self.keys[alias] = f"sk-{secrets.token_urlsafe(16)}"
        return self.keys[alias]

    def error(self, status: int, message: str) -> Any:
        return {"error": {"message": message, "type": "error", "param": None, "code": str(status)}}

    def authorize(self, call: Call) -> None:
        if call.headers.get("authorization") != f"Bearer {self.master_key}":
            raise Refusal(401, self.error(401, "Authentication Error"))

    def generate(self, call: Call) -> Any:
        """A key of this alias."""
        alias = call.body["key_alias"]
        if alias in self.keys:
            raise Refusal(400, self.error(400, "Unique key aliases are required."))
        self.made.append(call.body)
        token = secrets.token_hex(32)
        key = self.add(alias)
        return {
            "key": key,
            "key_alias": alias,
            "key_name": f"sk-...{key[-4:]}",
            "token_id": token,
            "token": token,
            "models": call.body.get("models", []),
        }

    def delete(self, call: Call) -> Any:
        """End the keys of these aliases."""
        aliases = call.body.get("key_aliases") or []
        if not any(alias in self.keys for alias in aliases):
            raise Refusal(404, self.error(404, "No keys found"))
        for alias in aliases:
            self.keys.pop(alias, None)
        return {"deleted_keys": aliases}

    def listed(self, call: Call) -> Any:
        """Keys, of this alias if one is asked for."""
        asked = call.query.get("key_alias")
        found = [
            alias
            for alias in self.keys
            if asked is None or alias == asked or (self.contains and asked in alias)
        ]
        page = [{"token": secrets.token_hex(32), "key_alias": alias} for alias in found]
        return {"keys": page, "total_count": len(page), "current_page": 1, "total_pages": 1}

    routes = {
        "POST /key/generate": generate,
        "POST /key/delete": delete,
        "GET /key/list": listed,
    }
