"""What people see of credentials that are ending, and having them tried at once."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from credentials.actions import check_out, try_now, try_target_now
from credentials.models import Credential, Reconciliation, Rotation, UpstreamSecret, Use
from credentials.operations import Asked, listed, summary
from credentials.standing import ending, standing
from tests.api.callers import Caller, problem
from tests.credentials.owing import gone, owed, papers
from tests.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with papers(monkeypatch):
        yield


@pytest.fixture
def admin(world: World) -> User:
    return world.person(is_administrator=True)


def as_(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(answer: Any) -> str:
    """What a reader sees, in one line."""
    text = re.sub(r"<[^>]+>", " ", answer.content.decode())
    return " ".join(text.split())


WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"seconds": 10},
    {"known": False},
    {"known": False, "seconds": 300},
    {"how": "by_expiry", "expires_in": 60},
    {"how": "by_expiry", "expires_in": -61},
    {"how": "by_expiry"},
    {"how": "by_rotation"},
    {"kind": "gateway_token"},
)


def test_the_database_and_python_agree_on_when_each_should_be_gone(world: World) -> None:
    grant = world.grant()
    for way in WAYS:
        owed(grant, **way)
    rows = list(ending())
    assert len(rows) == len(WAYS)
    for row in rows:
        assert standing(row, clock.now()).gone_by == row.gone_by, (row.kind, row.settings)


SAYS = [
    ({}, "Stuck", "and isn’t proven so: ask orders-db: ConnectionError. The gateway refuses it."),
    ({}, "Stuck", "Tried 4 times; the next try is in"),
    ({"seconds": 10, "error": "", "attempts": 0}, "Ending", "making sure that it is gone"),
    ({"seconds": 10}, "Ending", "Not proven gone so far: ask orders-db: ConnectionError"),
    (
        {"how": "by_expiry", "expires_in": 200},
        "Runs out",
        "until then it works where only its signature is checked",
    ),
    ({"how": "by_rotation", "seconds": 9000}, "Waits for rotation", "works until it is replaced"),
]


@pytest.mark.parametrize(("way", "word", "says"), SAYS)
def test_the_grants_page_says_how_each_stands(
    way: dict[str, Any], word: str, says: str, world: World
) -> None:
    grant = world.grant(ended=True)
    owed(grant, **way)
    text = text_of(as_(grant.holder).get(f"/grants/{grant.pk}/"))
    assert word in text
    assert says in text


def test_the_grants_page_says_what_is_live_and_how_one_is_proven_gone(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        check_out(by=grant.holder, grant_id=grant.pk)
    first = Credential.objects.earliest("pk")
    gone(first)
    text = text_of(as_(grant.holder).get(f"/grants/{grant.pk}/"))
    assert "Gateway token" in text
    assert "Stops by itself" in text
    assert "replaced by a newer check-out. Proof: it says so itself." in text
    assert "Immediately, at any moment" in text


def test_what_is_opened_directly_is_not_said_to_be_refused(world: World) -> None:
    endpoint = world.endpoint(
        dialects=["direct"], upstream_url="postgresql://db.internal:5432/orders", with_key=False
    )
    profile = world.profile(
        endpoint=endpoint, scope={"operations": ["CONNECT /orders"]}, credential_kind="paper"
    )
    grant = world.grant(profile=profile, ended=True)
    owed(grant)
    text = text_of(as_(grant.holder).get(f"/grants/{grant.pk}/"))
    assert "It may still work." in text
    assert "refuse" not in text.lower().split("what happened")[0]


@pytest.mark.parametrize("who", ["holder", "reviewer", "owner", "stranger"])
@pytest.mark.parametrize("path", ["/operations/", "/operations/try/"])
def test_nobody_else_sees_what_is_owed(who: str, path: str, world: World) -> None:
    grant = world.grant()
    [row] = owed(grant)
    person = {
        "holder": grant.holder,
        "reviewer": world.person(grant.request.profile.reviewers),
        "owner": grant.request.profile.endpoint.owner,
        "stranger": world.person(),
    }[who]
    client = as_(person)
    answer = client.post(path, {"credential": str(row.pk)}) if "try" in path else client.get(path)
    assert answer.status_code == 404
    assert 'href="/operations/"' not in client.get("/").content.decode()
    refused = AuditEvent.objects.get(event=Event.ACCESS_REFUSED, actor_id=person.pk)
    assert refused.data["path"] == path
    before, row_now = row.next_attempt_at, Credential.objects.get(pk=row.pk)
    assert row_now.next_attempt_at == before


def test_an_auditor_reads_and_does_not_act(world: World) -> None:
    auditor = world.person(is_auditor=True)
    [row] = owed(world.grant(), target="orders-db")
    client = as_(auditor)
    page = client.get("/operations/")
    assert page.status_code == 200
    assert "Try now" not in page.content.decode()
    for body in ({"credential": str(row.pk)}, {"kind": "paper", "target": "orders-db"}):
        assert client.post("/operations/try/", body).status_code == 403
    assert AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=auditor.pk).count() == 2
    assert not AuditEvent.objects.filter(event=Event.CREDENTIAL_TRIED).exists()


def test_without_its_csrf_token_nothing_is_tried(world: World, admin: User) -> None:
    [row] = owed(world.grant())
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin)
    assert client.post("/operations/try/", {"credential": str(row.pk)}).status_code == 403
    assert not AuditEvent.objects.filter(event=Event.CREDENTIAL_TRIED).exists()


def test_an_administrator_has_one_tried_now(world: World, admin: User) -> None:
    first, second = owed(world.grant(), count=2)
    answer = as_(admin).post("/operations/try/", {"credential": str(first.pk), "query": "page=1"})
    assert answer["Location"] == "/operations/?page=1"
    first.refresh_from_db()
    second.refresh_from_db()
    assert first.next_attempt_at is not None
    assert second.next_attempt_at is not None
    assert first.next_attempt_at <= clock.now() < second.next_attempt_at
    event = AuditEvent.objects.get(event=Event.CREDENTIAL_TRIED)
    assert (event.subject_id, event.actor_id) == (first.pk, admin.pk)
    assert first.grant_id in event.related


def test_what_is_gone_or_live_is_not_tried(world: World, admin: User) -> None:
    grant = world.grant()
    [row] = owed(grant)
    gone(row)
    caller = Caller(admin)
    told = problem(caller.post(f"credentials/{row.pk}/try-now/"), 409, "conflict")
    assert "it says so itself" in told["detail"]
    live = check_out(by=grant.holder, grant_id=grant.pk).credential
    problem(caller.post(f"credentials/{live.pk}/try-now/"), 409, "conflict")
    assert as_(admin).post("/operations/try/", {"credential": str(row.pk)}).status_code == 409
    body = {"kind": "paper", "target": "orders-db"}
    assert as_(admin).post("/operations/try/", body).status_code == 409
    assert not AuditEvent.objects.filter(event=Event.CREDENTIAL_TRIED).exists()


def test_all_of_a_target_are_tried_and_none_of_another(world: World, admin: User) -> None:
    grant = world.grant()
    mine = owed(grant, count=30, target="orders-db") + owed(grant, target="orders-db", role="two")
    owed(grant, target="another-db")
    owed(grant, kind="gateway_token")
    assert try_target_now(by=admin, kind="paper", target="orders-db") == 31
    assert try_target_now(by=admin, kind="paper", target="orders-db") == 0, "they're due already"
    due = Credential.objects.filter(next_attempt_at__lte=clock.now())
    assert set(due.values_list("pk", flat=True)) == {row.pk for row in mine}
    assert AuditEvent.objects.filter(event=Event.CREDENTIAL_TRIED).count() == 31


def test_a_worker_revokes_what_is_tried_now(world: World, admin: User, sweep: Any) -> None:
    grant = world.grant()
    row = check_out(by=grant.holder, grant_id=grant.pk).credential
    as_(grant.holder).post(f"/grants/{grant.pk}/end/")
    later = clock.now().replace(year=2099)
    Credential.objects.filter(pk=row.pk).update(next_attempt_at=later)
    sweep()
    row.refresh_from_db()
    assert row.state == "revoking"
    try_now(by=admin, credential_id=row.pk)
    sweep()
    row.refresh_from_db()
    assert row.state == "revoked"


def test_filters_are_in_the_address(world: World, admin: User) -> None:
    one, other = world.grant(), world.grant()
    [late] = owed(one, target="orders-db")
    [soon] = owed(other, seconds=5, how="by_expiry", expires_in=100, target="tokens")
    client = as_(admin)
    for query, shown in {
        "": {late, soon},
        "show=stuck": {late},
        "show=waiting": {soon},
        "show=due": {late},
        "kind=paper&target=tokens": {soon},
        f"q={one.holder.email}": {late},
        f"q={other.request.profile.endpoint.slug}": {soon},
        f"q={late.name}": {late},
        "q=nobody": set(),
        "show=%00x&page=9999999&kind=a%27b&target=%22%3Cb%3E": set(),
    }.items():
        text = client.get(f"/operations/?{query}").content.decode()
        assert {row for row in (late, soon) if row.name in text} == shown, query
        assert "<b>" not in text
    part = client.get("/operations/", headers={"HX-Request": "true", "HX-Target": "owed"})
    assert part.content.decode().lstrip().startswith('<div id="owed"')


def test_thousands_are_grouped_and_paged_in_few_queries(world: World, admin: User) -> None:
    grants = [world.grant() for _ in range(3)]
    for grant in grants:
        owed(grant, count=10, target="orders-db")
        owed(grant, count=10, how="by_expiry", expires_in=100)
    client = as_(admin)
    with CaptureQueriesContext(
        connection,
    ) as few:
        client.get("/operations/")
    for grant in grants:
        owed(grant, count=600, target="orders-db")
        owed(grant, count=60, kind="gateway_token")
    with CaptureQueriesContext(connection) as many:
        text = client.get("/operations/").content.decode()
    assert len(many) <= len(few) <= 25
    assert text.count('name="credential"') == 50
    found = summary()
    assert (found.count, found.due, found.stuck, found.waiting) == (2040, 2010, 2010, 30)
    assert [(group.target, group.count) for group in found.groups] == [
        ("orders-db", 1830),
        ("Vault", 180),
        ("Expiry", 30),
    ]
    pages = [listed(Asked(page=page), found.now) for page in (1, 41, 42)]
    assert [(len(page.rows), page.has_next) for page in pages] == [
        (50, True),
        (40, False),
        (0, False),
    ]


def test_what_vault_gave_up_and_what_nobody_owns_is_shown(world: World, admin: User) -> None:
    assert "Nothing is owed" in text_of(as_(admin).get("/operations/"))
    Reconciliation.objects.create(
        at=clock.now(),
        took=0.4,
        looked_at=4905,
        found=2,
        ended=1,
        left=[{"where": "orders-db", "name": "kt-<b>stray</b>", "kind": "paper", "why": "refused"}],
        irrevocable=[{"lease": "database/creds/orders/x", "error": "timed out"}],
        failures={"engine": "ConnectionError"},
    )
    answer = as_(admin).get("/operations/")
    text = text_of(answer)
    for said in ("4,905", "database/creds/orders/x", "timed out", "engine couldn’t be asked"):
        assert said in text
    assert "<b>stray" not in answer.content.decode()


def test_rotations_that_are_not_over_are_listed_and_the_late_ones_marked(
    world: World, admin: User
) -> None:
    moment = clock.now()
    late, soon, over = rotations(world, -HOUR, HOUR, None)
    assert set(Rotation.objects.late(moment)) == {late}
    assert [(row, row.is_late(moment)) for row in (late, soon, over)] == [
        (late, True),
        (soon, False),
        (over, False),
    ]
    text = text_of(as_(admin).get("/operations/"))
    assert f"{late.secret.endpoint}" in text
    assert text.index("Late") < text.index("Under way")
    assert "the gateway at 10.0.0.7" in text


HOUR = dt.timedelta(hours=1)


def rotations(world: World, *deadlines: dt.timedelta | None) -> list[Rotation]:
    """One for each of an endpoint of its own, due since two hours ago; without one, since now."""
    moment = clock.now()
    found = []
    for deadline in deadlines:
        secret, _ = UpstreamSecret.objects.get_or_create(
            endpoint=world.endpoint(with_key=False), use=Use.UPSTREAM
        )
        row = Rotation.objects.create(
            secret=secret,
            why="age",
            due_at=moment - 2 * HOUR if deadline else moment,
            deadline=moment + deadline if deadline else None,
            waits_for="the gateway at 10.0.0.7",
        )
        found.append(Rotation.objects.select_related("secret__endpoint").get(pk=row.pk))
    return found


def test_the_api_lists_what_is_stuck(world: World, admin: User) -> None:
    grant = world.grant()
    [late] = owed(grant)
    [fine] = owed(grant, seconds=5)
    for query, shown in {
        "stuck=true": [late],
        "stuck=false": [fine],
        "state=revoking&kind=paper&stuck=true": [late],
        "kind=gateway_token": [],
    }.items():
        for person, sees in ((admin, True), (grant.holder, True), (world.person(), False)):
            rows = Caller(person).get(f"credentials/?{query}").json()["results"]
            assert [row["id"] for row in rows] == [str(row.pk) for row in shown if sees], query
    [told] = Caller(admin).get("credentials/?stuck=true").json()["results"]
    assert told["stuck_since"] == told["revoking_since"]
    assert told["next_attempt_at"] > told["stuck_since"]
