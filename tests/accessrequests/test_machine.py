"""Random people, policies and clocks drive the actions; the oracle says what must not be."""

import datetime as dt
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pgtrigger
import pytest
from django.db import transaction
from django.db.models import F
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accessrequests import actions
from accessrequests.models import Absence, AccessRequest, Grant, Review
from accessrequests.policy.document import parse
from accounts.actions import create_group, create_user, deactivate_user, join_group, leave_group
from accounts.models import Group, User
from accounts.stepup import NONE, Proofs
from audit import clock
from broker.errors import KeyturnError
from credentials.actions import end_due_grants, end_grant
from endpoints.actions import change, create_endpoint, create_profile
from endpoints.models import AccessProfile, Endpoint
from tests.accessrequests.oracle import CONDITIONS, Oracle
from tests.world import PROVED, Proved

pytestmark = pytest.mark.django_db

MODELS = ["m-large", "m-medium", "m-small"]
GROUPS = ["m-askers", "m-reviewers", "m-security", "m-fallback", "m-responders"]
NAMES = ["ada", "ben", "cleo", "dan", "eve", "fay", "gil"]
SERVICES = ["bot", "cron"]
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)


def email(name: str) -> str:
    return f"m-{name}@example.com"


@pytest.fixture
def company(db: None) -> list[AccessProfile]:
    """Seven people, two service accounts, three profiles on two endpoints, one of them critical."""
    groups = {slug: create_group(by=None, slug=slug, name=slug) for slug in GROUPS}
    Group.objects.filter(slug="m-responders").update(is_rota=True)
    people: dict[str, User] = {}
    for at, name in enumerate(NAMES):
        people[name] = create_user(
            by=None,
            email=email(name),
            full_name=name,
            manager=people.get(NAMES[at - 1]) if at else None,
        )
    for name, owner in zip(SERVICES, ["ada", "ben"], strict=True):
        people[name] = create_user(
            by=None, email=email(name), full_name=name, owner=people[owner], manager=people["cleo"]
        )
    members = {
        "m-askers": ["ada", "ben", "cleo", "bot", "cron"],
        "m-reviewers": ["ada", "cleo", "dan", "eve"],
        "m-security": ["ben", "eve", "fay"],
        "m-fallback": ["fay", "gil"],
        "m-responders": ["ada", "dan", "bot"],
    }
    for slug, names in members.items():
        for name in names:
            join_group(by=None, user=people[name], group=groups[slug])
    profiles = []
    for slug, risk, count in (("m-plain", "elevated", 2), ("m-critical", "critical", 1)):
        endpoint = create_endpoint(
            by=None,
            slug=slug,
            name=slug,
            environment="production",
            risk=risk,
            dialects=["openai"],
            upstream_url="http://127.0.0.1:9",
            owner=people["dan"],
        )
        for at in range(count):
            profiles.append(
                create_profile(
                    by=None,
                    endpoint=endpoint,
                    slug=f"m-{at}",
                    name="Debug",
                    models=MODELS,
                    requesters=groups["m-askers"],
                    reviewers=groups["m-reviewers"],
                )
            )
    return profiles


# ── What is drawn ───────────────────────────────────────────────────────────────────────────────

people = st.sampled_from(NAMES)
anybody = st.sampled_from(NAMES + SERVICES)
askers = st.sampled_from(["ada", "ben", "cleo", "bot", "cron", "dan"])
at = st.integers(0, 11)
conditions = st.sampled_from(list(CONDITIONS))


def seldom(strategy: st.SearchStrategy[Any], default: Any = None) -> st.SearchStrategy[Any]:
    return st.integers(0, 3).flatmap(lambda n: strategy if n == 3 else st.just(default))


reviewers = st.sampled_from(
    [
        {"groups": ["m-reviewers"]},
        {"groups": ["m-security"]},
        {"groups": ["m-reviewers", "m-security"]},
        {"profile_reviewers": True},
        {"endpoint_owner": True, "groups": ["m-security"]},
        {"requester_manager": True},
        {"people": [email("eve"), email("ada")]},
    ]
)
escalations = st.sampled_from(
    [
        [{"after": "PT1H", "to": {"groups": ["m-fallback"]}}],
        [
            {"after": "PT30M", "to": {"requester_manager": True}},
            {"after": "PT2H", "to": {"groups": ["m-fallback"]}},
        ],
    ]
)


