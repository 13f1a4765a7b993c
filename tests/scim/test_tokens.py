"""What a directory's token opens, and what opens its door."""

import datetime as dt

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.test import Client

from accounts.actions import create_token as create_api_token
from accounts.models import ScimToken
from accounts.scim.tokens import WRONG_TOKENS, create_token, revoke_token
from accounts.tokens import generate
from audit import clock
from audit.models import AuditEvent
from tests.scim.directory import Directory, refused
from tests.world import World

pytestmark = pytest.mark.django_db


def test_nothing_opens_it_but_a_token_of_its_kind(
    token: tuple[ScimToken, str], world: World
) -> None:
    person = world.person()
    _, of_a_person = create_api_token(by=person, owner=person, name="script")
    wrong = {
        "none": {},
        "a person's": {"Authorization": f"Bearer {of_a_person}"},
        "nobody's": {"Authorization": f"Bearer {generate('scim').text}"},
        "cut": {"Authorization": f"Bearer {token[1][:-1]}"},
        "otherwise": {"Authorization": f"Basic {token[1]}"},
    }
    answers = set()
    for headers in wrong.values():
        answer = Client().get("/scim/v2/Users", headers=headers)
        refused(answer, 401)
        assert answer["WWW-Authenticate"].startswith("Bearer")
        answers.add(answer.content)
    assert len(answers) == 1, "what was wrong isn't said"
    signed_in = Client()
    signed_in.force_login(world.person(is_administrator=True))
    refused(signed_in.get("/scim/v2/Users"), 401)
    # Where proxies would log it.
    for name in ("access_token", "token", "authorization"):
        assert Client().get(f"/scim/v2/Users?{name}={token[1]}").status_code == 400


def test_it_opens_nothing_else(token: tuple[ScimToken, str]) -> None:
    headers = {"Authorization": f"Bearer {token[1]}"}
    for path in ("/api/v1/requests/", "/api/v1/changes/", "/metrics"):
        assert Client().get(path, headers=headers).status_code in (401, 403, 404)
    assert Client().get("/people/", headers=headers).status_code in (302, 404)


def test_it_ends(directory: Directory, token: tuple[ScimToken, str]) -> None:
    row, _ = token
    assert directory.get("Users").status_code == 200
    expired, text = create_token(name="Old", days=1)
    ScimToken.objects.filter(pk=expired.pk).update(expires_at=clock.now())
    refused(Directory(text).get("Users"), 401)
    revoke_token(token=row)
    refused(directory.get("Users"), 401)


def test_not_even_by_sql_does_it_last_longer(token: tuple[ScimToken, str]) -> None:
    later = clock.now() + dt.timedelta(days=367)
    with pytest.raises(DatabaseError, match="at_most_a_year"), transaction.atomic():
        ScimToken.objects.filter(pk=token[0].pk).update(expires_at=later)


def test_who_guesses_waits_and_a_good_token_does_not(directory: Directory) -> None:
    stranger = Directory(None)
    for _ in range(WRONG_TOKENS):
        refused(stranger.get("Users"), 401)
    answer = stranger.get("Users")
    refused(answer, 429)
    assert int(answer["Retry-After"]) > 0
    assert directory.get("Users").status_code == 200


def test_the_command_shows_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("scim_token", "create", "--name", "Okta", "--days", "30")
    text = capsys.readouterr().out.strip()
    assert Directory(text).get("Users").status_code == 200
    call_command("scim_token", "list")
    listed = capsys.readouterr().out
    assert "Okta" in listed
    assert text not in listed
    assert text not in " ".join(str(row) for row in AuditEvent.objects.values_list())
    call_command("scim_token", "revoke", text.split("_")[2])
    refused(Directory(text).get("Users"), 401)
    with pytest.raises(CommandError, match="--days"):
        call_command("scim_token", "create", "--name", "Okta", "--days", "366")


def test_what_it_does_not_do_it_says(directory: Directory) -> None:
    for path in ("Bulk", ".search", "Me"):
        refused(directory.send("POST", path, {}), 501)
    refused(directory.get("Nothing/here"), 404)
    answer = directory.send("DELETE", "Users")
    refused(answer, 405)
    assert answer["Allow"] == "GET, POST"
    config = directory.get("ServiceProviderConfig").json()
    assert not config["bulk"]["supported"]
    assert config["etag"]["supported"]
