"""Agents: who asks on whose behalf, whose rights bound it, and attacks on that."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from accessrequests.actions import (
    cancel_request,
    file_request,
    hand_over,
    note_absence,
    preview_request,
    review_many,
    review_request,
)
from accessrequests.actions.chasing import chase
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.queue import waiting_for
from accessrequests.routing import reviewers_of
from accessrequests.states import EndReason, RequestState
from accounts.actions import (
    allow_agent,
    deactivate_user,
    join_group,
    leave_group,
    take_back_agent,
)
from accounts.models import AgentConsent, Totp, User
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.models import AuditEvent
from broker.errors import AuthorityLost, Forbidden, InvalidInput, NotFound, SelfReview, StepUpNeeded
from credentials.actions import check_out, end_grant
from credentials.actions.ending import end_due_grants
from credentials.live import holding
from endpoints.models import AccessProfile
from notifications.kinds import Kind
from notifications.models import Notification
from tests.accessrequests.policies import govern, step
from tests.api.callers import Caller, faults, problem
from tests.world import PROVED, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

APPROVE, DENY = Review.Verdict.APPROVE, Review.Verdict.DENY
RUN = "https://ci.example.com/runs/4711?attempt=2"
TASK = "Summarise the ticket and answer it in French."


@dataclass
class Cast:
    """Ana lets an agent act for her; she, its owner and another review what may be asked for."""

    world: World
    profile: AccessProfile
    ana: User
    owner: User
    agent: User
    reviewer: User
    consent: AgentConsent

    def ask(self, **fields: Any) -> AccessRequest:
        said = {"on_behalf_of": self.ana.email, "run": RUN, "task": TASK}
        return file_request(
            by=self.agent,
            profile_id=self.profile.pk,
            **{"justification": "Ticket 4711 was answered in French."} | said | fields,
        )

    def grant(self, **fields: Any) -> Grant:
        request = self.ask(**fields)
        review_request(by=self.reviewer, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
        return Grant.objects.get(request=request)


@pytest.fixture
def cast(world: World) -> Cast:
    profile = world.profile(with_key=True)
    ana = world.person(profile.requesters, profile.reviewers, full_name="Ana Pires")
    owner = world.person(profile.reviewers)
    agent = world.person(profile.requesters, owner=owner, full_name="Nightly triage")
    reviewer = world.person(profile.reviewers)
    return Cast(world, profile, ana, owner, agent, reviewer, allow_agent(by=ana, agent=agent.email))


def told(person: User, kind: Kind) -> list[Notification]:
    return list(Notification.objects.filter(person=person, kind=kind).order_by("id"))


def refused(cast: Cast, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        cast.ask(**fields)
    assert not AccessRequest.objects.filter(requester=cast.agent).exists()
    return caught.value.errors


# ── Asking ──────────────────────────────────────────────────────────────────────────────────────


def test_what_it_asks_is_its_person_s_too(cast: Cast) -> None:
    request = cast.ask()
    assert (request.on_behalf_of, request.run, request.task) == (cast.ana, RUN, TASK)
    assert reviewers_of([request])[request.pk] == [cast.reviewer]
    row = AuditEvent.objects.about(request.pk).get(event=Event.REQUEST_FILED)
    assert row.data["on_behalf_of"] == cast.ana.email
    assert cast.ana.pk in row.related
    [asked] = told(cast.ana, Kind.ASKED_FOR_YOU)
    assert asked.sentence.startswith("Nightly triage asked for ")
    [wanted] = told(cast.reviewer, Kind.REVIEW_WANTED)
    assert wanted.sentence.startswith("Nightly triage (agent) for Ana Pires asks for ")
    assert ["Run", RUN] in wanted.facts
    assert ["Task", TASK] in wanted.facts
    assert not told(cast.ana, Kind.REVIEW_WANTED)
    assert not told(cast.owner, Kind.REVIEW_WANTED)
    review_request(by=cast.reviewer, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
    grant = Grant.objects.get(request=request)
    assert grant.holder == cast.agent
    assert [each.subject_id for each in told(cast.ana, Kind.ASKED_FOR_YOU)] == [
        request.pk,
        grant.pk,
    ]
    assert grant in Grant.objects.visible_to(cast.ana)
    assert end_grant(by=cast.ana, grant_id=grant.pk).end_reason == EndReason.REVOKED


def test_its_person_takes_a_request_back(cast: Cast) -> None:
    assert cancel_request(by=cast.ana, request_id=cast.ask().pk).state == RequestState.CANCELLED


def test_its_person_checks_nothing_out(cast: Cast) -> None:
    grant = cast.grant()
    with pytest.raises(Forbidden):
        check_out(by=cast.ana, grant_id=grant.pk)
    assert check_out(by=cast.agent, grant_id=grant.pk).secret


def test_its_owner_needs_no_consent(cast: Cast) -> None:
    User.objects.filter(pk=cast.agent.pk).update(owner=cast.ana)
    take_back_agent(by=cast.ana, consent_id=cast.consent.pk)
    assert cast.ask().on_behalf_of == cast.ana


def never_let(cast: Cast) -> str:
    return cast.world.person(cast.profile.requesters).email


def is_nobody(cast: Cast) -> str:
    return "nobody@example.com"


def took_it_back(cast: Cast) -> str:
    take_back_agent(by=cast.ana, consent_id=cast.consent.pk)
    return cast.ana.email


def let_it_until_now(cast: Cast) -> str:
    AgentConsent.objects.update(until=clock.now() - dt.timedelta(seconds=1))
    return cast.ana.email


def let_another(cast: Cast) -> str:
    another = cast.world.person(cast.profile.requesters, owner=cast.owner)
    person = cast.world.person(cast.profile.requesters)
    allow_agent(by=person, agent=another.email)
    return person.email


def is_a_program(cast: Cast) -> str:
    return cast.world.person(cast.profile.requesters, owner=cast.owner).email


def is_the_agent(cast: Cast) -> str:
    return cast.agent.email


def was_deactivated(cast: Cast) -> str:
    User.objects.filter(pk=cast.ana.pk).update(is_active=False)
    return cast.ana.email


UNLET = [
    never_let,
    is_nobody,
    took_it_back,
    let_it_until_now,
    let_another,
    is_a_program,
    is_the_agent,
    was_deactivated,
]


@pytest.mark.parametrize("whose", UNLET, ids=lambda each: each.__name__)
def test_for_whoever_has_not_let_it_nothing_is_asked(
    whose: Callable[[Cast], str], cast: Cast
) -> None:
    """In the same words, so that it doesn't learn who exists."""
    email = whose(cast)
    assert refused(cast, on_behalf_of=email) == {
        "on_behalf_of": f"{email} has not let this agent act for them."
    }


