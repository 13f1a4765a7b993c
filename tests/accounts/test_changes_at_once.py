"""A change is decided once, however many decide it at the same moment."""

from functools import partial

import pytest

from accounts.models import Change
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Conflict
from tests.accounts.test_changes import add, approve, reject, waiting
from tests.invariants.races import at_once
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.mark.parametrize("many", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_many_approvals_at_once_do_it_once(many: int, world: World) -> None:
    ada, group = world.person(is_administrator=True), world.profile().requesters
    newcomer = world.person()
    others = [world.person(is_administrator=True) for _ in range(5)]
    change = waiting(add(ada, group, newcomer))
    calls = [
        partial(reject if n % 20 == 19 else approve, others[n % 5], change) for n in range(many)
    ]
    outcomes = []
    for begin in range(0, many, 40):
        outcomes += at_once(calls[begin : begin + 40])
    done = [each for each in outcomes if isinstance(each, Change)]
    assert len(done) == 1, outcomes[:5]
    assert all(isinstance(each, Conflict) for each in outcomes if each not in done)
    events = AuditEvent.objects.about(change.pk).exclude(event=Event.CHANGE_PROPOSED)
    assert events.count() == 1
    assert group.memberships.filter(user=newcomer).count() == (done[0].state == "applied")


def test_two_proposals_at_once_leave_one(world: World) -> None:
    group, newcomer = world.profile().requesters, world.person()
    people = [world.person(is_administrator=True) for _ in range(8)]
    outcomes = at_once([partial(add, person, group, newcomer) for person in people])
    assert sum(isinstance(each, Change) for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 7
