import json
import time

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accessrequests.policy.document import json_schema, parse
from accessrequests.policy.reading import read, write
from accounts.plain_yaml import LARGEST
from broker.errors import InvalidInput
from tests.policy.documents import POLICIES

GOOD = """\
# Two people look.
slug: two-eyes
name: Two people
applies_to:
  profiles: [research-models/experiment]
steps:
  - name: Platform
    reviewers: {groups: [platform-reviewers]}
    approvals: 2
    skip_when: >-
      requester.on_call
  - name: Owner
    reviewers:
      endpoint_owner: true
    escalation:
      - after: PT1H
        to: {groups: [security]}
limits:
  max_duration: PT2H
"""


def test_one_policy():
    [policy] = read(GOOD)
    assert [step.approvals for step in policy.steps] == [2, 1]
    assert read(write([policy])) == [policy]
    assert write(read(write([policy]))) == write([policy])


def test_several_policies():
    listed = "policies:\n" + "".join(
        f"  - {line}\n" if line.startswith("slug") else f"    {line}\n"
        for line in GOOD.splitlines()[1:]
    )
    other = GOOD.replace("two-eyes", "other")
    assert [policy.slug for policy in read(f"---\n{listed}\n---\n{other}")] == ["two-eyes", "other"]
    assert read("policies: []") == read("") == read("# nothing\n") == []


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=20, deadline=None)
@given(st.lists(POLICIES, max_size=3, unique_by=lambda policy: policy.slug))
def test_what_is_written_is_read(policies):
    text = write(policies)
    assert read(text) == policies
    assert write(read(text)) == text


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=20, deadline=None)
@given(POLICIES)
def test_data_is_parsed_to_the_same_and_fits_the_schema(policy):
    assert parse(policy.as_data()) == policy
    assert parse(json.loads(json.dumps(policy.as_data()))) == policy
    jsonschema.validate(policy.as_data(), json_schema())


