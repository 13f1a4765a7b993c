"""A token that somebody found: what it opens, and that it approves nothing."""

import datetime as dt
import re
import zlib
from functools import partial
from typing import Any

import pytest
from django.test import Client

from accessrequests.models import AccessRequest, Review
from accessrequests.states import RequestState
from accounts import leaks, recovery, tokens
from accounts.actions import create_token, join_group, token_owner
from accounts.models import ApiToken, SignInTry, User
from accounts.rate_limits import Standing
from accounts.scim import tokens as scim
from accounts.stepup import HEADER, Action, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from notifications.kinds import Kind
from notifications.models import Notification
from tests.accounts.authenticator import authenticator, code, later, wrong
from tests.accounts.passkey import proved_for_factors
from tests.api.callers import Caller, faults, problem
from tests.invariants.races import at_once
from tests.world import World


def approve(caller: Caller, request: AccessRequest, given: str | None = None) -> Any:
    caller.headers.pop(HEADER, None)
    if given is not None:
        caller.headers[HEADER] = given
    return caller.post(f"requests/{request.pk}/reviews/", {"verdict": "approve"})


@pytest.mark.django_db
class TestSecondFactor:
    @pytest.fixture
    def pending(self, world: World) -> AccessRequest:
        return world.request()

    @pytest.fixture
    def ben(self, pending: AccessRequest, world: World) -> User:
        return world.person(pending.profile.reviewers)

    def test_a_stolen_token_approves_nothing(self, pending: AccessRequest, ben: User) -> None:
        secret, thief = authenticator(ben), Caller(ben, "token")
        told = problem(approve(thief, pending), 403, "step-up-needed")
        assert HEADER in told["detail"]
        for given in (wrong(secret), "", "12345", "é", "0" * 100, "{}", "AAAAAA-" * 3 + "AAAAAA"):
            assert list(faults(approve(thief, pending, given))) == [HEADER], given
        # Beside a session of theirs that has proved it.
        thief.client.force_login(ben)
        thief.prove(Purpose(Action.REVIEW, str(pending.pk)))
        problem(approve(thief, pending), 403, "step-up-needed")
        pending.refresh_from_db()
        assert pending.state == RequestState.PENDING

    def test_a_code_in_the_call_is_good_for_that_call(
        self, pending: AccessRequest, ben: User, world: World
    ) -> None:
        secret, caller = authenticator(ben), Caller(ben, "token")
        given, second = code(secret), world.request(profile=pending.profile)
        assert approve(caller, pending, given).status_code == 201
        assert list(faults(approve(caller, second, given))) == [HEADER]
        problem(approve(caller, second), 403, "step-up-needed")
        review = Review.objects.get(request=pending)
        assert (review.reviewer, review.verdict) == (ben, "approve")

    def test_a_code_is_used_up_by_a_call_that_is_refused(
        self, pending: AccessRequest, ben: User
    ) -> None:
        secret, caller = authenticator(ben), Caller(ben, "token")
        caller.headers[HEADER] = given = code(secret)
        answer = caller.post(f"requests/{pending.pk}/reviews/", {"verdict": "perhaps"})
        assert list(faults(answer)) == ["verdict"]
        assert list(faults(approve(caller, pending, given))) == [HEADER]

    def test_what_a_token_is_not_for_uses_up_no_code(
        self, pending: AccessRequest, ben: User
    ) -> None:
        given, caller = code(authenticator(ben)), Caller(ben, "token", verbs=["read"])
        problem(approve(caller, pending, given), 403, "token-scope")
        assert caller.get("requests/").status_code == 200
        assert approve(Caller(ben, "token"), pending, given).status_code == 201

    def test_a_recovery_code_does_too_once(self, pending: AccessRequest, ben: User) -> None:
        authenticator(ben)
        given = recovery.make(by=ben, proofs=proved_for_factors(ben))[0]
        caller = Caller(ben, "token")
        assert approve(caller, pending, given).status_code == 201
        assert list(faults(approve(caller, pending, given))) == [HEADER]

    def test_guessing_is_stopped(self, pending: AccessRequest, ben: User) -> None:
        secret, thief = authenticator(ben), Caller(ben, "token")
        for _ in range(5):
            faults(approve(thief, pending, wrong(secret)))
        answer = approve(thief, pending, code(secret))
        problem(answer, 429, "too-many-tries")
        assert int(answer["Retry-After"]) > 0
        assert not Review.objects.exists()

    def test_a_token_that_needs_no_code_takes_and_guesses_none(self, world: World) -> None:
        endpoint = world.endpoint(with_key=True)
        owner = endpoint.owner
        secret, least = authenticator(owner), Caller(owner, "token", verbs=["read", "end"])
        said = {"reason": "It is in a log.", "stop": True}
        for given in [*[wrong(secret)] * 6, code(secret)]:
            least.headers[HEADER] = given
            answer = least.post(f"endpoints/{endpoint.pk}/report-leak/", said)
            told = problem(answer, 403, "token-scope")
            assert told["verb"] == "manage"
        # Nor can it keep others from theirs.
        able = Caller(owner, "token", verbs=["manage"])
        able.headers[HEADER] = code(secret)
        assert able.post(f"endpoints/{endpoint.pk}/report-leak/", said).status_code == 201


