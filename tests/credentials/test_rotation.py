"""Rotation of upstream secrets, with a provider that really makes, takes and refuses keys."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Conflict, Forbidden, InvalidInput, NotFound, StepUpNeeded
from credentials import push, vault
from credentials.actions import (
    check_out,
    confirm_retired,
    end_grant,
    enter_key,
    report_leak,
    rotate,
    rotate_due,
    set_rotator,
    store_rotator_key,
    store_upstream_key,
)
from credentials.live import usable_key
from credentials.models import Credential, Rotation, UpstreamSecret, Use
from credentials.states import CredentialState, RotationReason, RotationState
from endpoints.models import EmergencyStop, Endpoint
from gateway.keys import users_of_older
from gateway.models import Process
from notifications.kinds import Kind
from notifications.models import Notification
from tests.conftest import RunningGateway
from tests.credentials import provided
from tests.upstream import Upstream
from tests.world import PROVED, Proved, World

Role = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def work(role: Role) -> Callable[[], int]:
    """What a worker's ticker does once."""

    def once() -> int:
        with role("worker"):
            return rotate_due()

    return once


@pytest.fixture
def endpoint(world: World, upstream: Upstream) -> Iterator[Endpoint]:
    """One whose key the provider made, and rotates."""
    upstream.manages = True
    made = world.endpoint(with_key=False)
    rotated_by(made, "provided")
    store_rotator_key(by=None, endpoint=made, key=upstream.admin_key)
    yield made
    upstream.manages = True


def rotated_by(endpoint: Endpoint, rotator: str, **fields: Any) -> None:
    usual: dict[str, Any] = {"settings": {}, "max_age": None}
    set_rotator(by=None, endpoint=endpoint, rotator=rotator, **usual | fields)


def now_due(rotation: Rotation) -> None:
    """Whatever it waits for: look again now."""
    Rotation.objects.filter(pk=rotation.pk).update(next_attempt_at=clock.now())


def finish(rotation: Rotation, work: Callable[[], int], seconds: float = 15) -> Rotation:
    until = time.monotonic() + seconds
    while True:
        work()
        rotation.refresh_from_db()
        if not rotation.is_open:
            return rotation
        assert time.monotonic() < until, (rotation.state, rotation.waits_for, rotation.last_error)
        time.sleep(0.1)
        now_due(rotation)


def key_of(endpoint: Endpoint, role: Role) -> str:
    with role("gateway"):
        found = usable_key(endpoint.slug)
    assert found is not None
    return found.secret


def first(endpoint: Endpoint, work: Callable[[], int]) -> Rotation:
    """The provider makes the first key."""
    return finish(rotate(by=None, endpoint=endpoint), work)