@pytest.mark.parametrize("name", ["on_behalf_of", "run", "task"])
def test_a_person_asks_for_themself(name: str, cast: Cast) -> None:
    asker = cast.world.person(cast.profile.requesters)
    said: dict[str, Any] = {name: cast.ana.email}
    with pytest.raises(InvalidInput) as caught:
        file_request(by=asker, profile_id=cast.profile.pk, justification="Mine.", **said)
    assert caught.value.errors.keys() == {name}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run", "r" * 201),
        ("run", "one\r\ntwo"),
        ("run", "\x1b[31mred"),
        ("run", "nul\x00"),
        ("run", "https://ci.example.com/\u202egnp.exe"),
        ("task", "t" * 1001),
        ("task", "nul\x00"),
    ],
)
def test_what_it_says_of_itself_is_bounded(name: str, text: str, cast: Cast) -> None:
    assert refused(cast, **{name: text}).keys() == {name}


# ── Its person's rights are the ceiling ─────────────────────────────────────────────────────────


def test_what_its_person_may_not_ask_for_it_may_not_for_them(cast: Cast) -> None:
    leave_group(by=None, user=cast.ana, group=cast.profile.requesters)
    assert "may not ask for this profile" in refused(cast)["on_behalf_of"]
    assert cast.ask(on_behalf_of="").on_behalf_of is None, "for itself it still may"


def test_what_the_agent_may_not_ask_for_its_person_s_right_does_not_open(cast: Cast) -> None:
    leave_group(by=None, user=cast.agent, group=cast.profile.requesters)
    assert refused(cast).keys() == {"profile"}


@pytest.mark.parametrize("who", ["agent", "ana"])
def test_a_constraint_must_hold_for_both(who: str, cast: Cast) -> None:
    trained = cast.world.group()
    condition = {"expression": f"'{trained.slug}' in requester.groups", "message": "Get trained."}
    govern(cast.profile, constraints=[condition])
    join_group(by=None, user=getattr(cast, who), group=trained)
    assert "Get trained." in refused(cast)["policy"]
    join_group(by=None, user=cast.ana if who == "agent" else cast.agent, group=trained)
    assert cast.ask()


