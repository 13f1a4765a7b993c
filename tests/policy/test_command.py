"""`manage.py policy`."""

import io
import json

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import CommandError, call_command

from accessrequests.actions.policies import retire_policy, stored
from accessrequests.policy.reading import read
from audit.events import Event
from audit.models import AuditEvent
from broker import inventory

EXAMPLES = settings.BASE_DIR / "examples"
POLICIES = sorted(
    path for path in (EXAMPLES / "policies").glob("*.yaml") if ".cases." not in path.name
)
CASES = sorted((EXAMPLES / "policies").glob("*.cases.yaml"))

ONE = """\
slug: research
name: Research
applies_to: {endpoints: [research-models]}
steps:
  - name: Platform
    reviewers: {groups: [platform-reviewers]}
"""


def run(*args, **options) -> str:
    out = io.StringIO()
    call_command("policy", *map(str, args), stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def company(db):
    # What tests that commit left behind.
    for document in stored():
        retire_policy(by=None, slug=document.slug)
    inventory.apply(inventory.read((EXAMPLES / "inventory.yaml").read_text()), by=None)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "policies.yaml"
        path.write_text(text)
        return path

    return write


# apply, diff, export


def test_the_examples_are_applied_and_what_is_exported_changes_nothing(company, tmp_path):
    for path in POLICIES:
        assert "saved policy" in run("apply", "-f", path)
    out = tmp_path / "export.yaml"
    run("export", "-o", out)
    assert run("apply", "-f", out) == "0 changes.\n"
    assert run("diff", "-f", out) == ""
    assert out.read_text() == run("export")
    assert read(run("export")) == stored()
    assert len(stored()) == 4
    assert read(run("export", "research")) == [d for d in stored() if d.slug == "research"]


def test_standard_input_is_a_file_too(company, file, monkeypatch):
    run("apply", "-f", file(ONE))
    monkeypatch.setattr("sys.stdin", io.StringIO(run("export")))
    assert run("apply", "-f", "-") == "0 changes.\n"


def test_the_difference_is_printed_and_what_changed_is_recorded(company, file):
    assert "+++ research (file)\n" in run("apply", "-f", file(ONE))
    changed = ONE.replace("[platform-reviewers]", "[security]")
    said = run("apply", "-f", file(changed), "--note", "As agreed")
    assert "-        - platform-reviewers\n+        - security\n" in said
    assert said.endswith("saved policy research\n1 changes.\n")
    event = AuditEvent.objects.filter(event=Event.POLICY_CHANGED, subject="research").get()
    assert event.data == {"version": 2, "note": "As agreed"}


def test_a_dry_run_checks_and_changes_nothing(company, file):
    said = run("apply", "-f", file(ONE), "--dry-run")
    assert "+slug: research\n" in said
    assert "would save policy research\n" in said
    assert not stored()
    with pytest.raises(CommandError, match=r"line 3, applies_to.endpoints.0: There is no endpoint"):
        run("apply", "-f", file(ONE.replace("[research-models]", "[nowhere]")), "--dry-run")


def test_diff_exits_with_1_when_something_differs(company, file, capsys):
    with pytest.raises(SystemExit) as ended:
        run("diff", "-f", file(ONE))
    assert ended.value.code == 1
    assert not stored()


def test_all_or_nothing(company, file):
    text = f"{ONE}---\n{ONE}".replace("slug: research", "slug: other", 1)
    text = text.replace("[research-models]", "[contract-review]", 1)
    text = text.replace("platform-reviewers", "nobody")
    with pytest.raises(CommandError) as refused:
        run("apply", "-f", file(text))
    assert str(refused.value).splitlines() == [
        "Nothing was changed.",
        "line 6, steps.0.reviewers.groups: No such group: nobody.",
        "line 5, steps.0.approvals: Asks for 1 people, and 0 could approve: "
        "a request would never be decided.",
        "line 13, steps.0.reviewers.groups: No such group: nobody.",
        "line 12, steps.0.approvals: Asks for 1 people, and 0 could approve: "
        "a request would never be decided.",
    ]
    text = text.replace("nobody", "platform-reviewers", 1)
    with pytest.raises(CommandError, match=r"line 13, steps\.0\.reviewers\.groups: No such group"):
        run("apply", "-f", file(text))
    assert not stored()


def test_a_policy_may_take_over_what_another_gives_up(company, file):
    run("apply", "-f", file(ONE))
    taker = ONE.replace("slug: research", "slug: laboratory")
    giver = ONE.replace("applies_to: {endpoints: [research-models]}\n", "")
    said = run("apply", "-f", file(f"{taker}---\n{giver}"))
    assert said.endswith("2 changes.\n")
    with pytest.raises(CommandError, match="governs research-models already"):
        run("apply", "-f", file(ONE))


def test_what_is_not_understood_is_named_by_line_and_key(company, file):
    with pytest.raises(CommandError) as refused:
        run("apply", "-f", file(ONE.replace("reviewers:", "reviewer:")))
    assert str(refused.value).splitlines()[0] == "Nothing was changed."
    assert "line 6, steps.0.reviewer: Unknown key. Did you mean reviewers?" in str(refused.value)


def test_an_unknown_policy_is_not_exported(company):
    with pytest.raises(CommandError, match=r"There is no policy nope\."):
        run("export", "nope")


def test_bytes_that_are_no_text(tmp_path, db):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CommandError, match="UTF-8"):
        run("apply", "-f", path)


# test


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_examples_cases_pass(path):
    assert ", 0 failed.\n" in run("test", "-f", path)


