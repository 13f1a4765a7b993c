"""Asking by policy: later, with a ticket, before a review, for longer, for several at once."""

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse
from django.utils import timezone

from accessrequests.actions import file_request, review_request
from accessrequests.models import AccessRequest, Grant, Review
from accounts.stepup import Action, Purpose
from audit.models import AuditEvent
from credentials.actions import end_grant
from endpoints.models import AccessProfile
from tests.world import PROVED, World, move, prove

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def desk(world: World, signed_in: Any) -> Any:
    profile = world.profile(default_models=["demo-small"], max_duration=4 * HOUR)
    ben = world.person(profile.reviewers, full_name="Ben Okafor")
    ana = world.person(profile.requesters)
    return signed_in(ana), profile, ana, ben


def url(profile: AccessProfile) -> str:
    return reverse("request-new", kwargs={"profile_id": profile.pk})


def body(**more: Any) -> dict[str, Any]:
    return {"duration": "60", "models": ["demo-small"], "justification": "Look at it."} | more


def local(moment: dt.datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%dT%H:%M}"


# Later, and with a ticket.


def test_a_start_in_the_readers_own_zone(desk: Any) -> None:
    client, profile, ana, _ = desk
    ana.time_zone = "Asia/Tokyo"
    ana.save(update_fields=["time_zone"])
    page = client.get(url(profile)).content.decode()
    assert "In your time zone, JST, within 7 days" in page
    starts = (timezone.now() + dt.timedelta(days=1)).replace(second=0, microsecond=0)
    typed = f"{starts.astimezone(dt.timezone(9 * HOUR)):%Y-%m-%dT%H:%M}"
    sent = body(begin="later", starts_at=typed)
    told = client.post(f"{url(profile)}preview/", sent).content.decode()
    assert re.search(r"1 hour</b> from <time[^>]*>tomorrow at", told)
    client.post(url(profile), sent)
    assert AccessRequest.objects.get(requester=ana).starts_at == starts


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Give the date and time"),
        ("soon", "such as 2026-11-30 09:00"),
        ("0001-01-01T00:00", "Must be in the future"),
        ("9999-12-31T23:59", "Must be within 7 days"),
    ],
)
def test_a_start_that_cannot_be(desk: Any, typed: str, words: str) -> None:
    client, profile, *_ = desk
    answer = client.post(url(profile), body(begin="later", starts_at=typed))
    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not AccessRequest.objects.filter(profile=profile).exists()


def test_a_start_at_the_end_of_the_calendar_where_that_is_later(desk: Any) -> None:
    client, profile, ana, _ = desk
    ana.time_zone = "America/Los_Angeles"
    ana.save(update_fields=["time_zone"])
    answer = client.post(url(profile), body(begin="later", starts_at="9999-12-31T23:59"))
    assert answer.status_code == 400


