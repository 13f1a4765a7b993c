"""A rotator of one's own: answers Keyturn's signed webhooks. Needs `pip install standardwebhooks`.

    ROTATOR_SECRET=whsec_... KEYS=/var/lib/llm/keys.json python receiver.py 8765

This one keeps the keys of a model server in a JSON file of names and keys, which that server reads.
Put your provider in the place of `load` and `store`, and TLS in front.
"""

import json
import os
import secrets
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

SIGNATURE = Webhook(os.environ["ROTATOR_SECRET"])
KEYS = Path(os.environ["KEYS"])


def load() -> dict[str, str]:
    """The keys that the server takes, by name."""
    return dict(json.loads(KEYS.read_text())) if KEYS.exists() else {}


def store(keys: dict[str, str]) -> None:
    """Let the server take these and no others."""
    beside = KEYS.with_suffix(".new")
    beside.write_text(json.dumps(keys))
    beside.chmod(0o600)
    beside.replace(KEYS)


def create(name: str) -> dict[str, object]:
    """A new key. One of this name whose answer got lost is replaced, so that none is left over."""
    keys = load()
    keys[name] = f"sk-{secrets.token_urlsafe(32)}"
    store(keys)
    return {"secret": keys[name], "handle": {"name": name}}


def retire(old: dict[str, str]) -> None:
    """End the old key; that it has ended already is fine."""
    keys = load()
    keys.pop(old.get("name", "by-hand"), None)
    store(keys)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > 100_000:
            return self.answer(413, {})
        body = self.rfile.read(length)
        try:
            event = SIGNATURE.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self.answer(401, {})
        data = event["data"]
        if event["type"] == "rotation.create":
            return self.answer(200, create(data["name"]))
        if event["type"] == "rotation.retire":
            retire(data["old"])
            return self.answer(200, {})
        return self.answer(400, {})

    def answer(self, status: int, said: dict[str, object]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    # One call at a time: two rotations never write over each other.
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
