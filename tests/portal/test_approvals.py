"""The approver's dashboard: its queue, filters and pages, and deciding several at once."""

import datetime as dt
import re
from typing import Any

import pgtrigger
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accessrequests import desk
from accessrequests.actions import (
    comment,
    expire_requests,
    file_request,
    hand_over,
    note_absence,
    review_request,
)
from accessrequests.desk import Filters
from accessrequests.models import AccessRequest, Comment, Grant, Review, Route
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from tests.world import PROVED, World, move

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

HOUR = dt.timedelta(hours=1)
HTMX = {"HX-Request": "true"}
APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY


@pytest.fixture
def desk_of(world: World, signed_in: Any) -> Any:
    profile = world.profile()
    ben = world.person(profile.reviewers, full_name="Ben Okafor")
    return profile, ben, signed_in(ben)


def page(client: Any, name: str = "approvals", query: str = "", **headers: str) -> str:
    html: str = client.get(reverse(name) + query, headers=headers).content.decode()
    return html


def order(user: User, **filters: str) -> list[AccessRequest]:
    return [item.request for item in desk.page(user, Filters(**filters)).items]


def break_glass(world: World, profile: Any, requester: User | None = None) -> AccessRequest:
    group = world.group()
    requester = requester or world.person(profile.requesters, group)
    world.policy(
        profile=profile,
        break_glass={"groups": [group.slug], "review_within": "P2D", "max_duration": "PT30M"},
    )
    return file_request(
        by=requester,
        profile_id=profile.pk,
        justification="Everything is down.",
        duration=HOUR / 2,
        break_glass=True,
        proofs=PROVED,
    )


