from typing import Any

import pytest

from accounts.workloads.claims import checked, fit, matches
from broker.errors import InvalidInput

GITHUB = "https://token.actions.githubusercontent.com"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("acme/*", "acme/app", True),
        ("acme/*", "acme/app/evil", False),
        ("acme/*", "acme/", False),
        ("acme/*", "acme", False),
        ("acme/*", "acmé/app", False),
        ("acme*/app", "acme-evil/app", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main", True),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/x:y:ref:refs/heads/main", False),
        ("repo:acme/*:*", "repo:acme/app:pull_request", True),
        ("release-*-rc", "release-rc", False),
        ("release-*-rc", "release--rc", False),
        ("release-*-rc", "release-1-rc", True),
        ("main", "Main", False),
        ("main", "main\n", False),
        ("ma.n", "main", False),
        ("*", "", False),
    ],
)
def test_a_star_crosses_no_slash_and_no_colon(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


def test_every_claim_must_be_there_and_fit() -> None:
    claims: dict[str, Any] = {
        "a": "1",
        "deep": {"x/y": {"z": True}},
        "list": ["p", "q"],
        "no": None,
    }
    assert fit({"a": ["0", "1"], "/deep/x~1y/z": ["true"], "list": ["q"]}, claims)
    for wanted in (
        {},
        {"a": ["1"], "b": ["1"]},
        {"/deep": ["x/y"]},
        {"/deep/x~1y/z": ["True"]},
        {"/deep/x~1y/z": ["1"]},
        {"/a/b": ["1"]},
        {"/list/0": ["p"]},
        {"no": ["null"]},
        {"no": ["None"]},
        {"list": ["p, q"]},
        {"list": ['["p", "q"]']},
        {"deep": ["*"]},
    ):
        assert not fit(wanted, claims), wanted


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        [],
        "repository_id=1",
        {"iss": "https://ci.example"},
        {"sub": "x", "aud": "y"},
        {"/exp": "1"},
        {"": "x"},
        {"/": "x"},
        {"a": ""},
        {"a": []},
        {"a": 1},
        {"a": True},
        {"a": [None]},
        {"a": {"b": "c"}},
        {"a": "*"},
        {"a": "x**y"},
        {"a": "x*y*z"},
        {"a": "x*"},
        {"a": ["firm", "*"]},
        {"a": "line\nline"},
        {"a": "x" * 501},
        {"a\x00": "x"},
        {f"c{n}": "x" for n in range(21)},
    ],
    ids=lambda each: str(each)[:30],
)
def test_a_rule_that_means_nothing_or_everybody_is_refused(wanted: Any) -> None:
    with pytest.raises(InvalidInput):
        checked("https://ci.example", wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        {"ref": "refs/heads/main", "event_name": "push"},
        {"sub": "repo:*/app:ref:refs/heads/main"},
        {"repository": "*/app", "ref": "refs/heads/main"},
        {"repository_id": ["1", "*"]},
        {"actor": "octocat"},
        {"sub": "environment:prod"},
        {"sub": ["repo:acme/app:ref:refs/heads/main", "ref:refs/heads/main"]},
    ],
    ids=str,
)
def test_where_everybody_has_an_account_a_rule_says_whose(wanted: Any) -> None:
    """GitHub signs for every job of everybody: one that names only a branch lets in all of them."""
    with pytest.raises(InvalidInput, match="who it is"):
        checked(GITHUB, wanted)
    assert checked(GITHUB, wanted | {"repository_owner_id": "65"})


@pytest.mark.parametrize(
    ("issuer", "anybodys", "whose"),
    [
        ("https://agent.buildkite.com", "build_branch", "organization_slug"),
        ("https://app.terraform.io", "terraform_run_phase", "terraform_organization_id"),
        ("https://accounts.google.com", "email_verified", "sub"),
    ],
)
def test_others_sign_for_everybody_too(issuer: str, anybodys: str, whose: str) -> None:
    with pytest.raises(InvalidInput, match="who it is"):
        checked(issuer, {anybodys: "true"})
    assert checked(issuer, {anybodys: "true", whose: "acme"})


def test_what_is_stored_is_lists() -> None:
    assert checked(GITHUB, {"sub": "repo:acme/*:ref:*", "ref": ["a", "a"]}) == {
        "sub": ["repo:acme/*:ref:*"],
        "ref": ["a"],
    }