@pytest.mark.usefixtures("committed")
def test_an_old_key_is_replaced_retired_and_proven_refused(
    endpoint: Endpoint, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    first(endpoint, work)
    old = key_of(endpoint, role)
    assert old in upstream.keys
    rotation = finish(rotate(by=None, endpoint=endpoint, reason="Somebody left."), work)
    new = key_of(endpoint, role)
    assert new != old
    assert new in upstream.keys
    assert old not in upstream.keys
    assert rotation.proof == "the endpoint refuses it"
    assert (rotation.old_version, rotation.new_version) == (1, 2)
    with role("worker"):
        assert vault.kept(f"upstream/{endpoint.slug}", version=1) is None, "destroyed"
    secret = UpstreamSecret.objects.get(endpoint=endpoint)
    assert (secret.version, secret.last_rotated) == (2, rotation.retired_at)
    events = AuditEvent.objects.about(rotation.pk).values_list("event", flat=True)
    assert sorted(events) == [
        Event.ROTATION_CREATED,
        Event.ROTATION_DUE,
        Event.ROTATION_PUBLISHED,
        Event.ROTATION_RETIRED,
    ]
    for table in (AuditEvent, Rotation, UpstreamSecret):
        assert new not in str(list(table.objects.values())), "a secret is in Vault alone"


def hammer(
    gateway: RunningGateway, endpoint: Endpoint, secret: str, rate: float, over: threading.Event
) -> list[int]:
    """Statuses of calls at this rate, by a few clients, until it's over."""
    found: list[int] = []

    def call(number: int) -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        body = {
            "model": "demo-small",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": number % 3 == 0,
        }
        with httpx.Client(headers=headers, timeout=30) as client:
            at = time.monotonic()
            while not over.is_set():
                url = f"{gateway.base(endpoint.slug)}/chat/completions"
                answer = client.post(url, json=body)
                broken = answer.status_code == 200 and b'"error"' in answer.content
                found.append(599 if broken else answer.status_code)
                at += CLIENTS / rate
                time.sleep(max(0.0, at - time.monotonic()))

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


CLIENTS = 10


def rotate_under_load(
    rate: float,
    times: int,
    gateway: RunningGateway,
    endpoint: Endpoint,
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    role: Role,
) -> list[int]:
    first(endpoint, work)
    grant = world.grant(profile=world.profile(endpoint=endpoint))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    over, found = threading.Event(), []
    load = threading.Thread(
        target=lambda: found.extend(hammer(gateway, endpoint, secret, rate, over))
    )
    load.start()
    try:
        time.sleep(1)
        for _ in range(times):
            old = key_of(endpoint, role)
            finish(rotate(by=None, endpoint=endpoint), work)
            assert old not in upstream.keys
            refused = [each for each in upstream.refused if old in str(each["headers"])]
            assert all(each["headers"]["User-Agent"] != "keyturn-gateway" for each in refused)
            time.sleep(0.5)
    finally:
        over.set()
        load.join(30)
    return found


@pytest.mark.usefixtures("committed")
def test_no_call_fails_while_keys_are_rotated(
    gateway: RunningGateway,
    endpoint: Endpoint,
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    role: Role,
) -> None:
    found = rotate_under_load(50, 2, gateway, endpoint, world, upstream, work, role)
    assert len(found) > 50
    assert set(found) == {200}


@pytest.mark.slow
@pytest.mark.usefixtures("committed")
def test_no_call_fails_at_a_hundred_a_second(
    gateway: RunningGateway,
    endpoint: Endpoint,
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    role: Role,
) -> None:
    found = rotate_under_load(100, 10, gateway, endpoint, world, upstream, work, role)
    assert len(found) > 1000
    assert set(found) == {200}


@pytest.mark.usefixtures("committed")
def test_the_old_key_is_kept_while_a_call_is_on_its_way_with_it(
    gateway: RunningGateway,
    endpoint: Endpoint,
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    role: Role,
) -> None:
    first(endpoint, work)
    grant = world.grant(profile=world.profile(endpoint=endpoint))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    old = key_of(endpoint, role)
    over: list[int] = []

    def call() -> None:
        answer = httpx.post(
            f"{gateway.base(endpoint.slug)}/chat/completions",
            json={"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]},
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
        )
        over.append(answer.status_code)

    with upstream.behaving(first_byte=2.5, key=old):
        slow = threading.Thread(target=call)
        slow.start()
        upstream.wait(lambda it: it.open > 0)
        rotation = rotate(by=None, endpoint=endpoint)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            work()
            now_due(rotation)
            time.sleep(0.1)
        rotation.refresh_from_db()
        assert rotation.state == RotationState.PUBLISHED
        assert rotation.waits_for.startswith("gateways that may still use the old key: ")
        assert old in upstream.keys
        assert not over
        slow.join()
    assert over == [200]
    finish(rotation, work)
    assert old not in upstream.keys


@pytest.mark.usefixtures("committed")
def test_a_call_with_a_key_that_is_gone_is_made_once_more_with_the_new_one(
    gateway: RunningGateway,
    endpoint: Endpoint,
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    role: Role,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a gateway finds it that nobody waited for, and that no push reached."""
    first(endpoint, work)
    grant = world.grant(profile=world.profile(endpoint=endpoint))
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret

    def call() -> int:
        url = f"{gateway.base(endpoint.slug)}/chat/completions"
        body = {"model": "demo-small", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.post(url, json=body, headers=headers, timeout=30).status_code

    assert call() == 200
    monkeypatch.setattr("credentials.actions.rotating._using", [])
    monkeypatch.setattr(push, "replaced", lambda *_: False)
    old = key_of(endpoint, role)
    finish(rotate(by=None, endpoint=endpoint), work)
    assert call() == 200
    tried = [each for each in upstream.refused if old in str(each["headers"])]
    by_gateway = [each for each in tried if each["headers"]["User-Agent"] == "keyturn-gateway"]
    assert len(by_gateway) == 1


@pytest.mark.usefixtures("committed")
def test_a_silent_gateway_is_not_waited_for_and_a_new_one_is(world: World) -> None:
    since = clock.now()
    second = dt.timedelta(seconds=1)
    Process.objects.all().delete()

    def gateway(host: str, beat: dt.timedelta, keys: dict[str, int], at: dt.timedelta) -> None:
        Process.objects.create(
            host=host, beat_at=since + beat, keys=keys, keys_at=since + at if keys else None
        )

    gateway("old", second, {"e": 1}, second)
    gateway("new", second, {"e": 2}, second)
    gateway("unused", second, {"other": 1}, second)
    gateway("reading", second, {"e": 0}, second)
    gateway("early", second, {"e": 2}, -second)
    gateway("begun", second, {}, second)
    gateway("silent", -20 * second, {"e": 1}, -20 * second)
    assert sorted(users_of_older("e", 2, since)) == ["begun", "early", "old", "reading"]
    Process.objects.all().delete()


@pytest.mark.django_db
def test_a_key_that_a_person_stores_meanwhile_is_the_new_one(
    endpoint: Endpoint, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    first(endpoint, work)
    upstream.keys.add("sk-by-hand-1")
    rotation = rotate(by=None, endpoint=endpoint)
    create = provided.Provided.create

    def meanwhile(self: provided.Provided, job: Any) -> Any:
        made = create(self, job)
        # web's login, at the very moment at which the worker is about to write.
        with role("web"):
            store_upstream_key(by=None, endpoint=endpoint, key="sk-by-hand-1")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provided.Provided, "create", meanwhile)
        finish(rotation, work)
    assert key_of(endpoint, role) == "sk-by-hand-1"
    named = [name for name, _ in upstream.managed.values()]
    assert rotation.name not in named, "what was made for nothing is gone at the provider"
    assert rotation.proof == "the endpoint refuses it", "and so is the old one"
    assert UpstreamSecret.objects.get(endpoint=endpoint).handle == {}


@pytest.mark.django_db
def test_a_key_over_one_that_a_rotator_made_is_a_rotation_of_its_own(
    endpoint: Endpoint, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    first(endpoint, work)
    old = key_of(endpoint, role)
    upstream.keys.add("sk-by-hand-2")
    store_upstream_key(by=None, endpoint=endpoint, key="sk-by-hand-2")
    assert key_of(endpoint, role) == old, "it isn't used before it was tried"
    rotation = Rotation.objects.open().get(secret__endpoint=endpoint)
    finish(rotation, work)
    assert key_of(endpoint, role) == "sk-by-hand-2"
    assert old not in upstream.keys


@pytest.mark.django_db
def test_a_provider_that_is_down_for_long_is_asked_again_and_people_are_told(
    endpoint: Endpoint, upstream: Upstream, world: World, work: Callable[[], int], role: Role
) -> None:
    first(endpoint, work)
    admin = world.person(is_administrator=True)
    upstream.manages = False
    rotation = rotate(by=None, endpoint=endpoint)
    for _ in range(4):
        work()
        rotation.refresh_from_db()
        assert 0 < (rotation.next_attempt_at - clock.now()).total_seconds() <= 60
        now_due(rotation)
    assert rotation.last_error == "The provider answers 503 to GET."
    about = AuditEvent.objects.about(rotation.pk)
    assert about.filter(event=Event.ROTATION_STUCK).count() == 1
    told = Notification.objects.filter(kind=Kind.ROTATION_STUCK, subject_id=rotation.pk)
    assert not told.exists(), "five minutes aren't over"
    Rotation.objects.filter(pk=rotation.pk).update(deadline=clock.now())
    work()
    work()
    assert {each.person for each in told} >= {endpoint.owner, admin}
    assert told.filter(person=admin).count() == 1

    upstream.manages = True
    finish(rotation, work)
    assert not told.unread().exists()


@pytest.mark.django_db
def test_a_new_key_that_the_endpoint_refuses_is_not_published(
    endpoint: Endpoint, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    first(endpoint, work)
    old = key_of(endpoint, role)
    rotation = rotate(by=None, endpoint=endpoint)
    keys, create = upstream.keys, provided.Provided.create

    def slow_to_spread(self: provided.Provided, job: Any) -> Any:
        made = create(self, job)
        keys.discard(made.secret)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provided.Provided, "create", slow_to_spread)
        work()
    rotation.refresh_from_db()
    assert rotation.state == RotationState.CREATED
    assert rotation.last_error == "The endpoint refuses the new key so far."
    assert key_of(endpoint, role) == old
    # For so long that another one is made, which works.
    Rotation.objects.filter(pk=rotation.pk).update(
        created_at=clock.now() - dt.timedelta(minutes=11)
    )
    now_due(rotation)
    finish(rotation, work)
    assert key_of(endpoint, role) in keys
    names = [name for name, _ in upstream.managed.values()]
    assert names.count(rotation.name) == 1


@pytest.mark.django_db
def test_a_provider_of_one_key_swaps_in_place(
    endpoint: Endpoint, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    upstream.managed.clear()
    rotated_by(endpoint, "one_at_a_time")
    first(endpoint, work)
    old = key_of(endpoint, role)
    rotation = finish(rotate(by=None, endpoint=endpoint), work)
    assert old not in upstream.keys
    assert key_of(endpoint, role) in upstream.keys
    assert rotation.proof == "the endpoint refuses it"


@pytest.mark.django_db
def test_an_owner_rotates_by_hand_and_is_not_believed_unseen(
    world: World, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    endpoint = world.endpoint()
    owner = endpoint.owner
    upstream.keys |= {"sk-hand-old", "sk-hand-new"}
    store_upstream_key(by=None, endpoint=endpoint, key="sk-hand-old")
    report_leak(by=owner, endpoint=endpoint, reason="It was in a screenshot.")
    rotation = Rotation.objects.open().get(secret__endpoint=endpoint)
    assert rotation.deadline is not None
    assert rotation.deadline - clock.now() <= dt.timedelta(days=1)
    asked = Notification.objects.filter(person=owner, kind=Kind.ROTATION_WANTED)
    assert asked.unread().count() == 1
    secret = rotation.secret
    assert secret.is_exposed

    def look() -> Rotation:
        now_due(rotation)
        work()
        rotation.refresh_from_db()
        return rotation

    def enter(key: str) -> None:
        enter_key(by=owner, endpoint=endpoint, key=key, proofs=PROVED)

    assert look().waits_for.startswith("the owner to make a new key")
    enter("sk-hand-old")
    assert look().last_error == "What was stored is the very key to be replaced."
    enter("sk-hand-typo")
    assert look().last_error == "The endpoint refuses the key that was stored."
    assert key_of(endpoint, role) == "sk-hand-old"
    enter("sk-hand-new")
    assert look().state == RotationState.PUBLISHED
    assert key_of(endpoint, role) == "sk-hand-new"
    assert look().waits_for.startswith("the owner to delete the old key")
    assert asked.unread().count() == 2, "and asks for the second half"

    def confirm() -> None:
        confirm_retired(by=owner, rotation_id=rotation.pk, proofs=PROVED)

    confirm()
    assert look().last_error == "The endpoint still takes the old key."
    upstream.keys.discard("sk-hand-old")
    confirm()
    assert not look().is_open
    assert not UpstreamSecret.objects.get(endpoint=endpoint).is_exposed
    assert not asked.unread().exists()


@pytest.mark.django_db
def test_what_a_rotator_did_not_make_waits_for_a_person(
    world: World, upstream: Upstream, work: Callable[[], int], role: Role
) -> None:
    endpoint = world.endpoint(with_key=False)
    upstream.keys.add("sk-before-the-rotator")
    store_upstream_key(by=None, endpoint=endpoint, key="sk-before-the-rotator")
    rotated_by(endpoint, "provided")
    store_rotator_key(by=None, endpoint=endpoint, key=upstream.admin_key)
    rotation = rotate(by=None, endpoint=endpoint)
    work()
    rotation.refresh_from_db()
    assert rotation.waits_for.startswith("somebody to delete the old key at its provider")
    assert Notification.objects.filter(kind=Kind.ROTATION_WANTED, person=endpoint.owner).exists()
    upstream.keys.discard("sk-before-the-rotator")
    finish(rotation, work)


@pytest.mark.django_db
def test_age_makes_it_due_once(endpoint: Endpoint, work: Callable[[], int]) -> None:
    first(endpoint, work)
    rotated_by(endpoint, "provided", max_age=dt.timedelta(days=30))
    work()
    assert not Rotation.objects.open().filter(secret__endpoint=endpoint).exists()
    UpstreamSecret.objects.filter(endpoint=endpoint).update(
        stored_at=clock.now() - dt.timedelta(days=31)
    )
    work()
    rotation = Rotation.objects.filter(secret__endpoint=endpoint).latest("id")
    assert rotation.why == RotationReason.AGE
    finish(rotation, work)
    work()
    assert Rotation.objects.filter(secret__endpoint=endpoint).count() == 2


@pytest.mark.django_db
def test_who_may_rotate_report_and_store(
    world: World, upstream: Upstream, work: Callable[[], int]
) -> None:
    profile = world.profile(with_key=True)
    endpoint = profile.endpoint
    owner, admin = endpoint.owner, world.person(is_administrator=True)
    holder, stranger = world.person(profile.requesters), world.person()
    stale = Proved(ago=dt.timedelta(hours=1))

    for verb in (
        lambda by, said: rotate(by=by, endpoint=endpoint, proofs=said),
        lambda by, said: enter_key(by=by, endpoint=endpoint, key="sk-x", proofs=said),
    ):
        with pytest.raises(NotFound):
            verb(stranger, PROVED)
        with pytest.raises(Forbidden, match="Only its owner and administrators"):
            verb(holder, PROVED)
        for who in (owner, admin):
            with pytest.raises(StepUpNeeded):
                verb(who, stale)
    with pytest.raises(NotFound):
        report_leak(by=stranger, endpoint=endpoint, reason="It leaked.")
    with pytest.raises(InvalidInput):
        report_leak(by=holder, endpoint=endpoint, reason=" ")
    with pytest.raises(Forbidden):
        report_leak(by=holder, endpoint=endpoint, reason="It leaked.", stop_it=True, proofs=PROVED)
    assert not Rotation.objects.filter(secret__endpoint=endpoint).exists()

    report_leak(by=holder, endpoint=endpoint, reason="It is in a public repository.")
    rotation = Rotation.objects.get(secret__endpoint=endpoint)
    assert (rotation.why, rotation.by) == (RotationReason.LEAK, holder)
    told = Notification.objects.filter(kind=Kind.KEY_LEAKED, subject_id=rotation.secret_id)
    assert {each.person for each in told} >= {owner, admin}
    assert told[0].quote == "It is in a public repository."
    event = AuditEvent.objects.get(event=Event.SECRET_LEAKED, subject_id=endpoint.pk)
    assert event.data["reason"] == "It is in a public repository."
    report_leak(by=owner, endpoint=endpoint, reason="I see it too.", stop_it=True, proofs=PROVED)
    assert EmergencyStop.objects.in_force().filter(endpoint=endpoint).exists()
    assert Rotation.objects.filter(secret__endpoint=endpoint).count() == 1
    with pytest.raises(Conflict, match="being rotated since"):
        rotate(by=owner, endpoint=endpoint, proofs=PROVED)
    with pytest.raises(NotFound):
        confirm_retired(by=holder, rotation_id=rotation.pk, proofs=PROVED)
    with pytest.raises(Conflict, match="no old key"):
        confirm_retired(by=owner, rotation_id=rotation.pk, proofs=PROVED)


@pytest.mark.django_db
def test_a_leak_of_what_was_just_published_is_a_rotation_of_its_own(
    endpoint: Endpoint, work: Callable[[], int]
) -> None:
    rotation = first(endpoint, work)
    secret = rotation.secret
    rotation = rotate(by=None, endpoint=endpoint)
    with pytest.MonkeyPatch.context() as patch:

        def wait(*_: object) -> list[str]:
            return ["gw-1"]

        patch.setattr("credentials.actions.rotating._using", [wait])
        work()
    rotation.refresh_from_db()
    assert rotation.state == RotationState.PUBLISHED
    report_leak(by=endpoint.owner, endpoint=endpoint, reason="The new one!")
    finish(rotation, work)
    secret.refresh_from_db()
    assert secret.leaked_at is not None
    work()
    again = Rotation.objects.filter(secret=secret).latest("id")
    assert again.why == RotationReason.LEAK
    finish(again, work)
    secret.refresh_from_db()
    assert secret.leaked_at is None


@pytest.mark.django_db
def test_rotators_are_checked_when_they_are_set(world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"rotator": "nobody"}, "rotator"),
        ({"rotator": "manual", "settings": {"days": 0}}, "settings.days"),
        ({"rotator": "manual", "max_age": dt.timedelta(seconds=1)}, "max_age"),
        ({"rotator": "manual", "probe": "v1/models"}, "probe"),
    )
    for fields, at in wrong:
        with pytest.raises(InvalidInput) as caught:
            rotated_by(endpoint, **fields)
        assert set(caught.value.errors) == {at}
    assert not UpstreamSecret.objects.filter(endpoint=endpoint).exists()


@pytest.mark.usefixtures("committed")
def test_a_grant_that_handed_a_key_out_makes_it_due_when_it_ends(
    world: World,
    upstream: Upstream,
    work: Callable[[], int],
    sweep: Callable[[], int],
) -> None:
    profile = world.profile(credential_kind="static_secret")
    endpoint = profile.endpoint
    rotated_by(endpoint, "provided", use=Use.HANDED_OUT)
    store_rotator_key(by=None, endpoint=endpoint, key=upstream.admin_key)
    finish(rotate(by=None, endpoint=endpoint, use=Use.HANDED_OUT), work)
    grant = world.grant(profile=profile)
    held = check_out(by=grant.holder, grant_id=grant.pk)
    work()
    secret = UpstreamSecret.objects.get(endpoint=endpoint, use=Use.HANDED_OUT)
    assert secret.exposed_at == held.credential.created_at
    assert not Rotation.objects.open().filter(secret=secret).exists(), "its grant still runs"
    assert held.secret in upstream.keys

    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()
    work()
    rotation = Rotation.objects.filter(secret=secret).latest("id")
    assert rotation.why == RotationReason.EXPOSURE
    finish(rotation, work)
    assert held.secret not in upstream.keys
    assert UpstreamSecret.objects.get(pk=secret.pk).exposed_at is None
    Credential.objects.filter(pk=held.credential.pk).update(next_attempt_at=clock.now())
    sweep()
    gone = Credential.objects.get(pk=held.credential.pk)
    assert gone.state == CredentialState.REVOKED
    assert "is rotated" in gone.proof
