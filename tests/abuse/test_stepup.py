"""A stolen session alone does nothing that matters: each takes a proof for exactly that."""

import datetime as dt
import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from accessrequests.models import AccessRequest, Grant, Policy, Review
from accessrequests.states import RequestState
from accounts import factors, stepup
from accounts.models import User
from accounts.stepup import Action, Purpose
from credentials.models import Credential, Rotation
from endpoints.models import EmergencyStop, ModelPrice
from tests.accounts.authenticator import code, later, wrong
from tests.api.callers import Caller, problem
from tests.world import PASSWORD, World, prove, reviewing

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/approvals/?risk=elevated"}
Session = tuple[User, Client, bytes]


def session_of(user: User) -> Session:
    """This person's session and the secret of their authenticator, whose last code is old."""
    sealed = factors.new_secret(by=user)
    secret = factors.reveal(by=user, sealed=sealed)
    factors.add(by=user, sealed=sealed, code=code(secret))
    later(user)
    client = Client()
    client.force_login(user)
    return user, client, secret


def asked(answer: Any) -> tuple[str, list[str]]:
    """Where this answer leads for a proof: back to what, and what for."""
    where = urlsplit(answer.get("HX-Redirect") or answer["Location"])
    assert where.path == "/step-up/"
    query = parse_qs(where.query)
    return query["next"][0], query["for"]


def step_up(session: Session, *purposes: str, **more: Any) -> Any:
    user, client, secret = session
    later(user)
    data = {"code": code(secret), "for": purposes, "next": "/approvals/"} | more
    return client.post("/step-up/", data)


@pytest.fixture
def grant(world: World) -> Grant:
    return world.grant(profile=world.profile(with_key=True))


@pytest.fixture
def ben(grant: Grant, world: World) -> Session:
    """Who reviews, and owns the endpoint; an administrator too."""
    endpoint = grant.request.profile.endpoint
    ben = world.person(grant.request.profile.reviewers, is_administrator=True)
    type(endpoint).objects.filter(pk=endpoint.pk).update(owner=ben)
    return session_of(ben)


@pytest.fixture
def pending(grant: Grant, world: World) -> AccessRequest:
    return world.request(profile=grant.request.profile)


def moves(grant: Grant, pending: AccessRequest, policy: Policy) -> dict[str, tuple[str, Any]]:
    """All that Ben's session might be stolen for, and what has to be proved for each."""
    endpoint = grant.request.profile.endpoint
    slug = endpoint.slug
    price = {"model": "demo-small", "input_price": "0", "output_price": "0"}
    return {
        f"/requests/{pending.pk}/review/": (f"review:{pending.pk}", {"verdict": "approve"}),
        "/approvals/decide/": (
            f"review:{pending.pk}",
            {"verdict": "approve", "requests": [str(pending.pk)]},
        ),
        f"/live/stop/?endpoint={slug}": (f"stop:{endpoint.pk}", {"how": "stop", "reason": "!"}),
        "/live/stop/": ("stop:", {"how": "end", "reason": "!"}),
        f"/endpoints/{slug}/key/rotate/": (f"rotate:{endpoint.pk}", {}),
        f"/endpoints/{slug}/key/store/": (f"rotate:{endpoint.pk}", {"key": "sk-of-the-thief"}),
        f"/endpoints/{slug}/prices/": (f"endpoint:{endpoint.pk}", price),
        f"/policies/{policy.slug}/retire/": (f"policy:{policy.slug}", {}),
    }


def undone(grant: Grant, pending: AccessRequest, policy: Policy) -> None:
    """Nothing of all that has happened."""
    pending.refresh_from_db()
    policy.refresh_from_db()
    assert pending.state == RequestState.PENDING
    assert policy.retired_at is None
    assert not EmergencyStop.objects.exists()
    assert not Rotation.objects.exists()
    assert not ModelPrice.objects.exists()
    assert not Credential.objects.filter(grant=grant).exists()


@pytest.mark.parametrize("stale", [None, dt.timedelta(minutes=5, seconds=1)])
def test_a_stolen_session_is_asked(
    stale: dt.timedelta | None, grant: Grant, pending: AccessRequest, ben: Session, world: World
) -> None:
    policy = world.policy(endpoint=world.endpoint(with_key=False))
    tries = moves(grant, pending, policy)
    _, client, _ = ben
    if stale is not None:
        prove(client, *(Purpose.parse(name) for name, _ in tries.values()), ago=stale)
    for path, (purpose, data) in tries.items():
        assert asked(client.post(path, data))[1] == [purpose], path
    undone(grant, pending, policy)
    # The same session with fresh proofs does all of it.
    for path, (purpose, data) in tries.items():
        if "approvals" not in path:
            prove(client, Purpose.parse(purpose))
            assert "step-up" not in client.post(path, data).get("Location", ""), path
    assert EmergencyStop.objects.count() == 2
    assert Policy.objects.get(pk=policy.pk).retired_at is not None


