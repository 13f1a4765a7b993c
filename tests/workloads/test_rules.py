import datetime as dt
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from accounts import changes
from accounts.models import ApiToken, Change, TrustedIssuer, User, WorkloadRule
from accounts.workloads import actions
from accounts.workloads.exchange import exchange
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import InvalidInput, SecondPerson, StepUpNeeded
from tests.api.callers import Caller
from tests.fakes.issuers import AUDIENCE
from tests.workloads.conftest import rule_of, trusted
from tests.world import PROVED, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(world: World) -> User:
    return world.person(is_administrator=True)


def proposed(by: User, kind: str, about: Any, payload: dict[str, Any]) -> Change | None:
    return changes.propose(
        by=by, kind=kind, about=about, payload=payload, reason="Its jobs.", proofs=PROVED
    )


def test_an_issuer_and_its_rule_take_two_and_let_a_workload_in(github, ada, world, proved):
    """From the API's calls to a token, with a second administrator at each step."""
    caller = Caller(ada)
    answer = caller.post(
        "issuers/",
        json.dumps(
            {
                "slug": "ci",
                "name": "CI",
                "issuer": github.url,
                "audience": AUDIENCE,
                "reason": "Its jobs evaluate.",
            }
        ),
    )
    assert answer.status_code == 202, answer.content
    assert not TrustedIssuer.objects.exists()
    world.agree(ada)
    issuer = TrustedIssuer.objects.get()
    owner = world.person(is_administrator=True)
    robot = world.person(owner=owner)
    body = {
        "issuer": str(issuer.pk),
        "name": "Nightly",
        "service_account": robot.email,
        "claims": {"repository_id": "74", "ref": "refs/heads/*"},
        "verbs": ["read", "request"],
        "lifetime": 600,
        "reason": "Its jobs evaluate.",
    }
    answer = caller.post("workload-rules/", json.dumps(body))
    assert answer.status_code == 202
    change = Change.objects.waiting().get()
    assert answer["Location"].endswith(f"/api/v1/changes/{change.pk}/")
    assert {line["what"]: line["after"] for line in change.difference} == {
        "Name": "Nightly",
        "Whose token says": "repository_id is 74\nref is refs/heads/*",
        "Acts as": f"{robot} ({robot.email}), a service account of {owner}",
        "To": "read what its owner may see and ask for access, comment, take a request back",
        "At": "every endpoint that it sees",
        "For": "10 minutes each time",
    }
    # Whoever answers for the account would let their own program in.
    with pytest.raises(SecondPerson):
        changes.approve(by=owner, change_id=change.pk, proofs=PROVED)
    world.agree(ada)
    row, _ = exchange(subject_token=github.github())
    assert row.owner == robot
    assert row.rule == WorkloadRule.objects.get()
    assert AuditEvent.objects.get(event=Event.RULE_ADDED).data["proposed_by"] == str(ada)


def test_narrowing_is_done_at_once_and_widening_waits(github, ada, world):
    rule = rule_of(trusted(github), world, verbs=["read", "request"], claims={"a": ["1", "2"]})
    narrower: list[dict[str, Any]] = [
        {"verbs": ["read"]},
        {"claims": {"a": "1"}},
        {"claims": {"a": "1", "b": "2"}},
        {"lifetime": 60},
        {"name": "Weekly"},
    ]
    for payload in narrower:
        assert proposed(ada, "workload_rule", rule, payload) is None, payload
    wider: list[dict[str, Any]] = [
        {"verbs": ["read", "end"]},
        {"claims": {"a": ["1", "3"], "b": "2"}},
        {"claims": {"a": "1"}},
        {"lifetime": 120},
        {"service_account": str(world.person(owner=world.person()).pk)},
    ]
    for payload in wider:
        change = proposed(ada, "workload_rule", rule, payload)
        assert change is not None, payload
        changes.withdraw(by=ada, change_id=change.pk)
    assert proposed(ada, "trusted_issuer", rule.issuer, {"name": "Hub"}) is None
    for payload in ({"audience": "x"}, {"jwks_uri": "https://evil.example/keys"}):
        change = proposed(ada, "trusted_issuer", rule.issuer, payload)
        assert change is not None
        changes.withdraw(by=ada, change_id=change.pk)


def test_one_person_takes_away_and_proves_it(github, ada, world):
    rule = rule_of(trusted(github), world)
    exchange(subject_token=github.github())
    with pytest.raises(StepUpNeeded):
        actions.retire_rule(by=ada, rule=rule)
    assert actions.retire_rule(by=ada, rule=rule, proofs=PROVED)
    assert not actions.retire_rule(by=ada, rule=rule, proofs=PROVED)
    assert ApiToken.objects.get(kind="wl").revoked_at is not None
    assert actions.retire_issuer(by=ada, issuer=rule.issuer, proofs=PROVED)
    row = AuditEvent.objects.get(event=Event.RULE_RETIRED)
    assert row.data["tokens_ended"] == 1
    # Its name is free again, its slug stays its own on record.
    assert trusted(github).pk != rule.issuer_id


