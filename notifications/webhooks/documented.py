"""Webhooks in the OpenAPI document: what is sent, by type."""

from typing import Any

from notifications.webhooks.types import TEST, TYPES

_ID = {"type": ["string", "null"], "format": "uuid"}
_NAMED = {"id": _ID, "name": {"type": "string"}}
DATA: dict[str, Any] = {
    "type": "object",
    "description": "What happened. Ask the API at `subject.url` for the rest.",
    "required": ["event", "subject", "actor", "related", "facts"],
    "properties": {
        "event": {"type": "integer", "description": "id of the event in the record"},
        "subject": {
            "type": "object",
            "description": "what it is about",
            "required": ["kind", "id", "name", "url"],
            "properties": {
                "kind": {"type": "string"},
                **_NAMED,
                "url": {"type": ["string", "null"], "format": "uri"},
            },
        },
        "actor": {
            "type": "object",
            "description": "who did it; id null: Keyturn itself",
            "required": ["id", "name"],
            "properties": _NAMED,
        },
        "related": {
            "type": "array",
            "description": "ids of all that it concerns",
            "items": {"type": "string", "format": "uuid"},
            "maxItems": 50,
        },
        "facts": {
            "type": "object",
            "description": "short facts, by type of event; receivers must not depend on one",
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        },
    },
}
TEST_DATA: dict[str, Any] = {
    "type": "object",
    "required": ["webhook", "by"],
    "properties": {
        "webhook": {"type": "string", "format": "uuid"},
        "by": {"type": "string"},
    },
}
HEADERS = {
    "webhook-id": "the same at each try and replay of one event",
    "webhook-timestamp": "seconds since 1970 of this try",
    "webhook-signature": "`v1,` and a base64 HMAC-SHA256 of `id.timestamp.body`; two, with a space "
    "between, while a secret is being rotated",
}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of what is sent of this type."""
    data: dict[str, Any] = {"$ref": "#/components/schemas/WebhookData"}
    return {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": name},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": TEST_DATA if name == TEST else data,
        },
    }


def add_webhooks(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The document with its `webhooks` (OpenAPI 3.1), for drf-spectacular."""
    result.setdefault("components", {}).setdefault("schemas", {})["WebhookData"] = DATA
    told = {**TYPES, TEST: "Somebody sends it to try a receiver."}
    result["webhooks"] = {name: {"post": _operation(name, words)} for name, words in told.items()}
    return result


def _operation(name: str, words: str) -> dict[str, Any]:
    return {
        "operationId": f"webhook_{name.replace('.', '_')}",
        "summary": words,
        "tags": ["webhooks"],
        "parameters": [
            {
                "name": header,
                "in": "header",
                "required": True,
                "description": said,
                "schema": {"type": "string"},
            }
            for header, said in HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema(name)}},
        },
        "responses": {
            "2XX": {"description": "taken"},
            "410": {"description": "nothing more is wanted: the webhook is disabled"},
            "default": {"description": "not taken: it is sent again"},
        },
    }
