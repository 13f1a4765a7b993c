"""SIGKILL at every failpoint of a rotation, in real processes, with a provider that has keys."""

import time
from pathlib import Path
from typing import Any

import pytest

from audit import clock
from credentials.actions import rotate, rotate_due, set_rotator, store_rotator_key
from credentials.failpoints import FAILPOINTS
from credentials.live import usable_key
from credentials.models import Rotation
from credentials.states import RotationState
from endpoints.models import Endpoint
from tests.credentials import provided  # noqa: F401 -- lets endpoints be rotated by it
from tests.faults import report
from tests.faults.killing import Act
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

HERE = [name for name in FAILPOINTS if name.startswith("rotate:")]
# In every run; the others in `make test-faults`.
SHORT = {"rotate:created", "rotate:stored", "rotate:retired"}
WORK = ("call", "tests.credentials.provided:work")


@pytest.fixture
def endpoint(world: World, upstream: Upstream) -> Endpoint:
    made = world.endpoint(with_key=False)
    set_rotator(by=None, endpoint=made, rotator="provided", settings={}, max_age=None)
    store_rotator_key(by=None, endpoint=made, key=upstream.admin_key)
    return made


def go_on(rotation: Rotation, role: Any) -> float:
    """What the next worker does; the seconds that it took to the end."""
    began = time.monotonic()
    with role("worker"):
        while rotation.is_open and time.monotonic() - began < 60:
            rotate_due()
            rotation.refresh_from_db()
            time.sleep(0.1)
    assert not rotation.is_open, (rotation.state, rotation.waits_for, rotation.last_error)
    return time.monotonic() - began


def test_every_failpoint_is_tried() -> None:
    assert len(HERE) == 7
    assert set(HERE) >= SHORT


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param(name, marks=[] if name in SHORT else [pytest.mark.slow])
        for name in FAILPOINTS
        if name.startswith("rotate:")
    ],
)
def test_a_rotation_that_died_is_ended_by_the_next_worker(
    failpoint: str,
    endpoint: Endpoint,
    upstream: Upstream,
    servers: Servers,
    role: Any,
    tmp_path: Path,
) -> None:
    go_on(rotate(by=None, endpoint=endpoint), role)
    with role("gateway"):
        old = usable_key(endpoint.slug)
    assert old is not None
    rotation = rotate(by=None, endpoint=endpoint)
    Act(servers, tmp_path).dies_at(failpoint, *WORK, role="worker")
    with role("gateway"):
        meanwhile = usable_key(endpoint.slug)
    assert meanwhile is not None
    assert meanwhile.secret in upstream.keys, "whatever gateways use works, at every moment"
    rotation.refresh_from_db()
    assert rotation.state != RotationState.RETIRED
    assert rotation.next_attempt_at <= clock.now(), "nobody has to wait for it"

    took = go_on(rotation, role)
    with role("gateway"):
        new = usable_key(endpoint.slug)
    assert new is not None
    assert new.secret in upstream.keys
    assert old.secret not in upstream.keys
    named = [pk for pk, (name, _) in upstream.managed.items() if name == rotation.name]
    assert len(named) == 1, "what was made and lost is gone at the provider"
    assert upstream.managed[named[0]][1] == new.secret
    kept = servers.vault("GET", f"kv/metadata/upstream/{endpoint.slug}")["data"]["versions"]
    assert kept[str(old.version)]["destroyed"]
    report.add(
        f"`{failpoint}`",
        "the new key opens, the old one is refused and destroyed",
        took,
        to="rotate",
    )
