"""Bad input: each field at fault is named with its limit, and nothing is written."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from accessrequests.models import AccessRequest, Review
from accessrequests.states import RequestState
from accounts.models import User
from endpoints.models import AccessProfile
from tests.api.callers import Caller, faults, problem
from tests.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

MISSING = object()


@pytest.fixture
def profile(world: World) -> AccessProfile:
    profile = world.profile(models=["demo-large", "demo-small"])  # 8 hours at most
    world.person(profile.reviewers)
    return profile


@pytest.fixture
def caller(world: World, profile: AccessProfile) -> Caller:
    return Caller(world.person(profile.requesters), "token")


@pytest.fixture
def body(profile: AccessProfile) -> dict[str, Any]:
    """What is accepted; each test below changes one thing of it."""
    return {
        "profile": str(profile.pk),
        "justification": "Ticket 4711.",
        "duration": "PT1H",
        "models": ["demo-small"],
    }


@pytest.fixture
def nothing_written(body: dict[str, Any]) -> Iterator[None]:
    before = AccessRequest.objects.count()
    yield
    assert AccessRequest.objects.count() == before


def test_a_request_is_filed(caller: Caller, body: dict[str, Any]) -> None:
    answer = caller.post("requests/", body)
    assert answer.status_code == 201, answer.content
    filed = answer.json()
    assert filed["state"] == "pending"
    assert filed["scope"] == {"models": ["demo-small"]}
    assert filed["duration"] in {"PT1H", "P0DT01H00M00S"}
    assert caller.user is not None
    assert filed["requester"] == caller.user.email
    assert AccessRequest.objects.get(pk=filed["id"]).duration == dt.timedelta(hours=1)


@pytest.mark.parametrize("left_out", ["duration", "models"])
def test_what_may_be_left_out_is_the_profiles_default(
    left_out: str, caller: Caller, body: dict[str, Any], profile: AccessProfile
) -> None:
    del body[left_out]
    filed = AccessRequest.objects.get(pk=caller.post("requests/", body).json()["id"])
    assert filed.duration == profile.default_duration
    assert filed.asked.models == (
        profile.ceiling.models if left_out == "models" else {"demo-small"}
    )


BAD = [
    ("profile", MISSING, "required"),
    ("profile", None, "null"),
    ("profile", "", "UUID"),
    ("profile", "x", "UUID"),
    ("profile", "01890000-0000-7000-8000-000000000000", "no such profile"),
    ("profile", [], "UUID"),
    ("profile", {}, "UUID"),
    ("profile", 7.5, "UUID"),
    ("profile", True, "string"),
    ("profile", -1, "UUID"),
    ("justification", MISSING, "required"),
    ("justification", None, "null"),
    ("justification", "", "Say what you need it for"),
    ("justification", " \n\t ", "Say what you need it for"),
    ("justification", "x" * 2001, "2000"),
    ("justification", "\x00", "Null characters"),
    ("justification", "\ud800", "Surrogate"),
    ("justification", [], "valid string"),
    ("justification", {"a": 1}, "valid string"),
    ("justification", True, "valid string"),
    ("scope", "x", "dictionary"),
    ("scope", None, "null"),
    ("scope.tool", {"tool": ["refund"]}, "Can't be written here"),
    ("scope.tools", {"tools": ["refund"]}, "none"),
    ("scope.operations", {"operations": ["GET api"]}, "path prefix"),
    ("scope.token_budget", {"token_budget": 0}, "greater than or equal to 1"),
    ("scope.token_budget", {"token_budget": None}, "null"),
    ("scope.cost_budget", {"cost_budget": "NaN"}, "US dollars"),
    ("duration", 0, "format"),
    ("duration", "PT0S", "1 minute"),
    ("duration", -1, "format"),
    ("duration", "-PT1H", "format"),
    ("duration", "PT59S", "1 minute"),
    ("duration", "PT8H0.000001S", "8 hours"),
    ("duration", "P7D", "8 hours"),
    ("duration", "P8D", "at most 8 hours"),
    ("duration", 1e300, "format"),
    ("duration", "99999999999 00:00:00", "format"),
    ("duration", "1:00:00", "format"),
    ("duration", None, "null"),
    ("duration", "an hour", "format|formats"),
    ("duration", [], "format|formats"),
    ("duration", {}, "format|formats"),
    ("duration", True, "format|formats"),
    ("models", None, "null"),
    ("models", "demo-small", "list"),
    ("models", {}, "list"),
    ("models", 1, "list"),
    ("models", [], "at least one"),
    ("models", ["another"], "demo-large, demo-small"),
    ("models", ["demo-small", "another"], "another"),
    ("models", ["m"] * 201, "200"),
    ("models.0", [""], "blank"),
    ("models.0", ["x" * 201], "200"),
    ("models.0", [None], "null"),
    ("models.0", [["demo-small"]], "valid string"),
    ("models.0", ["\x00"], "Null characters"),
]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(("field", "value", "says"), BAD)
def test_what_is_refused_is_named(
    field: str, value: Any, says: str, caller: Caller, body: dict[str, Any]
) -> None:
    name = field.partition(".")[0]
    body[name] = value
    if value is MISSING:
        del body[name]
    found = faults(caller.post("requests/", body))
    assert list(found) == [field]
    assert any(each in found[field] for each in says.split("|")), found


@pytest.mark.usefixtures("nothing_written")
def test_models_are_named_once(caller: Caller, body: dict[str, Any]) -> None:
    found = faults(caller.post("requests/", body | {"scope": {"models": ["demo-small"]}}))
    assert "not in both" in found["models"]
    del body["models"]
    found = faults(caller.post("requests/", body | {"scope": {"models": ["gpt-9"]}}))
    assert "demo-large, demo-small" in found["scope.models"]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "field",
    ["state", "ends_at", "reviewer", "requester", "id", "decided_by", "policy", "grant",
     "pending_until", "wholly_unknown", "", "\x1b[31m"],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_by_name(
    field: str, caller: Caller, body: dict[str, Any]
) -> None:
    found = faults(caller.post("requests/", body | {field: "x"}))
    assert list(found) == [field or "body"]
    known = "break_glass, duration, extends, justification, models, "
    assert known in next(iter(found.values()))


@pytest.mark.usefixtures("nothing_written")
def test_a_profile_without_another_approver(
    caller: Caller, body: dict[str, Any], profile: AccessProfile
) -> None:
    profile.reviewers.memberships.all().delete()
    assert caller.user is not None
    profile.reviewers.memberships.create(user=caller.user)
    found = faults(caller.post("requests/", body))
    assert list(found) == ["profile"]
    assert "no active member other than yourself" in found["profile"]


@pytest.mark.usefixtures("nothing_written")
def test_a_deactivated_approver_is_none(
    caller: Caller, body: dict[str, Any], profile: AccessProfile
) -> None:
    User.objects.filter(memberships__group=profile.reviewers).update(is_active=False)
    assert list(faults(caller.post("requests/", body))) == ["profile"]


@pytest.mark.usefixtures("nothing_written")
def test_a_retired_profile_is_none(
    caller: Caller, body: dict[str, Any], profile: AccessProfile
) -> None:
    from audit import clock

    AccessProfile.objects.filter(pk=profile.pk).update(retired_at=clock.now())
    assert list(faults(caller.post("requests/", body))) == ["profile"]


@pytest.mark.usefixtures("nothing_written")
def test_all_that_is_wrong_is_said_at_once(caller: Caller, body: dict[str, Any]) -> None:
    found = faults(caller.post("requests/", body | {"duration": "P7D", "models": ["another"]}))
    assert set(found) == {"duration", "models"}


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b'"x"', b"3", b"\xff", b'{"a": NaN}', b'{"profile": Infinity}',
     b"[" * 100_000, b'{"a":' * 50_000],
    ids=["empty", "half", "null", "list", "text", "number", "not UTF-8", "NaN", "Infinity",
         "deep list", "deep object"],
)  # fmt: skip
def test_a_body_that_is_no_object(text: bytes, caller: Caller) -> None:
    answer = caller.post("requests/", text)
    assert answer.status_code == 400, answer.content
    problem(answer, 400, answer.json()["code"])


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize("field", ["\ud800", "a\ud800b"])
def test_a_name_that_is_no_text(field: str, caller: Caller, body: dict[str, Any]) -> None:
    answer = caller.post("requests/", body | {field: 1})
    problem(answer, 400, "invalid-input")


@pytest.mark.usefixtures("nothing_written")
def test_a_body_that_is_too_large(caller: Caller, body: dict[str, Any]) -> None:
    answer = caller.post("requests/", json.dumps(body | {"justification": "x" * 10_000_000}))
    problem(answer, 413, "too-large")


@pytest.mark.usefixtures("nothing_written")
def test_a_hundred_thousand_keys_get_a_short_answer(caller: Caller) -> None:
    answer = caller.post("requests/", json.dumps({f"k{n}": n for n in range(100_000)}))
    assert answer.status_code in {400, 413}
    assert len(answer.content) < 100_000


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
)
def test_another_content_type(kind: str, caller: Caller) -> None:
    """Forms of other sites can send these without asking."""
    problem(caller.send("POST", "requests/", b"a=b", kind), 415, "unsupported-media-type")


@pytest.fixture
def pending(world: World, profile: AccessProfile) -> AccessRequest:
    return world.request(profile=profile)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "verdict"),
        ({"verdict": ""}, "verdict"),
        ({"verdict": "approved"}, "verdict"),
        ({"verdict": "APPROVE"}, "verdict"),
        ({"verdict": ["approve"]}, "verdict"),
        ({"verdict": {"approve": 1}}, "verdict"),
        ({"verdict": True}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"verdict": "deny"}, "reason"),
        ({"verdict": "deny", "reason": " "}, "reason"),
        ({"verdict": "approve", "reason": "x" * 1001}, "reason"),
        ({"verdict": "approve", "reason": "\x00"}, "reason"),
        ({"verdict": "approve", "reason": ["x"]}, "reason"),
        ({"verdict": "approve", "reviewer": "x"}, "reviewer"),
        ({"verdict": "approve", "at": "2020-01-01"}, "at"),
    ],
)
def test_a_review_that_is_refused(
    body: dict[str, Any], field: str, world: World, pending: AccessRequest
) -> None:
    reviewer = Caller(world.person(pending.profile.reviewers))
    found = faults(reviewer.post(f"requests/{pending.pk}/reviews/", body))
    assert list(found) == [field]
    pending.refresh_from_db()
    assert pending.state == RequestState.PENDING
    assert not Review.objects.filter(request=pending).exists()


@pytest.mark.parametrize(
    "path", ["requests/{}/cancel/", "grants/{}/end/", "grants/{}/credentials/"]
)
@pytest.mark.parametrize("body", [{"ends_at": "2099-01-01"}, {"scope": {}}, {"duration": "P7D"}])
def test_a_verb_that_takes_nothing_refuses_what_it_is_given(
    body: dict[str, Any], path: str, world: World, pending: AccessRequest
) -> None:
    grant = world.grant(profile=pending.profile, requester=pending.requester)
    caller = Caller(pending.requester)
    pk = pending.pk if path.startswith("requests") else grant.pk
    found = faults(caller.post(path.format(pk), body))
    assert list(found) == list(body)


def test_all_that_is_beyond_the_limits_is_named_at_once(
    caller: Caller, body: dict[str, Any], nothing_written: None
) -> None:
    wrong = {"justification": " ", "duration": "P3D", "models": ["gpt"]}
    assert set(faults(caller.post("requests/", body | wrong))) == set(wrong)


def test_fields_that_are_unknown_do_not_hide_the_others(
    caller: Caller, body: dict[str, Any], nothing_written: None
) -> None:
    wrong = {"state": "approved", "profile": "debug"}
    assert set(faults(caller.post("requests/", body | wrong))) == set(wrong)