def test_a_proof_opens_what_it_was_given_for_and_nothing_else(
    grant: Grant, pending: AccessRequest, ben: Session, world: World
) -> None:
    policy = world.policy(endpoint=world.endpoint(with_key=False))
    _, client, _ = ben
    other = world.request(profile=grant.request.profile)
    elsewhere = world.endpoint(with_key=False)
    prove(
        client,
        *reviewing(other),
        *(Purpose(action, str(elsewhere.pk)) for action in Action),
        *(Purpose(action, str(grant.request.pk)) for action in Action),
        *(Purpose(action) for action in Action if action != Action.STOP),
    )
    for path, (purpose, data) in moves(grant, pending, policy).items():
        assert asked(client.post(path, data))[1] == [purpose], path
    undone(grant, pending, policy)


def test_checking_out_takes_a_proof_of_whoever_has_a_factor(grant: Grant, world: World) -> None:
    ana = session_of(grant.holder)
    user, client, _ = ana
    purpose, path = f"check-out:{grant.pk}", f"/grants/{grant.pk}/check-out/"
    other = world.grant(profile=grant.request.profile, requester=user)
    prove(client, Purpose(Action.CHECK_OUT, str(other.pk)), *reviewing(grant.request))
    page = f"http://testserver/grants/{grant.pk}/"
    answer = client.post(path, headers={"Referer": page})
    assert asked(answer) == (f"/grants/{grant.pk}/", [purpose])
    for verb in ("refresh", "open"):
        assert not Credential.objects.filter(grant=grant).exists()
        client.post(f"/grants/{grant.pk}/{verb}/")
    api = Caller(user)
    told = problem(api.post(f"grants/{grant.pk}/credentials/"), 403, "step-up-needed")
    assert told["purposes"] == [purpose]
    assert not Credential.objects.filter(grant=grant).exists()
    # A program proves nothing, isn't asked, and is no way for a session.
    assert Caller(user, "token").post(f"grants/{grant.pk}/credentials/").status_code == 201
    assert step_up(ana, purpose).status_code == 302
    assert client.post(path).status_code == 200


def test_who_has_no_factor_is_asked_where_policy_does(grant: Grant, world: World) -> None:
    client = Client()
    client.force_login(grant.holder)
    world.policy(profile=grant.request.profile, limits={"requester_factor_age": "PT1H"})
    path = f"/grants/{grant.pk}/check-out/"
    purpose = Purpose(Action.CHECK_OUT, str(grant.pk))
    prove(client, purpose, ago=dt.timedelta(minutes=6))
    there = client.get(client.post(path)["Location"]).content.decode()
    assert "you have none yet" in there
    prove(client, purpose)
    assert client.post(path).status_code == 200


def test_policy_asks_for_less_than_five_minutes_never_for_more(
    grant: Grant, ben: Session, world: World
) -> None:
    _, client, _ = ben
    profile = grant.request.profile
    for limit, ago, done in (("PT1M", 2, False), ("PT1M", 0, True), ("PT1H", 6, False)):
        world.policy(profile=profile, slug="of-it", limits={"reviewer_factor_age": limit})
        row = world.request(profile=profile)
        prove(client, *reviewing(row), ago=dt.timedelta(minutes=ago))
        client.post(f"/requests/{row.pk}/review/", {"verdict": "deny", "reason": "No."})
        assert Review.objects.filter(request=row).exists() == done, (limit, ago)


def test_naming_a_purpose_proves_nothing_without_a_code(
    pending: AccessRequest, ben: Session, world: World
) -> None:
    _, client, secret = ben
    purpose = f"review:{pending.pk}"
    assert client.get("/step-up/", {"for": purpose}).status_code == 200
    for given in ("", "123", wrong(secret)):
        answer = client.post("/step-up/", {"for": purpose, "code": given})
        assert answer.status_code == 400
        # Nor does an error forget what it was for.
        assert f'name="for" value="{purpose}"' in answer.content.decode()
    assert stepup.PROOFS not in client.session
    # Of somebody else's, a session knows nothing.
    prove(client, Purpose.parse(purpose))
    other = Client()
    other.force_login(world.person(is_administrator=True))
    assert stepup.PROOFS not in other.session


@pytest.mark.parametrize(
    "made",
    [
        lambda foreign: f"review:{foreign.request.pk}",
        lambda foreign: f"check-out:{foreign.pk}",
        lambda foreign: f"ask:{foreign.request.profile_id}",
        lambda foreign: f"stop:{foreign.request.profile.endpoint_id}",
        lambda foreign: f"rotate:{foreign.request.profile.endpoint_id}",
        lambda foreign: f"endpoint:{foreign.request.profile.endpoint_id}",
        lambda _: "lift:018f0000-0000-7000-8000-000000000000",
        lambda _: "review:../../x",
        lambda _: "policy:a policy",
        lambda _: "policy:payroll",
    ],
)
def test_a_made_up_link_tells_nothing(made: Callable[[Grant], str], world: World) -> None:
    client = Client()
    client.force_login(world.person())
    foreign = world.grant()
    answer = client.get("/step-up/", {"for": made(foreign)})
    assert answer.status_code == 404
    assert str(foreign.request.profile.endpoint) not in answer.content.decode()


