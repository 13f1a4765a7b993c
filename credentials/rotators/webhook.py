"""The owner's own rotator, called by a signed webhook (https://www.standardwebhooks.com).

What it is sent and what it answers is in `examples/rotator-webhook/schema.json`.
"""

import binascii
import datetime as dt
import json
from typing import Any
from urllib.parse import quote

from pydantic import Field, JsonValue
from standardwebhooks import Webhook as Signature
from standardwebhooks.webhooks import EmptyWebhookSecretError

from credentials.rotators.base import Job, New, ProviderError, Rotator
from credentials.rotators.base import Settings as Base
from credentials.rotators.calling import Answered, Provider, Reply, Url

LONGEST_HANDLE = 2_000


class Settings(Base):
    url: Url = Field(description="where the rotator listens")
    about: dict[str, str] = Field(default={}, description="sent along as it is; nothing secret")


class _Created(Answered):
    secret: str
    handle: dict[str, JsonValue] = {}


class Webhook(Rotator):
    slug = "webhook"
    label = "Signed webhook"
    Settings = Settings

    def create(self, job: Job) -> New:
        """Ask for a new secret."""
        reply = _post(job, "rotation.create")
        made = reply.read(_Created)
        handle: dict[str, Any] = {"name": job.name, **made.handle}
        text = json.dumps(handle)
        secret = reply.secret(made.secret)
        if len(text) > LONGEST_HANDLE or secret in text:
            raise reply.wrong("its handle is too long, or has the secret in it.")
        return New(secret, handle)

    def retire(self, job: Job) -> None:
        """Ask for the old secret's end."""
        _post(job, "rotation.retire")


def _post(job: Job, event: str) -> Reply:
    settings = Settings.model_validate(dict(job.settings))
    now = dt.datetime.now(dt.UTC)
    body = json.dumps(
        {
            "type": event,
            "timestamp": now.isoformat(timespec="seconds"),
            "data": {
                "name": job.name,
                "endpoint": job.endpoint,
                "upstream_url": job.upstream_url,
                "old": dict(job.old),
                "about": settings.about,
            },
        }
    )
    # The same at each repetition, which is how receivers know one.
    number = f"{quote(job.name)}.{event}"
    headers = {
        "Content-Type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": _signature(job.admin_key).sign(number, now, body),
    }
    return Provider("The endpoint’s rotator", headers).call(
        "make a new secret" if event == "rotation.create" else "end the old secret",
        "POST",
        settings.url,
        body=body.encode(),
        changes=True,
    )


def _signature(secret: str) -> Signature:
    try:
        return Signature(secret.strip())
    except (binascii.Error, ValueError, EmptyWebhookSecretError):
        raise ProviderError(
            "The admin key that is stored is no signing secret (whsec_ and base64)."
        ) from None


ROTATOR = Webhook()
