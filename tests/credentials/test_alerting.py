"""Who is told of what is stuck, and how often."""

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import transaction
from django.test import override_settings

from accessrequests.models import Grant
from accounts.models import User
from credentials.actions import alert_stuck
from credentials.models import Credential
from credentials.sweeper import tickers
from notifications.kinds import Kind
from notifications.models import Delivery, Notification
from tests.credentials.owing import gone, owed, papers
from tests.invariants.races import at_once
from tests.world import World, unique

db = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with papers(monkeypatch):
        yield


@pytest.fixture
def admin(world: World) -> User:
    return world.person(is_administrator=True)


def owner_of(grant: Grant) -> User:
    owner: User = grant.request.profile.endpoint.owner
    return owner


def told(person: User) -> list[Notification]:
    return list(Notification.objects.filter(person=person, kind=Kind.CREDENTIAL_STUCK))


@db
def test_the_administrator_and_the_owner_are_told_once(world: World, admin: User) -> None:
    grant = world.grant()
    [row] = owed(grant, target="orders-db")
    assert alert_stuck() == 1
    assert alert_stuck() == 0
    [for_admin], [for_owner] = told(admin), told(owner_of(grant))
    endpoint = str(grant.request.profile.endpoint)
    assert for_admin.sentence == f"A credential of {endpoint} isn’t gone yet, and should be"
    facts = dict(for_admin.facts)
    assert facts["Waits for"] == "orders-db"
    assert facts["Last answer"] == "ask orders-db: ConnectionError"
    assert facts["Meanwhile"] == "the gateway refuses it"
    assert for_admin.path == "/operations/?show=stuck"
    assert for_owner.path == f"/grants/{grant.pk}/"
    assert not Notification.objects.filter(
        kind=Kind.CREDENTIAL_STUCK, person__in=[grant.holder, world.person(is_auditor=True)]
    ).exists()
    row.refresh_from_db()
    assert row.alerted_at is not None


@db
@pytest.mark.parametrize(
    ("settings", "late"),
    [
        ({}, True),
        ({"seconds": 40}, False),
        ({"how": "by_expiry", "expires_in": 30}, False),
        ({"how": "by_expiry", "expires_in": -30}, False),
        ({"how": "by_expiry", "expires_in": -70}, True),
        ({"how": "by_rotation", "seconds": 9000}, False),
        # A mint without an answer may still land for 70 seconds.
        ({"known": False, "seconds": 100}, False),
        ({"known": False, "seconds": 200}, True),
    ],
)
def test_what_waits_for_its_time_is_not_late(
    settings: dict[str, object], late: bool, world: World, admin: User
) -> None:
    owed(world.grant(), **settings)  # type: ignore[arg-type]
    assert alert_stuck() == late
    assert len(told(admin)) == late


@db
@override_settings(KEYTURN_EMAIL="backend", KEYTURN_EMAIL_URL="smtp://127.0.0.1:9")
def test_a_target_that_is_down_makes_one_mail_for_each_person(world: World, admin: User) -> None:
    owner = world.person()
    profiles = [world.profile(endpoint=world.endpoint(owner=owner, with_key=False)) for _ in "ab"]
    grants = [world.grant(profile=profile) for profile in profiles]
    for grant in grants:
        owed(grant, count=500, target="orders-db")
    assert alert_stuck() == 1000
    # What gets stuck there later adds nothing; what waits for something else is news.
    owed(grants[0], count=3, target="orders-db")
    assert alert_stuck() == 3
    assert len(told(admin)) == len(told(owner)) == 1
    assert told(owner)[0].sentence.startswith("1,000 credentials of 2 endpoints aren’t gone")
    assert Delivery.objects.filter(notification__kind=Kind.CREDENTIAL_STUCK).count() == 2
    elsewhere = world.grant()
    owed(elsewhere, target="orders-db")
    owed(grants[0], target="another-db")
    alert_stuck()
    assert len(told(owner_of(elsewhere))) == 1, "news to whoever had none of it before"
    assert len(told(admin)) == len(told(owner)) == 2


@db
def test_an_owner_who_is_an_administrator_is_told_once(world: World, admin: User) -> None:
    endpoint = world.endpoint(owner=admin, with_key=False)
    owed(world.grant(profile=world.profile(endpoint=endpoint)))
    alert_stuck()
    assert len(told(admin)) == 1


@db
def test_it_is_withdrawn_when_all_of_it_is_gone_and_told_anew_the_next_time(
    world: World, admin: User
) -> None:
    first, second = world.grant(), world.grant()
    mine = owed(first, count=2, target="orders-db")
    [theirs] = owed(second, target="orders-db")
    alert_stuck()
    gone(*mine)
    assert told(admin)[0].read_at is None, "one of them is still stuck"
    assert told(owner_of(first))[0].read_at is not None, "all of this owner's are gone"
    assert told(owner_of(second))[0].read_at is None
    gone(theirs)
    assert told(admin)[0].read_at is not None
    assert told(owner_of(second))[0].read_at is not None
    owed(first, target="orders-db")
    alert_stuck()
    assert [row.read_at is None for row in told(admin)] == [True, False]
    assert len(told(owner_of(second))) == 1


@db
def test_what_was_not_told_is_not_withdrawn(world: World, admin: User) -> None:
    stuck = owed(world.grant(), target="orders-db")
    alert_stuck()
    gone(*owed(world.grant(), seconds=2, target="orders-db"))
    assert told(admin)[0].read_at is None
    assert Credential.objects.get(pk=stuck[0].pk).state == "revoking"


@db
def test_what_is_opened_directly_may_still_work_and_that_is_said(world: World, admin: User) -> None:
    endpoint = world.endpoint(
        dialects=["direct"], upstream_url="postgresql://db.internal:5432/orders", with_key=False
    )
    profile = world.profile(
        endpoint=endpoint, scope={"operations": ["CONNECT /orders"]}, credential_kind="paper"
    )
    owed(world.grant(profile=profile), target="orders-db")
    alert_stuck()
    assert dict(told(admin)[0].facts)["Meanwhile"] == f"it may still open {endpoint}"


def test_of_two_workers_that_close_the_last_ones_at_once_one_withdraws(
    committed: None, world: World
) -> None:
    admin = world.person(is_administrator=True)
    first, second = owed(world.grant(), count=2, target=f"db-{unique()}")
    alert_stuck()
    [before] = [row for row in told(admin) if row.read_at is None]
    closed = threading.Event()

    def slowly() -> None:
        with transaction.atomic():
            gone(first)
            closed.set()
            time.sleep(0.5)

    def meanwhile() -> None:
        assert closed.wait(10)
        gone(second)

    assert at_once([slowly, meanwhile]) == [None, None]
    before.refresh_from_db()
    assert before.read_at is not None


@db
def test_each_worker_raises_alarm_by_itself(world: World, admin: User) -> None:
    owed(world.grant())
    [alerter] = [ticker for ticker in tickers() if ticker.name == "alerter"]
    alerter.tick()
    assert len(told(admin)) == 1
