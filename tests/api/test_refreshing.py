"""Refreshing a JWT over the API, as a program does it."""

import pytest

from credentials.models import Credential
from tests.api.callers import Caller, problem
from tests.world import World

pytestmark = pytest.mark.django_db


def test_a_program_checks_out_and_refreshes(world: World) -> None:
    grant = world.grant(profile=world.profile(credential_kind="jwt"))
    caller = Caller(grant.holder, "token")
    problem(caller.post(f"grants/{grant.pk}/credentials/refresh/"), 409, "conflict")
    first = caller.post(f"grants/{grant.pk}/credentials/")
    second = caller.post(f"grants/{grant.pk}/credentials/refresh/")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second["Cache-Control"] == "no-store"
    one, two = first.json(), second.json()
    assert one["credential"]["id"] == two["credential"]["id"]
    assert one["secret"] != two["secret"]
    row = Credential.objects.get()
    assert row.expires_at is not None
    assert two["expires_at"] == two["credential"]["expires_at"]
    assert two["expires_at"] == row.expires_at.isoformat().replace("+00:00", "Z")
    assert row.expires_at < grant.ends_at
    assert two["secret"] not in caller.get(f"credentials/{row.pk}/").content.decode()


def test_the_page_has_a_button_for_it(world: World) -> None:
    grant = world.grant(profile=world.profile(credential_kind="jwt"))
    client = Caller(grant.holder).client
    page = f"/grants/{grant.pk}/"
    headers = {"X-CSRFToken": "c" * 32}
    assert "Refresh it" not in client.get(page).content.decode()
    client.post(f"{page}check-out/", headers=headers)
    assert f'action="{page}refresh/"' in client.get(page).content.decode()
    answer = client.post(f"{page}refresh/", headers=headers)
    assert answer.status_code == 200
    assert "eyJ" in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert "eyJ" not in client.get(page).content.decode()
    assert client.get(f"{page}refresh/").status_code == 302
