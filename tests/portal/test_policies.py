"""Administrators write policies; auditors read them; to others there are none."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from accessrequests.actions import save_policy
from accessrequests.models import Policy, PolicyBinding, PolicyVersion
from accessrequests.policy.document import parse
from accessrequests.states import RequestState
from accounts.models import User
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Forbidden, InvalidInput
from endpoints.models import AccessProfile
from tests.world import World, unique

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]
SignIn = Callable[..., Client]


def text_of(profile: AccessProfile, slug: str, approvals: int = 1, extra: str = "") -> str:
    return f"""
slug: {slug}
name: Team policy
applies_to:
  profiles: [{profile.endpoint.slug}/{profile.slug}]
steps:
  - name: Team
    reviewers: {{profile_reviewers: true}}
    approvals: {approvals}
{extra}"""


@pytest.fixture
def administrator(world: World) -> User:
    return world.person(is_administrator=True)


def test_an_administrator_writes_a_policy_that_then_holds(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile = world.profile()
    browser, slug = signed_in(administrator), f"team-{unique()}"
    # Surely stricter than the built-in one: no start can be chosen either.
    answer = browser.post(
        reverse("policy-new"), {"text": text_of(profile, slug, 2), "note": "Two eyes more."}
    )
    assert answer["Location"] == reverse("policy", args=[slug])
    version = PolicyVersion.objects.get(policy__slug=slug)
    assert (version.number, version.note, version.created_by) == (
        1,
        "Two eyes more.",
        str(administrator),
    )
    assert AuditEvent.objects.about(version.policy_id).get().event == Event.POLICY_CREATED
    world.person(profile.reviewers)
    request = world.request(profile=profile)
    assert request.policy["steps"][0]["approvals"] == 2
    assert request.policy["policies"] == [{"slug": slug, "version": 1, "name": "Team policy"}]


def test_what_may_let_somebody_do_more_waits_for_a_second_administrator(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile, slug = world.profile(), f"team-{unique()}"
    wider = text_of(profile, slug, extra="limits: {latest_start: P30D}")
    browser = signed_in(administrator)
    form = {"text": wider, "note": ""}
    check = browser.post(reverse("policy-new-check"), form, headers={"HX-Request": "true"})
    assert "It will wait for a second administrator" in check.content.decode()
    assert browser.post(reverse("policy-new"), form).status_code == 400
    answer = browser.post(reverse("policy-new"), form | {"note": "Plans ahead."}, follow=True)
    page = answer.content.decode()
    assert "Nothing is changed yet: it waits for" in page
    assert "+     latest_start: P30D" in page or "+   latest_start: P30D" in page
    assert not Policy.objects.filter(slug=slug).exists()
    [change] = world.agree(administrator)
    version = PolicyVersion.objects.get(policy__slug=slug)
    assert version.created_by == f"{administrator}, agreed to by {change.decided_by}"
    assert PolicyBinding.objects.get(profile=profile).policy.slug == slug

    # Another one of it waits: what is surely stricter holds at once all the same.
    edit = reverse("policy-edit", args=[slug])
    browser.post(edit, {"text": wider.replace("P30D", "P60D"), "note": "Later yet."})
    again = browser.post(edit, {"text": wider.replace("P30D", "P90D"), "note": "Much later."})
    assert again.status_code == 409
    assert "waits already" in again.content.decode()
    stricter = {"text": wider.replace("P30D", "P1D"), "note": "Too far ahead."}
    assert browser.post(edit, stricter)["Location"] == reverse("policy", args=[slug])
    assert Policy.objects.get(slug=slug).current.number == 2  # type: ignore[union-attr]


def test_another_version_shows_what_changed(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile, slug = world.profile(), f"team-{unique()}"
    browser = signed_in(administrator)
    browser.post(reverse("policy-new"), {"text": text_of(profile, slug, 1)})
    browser.post(reverse("policy-edit", args=[slug]), {"text": text_of(profile, slug, 3)})
    page = browser.get(reverse("policy", args=[slug])).content.decode()
    assert "From version 1 to 2" in page
    assert "+     approvals: 3" in page
    first = browser.get(reverse("policy", args=[slug]) + "?version=1").content.decode()
    assert "This is version 1." in first


def test_saving_the_same_again_makes_no_version(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile, slug = world.profile(), f"team-{unique()}"
    browser = signed_in(administrator)
    for _ in range(2):
        address = reverse("policy-edit", args=[slug])
        if not Policy.objects.filter(slug=slug).exists():
            address = reverse("policy-new")
        browser.post(address, {"text": text_of(profile, slug)})
    assert PolicyVersion.objects.filter(policy__slug=slug).count() == 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("lmits: {}", "lmits"),
        ("auto_approve_when: requester.nmae == 'x'", "nmae"),
        ("limits: {max_duration: 5 hours}", "max_duration"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_key(
    extra: str, said: str, world: World, administrator: User, signed_in: SignIn
) -> None:
    profile, slug = world.profile(), f"team-{unique()}"
    answer = signed_in(administrator).post(
        reverse("policy-new"), {"text": text_of(profile, slug, extra=extra)}
    )
    assert answer.status_code == 400
    page = answer.content.decode()
    assert "line 10" in page
    assert said in page
    assert not Policy.objects.filter(slug=slug).exists()


def test_checking_tries_it_on_past_requests_and_writes_nothing(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile, slug = world.profile(), f"team-{unique()}"
    for _ in range(3):
        world.request(RequestState.APPROVED, profile=profile)
    before = (PolicyVersion.objects.count(), AuditEvent.objects.count())
    extra = "auto_approve_when: request.duration <= duration('2h')"
    answer = signed_in(administrator).post(
        reverse("policy-new-check"),
        {"text": text_of(profile, slug, extra=extra)},
        headers={"HX-Request": "true"},
    )
    page = answer.content.decode()
    assert "3 of the last 30 days’ 3 requests" in page
    assert "Would be decided automatically" in page
    assert (PolicyVersion.objects.count(), AuditEvent.objects.count()) == before


def test_a_check_without_script_is_a_whole_page(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    text = text_of(world.profile(), f"team-{unique()}")
    answer = signed_in(administrator).post(reverse("policy-new-check"), {"text": text})
    assert "<title>" in answer.content.decode()
    assert "It holds as soon as you save it" in answer.content.decode()


def test_auditors_read_and_change_nothing(world: World, signed_in: SignIn) -> None:
    policy = world.policy(profile=world.profile())
    auditor = world.person(is_auditor=True)
    browser = signed_in(auditor)
    assert browser.get(reverse("policies")).status_code == 200
    assert browser.get(reverse("policy", args=[policy.slug])).status_code == 200
    for name, arguments in (
        ("policy-edit", [policy.slug]),
        ("policy-check", [policy.slug]),
        ("policy-retire", [policy.slug]),
        ("policy-new", []),
        ("policy-new-check", []),
    ):
        answer = browser.post(reverse(name, args=arguments), {"text": "slug: x"})
        assert answer.status_code == 403, name
    assert policy.versions.count() == 1
    with pytest.raises(Forbidden):
        save_policy(by=auditor, document=parse(policy.current.document))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["policies", "policy-new", "policy-new-check"])
def test_to_others_there_are_none(name: str, world: World, signed_in: SignIn) -> None:
    method = "post" if name.endswith("check") else "get"
    answer = getattr(signed_in(world.person()), method)(reverse(name))
    assert answer.status_code == 404


def test_retiring_gives_the_built_in_policy_back(
    world: World, administrator: User, signed_in: SignIn
) -> None:
    profile = world.profile()
    policy = world.policy(
        profile=profile, steps=[{"name": "Owner", "reviewers": {"endpoint_owner": True}}]
    )
    signed_in(administrator).post(reverse("policy-retire", args=[policy.slug]))
    assert PolicyBinding.objects.filter(policy=policy).exists()
    world.agree(administrator)
    assert not PolicyBinding.objects.filter(policy=policy).exists()
    assert world.request(profile=profile).policy["policies"][0]["slug"] == "default"


def test_a_profile_has_one_policy(world: World) -> None:
    profile = world.profile()
    world.policy(profile=profile, slug=f"first-{unique()}")
    with pytest.raises(InvalidInput) as caught:
        world.policy(profile=profile, slug=f"second-{unique()}")
    assert list(caught.value.errors) == ["applies_to.profiles.0"]


def test_what_does_not_exist_or_could_never_be_decided_is_refused(world: World) -> None:
    group = world.group()
    world.person(group)
    with pytest.raises(InvalidInput) as caught:
        world.policy(
            steps=[
                {"name": "A", "reviewers": {"groups": ["no-such-group"]}},
                {"name": "B", "reviewers": {"people": ["nobody@example.com"]}},
                {"name": "C", "reviewers": {"groups": [group.slug]}, "approvals": 2},
            ],
            applies_to={"profiles": ["no/such"], "endpoints": ["nor-this"]},
            break_glass={"groups": ["gone"]},
        )
    assert set(caught.value.errors) >= {
        "steps.0.reviewers.groups",
        "steps.1.reviewers.people",
        "steps.2.approvals",
        "applies_to.profiles.0",
        "applies_to.endpoints.0",
        "break_glass.groups",
    }


def test_a_fallback_of_nobody_is_refused_whoever_else_the_step_asks(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.policy(
            steps=[
                {
                    "name": "Review",
                    "reviewers": {"profile_reviewers": True},
                    "escalation": [{"after": "PT1H", "to": {"groups": [world.group().slug]}}],
                }
            ]
        )
    assert list(caught.value.errors) == ["steps.0.escalation.0.to.groups"]