def test_what_is_on_already_comes_first(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    plain = world.request(profile=profile, reviewer=ben)
    owed = break_glass(world, profile)
    assert owed.decide_by > plain.decide_by
    assert order(ben) == [owed, plain]
    assert "Review owed" in page(client)
    assert order(ben, kind="review") == [owed]


def test_filters_leave_out_what_does_not_match(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    staging = world.endpoint(environment="staging", risk="critical", with_key=False)
    other = world.profile(endpoint=staging, reviewers=profile.reviewers)
    first = world.request(profile=profile, reviewer=ben)
    second = world.request(profile=other, reviewer=ben)
    extends = world.grant(profile=profile, requester=first.requester, reviewer=ben)
    extension = file_request(
        by=first.requester,
        profile_id=profile.pk,
        justification="Not done yet.",
        extends=extends.pk,
        duration=HOUR,
    )
    scheduled = file_request(
        by=second.requester,
        profile_id=other.pk,
        justification="For the night.",
        starts_at=clock.now() + 5 * HOUR,
    )
    dana = world.person(profile.reviewers)
    hand_over(by=dana, request_id=first.pk, to=ben.email, note="You know it.")
    assert set(order(ben)) == {first, second, extension, scheduled}
    assert set(order(ben, risk="critical")) == {second, scheduled}
    assert set(order(ben, environment="production")) == {first, extension}
    assert set(order(ben, endpoint=staging.slug)) == {second, scheduled}
    assert set(order(ben, q=second.requester.email.upper())) == {second, scheduled}
    assert set(order(ben, q=f"{staging.name[:12]}")) >= {second}
    assert order(ben, kind="extension") == [extension]
    assert order(ben, kind="scheduled") == [scheduled]
    assert order(ben, kind="handed") == [first]
    html = page(client)
    assert f"From {dana}" in html
    assert "Extension" in html
    assert "Starts" in html
    html = page(client, query="?risk=critical&q=zzzz%00")
    assert "Nothing that waits matches" in html
    assert 'value="critical" selected' in html


@pytest.mark.parametrize("query", ["risk=x", "after=x", "after=2026-01-01+y", "kind=%27", "q=%00"])
def test_a_filter_that_means_nothing_leaves_nothing_out(
    world: World, desk_of: Any, query: str
) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    assert str(row.requester) in page(client, query=f"?{query}")


def test_the_queue_goes_on_where_a_page_ends(world: World, desk_of: Any) -> None:
    profile, ben, _ = desk_of
    rows = [world.request(profile=profile, reviewer=ben) for _ in range(5)]
    first = desk.page(ben, Filters(), shown=2)
    assert [item.request for item in first.items] == rows[:2]
    filters = Filters.parse({"after": first.after})
    # What is decided meanwhile moves nothing.
    review_request(by=ben, request_id=rows[1].pk, verdict=APPROVE, proofs=PROVED)
    second = desk.page(ben, filters, shown=2)
    assert [item.request for item in second.items] == rows[2:4]
    last = desk.page(ben, Filters.parse({"after": second.after}), shown=2)
    assert [item.request for item in last.items] == rows[4:]
    assert last.after == ""


def copies(row: AccessRequest, number: int) -> None:
    """More of the same, faster than they could be filed."""
    with pgtrigger.ignore():
        rows = [
            AccessRequest(
                **{
                    field.attname: getattr(row, field.attname)
                    for field in AccessRequest._meta.concrete_fields
                    if field.attname not in {"id", "created_at"}
                }
            )
            for _ in range(number)
        ]
        AccessRequest.objects.bulk_create(rows)
        Route.objects.bulk_create(
            Route(
                request=copy,
                step=0,
                via=Route.Via.PROFILE_REVIEWERS,
                group=row.profile.reviewers,
                waiting=True,
                sort_at=row.decide_by,
            )
            for copy in rows
        )


def queries(client: Any, *paths: str) -> list[int]:
    found = []
    for path in paths:
        client.get(path)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        found.append(len(captured))
    return found


def test_a_long_queue_takes_no_more_queries_than_a_short_one(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    copies(row, 2)
    for _ in range(3):
        done = world.request(profile=profile, reviewer=ben)
        review_request(by=ben, request_id=done.pk, verdict=DENY, reason="No.", proofs=PROVED)
    paths = [
        *(reverse(name) for name in ("approvals", "approvals-decided", "approvals-others")),
        reverse("request", kwargs={"pk": row.pk}),
        reverse("home"),
    ]
    few = queries(client, *paths)
    copies(row, 57)
    for _ in range(4):
        done = world.request(profile=profile, reviewer=ben)
        review_request(by=ben, request_id=done.pk, verdict=DENY, reason="No.", proofs=PROVED)
        comment(by=ben, request_id=row.pk, text="Again?", kind=Comment.Kind.QUESTION)
    assert queries(client, *paths) == few
    assert max(few) < 60


def test_the_badge_stops_counting(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    copies(row, 104)
    html = page(client)
    assert ">99+<" in html
    assert html.count("data-queue-item") == desk.SHOWN
    more = re.search(r'href="([^"]*after=[^"]*)" rel="next"', html)
    assert more
    second = client.get(more[1].replace("&amp;", "&")).content.decode()
    assert second.count("data-queue-item") == desk.SHOWN
    assert not set(re.findall(r'id="q-([^"]*)"', html)) & set(re.findall(r'id="q-([^"]*)"', second))


def test_the_list_is_sent_again_only_when_it_changed(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    row, other = (world.request(profile=profile, reviewer=ben) for _ in range(2))
    seen = re.search(r'"seen": "(\w+)"', page(client))
    assert seen
    headers = HTMX | {"HX-Target": "queue-list"}
    query = {"seen": seen[1], "shown": str(row.pk)}
    assert client.get(reverse("approvals"), query, headers=headers).status_code == 204
    dana = world.person(profile.reviewers, full_name="Dana Levi")
    review_request(by=dana, request_id=row.pk, verdict=APPROVE, proofs=PROVED)
    answer = client.get(reverse("approvals"), query, headers=headers)
    html = answer.content.decode()
    assert answer.status_code == 200
    assert "<html" not in html
    assert str(other.pk) in html
    assert "approved by Dana Levi" in html


def test_who_is_away_and_who_stands_in(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    away = world.person(profile.reviewers, full_name="Cleo Away")
    note_absence(by=away, ends_at=clock.now() + 5 * HOUR, delegate=ben.email)
    assert "In place of Cleo Away" in page(client)
    elsewhere = world.person(full_name="Not Theirs")
    note_absence(by=elsewhere, ends_at=clock.now() + 5 * HOUR, delegate=ben.email)
    assert "Not Theirs" not in page(client)
    assert row.routes.count() == 1


def test_a_question_shows_until_it_is_answered(world: World, desk_of: Any, signed_in: Any) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    url = reverse("request-comment", kwargs={"pk": row.pk})
    data = {"text": "Which <b>order</b>?", "kind": "question", "from": "approvals"}
    answer = client.post(url, data, headers=HTMX)
    assert answer.status_code == 200
    assert "Which &lt;b&gt;order&lt;/b&gt;?" in answer.content.decode()
    assert "Question not answered yet" in page(client)
    asker = signed_in(row.requester)
    url_of_page = reverse("request", kwargs={"pk": row.pk})
    assert "asks you" in asker.get(url_of_page).content.decode()
    assert asker.post(url, {"text": "88214."}).status_code == 302
    assert "Question not answered yet" not in page(client)
    empty = client.post(url, {"text": " ", "from": "approvals"}, headers=HTMX)
    assert empty.status_code == 400
    assert "Write what you want to say" in empty.content.decode()


def test_handing_over(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    dana = world.person(profile.reviewers, full_name="Dana Levi")
    row = world.request(profile=profile, reviewer=ben)
    stranger = world.person()
    url = reverse("request-hand-over", kwargs={"pk": row.pk})
    html = page(client)
    assert f'<option value="{dana.email}">' in html
    assert f'<option value="{ben.email}">' not in html
    refused = client.post(url, {"to": stranger.email})
    assert refused.status_code == 400
    assert "Must be somebody else who may decide" in refused.content.decode()
    assert client.post(url, {"to": dana.email, "note": "Yours."}).status_code == 302
    assert row.hand_overs.get().to == dana
    assert "Handed to Dana Levi" in page(client)


def test_several_at_once_say_what_became_of_each(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    two = world.profile(reviewers=profile.reviewers)
    world.policy(
        profile=two,
        steps=[{"name": "Review", "reviewers": {"profile_reviewers": True}, "approvals": 2}],
    )
    world.person(profile.reviewers)
    dana = world.person(profile.reviewers, full_name="Dana Levi")
    plain, later, lost = (
        world.request(profile=each, reviewer=ben) for each in (profile, two, profile)
    )
    review_request(by=dana, request_id=lost.pk, verdict=APPROVE, proofs=PROVED)
    theirs = world.request()
    ids = [str(row.pk) for row in (plain, later, lost, theirs)]
    url = reverse("approvals-decide")
    answer = client.post(url, {"requests": [*ids, "no-id"], "verdict": "approve"}, headers=HTMX)
    html = answer.content.decode()
    assert answer.status_code == 200
    for words in ("Waits for the next", "Already approved by Dana Levi", "you may not see"):
        assert words in html
    assert str(theirs.requester) not in html
    assert Grant.objects.filter(request=plain).exists()
    assert not Grant.objects.filter(request=later).exists()
    assert not Review.objects.filter(request=theirs).exists()
    refused = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor_id=ben.pk)
    assert refused.count() == 2


@pytest.mark.parametrize("htmx", [False, True])
def test_several_are_denied_with_a_reason_only(world: World, desk_of: Any, htmx: bool) -> None:
    profile, ben, client = desk_of
    rows = [world.request(profile=profile, reviewer=ben) for _ in range(2)]
    data = {"requests": [str(row.pk) for row in rows], "verdict": "deny"}
    headers = HTMX if htmx else {}
    url = reverse("approvals-decide")
    answer = client.post(url, data, headers=headers)
    assert answer.status_code == 400
    assert "Say why" in answer.content.decode()
    selected = re.findall(r'name="requests" value="[^"]*"[^>]* checked>', answer.content.decode())
    assert len(selected) == 2
    assert client.post(url, {"verdict": "approve"}, headers=headers).status_code == 400
    assert client.post(url, data | {"verdict": "x"}, headers=headers).status_code == 400
    assert not Review.objects.filter(request__in=rows).exists()
    answer = client.post(url, data | {"reason": "Use staging."}, headers=headers)
    assert answer.status_code == 200
    assert {row.reviews.get().reason for row in rows} == {"Use staging."}
    assert client.get(url).status_code == 405


def test_what_was_decided_with_and_without_me(world: World, desk_of: Any) -> None:
    profile, ben, client = desk_of
    dana = world.person(profile.reviewers, full_name="Dana Levi")
    mine, theirs, waits = (world.request(profile=profile, reviewer=ben) for _ in range(3))
    own = world.request(profile=profile, requester=world.person(profile.requesters), reviewer=ben)
    review_request(by=ben, request_id=mine.pk, verdict=APPROVE, duration=HOUR / 4, proofs=PROVED)
    review_request(
        by=dana, request_id=theirs.pk, verdict=DENY, reason="Use staging.", proofs=PROVED
    )
    move(own, pending_until=-2 * 24 * HOUR)
    expire_requests()
    html = page(client, "approvals-decided")
    assert str(mine.requester) in html
    assert "15 minutes instead of 1 hour" in html
    assert str(theirs.requester) not in html
    html = page(client, "approvals-others")
    assert str(theirs.requester) in html
    assert "by Dana Levi" in html
    assert str(own.requester) in html
    assert str(mine.requester) not in html
    assert str(waits.requester) not in html


def test_long_lists_go_on_where_a_page_ends(
    world: World, desk_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, ben, client = desk_of
    dana = world.person(profile.reviewers)
    for who in (ben, dana):
        for _ in range(5):
            row = world.request(profile=profile, reviewer=ben)
            review_request(by=who, request_id=row.pk, verdict=DENY, reason="No.", proofs=PROVED)
    monkeypatch.setattr("accessrequests.desk.SHOWN", 2)
    for name in ("approvals-decided", "approvals-others"):
        seen: list[str] = []
        path = reverse(name)
        for _ in range(3):
            html = client.get(path).content.decode()
            seen += re.findall(r'class="strong" href="/requests/([^/]*)/"', html)
            older = re.search(r'href="(\?before=[^"]*)"', html)
            path = reverse(name) + older[1] if older else ""
        assert not path
        assert len(seen) == len(set(seen)) == 5
        assert client.get(reverse(name) + "?before=x").status_code == 200


def test_who_asks_very_often_is_counted_no_further(
    world: World, desk_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, ben, client = desk_of
    row = world.request(profile=profile, reviewer=ben)
    copies(row, 4)
    assert "4 times: 0 approved" in page(client, query=f"?request={row.pk}")
    monkeypatch.setattr("accessrequests.dossier.REMEMBERED", 3)
    assert "Often; of the last 3: 0 approved" in page(client, query=f"?request={row.pk}")
