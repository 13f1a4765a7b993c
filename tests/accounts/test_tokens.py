"""The form of API tokens, against generated input."""

import datetime as dt
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.test import Client, override_settings
from django.urls import URLResolver, get_resolver, reverse
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.permissions import AllowAny

from accessrequests.models import Grant
from accounts import tokens
from accounts.actions import (
    create_token,
    deactivate_ended,
    deactivate_user,
    leave_group,
    set_roles,
    token_owner,
)
from accounts.models import ApiToken, User
from accounts.scope_permission import InScope, verb_for
from accounts.scopes import Verb
from accounts.stepup import Action, Purpose
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Forbidden, InvalidInput
from tests.api.callers import Caller, problem
from tests.world import World, prove

alphabet = tokens.BASE62 + "_-. \n"


@given(st.integers())
def test_what_was_made_is_understood_and_tells_only_its_id(_: int) -> None:
    token = tokens.generate()
    assert tokens.parse(token.text) == token
    assert token.lookup in token.text
    assert token.text.startswith("kt_pat_")


@given(st.text() | st.text(alphabet=alphabet, min_size=60, max_size=80))
def test_nothing_that_was_not_made_is_understood(text: str) -> None:
    assert tokens.parse(text) is None


@given(st.integers(min_value=0, max_value=71), st.characters())
def test_one_character_changed_and_it_is_not_understood(place: int, character: str) -> None:
    text = tokens.generate().text
    changed = text[:place] + character + text[place + 1 :]
    assert changed == text or tokens.parse(changed) is None


@given(st.sampled_from(["{}\n", "\n{}", " {}", "{} ", "{}\x00", "{0}{0}", "x{}"]))
def test_nothing_may_stand_around_it(around: str) -> None:
    assert tokens.parse(around.format(tokens.generate().text)) is None


def test_no_two_are_alike() -> None:
    made = [tokens.generate() for _ in range(1000)]
    assert len({each.lookup for each in made}) == len({each.text for each in made}) == 1000


def test_what_is_stored_depends_on_this_deployments_key() -> None:
    token = tokens.generate()
    here = tokens.digest(token)
    assert len(here) == 32
    with override_settings(SECRET_KEY="another"):
        assert tokens.digest(token) != here


@pytest.mark.django_db
def test_the_database_alone_opens_nothing(world: World) -> None:
    user = world.person()
    row, text = create_token(by=user, owner=user, name="x")
    found = token_owner(text)
    assert found is not None
    assert found[0] == user
    stored = ApiToken.objects.filter(pk=row.pk).values().get()
    assert text not in str(stored)
    assert text.split("_")[3] not in str(stored)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": -1}, "days"),
        ({"days": 91}, "days"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"days": 10**12}, "days"),
        ({"verbs": []}, "verbs"),
        ({"verbs": ["everything"]}, "verbs"),
        ({"endpoints": [uuid.uuid4()]}, "endpoints"),
    ],
)
def test_a_token_that_is_refused(fields: dict[str, object], field: str, world: World) -> None:
    user = world.person()
    with pytest.raises(InvalidInput) as caught:
        create_token(**{"by": user, "owner": user, "name": "x"} | fields)  # type: ignore[arg-type]
    assert list(caught.value.errors) == [field]
    assert not ApiToken.objects.filter(owner=user).exists()


@pytest.mark.django_db
def test_nobody_deactivated_gets_a_token(world: World) -> None:
    user = world.person(is_active=False)
    with pytest.raises(InvalidInput, match="deactivated"):
        create_token(by=user, owner=user, name="x")


@pytest.mark.django_db
def test_postgresql_refuses_a_token_of_more_than_90_days(world: World) -> None:
    user = world.person()
    row, _ = create_token(by=user, owner=user, name="x", days=90)
    with pytest.raises(DatabaseError, match="api_token_at_most_90_days"), transaction.atomic():
        ApiToken.objects.filter(pk=row.pk).update(expires_at=clock.now() + dt.timedelta(days=91))


# ── What one is for ─────────────────────────────────────────────────────────────────────────────

# All that changes something, where it takes another verb than MANAGE; None: any token does.
TAKES: dict[str, Verb | None] = {
    "POST requests/": Verb.REQUEST,
    "POST requests/preview/": Verb.REQUEST,
    "POST requests/together/": Verb.REQUEST,
    "POST requests/{}/cancel/": Verb.REQUEST,
    "POST requests/{}/comments/": Verb.REQUEST,
    "POST absences/": Verb.REQUEST,
    "DELETE absences/{}/": Verb.REQUEST,
    "POST grants/{}/credentials/": Verb.CHECK_OUT,
    "POST grants/{}/credentials/refresh/": Verb.CHECK_OUT,
    "POST credentials/{}/unwrap/": Verb.CHECK_OUT,
    "POST grants/{}/end/": Verb.END,
    "POST agents/{}/take-back/": Verb.END,
    "POST requests/{}/reviews/": Verb.REVIEW,
    "POST requests/{}/hand-over/": Verb.REVIEW,
    "POST reviews/": Verb.REVIEW,
    "POST introspect/": Verb.READ,
    "POST policies/check/": Verb.READ,
    "POST endpoints/{}/report-leak/": None,
}
OPEN = {"revoke/"}  # to whoever has the secret