BAD: list[dict[str, Any]] = [
    {"issuer": "http://ci.example"},
    {"issuer": "ci.example"},
    {"issuer": "https://ci.example/?x=1"},
    {"issuer": "https://user@ci.example"},
    {"issuer": "https://ci.example\x00"},
    {"issuer": "https://cі.example"},  # noqa: RUF001 -- a Cyrillic letter
    {"jwks_uri": "file:///etc/passwd"},
    {"jwks_uri": "http://169.254.169.254/keys"},
    {"audience": ""},
    {"name": "a\nb"},
    {"slug": "Not A Slug"},
]


@pytest.mark.parametrize("fields", BAD, ids=str)
def test_what_is_no_issuer_is_refused_at_its_field(fields: dict[str, Any]) -> None:
    usual = {"slug": "ci", "name": "CI", "issuer": "https://ci.example", "audience": "keyturn"}
    with pytest.raises(InvalidInput) as refused:
        actions.trust_issuer(by=None, **usual | fields)
    assert refused.value.errors.keys() == fields.keys()


def test_what_is_no_rule_is_refused_at_its_field(github, world):
    issuer, person = trusted(github), world.person()
    wrong: list[dict[str, Any]] = [
        {"service_account": person},
        {"service_account": world.person(owner=person, is_active=False)},
        {"verbs": []},
        {"verbs": ["read", "review"]},
        {"verbs": ["manage"]},
        {"endpoints": [world.endpoint(with_key=False).pk]},
        {"lifetime": dt.timedelta(hours=2)},
        {"lifetime": dt.timedelta(seconds=1)},
        {"claims": {"iss": github.url}},
        {"name": ""},
    ]
    for fields in wrong:
        with pytest.raises(InvalidInput) as refused:
            rule_of(issuer, world, **fields)
        assert refused.value.errors.keys() == fields.keys()


def test_the_portal_proposes_and_retires(ada, world, proved):
    client = Client()
    client.force_login(ada)
    robot = world.person(owner=world.person())
    said = {
        "slug": "ci",
        "name": "CI",
        "issuer": "https://ci.example",
        "audience": AUDIENCE,
        "reason": "Its jobs.",
    }
    answer = client.post(reverse("workload-issuer-new"), said)
    assert answer["Location"].startswith("/changes/")
    world.agree(ada)
    issuer = TrustedIssuer.objects.get()
    body: dict[str, Any] = {
        "name": "Nightly",
        "claims": "project = 7\r\n\r\nref = main\r\nref = release-*",
        "service_account": robot.email,
        "verbs": ["read", "request"],
        "minutes": "10",
        "reason": "Its jobs.",
    }
    address = reverse("workload-rule-new", args=[issuer.pk])
    for wrong, words in (
        ({"claims": "project"}, "has no ="),
        ({"claims": "project = *"}, "Must say who it is"),
        ({"service_account": ada.email}, "No service account"),
        ({"endpoints": "nowhere"}, "sees no endpoint"),
        ({"reason": ""}, "Say why"),
    ):
        page = client.post(address, body | wrong)
        assert page.status_code == 400
        assert words in page.content.decode(), words
    assert client.post(address, body).status_code == 302
    assert "waits for a second administrator" in client.get("/workloads/").content.decode()
    world.agree(ada)
    rule = WorkloadRule.objects.get()
    assert rule.claims == {"project": ["7"], "ref": ["main", "release-*"]}
    text = client.get(reverse("workload-issuer", args=[issuer.pk])).content.decode()
    assert "ref is main or release-*" in text
    form = client.get(reverse("workload-rule", args=[rule.pk])).content.decode()
    assert "ref = release-*" in form
    assert client.post(reverse("workload-rule", args=[rule.pk]), body | {"verbs": ["read"]})
    rule.refresh_from_db()
    assert rule.verbs == ["read"]
    client.post(reverse("workload-rule-retire", args=[rule.pk]))
    client.post(reverse("workload-issuer-retire", args=[issuer.pk]))
    issuer.refresh_from_db()
    assert issuer.retired_at is not None
    auditor = Client()
    auditor.force_login(world.person(is_auditor=True))
    assert auditor.get("/workloads/").status_code == 200
    assert auditor.get(reverse("workload-issuer-new")).status_code == 403


def test_an_operator_does_it_by_command(world, capsys):
    robot = world.person(owner=world.person())
    call_command("issuer", "add", "ci", name="CI", issuer="https://ci.example", audience="keyturn")
    call_command("issuer", "rule", "ci", "--name=Nightly", f"--as={robot.email}", "--claim=a=1")
    call_command("issuer", "list")
    assert f"Nightly  a=1  as {robot.email}" in capsys.readouterr().out
    assert WorkloadRule.objects.get().verbs == ["read", "request", "check_out", "end"]
    call_command("issuer", "retire", "ci", rule="Nightly")
    call_command("issuer", "retire", "ci")
    assert not TrustedIssuer.objects.filter(retired_at=None).exists()
