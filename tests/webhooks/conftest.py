import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accounts.models import User
from audit import clock
from audit.context import Origin, working_for
from notifications.models import Webhook
from notifications.webhooks import delivery
from notifications.webhooks.actions import create_webhook
from notifications.webhooks.telling import tell
from tests.webhooks.receiver import Receiver
from tests.world import PROVED, World


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def alone(committed: None) -> Iterator[None]:
    """What other tests of the file made is sent nothing more: several count all there is."""
    yield
    rows = Webhook.objects.filter(disabled_at=None)
    rows.update(disabled_at=clock.now(), disabled_because="The test is over.")


Make = Callable[..., tuple[Webhook, str, str]]


@pytest.fixture
def hook(world: World, receiver: Receiver, alone: None) -> Make:
    """Makes a webhook at a path of its own: the row, the path, the secret."""

    def make(owner: User | None = None, **fields: Any) -> tuple[Webhook, str, str]:
        owner = owner or world.person()
        path = f"/{uuid.uuid4()}"
        url = fields.pop("url", None) or receiver.url(path)
        fields = {"name": "Receiver", "url": url} | fields
        by = owner.owner or owner
        row, secret = create_webhook(by=by, owner=owner, proofs=PROVED, **fields)
        return row, path, secret

    return make


@pytest.fixture
def work(role: Any) -> Callable[[], int]:
    """What a worker does in a second, but for threads; with how many webhooks."""

    def once() -> int:
        with role("worker"), working_for(Origin(via="worker")):
            while tell():
                pass
            delivery.give_up()
            return delivery.deliver(most=100)

    return once
