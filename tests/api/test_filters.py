"""Lists: what they are filtered by, and that nothing else passes for a filter."""

import datetime as dt
from typing import Any

import pytest

from accessrequests.states import RequestState
from audit import clock
from credentials.actions import check_out
from tests.api.callers import Caller, faults
from tests.world import World

pytestmark = pytest.mark.django_db


def ids(caller: Caller, path: str, **query: Any) -> list[str]:
    answer = caller.get(path, **query)
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_requests_by_several_states_by_me_and_by_time(world: World) -> None:
    profile = world.profile()
    reviewer = world.person(profile.reviewers)
    first, second, third = (
        world.request(state, profile=profile, reviewer=reviewer)
        for state in (RequestState.DENIED, RequestState.PENDING, RequestState.APPROVED)
    )
    caller = Caller(reviewer, "token")
    assert ids(caller, "requests/", state=["pending", "approved"]) == [
        str(third.pk),
        str(second.pk),
    ]
    assert ids(caller, "requests/", requester="me") == []
    own = Caller(first.requester, "token")
    assert ids(own, "requests/", requester="me") == [str(first.pk)]
    since = ids(caller, "requests/", since=second.created_at.isoformat())
    assert since == [str(third.pk), str(second.pk)]
    until = ids(caller, "requests/", until=second.created_at.isoformat())
    assert until == [str(first.pk)]
    for far in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        both = [ids(caller, "requests/", **{name: far}) for name in ("since", "until")]
        assert sorted(map(len, both)) == [0, 3]
    # PostgreSQL knows no such offset, and the year 0 isn't there.
    assert len(ids(caller, "requests/", since="1868-05-22T08:45:21-22:50")) == 3
    answer = caller.get("requests/", since="0001-01-01T00:00:00+01:00")
    assert faults(answer) == {"since": "Must be within the years 1 to 9999."}


def test_grants_and_credentials_by_holder_endpoint_and_end(world: World) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    ended = world.grant(ended=True)
    credential = check_out(by=grant.holder, grant_id=grant.pk).credential
    auditor = Caller(world.person(is_auditor=True), "token")
    mine = Caller(grant.holder, "token")
    slug = grant.request.profile.endpoint.slug
    both = {str(grant.pk), str(ended.pk)}
    assert ids(mine, "grants/", holder="me", live="true") == [str(grant.pk)]
    assert both & set(ids(auditor, "grants/", live="false")) == {str(ended.pk)}
    assert both <= set(ids(auditor, "grants/", state=["active", "ended"]))
    profile = str(grant.request.profile_id)
    assert ids(auditor, "grants/", profile=profile) == [str(grant.pk)]
    at = (clock.now() + dt.timedelta(minutes=30)).isoformat()
    assert ids(auditor, "grants/", profile=profile, ends_since=at) == [str(grant.pk)]
    assert ids(auditor, "grants/", profile=profile, ends_until=at) == []
    assert ids(auditor, "credentials/", endpoint=slug) == [str(credential.pk)]
    assert ids(mine, "credentials/", holder="me", state="active") == [str(credential.pk)]
    assert ids(auditor, "credentials/", holder="me") == []


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        ("requests/", {"stat": "pending"}, {"stat"}),
        ("requests/", {"requester": ["a", "b"]}, {"requester"}),
        ("requests/", {"state": ["pending", "x"]}, {"state"}),
        ("requests/", {"since": "yesterday", "x": "1"}, {"x"}),
        ("requests/", {"since": "yesterday"}, {"since"}),
        ("requests/", {"wait": "3"}, {"wait"}),
        ("endpoints/", {"cursor": ["a", "b"]}, {"cursor"}),
        ("audit/events/", {"acter_id": "x"}, {"acter_id"}),
        ("groups/", {"name": "x"}, {"name"}),
        ("profiles/", {"expand": "endpoint"}, {"expand"}),
    ],
)
def test_what_no_list_knows_is_refused_by_name(
    path: str, query: dict[str, Any], named: set[str], world: World
) -> None:
    found = faults(Caller(world.person(), "token").get(path, **query))
    assert set(found) == named


def test_so_it_is_where_one_is_read_by_its_id(world: World) -> None:
    row = world.request()
    caller = Caller(row.requester, "token")
    found = faults(caller.get(f"requests/{row.pk}/", wiat="30"))
    assert found == {"wiat": "Can't be given here. What can be: expand, wait."}