def test_conditions_take_a_start_in_any_zone(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    ana.time_zone = "Pacific/Auckland"
    ana.save(update_fields=["time_zone"])
    world.policy(
        profile=profile,
        auto_approve_when="request.scheduled && request.starts_at > now",
        limits={"latest_start": "P7D"},
    )
    starts = timezone.now() + dt.timedelta(days=2)
    typed = f"{starts.astimezone(ZoneInfo(ana.time_zone)):%Y-%m-%dT%H:%M}"
    client.post(url(profile), body(begin="later", starts_at=typed))
    assert AccessRequest.objects.get(requester=ana).automatic


def test_a_start_that_was_given_up_does_not_count(desk: Any) -> None:
    client, profile, ana, _ = desk
    client.post(url(profile), body(begin="", starts_at="2020-01-01T00:00"))
    assert AccessRequest.objects.get(requester=ana).starts_at is None


def test_no_start_is_offered_where_policy_has_none(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    world.policy(profile=profile)
    assert 'name="starts_at"' not in client.get(url(profile)).content.decode()
    client.post(url(profile), body(begin="later", starts_at=local(timezone.now() + HOUR)))
    assert AccessRequest.objects.get(requester=ana).starts_at is None


def test_limits_of_the_policy(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    world.policy(
        profile=profile,
        limits={
            "max_duration": "PT1H",
            "default_duration": "PT15M",
            "ticket": {"pattern": "OPS-[0-9]+"},
            "justification_length": 20,
        },
    )
    page = client.get(url(profile)).content.decode()
    assert 'value="15" checked' in page
    assert "Your reviewer will see" not in page
    assert 'value="240"' not in page
    assert "Must match <code>OPS-[0-9]+</code>" in page
    assert "At least 20 characters." in page
    assert "Still to fill in: ticket and what you need it for" in page
    for change, words in [
        ({}, "Name the ticket"),
        ({"ticket": "4711"}, "matches OPS-[0-9]+"),
        ({"ticket": "OPS-1"}, "at least 20 characters"),
        ({"duration": "other", "minutes": "61", "ticket": "OPS-1"}, "at most 1 hour"),
    ]:
        answer = client.post(url(profile), body(**change))
        assert answer.status_code == 400
        assert words in answer.content.decode()
    client.post(url(profile), body(ticket="OPS-1", justification="Look at what went wrong."))
    assert AccessRequest.objects.get(requester=ana).ticket == "OPS-1"


# What is said beforehand.


def test_steps_skips_escalation_and_what_more_costs(desk: Any, world: World) -> None:
    client, profile, *_ = desk
    security = world.group()
    world.person(security, full_name="Chidi Eze")
    slow = {"after": "PT1H", "to": {"groups": [security.slug]}}
    world.policy(
        profile=profile,
        steps=[
            {
                "name": "Team",
                "reviewers": {"profile_reviewers": True},
                "escalation": [slow],
            },
            {
                "name": "Security",
                "reviewers": {"groups": [security.slug]},
                "skip_when": "request.duration <= duration('1h')",
            },
        ],
    )
    usual = client.get(url(profile)).content.decode()
    assert "Ben Okafor decides" in usual
    assert f"After 1 hour without a decision also {security.name}" in usual
    assert "Not needed for this ask" in usual
    assert "wouldn’t need" not in usual
    more = client.post(f"{url(profile)}preview/", body(duration="120")).content.decode()
    assert "Step 1 of 2: Team" in more
    assert "Step 2 of 2: Security" in more
    assert "Chidi Eze decides" in more
    assert "The default, 1 hour, wouldn’t need Security." in more


def test_decided_automatically(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    world.policy(profile=profile, auto_approve_when="request.duration <= duration('1h')")
    for page in (reverse("catalogue"), reverse("endpoint", args=[profile.endpoint.slug])):
        assert "Decided automatically for you" in client.get(page).content.decode()
    assert "Decided automatically" in client.get(url(profile)).content.decode()
    more = client.post(f"{url(profile)}preview/", body(duration="120")).content.decode()
    assert "would be decided automatically. This waits for a person." in more
    answer = client.post(url(profile), body(), follow=True)
    grant = Grant.objects.get(holder=ana)
    assert answer.redirect_chain == [(reverse("grant", args=[grant.pk]), 302)]
    assert "you have access now" in answer.content.decode()


def test_automatic_for_others_is_not_said_to_be_so_for_me(desk: Any, world: World) -> None:
    client, profile, *_ = desk
    world.policy(profile=profile, auto_approve_when="requester.on_call")
    page = client.get(reverse("catalogue")).content.decode()
    assert "automatically" not in page
    assert f"Decided by {profile.reviewers.name}" in page


def test_the_catalogue_asks_the_same_number_of_queries_however_long_it_is(
    desk: Any, world: World, django_assert_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client, profile, *_ = desk
    world.policy(
        profile=profile, steps=[{"name": "T", "reviewers": {"groups": [profile.reviewers.slug]}}]
    )
    client.get(reverse("catalogue"))
    with CaptureQueriesContext(
        connection,
    ) as before:
        client.get(reverse("catalogue"))
    for _ in range(3):
        other = world.profile(requesters=profile.requesters)
        world.person(other.reviewers)
        world.policy(
            profile=other, steps=[{"name": "T", "reviewers": {"groups": [other.reviewers.slug]}}]
        )
    with django_assert_num_queries(len(before)):
        client.get(reverse("catalogue"))


def test_a_second_factor_is_asked_for_beforehand(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    world.policy(profile=profile, limits={"requester_factor_age": "PT5M"})
    page = client.get(url(profile)).content.decode()
    assert f"/step-up/?next=%2Frequest%2F{profile.pk}%2F&amp;for=ask%3A{profile.pk}" in page
    answer = client.post(url(profile), body())
    assert answer["Location"].startswith("/step-up/")
    assert not AccessRequest.objects.filter(requester=ana).exists()
    prove(client, Purpose(Action.ASK, str(profile.pk)))
    assert "/step-up/" not in client.get(url(profile)).content.decode()
    assert client.post(url(profile), body()).status_code == 302


# Before a review.


@pytest.fixture
def glass(desk: Any, world: World) -> Any:
    profile = desk[1]
    oncall = world.group()
    world.policy(
        profile=profile,
        break_glass={"groups": [oncall.slug], "max_duration": "PT30M", "review_within": "PT4H"},
    )
    return desk, oncall


@pytest.mark.usefixtures("proved")
def test_breaking_glass(glass: Any, world: World) -> None:
    from accounts.actions import join_group

    (client, profile, ana, _), oncall = glass
    assert "Break glass" not in client.get(url(profile)).content.decode()
    refused = client.post(url(profile), body(duration="30", way="break-glass"))
    assert refused.status_code == 400
    assert f"Only for members of {oncall.slug}" in refused.content.decode()

    join_group(by=None, user=ana, group=oncall)
    assert "Break glass" in client.get(url(profile)).content.decode()
    before = AuditEvent.objects.count()
    page = client.post(
        url(profile), body(duration="120", change="break-glass", justification="Outage.")
    ).content.decode()
    assert AuditEvent.objects.count() == before
    assert "Take access now" in page
    assert "Outage." in page
    assert 'value="30" checked' in page
    assert f"Ben Okafor and {profile.endpoint.owner} are told at once" in page
    assert "A review is owed</b> within 4 hours" in page
    answer = client.post(url(profile), body(duration="30", way="break-glass"), follow=True)
    grant = Grant.objects.get(holder=ana)
    page = answer.content.decode()
    assert grant.request.break_glass
    assert answer.redirect_chain == [(reverse("grant", args=[grant.pk]), 302)]
    assert "Ben Okafor owes it a review until" in page
    assert "Extend" not in page
    assert "a review is owed" in client.get(reverse("home")).content.decode()


@pytest.mark.usefixtures("proved")
def test_the_review_afterwards_is_shown(glass: Any) -> None:
    from accounts.actions import join_group

    (client, profile, ana, ben), oncall = glass
    join_group(by=None, user=ana, group=oncall)
    client.post(url(profile), body(duration="30", way="break-glass"))
    grant = Grant.objects.get(holder=ana)
    review_request(
        by=ben,
        request_id=grant.request_id,
        verdict=Review.Verdict.DENY,
        reason="No outage.",
        proofs=PROVED,
    )
    page = client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert "Ben Okafor denied it afterwards: “No outage.”" in page
    assert "owes" not in page


# For longer.


@pytest.fixture
def held(desk: Any, world: World) -> Any:
    client, profile, ana, ben = desk
    grant = world.grant(
        profile=profile, requester=ana, reviewer=ben, models=["demo-small", "demo-large"]
    )
    return client, grant, ben


def extend(grant: Grant) -> str:
    return reverse("grant-extend", args=[grant.pk])


def test_extending(held: Any) -> None:
    client, grant, ben = held
    for page in ("home", reverse("grant", args=[grant.pk])):
        path = reverse(page) if page == "home" else page
        assert extend(grant) in client.get(path).content.decode()
    form = client.get(extend(grant)).content.decode()
    assert form.count('name="models"') == 2
    assert 'name="starts_at"' not in form
    assert "without a gap" in form
    told = client.post(reverse("grant-extend-preview", args=[grant.pk]), body(duration="30"))
    assert "30 minutes more</b>, without a gap" in told.content.decode()

    client.post(extend(grant), body(duration="30", justification="It goes on."))
    row = AccessRequest.objects.get(extends=grant)
    page = client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert "An extension of 30 minutes</a> waits for Ben Okafor" in page
    assert extend(grant) not in page
    assert "Extension waits" in client.get(reverse("home")).content.decode()
    again = client.post(extend(grant), body())
    assert again.status_code == 400
    assert "waits for a decision already" in again.content.decode()

    review_request(by=ben, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    follower = Grant.objects.get(request=row)
    assert follower.starts_at == grant.ends_at
    page = client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert reverse("grant", args=[follower.pk]) in page
    home = client.get(reverse("home")).content.decode()
    assert "goes on until" in home
    assert "Begins later" not in home
    page = client.get(reverse("grant", args=[follower.pk])).content.decode()
    assert "It follows" in page
    assert extend(follower) in page


@pytest.mark.parametrize("which", ["another's", "a reviewed one", "none"])
def test_only_ones_own_grant_can_be_extended(held: Any, world: World, which: str) -> None:
    client, grant, ben = held
    other = world.grant(profile=grant.request.profile, reviewer=ben)
    if which == "a reviewed one":
        client.force_login(ben)
    pk = other.pk if which != "none" else unique_id()
    for answer in (
        client.get(reverse("grant-extend", args=[pk])),
        client.post(reverse("grant-extend", args=[pk]), body()),
        client.post(reverse("grant-extend-preview", args=[pk]), body()),
    ):
        assert answer.status_code == 404
    assert not AccessRequest.objects.filter(extends=other).exists()


def unique_id() -> Any:
    from audit.ids import new_id

    return new_id()


def test_an_ended_grant_is_not_extended(held: Any) -> None:
    client, grant, _ = held
    end_grant(by=grant.holder, grant_id=grant.pk)
    assert extend(grant) not in client.get(reverse("grant", args=[grant.pk])).content.decode()
    answer = client.post(extend(grant), body())
    assert answer.status_code == 400
    assert "It has ended; ask anew." in answer.content.decode()


def test_no_more_models_than_the_grant_has(held: Any) -> None:
    client, grant, _ = held
    answer = client.post(extend(grant), body(models=["demo-slow"]))
    assert answer.status_code == 400
    assert not AccessRequest.objects.filter(extends=grant).exists()


# Scheduled.


def test_a_scheduled_grant_is_said_and_can_be_given_back(desk: Any) -> None:
    client, profile, ana, ben = desk
    row = file_request(
        by=ana,
        profile_id=profile.pk,
        justification="The release.",
        starts_at=timezone.now() + dt.timedelta(days=1),
    )
    assert ", from <time" in client.get(reverse("home")).content.decode()
    review_request(by=ben, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    grant = Grant.objects.get(request=row)
    home = client.get(reverse("home")).content.decode()
    assert "Begins later" in home
    assert "Ask again" not in home
    page = client.get(reverse("grant", args=[grant.pk])).content.decode()
    assert re.search(r"Begins <time[^>]*>tomorrow at", page)
    assert "Get credential" not in page
    said = client.post(reverse("grant-end", args=[grant.pk]), follow=True).content.decode()
    assert "Ended before it began" in said
    grant.refresh_from_db()
    assert grant.end_reason == "given_back"


def test_home_says_at_which_step_it_waits_and_for_whom(desk: Any, world: World) -> None:
    client, profile, ana, ben = desk
    group = world.group()
    world.person(group, full_name="Chidi Eze")
    world.policy(
        profile=profile,
        steps=[
            {"name": "Team", "reviewers": {"profile_reviewers": True}},
            {"name": "Security", "reviewers": {"groups": [group.slug]}},
        ],
    )
    row = file_request(by=ana, profile_id=profile.pk, justification="Look.")
    page = client.get(reverse("home")).content.decode()
    assert "Step 1 of 2, Team: waits for Ben Okafor" in page
    review_request(by=ben, request_id=row.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED)
    page = client.get(reverse("home")).content.decode()
    assert "Step 2 of 2, Security: waits for Chidi Eze, reached" in page


# Several at once.


def test_asking_for_several_at_once(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    other = world.profile(requesters=profile.requesters, max_duration=2 * HOUR)
    world.person(other.reviewers, full_name="Dana Levi")
    query = f"?profile={profile.pk}&profile={other.pk}"
    assert client.get(reverse("request-together")).status_code == 302
    alone = client.get(reverse("request-together") + f"?profile={profile.pk}")
    assert alone["Location"] == url(profile)
    page = client.get(reverse("request-together") + query).content.decode()
    assert "Ben Okafor decides" in page
    assert "Dana Levi decides" in page
    assert "At most 2 hours, the shortest of their limits" in page
    sent = {"profile": [profile.pk, other.pk], "duration": "60", "justification": "The move."}
    told = client.post(reverse("together-preview"), sent | {"justification": ""})
    assert "Dana Levi decides" in told.content.decode()
    answer = client.post(reverse("request-together"), sent, follow=True)
    rows = AccessRequest.objects.filter(requester=ana)
    assert {row.profile_id for row in rows} == {profile.pk, other.pk}
    [mark] = {row.together for row in rows}
    assert answer.redirect_chain == [(f"{reverse('requests')}?together={mark}", 302)]
    assert "Asked for 2 at once" in answer.content.decode()
    assert client.get(reverse("requests") + "?together=nonsense").status_code == 200


def test_all_or_none_and_which_is_at_fault(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    lonely = world.profile(requesters=profile.requesters)
    sent = {"profile": [profile.pk, lonely.pk], "duration": "60", "justification": "The move."}
    answer = client.post(reverse("request-together"), sent)
    assert answer.status_code == 400
    assert f"{lonely}: Nobody could approve this" in answer.content.decode()
    assert not AccessRequest.objects.filter(requester=ana).exists()


def test_a_strangers_profile_among_several(desk: Any, world: World) -> None:
    client, profile, ana, _ = desk
    theirs = world.profile()
    for pk in (theirs.pk, "nonsense", unique_id()):
        query = f"?profile={profile.pk}&profile={pk}"
        assert client.get(reverse("request-together") + query).status_code == 404
        sent = {"profile": [profile.pk, pk], "duration": "60", "justification": "x"}
        assert client.post(reverse("request-together"), sent).status_code == 404
        page = client.get(reverse("catalogue") + query).content.decode()
        assert theirs.endpoint.name not in page
    assert not AccessRequest.objects.filter(requester=ana).exists()


def test_what_was_chosen_survives_a_search(desk: Any, world: World) -> None:
    client, profile, *_ = desk
    page = client.get(reverse("catalogue") + f"?q=zzzz&profile={profile.pk}").content.decode()
    assert f'value="{profile.pk}" checked' in page
    page = client.get(reverse("catalogue") + f"?profile={profile.pk}").content.decode()
    assert page.count(f'value="{profile.pk}"') == 1


# As before.


def test_as_last_time(desk: Any) -> None:
    client, profile, ana, _ = desk
    assert "As last time" not in client.get(url(profile)).content.decode()
    nasty = "<script>alert(1)</script>"
    for why, length in [(nasty, HOUR), (nasty, HOUR), ("Ticket 2.", 2 * HOUR)]:
        row = file_request(by=ana, profile_id=profile.pk, justification=why, duration=length)
        move(row, pending_until=dt.timedelta(0))
    page = client.get(url(profile)).content.decode()
    assert page.count("?again=") == 2
    assert "<script>alert" not in page
    form = client.get(f"{url(profile)}?again={row.pk}").content.decode()
    assert 'value="120" checked' in form
    assert "Ticket 2.</textarea>" in form


# Out of office.


def test_an_absence_is_noted_shown_and_dropped(desk: Any, world: World) -> None:
    client, _, ana, ben = desk
    page = reverse("absences")
    until = local(timezone.now() + dt.timedelta(days=3))
    for sent, words in [
        ({"ends_at": ""}, "Say until when"),
        ({"ends_at": until, "delegate": "nobody@example.com"}, "There is no such person"),
        ({"ends_at": until, "delegate": ana.email}, "Must be somebody else"),
        ({"ends_at": local(timezone.now() - HOUR)}, "Must be in the future"),
        ({"ends_at": "9999-12-31T00:00"}, "within a year"),
        ({"ends_at": until, "note": "\x00"}, "Null characters"),
    ]:
        answer = client.post(page, sent)
        assert answer.status_code == 400
        assert words in answer.content.decode()
    sent = {"ends_at": until, "delegate": ben.email, "note": "<b>Sea</b>"}
    shown = client.post(page, sent, follow=True).content.decode()
    assert "Ben Okafor is told instead of you" in shown
    assert "&lt;b&gt;Sea" in shown
    twice = client.post(page, sent)
    assert "already; drop it first" in twice.content.decode()
    [row] = ana.absences.all()
    client.force_login(ben)
    assert client.post(reverse("absence-drop", args=[row.pk])).status_code == 404
    client.force_login(ana)
    client.post(reverse("absence-drop", args=[row.pk]))
    assert not ana.absences.exists()
