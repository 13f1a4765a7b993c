from collections.abc import Iterator

import pytest

from tests.credentials.targets import Target
from tests.faults import killing
from tests.faults.kinds import Tried
from tests.faults.kinds import tried as all_tried
from tests.servers import Servers


@pytest.fixture(scope="module")
def tried(servers: Servers, target: Target) -> Iterator[dict[str, Tried]]:
    """The kinds that are killed, whose targets `killing.standing` asks too."""
    kinds = all_tried(servers, target)
    looks = [kind.alive for kind in kinds.values() if kind.alive is not None]
    killing.targets += looks
    yield kinds
    for look in looks:
        killing.targets.remove(look)
