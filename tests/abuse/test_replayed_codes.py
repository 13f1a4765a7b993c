"""Codes and answers of passkeys, replayed and raced; and no way around a Vault that is sealed."""

import datetime as dt
from collections.abc import Iterator

import pytest
from django.test import Client

from accounts import factors, passkeys, recovery, stepup
from accounts.models import Totp, User
from accounts.passkeys import Ceremony
from accounts.sessions import SessionStore
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import InvalidInput, StepUpNeeded, TooManyTries
from tests.accounts.authenticator import code, later
from tests.accounts.passkey import passkey_of, proved_for_factors
from tests.invariants.races import at_once
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def known(committed: None, world: World) -> tuple[User, bytes]:
    user = world.person()
    sealed = factors.new_secret(by=user)
    secret = factors.reveal(by=user, sealed=sealed)
    factors.add(by=user, sealed=sealed, code=code(secret))
    later(user)
    return user, secret


def test_fifty_at_once_with_one_code_prove_once(known: tuple[User, bytes]) -> None:
    user, secret = known
    given = code(secret)
    outcomes = at_once([lambda: factors.prove(by=user, code=given)] * 50)
    assert sum(isinstance(each, dt.datetime) for each in outcomes) == 1
    assert all(isinstance(each, dt.datetime | InvalidInput | TooManyTries) for each in outcomes)
    proved = AuditEvent.objects.filter(event=Event.STEP_UP_PROVED, actor_id=user.pk)
    assert proved.count() == 1


def test_twenty_at_once_with_one_answer_of_a_passkey_prove_once(world: World) -> None:
    user, _, key = passkey_of(world)
    session = SessionStore()
    answer = key.used(passkeys.begin(session, Ceremony.PROVE, by=user))
    copied = dict(session.items())

    def prove() -> dt.datetime:
        mine = SessionStore()
        mine.update(copied)
        begun = passkeys.taken(mine, Ceremony.PROVE)
        _, at = passkeys.prove(by=user, begun=begun, credential=answer)
        return at

    outcomes = at_once([prove] * 20)
    assert sum(isinstance(each, dt.datetime) for each in outcomes) == 1
    assert sum(isinstance(each, InvalidInput) for each in outcomes) == 19


def test_twenty_at_once_with_one_recovery_code_prove_once(world: World) -> None:
    user, _, _ = passkey_of(world)
    [given, *_] = recovery.make(by=user, proofs=proved_for_factors(user))
    outcomes = at_once([lambda: recovery.use(by=user, code=given)] * 20)
    assert sum(isinstance(each, dt.datetime) for each in outcomes) == 1
    assert sum(isinstance(each, InvalidInput) for each in outcomes) == 19
    assert recovery.left(user) == recovery.CODES - 1


def test_two_that_set_one_up_at_once_get_one(committed: None, world: World) -> None:
    user = world.person()

    def add() -> dt.datetime:
        mine = User.objects.get(pk=user.pk)
        sealed = factors.new_secret(by=mine)
        right = code(factors.reveal(by=mine, sealed=sealed))
        return factors.add(by=mine, sealed=sealed, code=right)

    outcomes = at_once([add] * 4)
    assert sum(isinstance(each, dt.datetime) for each in outcomes) == 1
    assert sum(isinstance(each, StepUpNeeded) for each in outcomes) == 3


@pytest.fixture
def sealed_openbao(servers: Servers, committed: None) -> Iterator[None]:
    servers.seal()
    yield
    servers.unseal()


def test_while_openbao_is_sealed_nothing_is_proved_or_set_up(
    known: tuple[User, bytes], sealed_openbao: None, world: World
) -> None:
    user, secret = known
    client = Client()
    client.force_login(user)
    answer = client.post("/step-up/", {"code": code(secret)})
    assert answer.status_code == 503
    assert answer["Retry-After"]
    assert stepup.PROOFS not in client.session
    assert Totp.objects.get(person=user).failures == 0
    newcomer = Client()
    newcomer.force_login(world.person())
    assert newcomer.post("/settings/factor/").status_code == 503
    assert newcomer.get("/settings/factor/").status_code == 200