@pytest.mark.parametrize("who", ["agent", "ana"])
@pytest.mark.parametrize("spared", ["approval", "step"])
def test_what_spares_one_of_them_a_person_spares_it_nothing(
    who: str, spared: str, cast: Cast
) -> None:
    trusted = cast.world.group()
    condition = f"'{trusted.slug}' in requester.groups"
    if spared == "approval":
        govern(cast.profile, auto_approve_when=condition)
    else:
        govern(cast.profile, step(name="Team", skip_when=condition), step(name="Security"))
    cast.world.person(cast.profile.reviewers)

    def asked() -> tuple[bool, list[str]]:
        found = preview_request(
            by=cast.agent, profile_id=cast.profile.pk, on_behalf_of=cast.ana.email
        )
        return found.automatic, [routed.step.name for routed in found.needed]

    before = asked()
    join_group(by=None, user=getattr(cast, who), group=trusted)
    assert asked() == before
    join_group(by=None, user=cast.ana if who == "agent" else cast.agent, group=trusted)
    assert asked() == ((True, []) if spared == "approval" else (False, ["Security"]))


@pytest.mark.parametrize(
    "expression",
    [
        "request.agent",
        "request.on_behalf_of.startsWith('p-')",
        "request.run.startsWith('https://ci.example.com/')",
        "request.task.contains('French')",
        "behalf.groups.exists(group, group.startsWith('g-')) && !behalf.on_call",
    ],
)
def test_policy_sees_what_it_says(expression: str, cast: Cast) -> None:
    govern(cast.profile, constraints=[{"expression": expression, "message": "For agents alone."}])
    assert cast.ask()
    with pytest.raises(InvalidInput, match="For agents alone"):
        file_request(
            by=cast.world.person(cast.profile.requesters),
            profile_id=cast.profile.pk,
            justification="A person asks.",
        )


def test_what_builds_on_a_grant_stays_its_person_s(cast: Cast) -> None:
    grant = cast.grant()
    own = cast.grant(on_behalf_of="")
    assert cast.ask(extends=grant.pk, on_behalf_of="").on_behalf_of == cast.ana
    User.objects.filter(pk=cast.agent.pk).update(owner=cast.reviewer)
    for fields in (
        {"extends": grant.pk, "on_behalf_of": cast.reviewer.email},
        {"extends": own.pk, "on_behalf_of": cast.ana.email},
    ):
        with pytest.raises(InvalidInput) as caught:
            cast.ask(**fields)
        assert "on_behalf_of" in caught.value.errors


