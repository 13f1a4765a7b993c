"""Endpoints whose keys are being replaced: by hand after a leak, and by a provider that's down."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from accounts.models import User
from audit import clock
from credentials.actions import report_leak, rotate, rotating, set_rotator
from credentials.models import Rotation, UpstreamSecret
from endpoints.models import Endpoint
from tests.accounts.authenticator import authenticator
from tests.world import PASSWORD, World


@dataclass(frozen=True)
class Rotating:
    """The owner of both, with their authenticator's secret; somebody who may ask; and where."""

    dana: User
    secret: bytes
    ana: User
    leaked: Endpoint
    waiting: Endpoint
    fresh: Endpoint


def _done(rotation: Rotation, days: float) -> None:
    """Have gone through, so many days ago."""
    rotating._created(rotation, rotation.old_version + 1, {})
    rotating._publish(rotation)
    rotating._retired(rotation, "the endpoint refuses it")
    back = dt.timedelta(days=days)
    rotation.refresh_from_db()
    rotating._note(rotation, retired_at=rotation.due_at + dt.timedelta(seconds=4.2))
    UpstreamSecret.objects.filter(pk=rotation.secret_id).update(
        stored_at=clock.now() - back, last_rotated=clock.now() - back
    )


def rotating_keys(world: World, zone: str = "Europe/Madrid") -> Rotating:
    """Make it all."""
    look: dict[str, Any] = {"password": PASSWORD, "time_zone": zone}
    dana = world.person(full_name="Dana Levi", **look)
    group = world.group()
    ana = world.person(group, full_name="Ana Castillo", **look)
    made = [
        world.endpoint(name=name, owner=dana)
        for name in ("Support assistant", "Contract review", "Claims triage")
    ]
    for endpoint in made:
        world.profile(endpoint=endpoint, requesters=group)
    leaked, waiting, fresh = made
    _done(rotate(by=None, endpoint=leaked, reason="Somebody left."), 40)
    _done(rotate(by=None, endpoint=leaked), 12)
    report_leak(by=ana, endpoint=leaked, reason="It is in the log of the nightly job.")
    rotation = Rotation.objects.open().get(secret__endpoint=leaked)
    rotating._created(rotation, 4, {})
    rotating._publish(rotation)
    wrong = "The endpoint still takes the old key."
    waits = rotating.Waits("the owner to delete the old key at its provider, and to say so")
    rotating._wait(rotation, waits)
    rotating._note(rotation, last_error=wrong)

    settings = {"management_url": "https://litellm.internal"}
    ninety = dt.timedelta(days=90)
    set_rotator(by=None, endpoint=waiting, rotator="litellm", settings=settings, max_age=ninety)
    rotation = rotate(by=None, endpoint=waiting)
    for _ in range(6):
        rotating._try_again(rotation, "LiteLLM answered 503 when asked to make a key.")
    set_rotator(by=None, endpoint=fresh, rotator="litellm", settings=settings, max_age=ninety)
    return Rotating(dana, authenticator(dana), ana, leaked, waiting, fresh)