def test_a_proof_survives_no_sign_out_and_no_change_of_the_factor(
    grant: Grant, pending: AccessRequest, ben: Session
) -> None:
    user, client, _ = ben
    user.set_password(PASSWORD)
    user.save()
    client.force_login(user)
    path, data = f"/requests/{pending.pk}/review/", {"verdict": "approve"}
    assert step_up(ben, f"review:{pending.pk}").status_code == 302
    key = client.session.session_key
    client.post(reverse("sign-out"))
    client.cookies["sessionid"] = key or ""
    client.force_login(user)
    assert "step-up" in client.post(path, data)["Location"]
    assert step_up(ben, f"review:{pending.pk}").status_code == 302
    assert client.session.session_key != key, "the key is another after each proof"
    factors.remove(by=None, person=user)
    assert client.get("/approvals/").status_code == 302, "signed out by it"
    client.force_login(User.objects.get(pk=user.pk))
    assert "step-up" in client.post(path, data)["Location"]
    assert not pending.reviews.exists()


def test_one_code_is_good_for_all_that_were_chosen(
    grant: Grant, ben: Session, world: World
) -> None:
    _, client, _ = ben
    five = [world.request(profile=grant.request.profile) for _ in range(5)]
    data = {
        "verdict": "deny",
        "reason": "Use staging this week.",
        "requests": [str(row.pk) for row in five[:3]],
        "query": "?risk=elevated",
    }
    back, purposes = asked(client.post("/approvals/decide/", data, headers=HTMX))
    assert back == "/approvals/?risk=elevated"
    assert set(purposes) == {f"review:{row.pk}" for row in five[:3]}
    page = client.get("/step-up/", {"for": purposes, "next": back}).content.decode()
    assert page.count("Decide ") == 5
    assert "2 more wait for you" in page
    for_all = re.findall('href="(/step-up/[^"]+)"', page)

    assert step_up(ben, *purposes, next=back)["Location"] == back
    # Back there all is as it was, once.
    page = client.get(back).content.decode()
    assert page.count('name="requests"') == 5
    assert sum(" checked" in part.split(">")[0] for part in page.split('name="requests"')[1:]) == 3
    assert 'value="Use staging this week."' in page
    assert "Use staging this week." not in client.get(back).content.decode()
    client.post("/approvals/decide/", data, headers=HTMX)
    assert Review.objects.filter(request__in=five).count() == 3

    [for_all] = for_all
    _, purposes = asked({"Location": html.unescape(for_all)})
    assert set(purposes) == {f"review:{row.pk}" for row in five}
    step_up(ben, *purposes)
    for row in five[3:]:
        client.post(f"/requests/{row.pk}/review/", {"verdict": "approve"})
    assert Review.objects.filter(request__in=five).count() == 5


def test_what_was_typed_is_there_again(
    grant: Grant, pending: AccessRequest, ben: Session, world: World
) -> None:
    _, client, _ = ben
    page = f"/requests/{pending.pk}/"
    data = {"verdict": "deny", "reason": "Ask for less."}
    client.post(f"{page}review/", data, headers={"Referer": f"http://testserver{page}"})
    assert "Ask for less." in client.get(page).content.decode()
    assert "Ask for less." not in client.get(page).content.decode()
    client.post(f"{page}review/", data, headers=HTMX)
    assert "Ask for less." in client.get(f"/approvals/?request={pending.pk}").content.decode()
    # A key is never put into a session, which the database keeps.
    slug = grant.request.profile.endpoint.slug
    client.post(f"/endpoints/{slug}/key/store/", {"key": "sk-canary-a77d"})
    assert "sk-canary-a77d" not in str(dict(client.session))


def test_break_glass_takes_a_proof_always(world: World) -> None:
    profile = world.profile()
    ana, _ = world.person(profile.requesters), world.person(profile.reviewers)
    world.policy(
        profile=profile,
        break_glass={"groups": [profile.requesters.slug], "review_within": "PT24H"},
    )
    caller = Caller(ana)
    body = {"profile": str(profile.pk), "justification": "It burns.", "break_glass": True}
    told = problem(caller.post("requests/", body), 403, "step-up-needed")
    assert told["purposes"] == [f"ask:{profile.pk}"]
    caller.prove(Purpose(Action.ASK, str(profile.pk)))
    assert caller.post("requests/", body).json()["state"] == "approved"


def test_ending_and_giving_back_never_ask(grant: Grant, ben: Session) -> None:
    _, client, _ = ben
    assert "step-up" not in client.post(f"/grants/{grant.pk}/end/")["Location"]
    grant.refresh_from_db()
    assert grant.ended_at is not None


def test_each_outcome_of_many_names_what_is_to_be_proved(
    pending: AccessRequest, ben: Session
) -> None:
    caller = Caller(ben[0])
    body = {"verdict": "approve", "requests": [str(pending.pk)]}
    [outcome] = caller.post("reviews/", body).json()
    assert outcome["problem"]["purposes"] == [f"review:{pending.pk}"]