def present(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with those of the parts that aren't None."""
    return st.fixed_dictionaries(parts).map(
        lambda drawn: {key: value for key, value in drawn.items() if value is not None}
    )


steps = present(
    reviewers=reviewers,
    approvals=st.sampled_from([1, 2, 2, 3]),
    skip_when=seldom(conditions),
    escalation=seldom(escalations),
)
limits = present(
    max_duration=seldom(st.sampled_from(["PT30M", "PT2H"])),
    latest_start=st.sampled_from([None, "P1D", "P5D"]),
    ticket=seldom(st.just({})),
    requester_factor_age=seldom(st.just("PT10M")),
    reviewer_factor_age=seldom(st.just("PT10M")),
)
policies = present(
    steps=st.lists(steps, min_size=1, max_size=2),
    limits=limits,
    constraints=seldom(conditions.map(lambda text: [{"expression": text, "message": "Not so."}])),
    auto_approve_when=st.none() | conditions,
    auto_approve_critical=st.booleans(),
    break_glass=st.sampled_from(
        [
            {"groups": ["m-responders"]},
            {"groups": ["m-responders", "m-security"], "max_duration": "PT10M"},
            {"groups": []},
            None,
        ]
    ),
)
CHANGES = ["goes", "returns", "manager", "owner", "endpoint"]
TARGETS = ["m-plain/m-0", "m-plain/m-1", "m-critical/m-0", "m-plain", "m-critical"]
durations = seldom(st.sampled_from([None, 2 * HOUR, 9 * HOUR]), 10 * MINUTE)
scopes = seldom(st.sampled_from([["m-small"], ["m-small", "m-large"], MODELS, ["m-other"], []]))
factors = seldom(st.sampled_from([None, HOUR]), MINUTE)
starts = seldom(st.sampled_from([-HOUR, 20 * MINUTE, 3 * HOUR, 3 * DAY]))
tickets = seldom(st.just(""), "T-1")
less = present(
    duration=seldom(st.sampled_from([MINUTE, 20 * MINUTE, 4 * HOUR])),
    models=seldom(st.sampled_from([["m-small"], ["m-large"], MODELS, []])),
    starts_in=seldom(st.sampled_from([-HOUR, HOUR, 40 * DAY])),
)


class Machine(RuleBasedStateMachine):
    """Each example works in a savepoint of its own."""

    def __init__(self, company: list[AccessProfile], seen: Counter[str]) -> None:
        super().__init__()
        self.profiles, self.seen = [each.pk for each in company], seen
        self.undo = transaction.atomic()
        self.undo.__enter__()
        self.oracle = Oracle(self.profiles)
        self.oracle.seen = seen

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.undo.__exit__(None, None, None)

    def person(self, name: str) -> User:
        return User.objects.get(email=email(name))

    def act(self, verb: Callable[..., Any], **given: Any) -> Any:
        """A refusal is a KeyturnError and changes nothing; else the oracle looks at it."""
        try:
            done = verb(**given)
        except KeyturnError as error:
            self.seen[type(error).__name__] += 1
            self.oracle.check_refused()
            return None
        self.oracle.check()
        return done

    def request_at(self, number: int) -> dict[str, Any]:
        rows = list(self.oracle.requests.values())
        return rows[number % len(rows)]

    def factor(self, age: dt.timedelta | None) -> Proofs:
        return NONE if age is None else Proved(ago=age)

    # ── People ──────────────────────────────────────────────────────────────────────────────────

    @rule(name=anybody, slug=st.sampled_from(GROUPS), joins=st.booleans())
    def join_or_leave(self, name: str, slug: str, joins: bool) -> None:
        verb = join_group if joins else leave_group
        verb(by=None, user=self.person(name), group=Group.objects.get(slug=slug))
        self.oracle.look()

    @rule(
        what=st.sampled_from(["goes", "returns", "manager", "owner", "endpoint"]),
        name=anybody,
        to=people,
    )
    def change_somebody(self, what: str, name: str, to: str) -> None:
        """Deactivate, bring back, or change who is above a person, program or endpoint."""
        rows = User.objects.filter(email=email(name))
        if what == "goes":
            deactivate_user(by=None, user=self.person(name))
        elif what == "returns":
            User.objects.update(is_active=True)
        elif what == "manager":
            rows.exclude(email=email(to)).update(manager=self.person(to))
        elif what == "owner":
            rows.filter(owner__isnull=False).update(owner=self.person(to))
        else:
            change(Endpoint.objects.get(slug="m-plain"), by=None, owner=self.person(to))
        self.oracle.look()

    @rule(name=people, to=anybody, days=st.integers(0, 3))
    def be_away(self, name: str, to: str, days: int) -> None:
        self.act(
            actions.note_absence,
            by=self.person(name),
            ends_at=clock.now() + days * DAY,
            delegate=email(to),
        )

    # ── Policies and profiles ───────────────────────────────────────────────────────────────────

    @initialize(drawn=st.lists(policies, min_size=3, max_size=3))
    def save_policies(self, drawn: list[Any]) -> None:
        for what, policy in zip(["m-plain/m-0", "m-critical", "m-plain"], drawn, strict=True):
            if policy["steps"][0]["approvals"] < 3:
                self.save_policy(what, policy)

    @rule(
        what=st.sampled_from(TARGETS),
        drawn=seldom(st.none(), 1).flatmap(lambda n: policies if n else st.none()),
    )
    def change_policy(self, what: str, drawn: Any) -> None:
        if drawn is None:
            self.act(actions.retire_policy, by=None, slug=what.replace("/", "-"))
        else:
            self.save_policy(what, drawn)

    def save_policy(self, what: str, drawn: dict[str, Any]) -> None:
        named = [step | {"name": f"Step {n}"} for n, step in enumerate(drawn["steps"])]
        where = {"profiles" if "/" in what else "endpoints": [what]}
        document = parse(
            drawn
            | {"slug": what.replace("/", "-"), "name": what, "applies_to": where}
            | {"steps": named}
        )
        self.act(actions.save_policy, by=None, document=document)

    @rule(
        number=at,
        models=st.sampled_from([MODELS, MODELS, ["m-small"], ["m-large", "m-medium"]]),
        longest=st.sampled_from([8 * HOUR, 8 * HOUR, HOUR]),
        who=st.sampled_from(["m-reviewers", "m-reviewers", "m-security"]),
    )
    def change_profile(
        self, number: int, models: list[str], longest: dt.timedelta, who: str
    ) -> None:
        change(
            AccessProfile.objects.get(pk=self.profiles[number % 3]),
            by=None,
            scope={"models": sorted(models)},
            max_duration=longest,
            default_duration=HOUR,
            reviewers=Group.objects.get(slug=who),
        )
        self.oracle.look()

    # ── Time ────────────────────────────────────────────────────────────────────────────────────

    @rule(passed=st.sampled_from([5 * MINUTE, 25 * MINUTE, HOUR, 7 * HOUR, 30 * HOUR]))
    def let_time_pass(self, passed: dt.timedelta) -> None:
        """All times of all rows lie further back."""
        with pgtrigger.ignore(
            "accessrequests.AccessRequest:request_fixed",
            "accessrequests.Grant:grant_fixed",
            "accessrequests.Review:review_kept",
        ):
            for model in (AccessRequest, Review, Grant, Absence):
                columns = [
                    field.name
                    for field in model._meta.get_fields()
                    if field.get_internal_type() == "DateTimeField"
                ]
                model._default_manager.update(**{name: F(name) - passed for name in columns})
        self.oracle.look()

    @rule()
    def sweep(self) -> None:
        self.act(actions.chase)
        self.act(end_due_grants)

    # ── Requests ────────────────────────────────────────────────────────────────────────────────

    @rule(
        name=askers,
        number=at,
        duration=durations,
        models=scopes,
        starts_in=starts,
        ticket=tickets,
        break_glass=seldom(st.booleans(), default=False),
        factor=factors,
    )
    def file(self, name: str, number: int, starts_in: Any, factor: Any, **ask: Any) -> None:
        self.act(
            actions.file_request,
            by=self.person(name),
            profile_id=self.profiles[number % 3],
            justification="Ticket 4711.",
            starts_at=clock.now() + starts_in if starts_in is not None else None,
            proofs=self.factor(factor),
            **ask,
        )

    @rule(
        name=askers,
        numbers=st.lists(at, min_size=1, max_size=3),
        duration=durations,
        ticket=tickets,
    )
    def file_together(self, name: str, numbers: list[int], **ask: Any) -> None:
        self.act(
            actions.file_together,
            by=self.person(name),
            profile_ids=[self.profiles[number % 3] for number in numbers],
            justification="Ticket 4711.",
            proofs=PROVED,
            **ask,
        )

    @rule(
        name=st.sampled_from(["ada", "dan", "bot"]),
        number=at,
        duration=st.sampled_from([None, 10 * MINUTE]),
    )
    def break_glass(self, name: str, number: int, duration: Any) -> None:
        self.act(
            actions.file_request,
            by=self.person(name),
            profile_id=self.profiles[number % 3],
            justification="Ticket 4711.",
            ticket="T-1",
            duration=duration,
            break_glass=True,
            proofs=PROVED,
        )

    @rule(
        name=askers,
        number=at,
        which=at,
        starts_in=starts,
        narrow=st.just({}) | less,
        meanwhile=st.none() | policies,
    )
    def file_and_review(
        self, name: str, number: int, which: int, starts_in: Any, narrow: Any, meanwhile: Any
    ) -> None:
        """The way that most requests take; for some, policy changes on it."""
        before = len(self.oracle.requests)
        self.file(
            name=name,
            number=number,
            duration=30 * MINUTE,
            starts_in=starts_in,
            ticket="T-1",
            factor=MINUTE,
        )
        for turn in range(3):
            if len(self.oracle.requests) > before:
                self.review_by_who_may(before, which + turn, False, narrow)
            if meanwhile and turn == which % 3:
                self.save_policy(TARGETS[number % 3], meanwhile)
        self.check_out()

    @precondition(lambda self: self.oracle.grants)
    @rule(number=at, other=seldom(anybody), models=scopes, duration=durations)
    def extend(self, number: int, other: str | None, models: Any, duration: Any) -> None:
        rows = list(self.oracle.grants.values())
        grant = rows[number % len(rows)]
        request = self.oracle.requests[grant["request_id"]]
        by = self.person(other) if other else User.objects.get(pk=grant["holder_id"])
        self.act(
            actions.file_request,
            by=by,
            profile_id=request["profile_id"],
            justification="Longer than I thought.",
            ticket="T-1",
            duration=duration,
            models=models,
            extends=grant["id"],
            proofs=PROVED,
        )

    @precondition(lambda self: self.oracle.requests)
    @rule(
        number=at,
        name=anybody,
        deny=st.sampled_from([False, False, True]),
        factor=factors,
        narrow=less,
    )
    def review(self, number: int, name: str, deny: bool, factor: Any, narrow: Any) -> None:
        self._review(self.request_at(number), self.person(name), deny, factor, narrow)

    @precondition(lambda self: self.oracle.requests)
    @rule(number=at, which=at, deny=seldom(st.booleans(), False), narrow=seldom(less, {}))
    def review_by_who_may(self, number: int, which: int, deny: bool, narrow: Any) -> None:
        request = self.request_at(number)
        if request["state"] != "pending" and not request["break_glass"]:
            return
        self.oracle.society()
        done = {row["reviewer_id"] for row in self.oracle.reviews_of(request)}
        able = [
            person
            for person in map(self.person, NAMES)
            if person.pk not in done and self.oracle.may(person.pk, request, request["step"])
        ]
        if able:
            self._review(request, able[which % len(able)], deny, MINUTE, narrow)

    def _review(self, request: Any, by: User, deny: bool, factor: Any, narrow: Any) -> None:
        narrow = dict(narrow)
        starts_in = narrow.pop("starts_in", None)
        self.act(
            actions.review_request,
            by=by,
            request_id=request["id"],
            verdict=Review.Verdict.DENY if deny else Review.Verdict.APPROVE,
            reason="No." if deny else "",
            proofs=self.factor(factor),
            starts_at=clock.now() + starts_in if starts_in is not None else None,
            **narrow,
        )

    @precondition(lambda self: self.oracle.requests)
    @rule(name=people, numbers=st.lists(at, max_size=4))
    def review_many(self, name: str, numbers: list[int]) -> None:
        self.act(
            actions.review_many,
            by=self.person(name),
            request_ids=[self.request_at(number)["id"] for number in numbers],
            verdict=Review.Verdict.APPROVE,
            proofs=PROVED,
        )

    @precondition(lambda self: self.oracle.requests)
    @rule(number=at, name=seldom(anybody))
    def cancel(self, number: int, name: str | None) -> None:
        request = self.request_at(number)
        by = self.person(name) if name else User.objects.get(pk=request["requester_id"])
        self.act(actions.cancel_request, by=by, request_id=request["id"])

    @precondition(lambda self: self.oracle.requests)
    @rule(number=at, name=people, to=anybody)
    def hand_over(self, number: int, name: str, to: str) -> None:
        request = self.request_at(number)
        row = self.act(
            actions.hand_over, by=self.person(name), request_id=request["id"], to=email(to)
        )
        if row is not None:
            self.oracle.society()
            assert self.oracle.may(row.to_id, request, request["step"])
            self.seen["handed over"] += 1

    @precondition(lambda self: self.oracle.requests)
    @rule(number=at, name=anybody)
    def comment(self, number: int, name: str) -> None:
        self.act(
            actions.comment,
            by=self.person(name),
            request_id=self.request_at(number)["id"],
            text="Why?",
        )

    # ── Grants ──────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.oracle.grants)
    @rule(number=at, name=seldom(anybody))
    def end(self, number: int, name: str | None) -> None:
        rows = list(self.oracle.grants.values())
        grant = rows[number % len(rows)]
        by = self.person(name) if name else User.objects.get(pk=grant["holder_id"])
        self.act(end_grant, grant_id=grant["id"], by=by)

    @precondition(lambda self: self.oracle.grants)
    @rule()
    def check_out(self) -> None:
        """What a check-out asks before it goes to Vault, of every grant."""
        self.oracle.society()
        for grant in Grant.objects.filter(pk__in=list(self.oracle.grants), ended_at=None):
            try:
                actions.check_authority(grant.request)
            except KeyturnError:
                self.seen["check-out refused"] += 1
            else:
                self.seen["check-out"] += 1
                self.oracle.check_ground(self.oracle.requests[grant.request_id])


def drive(company: list[AccessProfile], **how: Any) -> Counter[str]:
    """Run the machine; what was seen on the way."""
    seen: Counter[str] = Counter()
    run_state_machine_as_test(
        partial(Machine, company, seen),  # type: ignore[arg-type]  # called, as a class would be
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=[Phase.generate],
            **how,
        ),
    )
    return seen


def test_no_way_leads_to_what_must_not_be(company: list[AccessProfile]) -> None:
    seen = drive(company, max_examples=15, stateful_step_count=20, derandomize=True)
    # Else it would prove nothing.
    for each in ("ordinary grant", "review", "check-out"):
        assert seen[each], seen


@pytest.mark.slow
def test_no_long_way_leads_there_either(company: list[AccessProfile]) -> None:
    seen = drive(company, max_examples=400, stateful_step_count=40)
    for each in ("ordinary", "scheduled", "extension", "break_glass"):
        assert seen[f"{each} grant"], seen
    for each in ("approved less", "reviewed afterwards", "check-out refused"):
        assert seen[each], seen