def test_each_example_has_cases():
    named = {path.name.replace(".cases.", ".") for path in CASES}
    assert named == {path.name for path in POLICIES}


def test_the_cases_describe_the_endpoints_of_the_inventory():
    known = inventory.read((EXAMPLES / "inventory.yaml").read_text())["endpoints"]
    for path in CASES:
        for slug, described in yaml.safe_load(path.read_text())["endpoints"].items():
            endpoint = next(entry for entry in known if entry["slug"] == slug)
            profiles = [profile["slug"] for profile in endpoint["profiles"]]
            assert set(described["profiles"]) <= set(profiles)
            assert all(endpoint[key] == described[key] for key in ("environment", "risk"))
            assert endpoint["connected_systems"] == described.get("connected_systems", [])


CASE = """\
endpoints:
  research-models:
    environment: development
    risk: low
    profiles: {experiment: {}}
cases:
  - name: A colleague looks
    request: {profile: research-models/experiment}
    expect: {steps: [Platform]}
"""


@pytest.fixture
def cases(tmp_path):
    def write(text, policy=ONE):
        (tmp_path / "research.yaml").write_text(policy)
        path = tmp_path / "research.cases.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("expect", "got"),
    [
        ("steps: [Security]", "expected  steps: Security\n      got       steps: Platform (1)"),
        ("steps: [{name: Platform, approvals: 2}]", "expected  steps: Platform (2)\n"),
        ("steps: []", "expected  steps: none\n"),
        ("steps: [Platform, Platform]", "expected  steps: Platform, Platform\n"),
        ("automatic: true", "expected  automatic\n      got       steps: Platform (1)"),
        ("refused: anything", "expected  refused: anything\n"),
        ("break_glass: allowed", "got       break-glass refused: break_glass: The policy lets"),
        ("{break_glass: refused, refused: x}", "expected  break-glass refused: x\n"),
    ],
)
def test_a_case_that_fails_says_why_and_where(expect, got, cases):
    braced = expect if expect.startswith("{") else f"{{{expect}}}"
    path = cases(CASE.replace("{steps: [Platform]}", braced))
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("policy", "test", "-f", str(path), stdout=out)
    assert ended.value.code == 1
    assert f"FAIL  A colleague looks ({path}, line 7)\n" in out.getvalue()
    assert got in out.getvalue()
    assert out.getvalue().endswith("1 cases, 1 failed.\n")


def test_a_refusal_fails_what_expected_none(cases):
    out = io.StringIO()
    long = CASE.replace("experiment}", "experiment, duration: P2D}")
    with pytest.raises(SystemExit):
        call_command("policy", "test", "-f", str(cases(long)), stdout=out)
    assert "got       refused: duration: Must be at most 8 hours" in out.getvalue()


def test_a_profile_without_policy_is_under_the_built_in_one(cases):
    other = ONE.replace("research-models", "elsewhere")
    path = cases(CASE.replace("[Platform]", "[Review]"), other)
    assert run("test", "-f", path) == "ok    A colleague looks\n1 cases, 0 failed.\n"


def test_the_moment_of_a_case_is_what_conditions_see(cases):
    weekday = ONE + "auto_approve_when: now.getDayOfWeek() == 6\n"
    assert "0 failed" in run("test", "-f", cases(CASE, weekday))
    saturday = CASE.replace("    expect: {steps: [Platform]}", "    expect: {automatic: true}")
    saturday += "    now: 2026-01-10T10:00:00Z\n"
    assert "0 failed" in run("test", "-f", cases(saturday, weekday))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: A col", "nam: A col", "line 7, cases.0.nam: Unknown key. Did you mean name?"),
        ("risk: low", "risk: huge", "line 4, endpoints.research-models.risk: "),
        ("risk: low", "rsk: low", "line 4, endpoints.research-models.rsk: Unknown key. Did you"),
        ("experiment: {}", "experiment: {max_duration: 8}", "profiles.experiment.max_duration: "),
        ("models/experiment", "models/x", "line 8, cases.0.request.profile: Describe this"),
        ("    expect", "    x: 1\n    expect", "line 9, cases.0.x: Unknown key"),
        ("{steps: [Platform]}", "{}", "line 9, cases.0.expect: Expect one of"),
        ("{steps: [Platform]}", "{automatic: true, refused: x}", "expect: Expect one of"),
        ("{steps: [Platform]}", "{break_glass: allowed, refused: x}", "expect: Expect one of"),
        ("{steps: [Platform]}", "{automatic: false}", "cases.0.expect.automatic: "),
        ("cases:\n", "policies: [nope.yaml]\ncases:\n", "Can't be read: No such file"),
        ("cases:\n", "policies: [research.cases.yaml]\ncases:\n", "no other key"),
        ("endpoints:", "endpoints: [", "No YAML"),
        ("cases:\n", "---\n", "Give endpoints and cases"),
    ],
)
def test_cases_that_are_not_understood_are_refused_by_line_and_key(old, new, says, cases):
    assert old in CASE
    path = cases(CASE.replace(old, new, 1))
    with pytest.raises(CommandError) as refused:
        run("test", "-f", path)
    assert says in str(refused.value)
    assert "research.cases.yaml" in str(refused.value) or "nope.yaml" in str(refused.value)


# schema


def test_the_schema_takes_the_examples():
    schema = json.loads(run("schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in POLICIES:
        for policy in read(path.read_text()):
            jsonschema.validate(policy.as_data(), schema)
