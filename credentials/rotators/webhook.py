"""The owner's own rotator, called by a signed webhook (https://www.standardwebhooks.com).

What it is sent and what it answers is in `examples/rotator-webhook/schema.json`.
"""

import base64
import datetime as dt
import json
from urllib.parse import quote

from pydantic import Field, JsonValue
from standardwebhooks import Webhook as Signature

from credentials.rotators.base import Job, New, ProviderError, Rotator
from credentials.rotators.base import Settings as Base
from credentials.rotators.calling import Answered, Provider, Reply, Url

SHORTEST = 24  # bytes of a signing secret, as Standard Webhooks has it


class Settings(Base):
    url: Url = Field(description="where the rotator listens")
    about: dict[str, str] = Field(default={}, description="sent along as it is; nothing secret")


class _Created(Answered):
    secret: str = Field(repr=False)
    handle: dict[str, JsonValue] = {}


class Webhook(Rotator):
    slug = "webhook"
    label = "Signed webhook"
    Settings = Settings

    def create(self, job: Job) -> New:
        """Ask for a new secret."""
        reply = _post(job, "rotation.create")
        made = reply.read(_Created)
        return reply.new(made.secret, {"name": job.name, **made.handle})

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
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if len(key) < SHORTEST:
        raise ProviderError(
            f"The admin key that is stored is no signing secret: whsec_ and {SHORTEST} bytes or "
            "more in Base64."
        )
    return Signature(key)


ROTATOR = Webhook()