@pytest.mark.usefixtures("committed")
def test_twenty_at_once_with_one_code_review_once(world: World) -> None:
    requests = [world.request()]
    profile = requests[0].profile
    requests += [world.request(profile=profile) for _ in range(19)]
    ben = world.person(profile.reviewers)
    secret, callers = authenticator(ben), [Caller(ben, "token") for _ in requests]
    given = code(secret)
    calls = zip(callers, requests, strict=True)
    answers = at_once([partial(approve, caller, request, given) for caller, request in calls])
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {400, 429}
    assert Review.objects.filter(reviewer=ben).count() == 1
    proved = AuditEvent.objects.filter(event=Event.STEP_UP_PROVED, actor_id=ben.pk)
    assert proved.count() == 1


def report(text: str, **more: str) -> Any:
    return Caller(None).post("tokens/report-leak/", {"token": text, **more})


@pytest.mark.django_db
class TestLeaks:
    @pytest.fixture
    def made(self, world: World) -> tuple[ApiToken, str]:
        user = world.person()
        return create_token(by=user, owner=user, name="A notebook")

    def told(self, token: ApiToken, kind: Kind) -> list[Notification]:
        return list(Notification.objects.filter(subject_id=token.pk, kind=kind))

    def test_whoever_finds_one_ends_it(self, made: tuple[ApiToken, str], world: World) -> None:
        row, text = made
        profile = world.profile()
        join_group(by=None, user=row.owner, group=profile.requesters)
        holds = world.grant(profile=profile, requester=row.owner)
        for _ in range(2):
            answer = report(text, url=f"https://paste.example.com/?key={text}")
            assert (answer.status_code, answer.content) == (204, b"")
        assert token_owner(text) is None
        row.refresh_from_db()
        assert row.revoked_at is not None
        assert row.reported_at is not None
        event = AuditEvent.objects.get(event=Event.TOKEN_LEAKED)
        assert event.subject_id == row.pk
        [told] = self.told(row, Kind.TOKEN_LEAKED)
        assert told.person == row.owner
        assert "paste.example.com" in str(told.facts)
        assert text not in str(told.facts) + str(event.data)
        # Nothing else ends by it.
        holds.refresh_from_db()
        assert holds.ended_at is None

    def test_the_owner_of_a_service_account_is_told(self, world: World) -> None:
        owner = world.person()
        until = clock.now() + dt.timedelta(days=1)
        program = world.person(owner=owner, ends_at=until)
        row, text = create_token(by=owner, owner=program, name="x")
        report(text)
        assert [each.person for each in self.told(row, Kind.TOKEN_LEAKED)] == [owner]

    def test_a_directory_s_ends_too(self, world: World) -> None:
        administrator = world.person(is_administrator=True)
        row, text = scim.create_token(name="Acme")
        for _ in range(2):
            assert report(text).status_code == 204
        assert not SignInTry.objects.filter(account=leaks._WRONG).exists()
        assert scim.token_of(text) is None
        row.refresh_from_db()
        assert row.last_used_at is None, "to find it is no use of it"
        told = Notification.objects.filter(subject_id=row.pk, person=administrator)
        assert told.count() == 1

    def test_what_is_no_token_is_answered_alike_until_it_is_too_much(
        self, made: tuple[ApiToken, str]
    ) -> None:
        row, text = made
        forged = tokens.generate().text
        body, _, _ = text[:-20].rpartition("_")
        for given in (forged, body, "x", "kt_pat_", text + "x"):
            answer = report(given)
            assert (answer.status_code, answer.content) == (204, b"")
        assert token_owner(text) is not None
        SignInTry.objects.bulk_create(
            SignInTry(account=leaks._WRONG, address="127.0.0.1") for _ in range(leaks.WRONG_REPORTS)
        )
        problem(report(forged), 429, "too-many-tries")
        # A real one is never held up by it.
        assert report(text).status_code == 204
        assert token_owner(text) is None
        assert (
            not AuditEvent.objects.filter(event=Event.TOKEN_LEAKED)
            .exclude(subject_id=row.pk)
            .exists()
        )

    def test_the_pattern_finds_what_is_made_and_says_where_to_report_it(self) -> None:
        told = Caller(None).get("tokens/pattern/").json()
        for kind in ("pat", "wl", "scim"):
            text = tokens.generate(kind).text
            assert re.findall(told["regex"], f"key = '{text}';")
            body, _, checksum = text.rpartition("_")
            assert f"{zlib.crc32(body.encode()):08x}" == checksum
        assert told["report_to"].endswith("/api/v1/tokens/report-leak/")

    @pytest.mark.parametrize(
        "path",
        [
            "/api/v1/requests/?token={}",
            "/api/v1/requests/?a=1&b=%6bt_{}",
            "/sign-in/?next=%2Fx%2F%3Ft%3D%256bt_{}",
            "/x/%25256bt_{}",
            "/x/%00/{}",
            "/api/v1/nothing/{}/",
            "/requests/?{}",
            "/sign-in/?next=/x/{}",
            "/static/../{}",
        ],
    )
    def test_one_in_a_url_is_refused_and_told(
        self, path: str, made: tuple[ApiToken, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        row, text = made
        where = path.format(text.removeprefix("kt_") if "6bt_" in path else text)
        for _ in range(2):
            # Though it would be right in its header.
            answer = Client().get(where, headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == 400
            assert text.split("_")[3] not in answer.content.decode()
        if where.startswith("/api/"):
            assert answer.json()["code"] == "token-in-url"
        else:
            assert "Token in a URL" in answer.content.decode()
        refused = AuditEvent.objects.filter(event=Event.TOKEN_IN_URL, subject_id=row.pk)
        assert refused.count() == 2
        [told] = self.told(row, Kind.TOKEN_IN_URL)
        assert told.person == row.owner
        assert text.split("_")[3] not in str(list(refused.values())) + str(told.facts)
        assert text not in caplog.text
        # It's theirs to revoke: somebody else's link must not end what works.
        assert token_owner(text) is not None

    def test_whoever_found_one_fills_no_record_by_it(
        self, made: tuple[ApiToken, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row, text = made
        counted = []

        def none_left(who: str, *, writes: bool) -> Standing:
            counted.append((who, writes))
            return Standing("reads", 1, 0, 60, allowed=False)

        monkeypatch.setattr("accounts.leaks.rate_limits.count", none_left)
        assert Client().get(f"/requests/?t={text}").status_code == 400
        assert counted == [(str(row.owner_id), False)]
        assert not AuditEvent.objects.filter(event=Event.TOKEN_IN_URL).exists()

    def test_one_that_is_none_of_ours_tells_nobody(self, made: tuple[ApiToken, str]) -> None:
        _, text = made
        forged = tokens.generate().text
        alike = text.replace(text.split("_")[3], forged.split("_")[3])
        alike = f"{alike[:-8]}{zlib.crc32(alike[:-9].encode()):08x}"
        for given in (forged, alike):
            assert Client().get(f"/api/v1/requests/?t={given}").status_code == 400
        assert not AuditEvent.objects.filter(event=Event.TOKEN_IN_URL).exists()
        # What fails its checksum is no token at all.
        broken = text[:-1] + ("0" if text[-1] != "0" else "1")
        assert Client().get(f"/api/v1/requests/?t={broken}").status_code == 401


@pytest.mark.django_db
class TestMaking:
    def test_a_stolen_token_makes_no_other(self, world: World) -> None:
        user = world.person()
        thief = Caller(user, "token")
        problem(thief.post("tokens/", {"name": "x"}), 403, "step-up-needed")
        assert ApiToken.objects.filter(owner=user).count() == 1

    def test_one_makes_another_that_is_for_no_more_than_itself(self, world: World) -> None:
        user = world.person(is_auditor=True)
        secret = authenticator(user)
        caller = Caller(user, "token", verbs=["read", "manage"])

        def make(**asked: Any) -> Any:
            later(user)
            caller.headers[HEADER] = code(secret)
            return caller.post("tokens/", {"name": "x", "days": 1, "verbs": ["read"]} | asked)

        answer = make()
        assert answer.status_code == 201
        assert answer["Cache-Control"] == "no-store"
        found = token_owner(answer.json()["token"])
        assert found is not None
        assert found[1].verbs == ["read"]
        assert list(faults(make(verbs=["read", "review"]))) == ["verbs"]
        assert list(faults(make(days=90))) == ["days"]
        assert list(faults(make(owner=world.person().email))) == ["owner"]
        assert list(faults(make(endpoints=["no-such-one"]))) == ["endpoints"]
        listed = caller.get("tokens/").json()["results"]
        assert answer.json()["token"] not in str(listed)

    def test_a_service_account_makes_none(self, world: World) -> None:
        until = clock.now() + dt.timedelta(days=1)
        program = world.person(owner=world.person(), ends_at=until)
        caller = Caller(program, "token", verbs=["read", "manage"])
        problem(caller.post("tokens/", {"name": "x"}), 403, "needs-person")