# ── Nobody approves their own ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("who", ["ana", "owner"])
def test_neither_its_person_nor_its_owner_reviews(who: str, cast: Cast) -> None:
    request, person = cast.ask(), getattr(cast, who)
    with pytest.raises(SelfReview):
        review_request(by=person, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
    [outcome] = review_many(by=person, request_ids=[request.pk], verdict=APPROVE, proofs=PROVED)
    assert isinstance(outcome.error, SelfReview)
    assert not waiting_for(person).exists()
    assert not Caller(person).get("approvals/").json()["results"]
    path = f"requests/{request.pk}/reviews/"
    problem(Caller(person).post(path, {"verdict": "approve"}), 403, "self-review")
    with pytest.raises(InvalidInput, match="somebody else who may decide"):
        hand_over(by=cast.reviewer, request_id=request.pk, to=person.email)
    with pytest.raises(DatabaseError, match="nobody reviews their own"), transaction.atomic():
        Review.objects.create(request=request, reviewer=person, verdict=APPROVE)
    request.refresh_from_db()
    assert request.state == RequestState.PENDING


def test_standing_in_for_the_reviewer_makes_its_person_none(cast: Cast) -> None:
    note_absence(
        by=cast.reviewer, ends_at=clock.now() + dt.timedelta(days=1), delegate=cast.ana.email
    )
    request = cast.ask()
    assert not told(cast.ana, Kind.REVIEW_WANTED)
    with pytest.raises(SelfReview):
        review_request(by=cast.ana, request_id=request.pk, verdict=APPROVE, proofs=PROVED)


def test_being_named_by_the_policy_makes_its_person_no_reviewer(cast: Cast) -> None:
    named = {"people": [cast.ana.email, cast.owner.email]}
    govern(cast.profile, {"name": "Named", "reviewers": named})
    assert "Nobody could approve this" in refused(cast)["profile"]
    named["people"].append(cast.reviewer.email)
    govern(cast.profile, {"name": "Named", "reviewers": named})
    assert reviewers_of([request := cast.ask()])[request.pk] == [cast.reviewer]


def test_a_step_of_two_counts_neither_of_them(cast: Cast) -> None:
    govern(cast.profile, step(approvals=2))
    assert "Nobody could approve this" in refused(cast)["profile"]


def test_an_approval_by_who_is_its_owner_since_does_not_count(cast: Cast) -> None:
    second = cast.world.person(cast.profile.reviewers)
    govern(cast.profile, step(approvals=2))
    request = cast.ask()
    review_request(by=second, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
    User.objects.filter(pk=cast.agent.pk).update(owner=second)
    review_request(by=cast.reviewer, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
    assert not Grant.objects.filter(request=request).exists()


def test_an_agent_reviews_nothing(cast: Cast) -> None:
    """By group, by name, with a token, or at PostgreSQL."""
    bot = cast.world.person(cast.profile.reviewers, owner=cast.world.person())
    with pytest.raises(InvalidInput, match="No such active person"):
        govern(cast.profile, {"name": "Named", "reviewers": {"people": [bot.email]}})
    request = cast.ask()
    for verdict in (APPROVE, DENY):
        with pytest.raises(Forbidden):
            review_request(
                by=bot, request_id=request.pk, verdict=verdict, reason="No.", proofs=PROVED
            )
    answer = Caller(bot, "token").post(f"requests/{request.pk}/reviews/", {"verdict": "approve"})
    assert answer.status_code == 403
    with pytest.raises(DatabaseError, match="only people review"), transaction.atomic():
        Review.objects.create(request=request, reviewer=bot, verdict=APPROVE)
    with pytest.raises(InvalidInput, match="somebody else who may decide"):
        hand_over(by=cast.reviewer, request_id=request.pk, to=bot.email)
    request.refresh_from_db()
    assert request.state == RequestState.PENDING


@pytest.mark.parametrize("column", ["on_behalf_of_id", "run", "task"])
def test_postgresql_keeps_for_whom_it_was_asked(column: str, cast: Cast) -> None:
    request = cast.ask()
    value = cast.owner.pk if column == "on_behalf_of_id" else "another"
    with pytest.raises(DatabaseError, match="annot update"), transaction.atomic():
        AccessRequest.objects.filter(pk=request.pk).update(**{column: value})


@pytest.mark.parametrize("whose", ["a person's", "for a program"])
def test_postgresql_refuses_what_is_not_of_an_agent_for_a_person(whose: str, cast: Cast) -> None:
    request = cast.ask()
    requester, behalf = (
        (cast.reviewer, cast.ana)
        if whose == "a person's"
        else (cast.agent, cast.world.person(owner=cast.owner))
    )
    copy = AccessRequest.objects.get(pk=request.pk)
    copy.pk, copy.requester, copy.on_behalf_of = new_id(), requester, behalf
    copy._state.adding = True
    with pytest.raises(DatabaseError, match="not of an agent"), transaction.atomic():
        copy.save(force_insert=True)


# ── Authority is current ────────────────────────────────────────────────────────────────────────


def consent_is_taken_back(cast: Cast) -> None:
    take_back_agent(by=cast.ana, consent_id=cast.consent.pk)


def consent_is_over(cast: Cast) -> None:
    AgentConsent.objects.update(until=clock.now() - dt.timedelta(seconds=1))


def person_leaves(cast: Cast) -> None:
    leave_group(by=None, user=cast.ana, group=cast.profile.requesters)


def person_is_deactivated(cast: Cast) -> None:
    deactivate_user(by=None, user=cast.ana)


LOST: list[tuple[Callable[[Cast], None], str, EndReason]] = [
    (consent_is_taken_back, "no longer lets", EndReason.REVOKED),
    (consent_is_over, "no longer lets", EndReason.REVOKED),
    (person_leaves, "no longer in", EndReason.GROUP_LOST),
    (person_is_deactivated, "was deactivated", EndReason.REQUESTER_DEACTIVATED),
]
each_loss = pytest.mark.parametrize(
    ("lose", "words", "reason"), LOST, ids=[lose.__name__ for lose, _, _ in LOST]
)


@each_loss
def test_once_its_person_s_right_is_gone_it_gets_nothing(
    lose: Callable[[Cast], None], words: str, reason: EndReason, cast: Cast
) -> None:
    grant, request = cast.grant(), cast.ask()
    out = check_out(by=cast.agent, grant_id=grant.pk)
    assert holding([out.credential.pk])
    lose(cast)
    with pytest.raises(AuthorityLost, match=words):
        review_request(by=cast.reviewer, request_id=request.pk, verdict=APPROVE, proofs=PROVED)
    with pytest.raises(AuthorityLost, match=words):
        check_out(by=cast.agent, grant_id=grant.pk)
    if lose is not person_leaves:
        assert not holding([out.credential.pk]), "the gateway refuses before any sweep"
    assert end_due_grants() == 1
    grant.refresh_from_db()
    assert grant.end_reason == reason
    chase()
    request.refresh_from_db()
    waits = lose is person_leaves  # as where the requester leaves: they may come back
    assert request.state == (RequestState.PENDING if waits else RequestState.CANCELLED)


def test_past_its_own_end_it_opens_nothing_though_no_worker_closes_it(cast: Cast) -> None:
    out = check_out(by=cast.agent, grant_id=cast.grant().pk)
    assert holding([out.credential.pk])
    User.objects.filter(pk=cast.agent.pk).update(ends_at=clock.now())
    assert not holding([out.credential.pk])


def test_nothing_of_others_ends_with_it(cast: Cast) -> None:
    """Of the same agent for itself, and of another agent for the same person."""
    other = cast.world.person(cast.profile.requesters, owner=cast.owner)
    allow_agent(by=cast.ana, agent=other.email)
    kept = [cast.grant(on_behalf_of=""), cast.grant()]
    another = Cast(**vars(cast) | {"agent": other}).grant()
    take_back_agent(by=cast.ana, consent_id=cast.consent.pk)
    assert end_due_grants() == 1
    assert set(Grant.objects.filter(ended_at=None)) == {kept[0], another}


def test_a_consent_given_anew_brings_nothing_back(cast: Cast) -> None:
    person_is_deactivated(cast)
    User.objects.filter(pk=cast.ana.pk).update(is_active=True)
    assert not AgentConsent.objects.standing().filter(person=cast.ana).exists()


# ── Letting it, and no longer ───────────────────────────────────────────────────────────────────


def test_whom_one_lets(cast: Cast) -> None:
    until = clock.now() + dt.timedelta(days=7)
    again = allow_agent(by=cast.ana, agent=cast.agent.email.upper(), until=until)
    assert list(AgentConsent.objects.standing().filter(person=cast.ana)) == [again]
    for email in (cast.reviewer.email, "nobody@example.com", "a\x00@example.com"):
        with pytest.raises(InvalidInput, match="No active service account"):
            allow_agent(by=cast.ana, agent=email)
    with pytest.raises(InvalidInput, match="yours"):
        allow_agent(by=cast.owner, agent=cast.agent.email)
    with pytest.raises(InvalidInput, match="future"):
        allow_agent(by=cast.ana, agent=cast.agent.email, until=clock.now())
    with pytest.raises(Forbidden):
        allow_agent(by=cast.agent, agent=cast.world.person(owner=cast.owner).email)
    rows = AuditEvent.objects.filter(event=Event.AGENT_ALLOWED).about(cast.ana.pk)
    assert rows.count() == 2


def test_who_takes_it_back(cast: Cast) -> None:
    for stranger in (cast.reviewer, cast.world.person()):
        with pytest.raises(NotFound):
            take_back_agent(by=stranger, consent_id=cast.consent.pk)
    for other in (cast.agent, cast.world.person(is_auditor=True)):
        with pytest.raises(Forbidden):
            take_back_agent(by=other, consent_id=cast.consent.pk)
    take_back_agent(by=cast.owner, consent_id=cast.consent.pk)
    take_back_agent(by=cast.ana, consent_id=cast.consent.pk)
    assert AuditEvent.objects.filter(event=Event.AGENT_DISALLOWED).about(cast.ana.pk).count() == 1


# ── The API ─────────────────────────────────────────────────────────────────────────────────────


def test_the_api_takes_and_shows_it(cast: Cast) -> None:
    caller = Caller(cast.agent, "token")
    body = {
        "profile": str(cast.profile.pk),
        "justification": "Ticket 4711.",
        "on_behalf_of": cast.ana.email,
        "run": "run-1",
        "task": TASK,
    }
    assert caller.post("requests/preview/", body).json()["may"] is True
    answer = caller.post("requests/", body)
    assert answer.status_code == 201
    shown = {name: answer.json()[name] for name in ("on_behalf_of", "run", "task")}
    assert shown == {"on_behalf_of": cast.ana.email, "run": "run-1", "task": TASK}
    together = {key: value for key, value in body.items() if key != "profile"}
    both = caller.post("requests/together/", together | {"profiles": [str(cast.profile.pk)]})
    assert [each["on_behalf_of"] for each in both.json()] == [cast.ana.email]
    for query, found in (
        ({"on_behalf_of": cast.ana.email}, 2),
        ({"run": "run-1"}, 2),
        ({"run": "run-2"}, 0),
    ):
        assert len(Caller(cast.ana).get("requests/", **query).json()["results"]) == found
    preview = caller.post("requests/preview/", body | {"on_behalf_of": cast.reviewer.email}).json()
    assert [fault["field"] for fault in preview["errors"]] == ["on_behalf_of"]
    assert "on_behalf_of" in faults(
        caller.post("requests/", body | {"on_behalf_of": cast.reviewer.email})
    )


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────


def page(user: User, name: str, *args: Any) -> str:
    client = Client()
    client.force_login(user)
    answer = client.get(reverse(name, args=args))
    assert answer.status_code == 200
    return str(answer.content.decode())


@pytest.mark.parametrize("reader", ["ana", "owner", "reviewer"])
def test_the_pages_say_for_whom_it_is(reader: str, cast: Cast) -> None:
    grant, user = cast.grant(), getattr(cast, reader)
    for name, pk in (("request", grant.request_id), ("grant", grant.pk)):
        text = page(user, name, pk)
        assert cast.agent.full_name in text
        assert cast.ana.email in text
        assert TASK in text
        assert f'href="{RUN}" rel="noopener noreferrer nofollow"' in text


@pytest.mark.parametrize(
    "run",
    [
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "https://keyturn.example.com@evil.example/",
        "https:\\\\evil.example",
        "//evil.example/",
        "https://",
        "https://[",
        "run-4711",
    ],
)
def test_what_is_no_web_address_is_no_link(run: str, cast: Cast) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    text = page(cast.reviewer, "request", cast.ask(run=run, task=hostile).pk)
    assert escape(run) in text
    assert f'href="{escape(run)}"' not in text
    assert hostile not in text


def test_one_says_who_may_act_on_a_page(cast: Cast) -> None:
    cast.ask()
    text = page(cast.ana, "agents")
    assert cast.agent.email in text
    assert RUN.partition("?")[0] in text
    assert cast.ana.full_name in page(cast.owner, "person", cast.agent.pk)
    client = Client()
    client.force_login(cast.ana)
    assert client.post(reverse("agent-take-back", args=[cast.consent.pk])).status_code == 302
    assert "No program may" in page(cast.ana, "agents")
    client.post(reverse("agents"), {"agent": cast.agent.email, "ends_on": "2099-01-01"})
    [consent] = AgentConsent.objects.standing().filter(person=cast.ana)
    assert consent.until is not None
    assert consent.until.year == 2099
    wrong = client.post(reverse("agents"), {"agent": cast.owner.email})
    assert wrong.status_code == 400
    assert "No active service account" in wrong.content.decode()


def test_the_api_says_who_may_act(cast: Cast) -> None:
    caller = Caller(cast.ana)
    [row] = caller.get("agents/", standing=True).json()["results"]
    assert (row["agent"], row["person"]) == (cast.agent.email, cast.ana.email)
    assert caller.post(f"agents/{row['id']}/take-back/").json()["taken_back_at"]
    answer = caller.post("agents/", {"agent": cast.agent.email, "until": "2099-01-01T00:00:00Z"})
    assert answer.status_code == 201
    assert caller.get(f"agents/{answer.json()['id']}/").json()["until"] == "2099-01-01T00:00:00Z"
    for user in (cast.ana, cast.agent):
        token = Caller(user, "token")
        assert token.post("agents/", {"agent": cast.agent.email}).status_code == 403


def test_letting_one_takes_a_second_factor_where_there_is_one(cast: Cast) -> None:
    Totp.objects.create(person=cast.ana, sealed="vault:v1:x", last_step=0)
    with pytest.raises(StepUpNeeded):
        allow_agent(by=cast.ana, agent=cast.agent.email)
    assert allow_agent(by=cast.ana, agent=cast.agent.email, proofs=PROVED)