def test_it_is_written_for_people():
    assert write(read(GOOD)) == (
        "slug: two-eyes\n"
        "name: Two people\n"
        "applies_to:\n"
        "  profiles:\n"
        "    - research-models/experiment\n"
        "steps:\n"
        "  - name: Platform\n"
        "    reviewers:\n"
        "      groups:\n"
        "        - platform-reviewers\n"
        "    approvals: 2\n"
        "    skip_when: requester.on_call\n"
        "  - name: Owner\n"
        "    reviewers:\n"
        "      endpoint_owner: true\n"
        "    escalation:\n"
        "      - after: PT1H\n"
        "        to:\n"
        "          groups:\n"
        "            - security\n"
        "limits:\n"
        "  max_duration: PT2H\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "where", "says"),
    [
        ("slug: two-eyes", "slug: Two", "line 2, slug", "lower-case letters"),
        ("slug: two-eyes", "slug: 12", "line 2, slug", "Give text; in quotes"),
        ("name: Two people\n", "", "line 2, name", "This is needed."),
        ("approvals: 2", "approvals: 0", "line 9, steps.0.approvals", "whole number from 1 to 10"),
        ("approvals: 2", "approvals: '2'", "line 9, steps.0.approvals", "whole number from 1 to"),
        ("approvals: 2", "aprovals: 2", "line 9, steps.0.aprovals", "Did you mean approvals?"),
        ("approvals: 2", "aprovals: 2", "line 9, steps.0.aprovals", "Unknown key."),
        ("requester.on_call", "on_call", "line 10, steps.0.skip_when", "no variable on_call"),
        ("endpoint_owner: true", "people: [x]", "line 14, steps.1.reviewers.people.0", "an email"),
        (
            "endpoint_owner: true",
            "endpoint_owner: 1",
            "line 14, steps.1.reviewers",
            "true or false",
        ),
        ("endpoint_owner: true", "groups: []", "line 13, steps.1.reviewers", "Names nobody."),
        ("endpoint_owner: true", "groups: [no]", "line 14, steps.1.reviewers.groups.0", "quotes"),
        ("name: Owner", "name: Platform", "line 2, policy", "a name of its own"),
        ("max_duration: PT2H", "max_duration: 3600", "line 19, limits.max_duration", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: 1:00:00", "line 19, limits.max_duration", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: '1:00:00'", "line 19, limits", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: P1M", "line 19, limits.max_duration", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: P1Y", "line 19, limits.max_duration", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: -PT2H", "line 19, limits.max_duration", "ISO 8601"),
        ("max_duration: PT2H", "max_duration: PT59S", "line 19, limits", "from PT1M to P365D"),
        ("max_duration: PT2H", "ticket: {pattern: '('}", "line 19, limits.ticket", "No pattern"),
        ("max_duration: PT2H", "max_duration: 2026-13-45", "line 19", "ISO 8601"),
        ("max_duration: PT2H", "justification_length: 2001", "line 19", "from 1 to 2000"),
        ("after: PT1H", "after: PT1H\n      - after: PT1H", "line 16", "This is needed."),
        ("{groups: [security]}", "{endpoint_owner: true}", "line 12, steps.1", "must name a group"),
        ("profiles: [", "profiles: [x, ", "line 5, applies_to.profiles.0", "<endpoint>/<profile>"),
        ("limits:\n", "limits: x\nlimit:\n", "line 18, limits", "Give keys and their values."),
        ("limits:\n", "steps:\n", "line 18, steps", "twice"),
        ("approvals: 2", "name: again", "line 9, steps.0.name", "twice"),
        ("approvals: 2", "1: 2", "line 9", "must be a plain word"),
        ("approvals: 2", "[a]: 2", "line 9", "must be a plain word"),
        ("approvals: 2", "<<: {approvals: 3}", "line 9", "must be a plain word"),
        ("name: Owner", "name: &a Owner", "line 12", "aren't taken"),
        ("name: Owner", "name: *a", "line 12", "aren't taken"),
        ("name: Owner", "name: !!python/object:os.system ls", "line 12", "aren't taken"),
        ("name: Owner", "name: !x Owner", "line 12", "aren't taken"),
        ("name: Owner", "name: [", "line 14", "No YAML"),
        ("name: Owner", "name: '\x07'", "file", "No YAML"),
        ("name: Owner", 'name: "\\a"', "line 12, steps.1.name", "control characters"),
        ("name: Owner", "name: \ud800", "file", "UTF-8"),
        ("name: Owner", f"name: {'[' * 50}", "line 12", "Nested deeper"),
        ("name: Owner", f"name: {'[' * 50000}", "line 12", "Nested deeper"),
        ("# Two", "#" * LARGEST, "file", "at most 1,000,000 bytes"),
        ("# Two", "policies: []\n#", "line 1, policies", "no other key beside"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_key(old, new, where, says):
    assert old in GOOD
    with pytest.raises(InvalidInput) as refused:
        read(GOOD.replace(old, new, 1))
    [(key, message), *more] = refused.value.errors.items()
    assert key.startswith(where)
    assert says in message
    assert len(more) <= 1


def test_all_that_is_wrong_is_named_at_once_wherever_it_is():
    text = "---\n" + GOOD.replace("approvals: 2", "approvals: 0") + "---\n" + "policies:\n- 1\n"
    with pytest.raises(InvalidInput) as refused:
        read(text)
    assert refused.value.errors == {
        "line 10, steps.0.approvals": "Use a whole number from 1 to 10.",
        "line 23, policies.0": "Give keys and their values.",
    }


def test_a_slug_is_there_once():
    with pytest.raises(InvalidInput) as refused:
        read(f"{GOOD}---\n{GOOD}")
    assert refused.value.errors == {"line 22, slug": "Another policy here has this slug."}


@pytest.mark.parametrize("text", ["[]", "1", "a", "null", "~", "policies: 1", "policies: [[]]"])
def test_what_is_no_policy_is_refused(text):
    with pytest.raises(InvalidInput):
        read(text)


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 12)]
    began = time.perf_counter()
    with pytest.raises(InvalidInput):
        read("\n".join(lines))
    assert time.perf_counter() - began < 0.5


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        read(text)
    except InvalidInput as error:
        assert error.errors  # noqa: PT017 -- either is right


def test_yaml_of_others_reads_what_is_written():
    assert yaml.safe_load(write(read(GOOD)))["steps"][0]["approvals"] == 2


@pytest.mark.parametrize("slug", ["new", "schema"])
def test_a_policy_is_not_named_like_a_page(slug: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(f"slug: {slug}\nname: A\nsteps: [{{name: B, reviewers: {{groups: [c]}}}}]\n")
    assert caught.value.errors == {"line 1, slug": "Is the name of a page; use another."}