def routes(patterns: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every view of the API, as "POST requests/" and an instance that would answer it."""
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, path)
        elif path.startswith("api/v1/") and hasattr(pattern.callback, "cls"):
            cls, actions = pattern.callback.cls, getattr(pattern.callback, "actions", None)
            template = re.sub(r"<\w+:\w+>", "{}", path.removeprefix("api/v1/"))
            for method in ("get", "post", "put", "patch", "delete"):
                if method in actions if actions else hasattr(cls, method):
                    view = cls()
                    view.action = actions[method] if actions else None
                    yield f"{method.upper()} {template}", view


def test_every_call_takes_a_verb_and_what_was_forgotten_the_highest() -> None:
    unsafe = set()
    for name, view in routes(get_resolver().url_patterns):
        method, _, template = name.partition(" ")
        if template in OPEN or AllowAny in view.permission_classes:
            continue
        assert InScope in view.permission_classes, name
        if method == "GET":
            assert verb_for(view, method) in {Verb.READ, None}, name
        else:
            unsafe.add(name)
            assert verb_for(view, method) == TAKES.get(name, Verb.MANAGE), name
            # A name that no method of the view has says nothing.
            assert all(hasattr(view, key) for key in getattr(view, "verbs", {})), name
    assert unsafe >= TAKES.keys()


@pytest.mark.django_db
class TestScope:
    @pytest.fixture
    def grant(self, world: World) -> Grant:
        return world.grant()

    def test_one_verb_opens_what_it_names_and_nothing_else(self, grant: Grant) -> None:
        answers = {}
        for verb in Verb:
            caller = Caller(grant.holder, "token", verbs=[verb])
            answers[verb] = [
                caller.get("grants/").status_code,
                caller.post(
                    "requests/preview/", {"profile": str(grant.request.profile_id)}
                ).status_code,
                caller.post(f"requests/{grant.request_id}/reviews/", {}).status_code,
                caller.send("PUT", "notification-settings/", "{}").status_code,
                caller.post(f"grants/{grant.pk}/credentials/refresh/").status_code,
            ]
        assert answers == {
            Verb.READ: [200, 403, 403, 403, 403],
            Verb.REQUEST: [403, 200, 403, 403, 403],
            Verb.CHECK_OUT: [403, 403, 403, 403, 409],
            Verb.END: [403, 403, 403, 403, 403],
            Verb.REVIEW: [403, 403, 403, 403, 403],
            Verb.MANAGE: [403, 403, 403, 400, 403],
        }
        answer = Caller(grant.holder, "token", verbs=[Verb.READ]).post(f"grants/{grant.pk}/end/")
        told = problem(answer, 403, "token-scope")
        assert told["verb"] == "end"
        refused = AuditEvent.objects.filter(event=Event.ACCESS_REFUSED).latest("id")
        assert refused.data["code"] == "token-scope"

    def test_it_ends_with_its_owner_s_rights(self, grant: Grant, world: World) -> None:
        """Nothing is kept from when it was made."""
        profile = grant.request.profile
        owner = world.person(profile.reviewers, is_administrator=True)
        caller = Caller(owner, "token")
        owed = world.request(profile=profile)
        assert caller.get(f"requests/{owed.pk}/").status_code == 200
        set_roles(by=None, user=owner, is_administrator=False)
        assert caller.get(f"requests/{owed.pk}/").status_code == 200
        leave_group(by=None, user=owner, group=profile.reviewers)
        problem(caller.get(f"requests/{owed.pk}/"), 404, "not-found")
        deactivate_user(by=None, user=owner)
        problem(caller.get("requests/"), 401, "not-signed-in")

    def test_it_ends_with_its_service_account(self, world: World) -> None:
        owner = world.person()
        service = world.person(owner=owner, ends_at=clock.now() + dt.timedelta(days=1))
        caller = Caller(service, "token")
        assert caller.get("requests/").status_code == 200
        User.objects.filter(pk=service.pk).update(ends_at=clock.now())
        # Also while no worker is there to close its account.
        problem(caller.get("requests/"), 401, "not-signed-in")
        deactivate_ended()
        problem(caller.get("requests/"), 401, "not-signed-in")

    def test_nobody_makes_one_for_another(self, world: World) -> None:
        """Not even an administrator: they would act as somebody else."""
        person, service = world.person(), world.person(owner=world.person(), ends_at=clock.now())
        for owner in (person, service):
            with pytest.raises(Forbidden):
                create_token(by=world.person(is_administrator=True), owner=owner, name="x")

    def test_a_token_makes_none_that_is_for_more_than_itself(self, world: World) -> None:
        user, endpoint = world.person(is_auditor=True), world.endpoint(with_key=False)
        another = world.endpoint(with_key=False)
        first, _ = create_token(
            by=user, owner=user, name="x", days=10, verbs=["read"], endpoints=[endpoint.pk]
        )
        beyond: dict[str, Any] = {
            "days": 11,
            "verbs": ["read", "manage"],
            "endpoints": [endpoint.pk, another.pk],
        }
        for field, value in beyond.items():
            asked: dict[str, Any] = {"days": 9, "verbs": ["read"], "endpoints": [endpoint.pk]}
            with pytest.raises(InvalidInput) as caught:
                create_token(by=user, owner=user, name="y", within=first, **asked | {field: value})
            assert list(caught.value.errors) == [field]
        with pytest.raises(InvalidInput):
            create_token(by=user, owner=user, name="y", days=9, verbs=["read"], within=first)


@pytest.mark.django_db
class TestPortal:
    def page(
        self, client: Client, data: dict[str, Any] | None = None, owner: User | None = None
    ) -> Any:
        where = reverse("token-new") + (f"?owner={owner.pk}" if owner else "")
        return client.post(where, data) if data else client.get(where)

    def test_one_is_made_once_a_factor_is_proved_and_shown_once(self, world: World) -> None:
        user, endpoint = world.person(is_auditor=True), world.endpoint(with_key=False)
        client = Client()
        client.force_login(user)
        asked = {"name": "A notebook", "days": 7, "verbs": ["read"], "endpoints": [endpoint.pk]}
        for answer in (self.page(client), self.page(client, asked)):
            assert answer.status_code == 302
            assert f"token%3A{user.pk}" in answer["Location"]
        assert not user.api_tokens.exists()
        prove(client, Purpose(Action.TOKEN, str(user.pk)))
        assert endpoint.slug in self.page(client).content.decode()
        answer = self.page(client, asked)
        assert "no-store" in answer["Cache-Control"]
        [text] = tokens.found_in(answer.content.decode())
        found = token_owner(text)
        assert found is not None
        row = found[1]
        assert (row.verbs, row.endpoints) == (["read"], [endpoint.pk])
        listed = client.get(reverse("tokens")).content.decode()
        assert row.lookup in listed
        assert text not in listed
        assert self.page(client, {"name": "x", "days": 7}).status_code == 400

    def test_for_a_service_account_by_its_owner_alone(self, world: World) -> None:
        owner = world.person()
        until = clock.now() + dt.timedelta(days=1)
        program = world.person(owner=owner, ends_at=until)
        for user, status in (
            (owner, 200),
            (world.person(is_administrator=True), 404),
            (world.person(), 404),
        ):
            client = Client()
            client.force_login(user)
            prove(client, Purpose(Action.TOKEN, str(program.pk)))
            asked = {"name": "CI", "days": 7, "verbs": ["check_out"]}
            assert self.page(client, asked, program).status_code == status
            refused = {"name": "CI", "days": 7, "verbs": ["review"]}
            assert self.page(client, refused, program).status_code == max(status, 400)
        assert [row.verbs for row in program.api_tokens.all()] == [["check_out"]]


@pytest.mark.django_db
def test_the_command_takes_verbs_and_endpoints(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = world.profile()
    user = world.person(profile.requesters)
    make = ["token", "create", "--owner", user.email, "--name", "CI"]
    call_command(*make, "--verb=read", "--verb=check_out", f"--endpoint={profile.endpoint.slug}")
    found = token_owner(capsys.readouterr().out.strip())
    assert found is not None
    assert found[1].verbs == ["read", "check_out"]
    assert found[1].endpoints == [profile.endpoint_id]
    with pytest.raises(CommandError, match="--endpoint"):
        call_command(*make, f"--endpoint={world.endpoint(with_key=False).slug}")


@pytest.mark.django_db
def test_the_command_prints_a_token_that_opens(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    user = world.person()
    call_command("token", "create", "--owner", user.email, "--name", "a script")
    printed = capsys.readouterr().out.split()
    (text,) = [word for word in printed if tokens.parse(word)]
    found = token_owner(text)
    assert found is not None
    assert found[0] == user
