"""Who is in, what grants use, stops and prices: who sees them, in how many queries."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accessrequests.models import Grant
from accounts.models import User
from accounts.stepup import Action, Purpose
from audit import clock
from broker.errors import InvalidInput
from credentials import stopping
from credentials.actions import check_out
from endpoints.actions import set_price
from endpoints.models import EmergencyStop, ModelPrice
from endpoints.prices import price_list
from gateway.models import Call, Process, UpstreamHealth
from gateway.retention import drop_old_calls
from gateway.usage import Spent
from tests.api.callers import Caller, problem
from tests.gateway.using import call, refused, used
from tests.world import PROVED, World, prove

pytestmark = pytest.mark.django_db


def browser(user: User, *purposes: Purpose) -> Client:
    """A session of this person, who has proved a second factor for these just now."""
    client = Client()
    client.force_login(user)
    prove(client, *purposes)
    return client


def text_of(answer: Any) -> str:
    text: str = answer.content.decode()
    return text


def in_htmx(target: str) -> dict[str, str]:
    return {"HX-Request": "true", "HX-Target": target}


@pytest.fixture
def grant(world: World) -> Grant:
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    return grant


def test_owners_see_who_is_in_on_their_endpoints_alone(world: World, grant: Grant) -> None:
    other = world.grant()
    owner = grant.request.profile.endpoint.owner
    text = text_of(browser(owner).get("/live/"))
    assert str(grant.holder) in text
    assert str(other.holder) not in text
    auditor = browser(world.person(is_auditor=True))
    for holder in (grant.holder, other.holder):
        assert str(holder) in text_of(auditor.get("/live/", {"q": holder.email}))
    assert "Stop everything" not in text_of(auditor.get("/live/"))
    assert "Stop everything" in text_of(browser(world.person(is_administrator=True)).get("/live/"))
    for nobody in (grant.holder, world.person(grant.request.profile.reviewers), world.person()):
        assert browser(nobody).get("/live/").status_code == 404
        assert browser(nobody).get("/live/stop/").status_code == 404
        assert "/live/" not in text_of(browser(nobody).get("/"))


def test_the_live_page_says_what_each_does(world: World, grant: Grant) -> None:
    call(grant)
    call(grant, ago=30)
    call(grant, ago=90)
    refused(grant)
    used(grant)
    # Whatever gateway another test killed or still runs.
    Process.objects.update(beat_at=clock.now() - dt.timedelta(minutes=1))
    Process.objects.create(host="one", open_calls=3)
    Process.objects.create(host="gone", open_calls=7, beat_at=clock.now() - dt.timedelta(minutes=1))
    client = browser(world.person(is_administrator=True))
    for by in ("endpoint", "person"):
        narrow = {"by": by, "q": grant.holder.email}
        part = text_of(client.get("/live/", narrow, headers=in_htmx("now")))
        assert "<html" not in part
        assert "3 calls in the last minute, 1 refused" in part
        assert "600 tokens" in part
        assert "Open calls, at 1 gateway</dt><dd>3</dd>" in part
        assert f'name="grant" value="{grant.pk}"' in part
    narrowed = text_of(client.get("/live/", {"q": grant.holder.email}))
    assert str(grant.holder) in narrowed
    assert "Nobody who is in matches" in text_of(client.get("/live/", {"q": "zzz"}))


@pytest.mark.parametrize("by", ["endpoint", "person"])
def test_the_live_page_asks_as_often_however_many_are_in(by: str, world: World) -> None:
    admin = world.person(is_administrator=True)
    client = browser(admin)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as caught:
            assert client.get("/live/", {"by": by}, headers=in_htmx("now")).status_code == 200
        return len(caught)

    first = world.grant()
    call(first)
    used(first)
    before = queries()
    for _ in range(3):
        more = world.grant(profile=first.request.profile)
        call(more)
        used(more)
        world.grant()
    assert queries() == before
    assert before <= 18


def test_many_of_one_endpoint_fold(world: World, grant: Grant, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.presence.ROWS", 2)
    for _ in range(3):
        world.grant(profile=grant.request.profile)
    client = browser(world.person(is_administrator=True))
    text = text_of(client.get("/live/"))
    assert "4 live grants" in text
    assert ">2 more</a>" in text
    key = grant.request.profile.endpoint_id
    assert text_of(client.get(f"/live/?by=endpoint&only={key}")).count('name="grant"') == 4


def test_one_is_ended_from_the_live_page_by_who_may(world: World, grant: Grant) -> None:
    owner_elsewhere = world.grant().request.profile.endpoint.owner
    auditor = world.person(is_auditor=True)
    for attacker, status in ((world.person(), 404), (owner_elsewhere, 404), (auditor, 403)):
        answer = browser(attacker).post("/live/end/", {"grant": str(grant.pk)})
        assert answer.status_code == status
    grant.refresh_from_db()
    assert grant.ended_at is None
    assert f'value="{grant.pk}"' not in text_of(browser(auditor).get("/live/"))
    owner = browser(grant.request.profile.endpoint.owner)
    answer = owner.post("/live/end/", {"grant": str(grant.pk), "query": "by=person&q=x"})
    assert answer["Location"] == "/live/?by=person&q=x"
    grant.refresh_from_db()
    assert grant.end_reason == "revoked"


def test_stopping_and_lifting_by_page(world: World, grant: Grant) -> None:
    endpoint = grant.request.profile.endpoint
    page = f"/live/stop/?endpoint={endpoint.slug}"
    first = browser(endpoint.owner).get(page)
    assert first.status_code == 302
    assert first["Location"].startswith("/step-up/?next=%2Flive%2Fstop%2F")
    client = browser(endpoint.owner, stopping.purpose(endpoint))
    assert "1 live grant of 1 person would end now" in text_of(client.get(page))
    assert client.post(page, {"how": "stop"}).status_code == 400
    assert not endpoint.stops.exists()
    stopped = client.post(page, {"how": "stop", "reason": "Its key leaked."})
    row = endpoint.stops.get()
    assert stopped["Location"] == f"/live/stops/{row.pk}/"
    assert "1 grant is refused already" in text_of(client.get(stopped["Location"]))
    assert "Its key leaked." in text_of(client.get("/live/"))
    for who in (endpoint.owner, grant.holder):
        said = text_of(browser(who).get(f"/endpoints/{endpoint.slug}/"))
        assert "This endpoint is stopped." in said
        assert (f"/live/stops/{row.pk}/" in said) == (who == endpoint.owner)
    stale = browser(endpoint.owner).post(f"/live/stops/{row.pk}/lift/")
    assert stale["Location"].endswith(f"for=lift%3A{row.pk}")
    prove(client, Purpose(Action.LIFT, str(row.pk)))
    assert client.post(f"/live/stops/{row.pk}/lift/").status_code == 302
    row.refresh_from_db()
    assert row.lifted_by == endpoint.owner
    ended = client.post(page, {"how": "end", "reason": "Clean up."})
    assert "was ended" in text_of(client.get(ended["Location"]))


def test_an_owner_of_another_endpoint_stops_nothing(world: World, grant: Grant) -> None:
    endpoint = grant.request.profile.endpoint
    slug = endpoint.slug
    attacker = world.endpoint(with_key=False).owner
    body = {"how": "stop", "reason": "Mine now."}
    client = browser(attacker, stopping.purpose(endpoint), stopping.purpose(None))
    assert client.post(f"/live/stop/?endpoint={slug}", body).status_code == 404
    assert client.post("/live/stop/", body).status_code == 403
    holder = browser(grant.holder, stopping.purpose(endpoint))
    assert holder.post(f"/live/stop/?endpoint={slug}", body).status_code == 403
    assert not EmergencyStop.objects.filter(stopped_by__in=[attacker, grant.holder]).exists()
    assert not endpoint.stops.exists()


def test_the_api_stops_with_a_fresh_factor_and_names_what_it_stops(
    world: World, grant: Grant
) -> None:
    admin = Caller(world.person(is_administrator=True))
    body = {"endpoint": None, "reason": "All keys leaked."}
    problem(admin.post("stops/", body), 403, "step-up-needed")
    admin.prove(stopping.purpose(None))
    problem(admin.post("stops/", {"reason": "All keys leaked."}), 400, "invalid-input")
    made = admin.post("stops/", body)
    assert made.status_code == 201
    assert made.json()["endpoint"] is None
    problem(admin.post("stops/", body), 409, "conflict")
    out = Caller(grant.holder).post(f"grants/{grant.pk}/credentials/")
    data = problem(out, 409, "authority-lost")
    assert "All keys leaked" in data["detail"]
    in_force = admin.get("stops/", in_force="true").json()["results"]
    [row] = [each for each in in_force if each["id"] == made.json()["id"]]
    problem(admin.post(f"stops/{row['id']}/lift/"), 403, "step-up-needed")
    admin.prove(stopping.purpose(None), Purpose(Action.LIFT, row["id"]))
    assert admin.post(f"stops/{row['id']}/lift/").json()["lifted_at"]
    again = admin.post("stops/", body | {"open_again": True}).json()
    assert again["lifted_at"] == again["stopped_at"]


def test_a_grants_page_shows_its_use(world: World, grant: Grant) -> None:
    profile = grant.request.profile
    call(grant, tools_declared=["lookup"], tools_called=["lookup"])
    refused(grant, "model_not_granted", model="gpt-large")
    used(grant, charged_tokens=12_345)
    path = f"/grants/{grant.pk}/usage/"
    people = [grant.holder, world.person(profile.reviewers), profile.endpoint.owner]
    for user in [*people, world.person(is_auditor=True)]:
        part = text_of(browser(user).get(path, headers=in_htmx("usage")))
        assert "every 2s" in part
        assert "12,345" in part
        assert "model_not_granted" in part
        assert "<code>lookup</code>" in part
    assert path in text_of(browser(grant.holder).get(f"/grants/{grant.pk}/"))
    for nobody in (world.person(), world.person(profile.requesters)):
        assert browser(nobody).get(path).status_code == 404
        assert browser(nobody).get(path, headers=in_htmx("usage")).status_code == 404


def test_use_that_is_not_there_yet_is_taught(world: World, grant: Grant) -> None:
    path = f"/grants/{grant.pk}/usage/"
    empty = text_of(browser(grant.holder).get(path, headers=in_htmx("usage")))
    assert "As soon as a client uses your credential" in empty
    fresh = world.grant()
    none = text_of(
        browser(fresh.holder).get(f"/grants/{fresh.pk}/usage/", headers=in_htmx("usage"))
    )
    assert "Nothing has been checked out" in none
    ended = world.grant(ended=True)
    over = text_of(
        browser(ended.holder).get(f"/grants/{ended.pk}/usage/", headers=in_htmx("usage"))
    )
    assert "No call was made with it." in over
    assert "every 2s" not in over


def test_use_takes_as_many_queries_however_many_calls(grant: Grant) -> None:
    client = browser(grant.holder)

    def queries(headers: dict[str, str]) -> int:
        with CaptureQueriesContext(connection) as caught:
            client.get(f"/grants/{grant.pk}/usage/", headers=headers)
        return len(caught)

    call(grant)
    used(grant)
    before = queries(in_htmx("usage")), queries({})
    for _ in range(70):
        call(grant)
    assert (queries(in_htmx("usage")), queries({})) == before


def test_calls_are_paged_and_filtered(grant: Grant, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.views.PAGE", 3)
    rows = [call(grant, ago=n, model=f"m-{n}") for n in range(4)]
    refused(grant, ago=9, model="m-refused")
    client, path = browser(grant.holder), f"/grants/{grant.pk}/usage/"
    first = text_of(client.get(path))
    assert "m-0" in first
    assert "m-3" not in first
    older = text_of(client.get(path, {"before": str(rows[2].pk)}))
    assert "m-3" in older
    assert "m-refused" in older
    assert "m-0" not in older
    only = text_of(client.get(path, {"refused": "1"}))
    assert "m-refused" in only
    assert "m-0" not in only
    assert client.get(path, {"before": "nonsense"}).status_code == 200


def test_calls_by_api(world: World, grant: Grant) -> None:
    for n in range(5):
        call(grant, ago=n)
    other = refused(grant, model="gpt-large", ago=60)
    call(world.grant())
    used(grant)
    holder = Caller(grant.holder)
    path = f"grants/{grant.pk}/calls/"
    page = holder.get(path, limit=2).json()
    assert len(page["results"]) == 2
    found, following = [], page["next"]
    found += [row["id"] for row in page["results"]]
    while following:
        page = holder.client.get(following, headers=holder.headers).json()
        found += [row["id"] for row in page["results"]]
        following = page["next"]
    assert len(found) == len(set(found)) == 6
    for query in (
        {"model": "gpt-large"},
        {"refusal": "tool_not_granted"},
        {"refused": "true"},
        {"status": "403"},
    ):
        [row] = holder.get(path, **query).json()["results"]
        assert row["id"] == str(other.pk)
    assert len(holder.get(path, refused="false").json()["results"]) == 5
    usage = holder.get(f"grants/{grant.pk}/usage/").json()
    assert (usage["calls"], usage["refused"], usage["tokens"]) == (6, 1, 1000)
    assert usage["token_budget"] is None
    stranger = Caller(world.person(grant.request.profile.requesters))
    problem(stranger.get(path), 404, "not-found")
    problem(stranger.get(f"grants/{grant.pk}/usage/"), 404, "not-found")


def test_who_is_in_by_api(world: World, grant: Grant) -> None:
    call(grant)
    refused(grant)
    used(grant)
    elsewhere = world.grant()
    owner = Caller(grant.request.profile.endpoint.owner, "token")
    [row] = owner.get("live/").json()["results"]
    assert row["id"] == str(grant.pk)
    assert (row["calls_last_minute"], row["refused_last_minute"]) == (2, 1)
    assert row["usage"]["tokens"] == 200
    assert row["credential"]
    auditor = Caller(world.person(is_auditor=True))
    with CaptureQueriesContext(connection) as few:
        assert len(owner.get("live/").json()["results"]) == 1
    for _ in range(2):
        world.grant(profile=grant.request.profile)
    with CaptureQueriesContext(connection) as more:
        assert len(owner.get("live/").json()["results"]) == 3
    assert len(few) == len(more)
    [found] = auditor.get("live/", holder=elsewhere.holder.email).json()["results"]
    assert found["credential"] is None
    assert Caller(grant.holder).get("live/").json()["results"] == []


def test_health_is_for_owners_and_auditors(world: World) -> None:
    endpoint = world.endpoint(with_key=False, further_upstreams=["http://127.0.0.1:9"])
    moment = clock.now()
    UpstreamHealth.objects.create(
        endpoint=endpoint,
        url="http://127.0.0.1:9",
        is_up=False,
        since=moment,
        checked_at=moment,
        last_error="ConnectionRefusedError",
    )
    path = f"/endpoints/{endpoint.slug}/upstreams/"
    text = text_of(browser(endpoint.owner).get(path))
    assert "ConnectionRefusedError" in text
    assert "No gateway has called it yet" in text
    profile = world.profile(endpoint=endpoint)
    assert browser(world.person(profile.requesters)).get(path).status_code == 404
    for user in (endpoint.owner, world.person(is_auditor=True)):
        assert path in text_of(browser(user).get(f"/endpoints/{endpoint.slug}/"))


def price(endpoint: Any, by: User | None = None, **fields: Any) -> ModelPrice:
    usual: dict[str, Any] = {
        "model": "demo-small",
        "input_price": Decimal("0.15"),
        "output_price": Decimal("0.6"),
    }
    return set_price(by=by or endpoint.owner, endpoint=endpoint, proofs=PROVED, **usual | fields)


def test_prices_are_kept_as_history(world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    today = clock.now().astimezone(dt.UTC).date()
    price(endpoint, since=today + dt.timedelta(days=3), input_price=Decimal("0.2"))
    price(endpoint)
    price(endpoint, input_price=Decimal("0.16"))
    assert ModelPrice.objects.filter(endpoint=endpoint).count() == 2, "today's was put right"
    ModelPrice.objects.create(
        endpoint=endpoint,
        model="demo-small",
        input_price=1,
        output_price=2,
        since=today - dt.timedelta(days=9),
        set_by=endpoint.owner,
    )
    [priced] = price_list(endpoint)
    assert priced.now is not None
    assert priced.now.input_price == Decimal("0.16")
    assert [row.input_price for row in priced.to_come] == [Decimal("0.2")]
    assert [row.input_price for row in priced.before] == [Decimal(1)]
    for wrong in (
        {"since": today - dt.timedelta(days=1)},
        {"input_price": Decimal(-1)},
        {"model": ""},
        {"model": "a\x00b"},
        {"output_price": Decimal("0.00001")},
    ):
        with pytest.raises(InvalidInput) as caught:
            price(endpoint, **wrong)
        assert set(caught.value.errors) == set(wrong)


def test_prices_by_page(world: World) -> None:
    endpoint = world.endpoint(with_key=False)
    profile = world.profile(endpoint=endpoint)
    path = f"/endpoints/{endpoint.slug}/prices/"
    body = {"model": "demo-small", "input_price": "0.15", "output_price": "0.6"}
    requester = world.person(profile.requesters)
    assert browser(requester).post(path, body).status_code == 403
    assert "/step-up/" in browser(endpoint.owner).post(path, body)["Location"]
    owner = browser(endpoint.owner, Purpose(Action.ENDPOINT, str(endpoint.pk)))
    assert "Give an amount" in text_of(owner.post(path, body | {"input_price": "lots"}))
    assert owner.post(path, body)["Location"] == f"/endpoints/{endpoint.slug}/"
    page = text_of(browser(requester).get(f"/endpoints/{endpoint.slug}/"))
    assert "$0.15" in page
    assert "Set a price" not in page
    assert "Set a price" in text_of(owner.get(f"/endpoints/{endpoint.slug}/"))


def test_a_budget_is_full_only_when_nothing_is_left() -> None:
    nearly = Spent(Decimal(999_999), Decimal(1_000_000))
    assert (nearly.percent, nearly.left, nearly.is_low) == (99, Decimal(1), True)
    over = Spent(Decimal(11), Decimal(10))
    assert (over.percent, over.left) == (100, Decimal(0))
    assert Spent(Decimal(5), None).left is None


def test_old_calls_are_deleted_in_batches(grant: Grant, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.retention.BATCH", 2)
    settings.KEYTURN_CALL_DAYS = 30
    kept = [call(grant, ago=days * 86_400) for days in (0, 29.9)]
    for days in (30.1, 31, 80, 90, 400):
        call(grant, ago=days * 86_400)
    used(grant)
    assert drop_old_calls(most=3) == 3
    assert drop_old_calls() == 2
    assert set(Call.objects.filter(grant=grant)) == set(kept)
    assert drop_old_calls() == 0
