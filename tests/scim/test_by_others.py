"""By programs that aren't ours: scim2-tester and scim2-client."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import scim2_tester.filling
from django.test import Client
from scim2_models import PatchOp
from scim2_tester import Status, check_server
from scim2_tester.utils import ResourceManager

from accessrequests.states import EndReason, GrantState
from accounts import models
from accounts.actions import create_token
from tests.world import World

pytestmark = pytest.mark.django_db


def test_somebody_is_hired_moves_and_leaves(
    client_of_others: Any, world: World, sweep: Callable[[], int]
) -> None:
    client = client_of_others
    client.discover()
    person, team = client.get_resource_model("User"), client.get_resource_model("Group")
    ada = client.create(person(user_name="ada@example.org", display_name="Ada", active=True))
    platform, data = (
        client.create(team(display_name=name, members=members))
        for name, members in (("Platform", [{"value": ada.id}]), ("Data", None))
    )
    user, group = models.User.objects.get(pk=ada.id), models.Group.objects.get(pk=platform.id)
    # What Platform may ask for is set up in Keyturn.
    first = world.grant(profile=world.profile(requesters=group), requester=user)
    browser = Client()
    browser.force_login(user)
    _, script = create_token(by=user, owner=user, name="script")
    assert browser.get("/").status_code == 200

    def move(where: Any, op: str) -> None:
        path = f'members[value eq "{ada.id}"]' if op == "remove" else "members"
        value = [{"value": ada.id}] if op == "add" else None
        patch = PatchOp[team]  # type: ignore[valid-type]
        client.modify(
            team,
            where.id,
            patch.model_validate({"Operations": [{"op": op, "path": path, "value": value}]}),
        )

    move(data, "add")
    move(platform, "remove")
    sweep()
    first.refresh_from_db()
    assert (first.state, first.end_reason) == (GrantState.ENDED, EndReason.GROUP_LOST)
    data_team = models.Group.objects.get(pk=data.id)
    second = world.grant(profile=world.profile(requesters=data_team), requester=user)

    found = client.query(person, ada.id)
    assert [each.value for each in found.groups] == [data.id]
    found.active = False
    assert client.replace(found).active is False
    assert browser.get("/").status_code == 302
    headers = {"Authorization": f"Bearer {script}"}
    assert Client().get("/api/v1/requests/", headers=headers).status_code == 401
    sweep()
    second.refresh_from_db()
    assert (second.state, second.end_reason) == (
        GrantState.ENDED,
        EndReason.REQUESTER_DEACTIVATED,
    )


@pytest.mark.slow
def test_scim2_tester_finds_nothing_wrong(
    client_of_others: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    anything = scim2_tester.filling.generate_random_value

    def knowing(context: Any, path: Any, *given: Any, **named: Any) -> Any:
        # No schema can say that a userName is an address.
        value = anything(context, path, *given, **named)
        return f"{uuid.uuid4()}@example.com" if value and str(path).endswith("userName") else value

    monkeypatch.setattr(scim2_tester.filling, "generate_random_value", knowing)
    for module in ("patch_add", "patch_replace"):
        monkeypatch.setattr(f"scim2_tester.checkers.{module}.generate_random_value", knowing)
    # It deletes everything again after each check; the test's transaction does so anyway.
    monkeypatch.setattr(ResourceManager, "cleanup", lambda _: None)
    found = check_server(client_of_others)
    wrong = [
        f"{each.resource_type} {each.title} {each.status.name}: {each.reason}"
        for each in found
        if each.status not in {Status.SUCCESS, Status.COMPLIANT, Status.ACCEPTABLE, Status.SKIPPED}
    ]
    assert wrong == []
    assert sum(each.status == Status.SUCCESS for each in found) > 50
    skipped = {each.reason for each in found if each.status == Status.SKIPPED}
    assert len(skipped) == 1
    assert "searching several resource types at once" in str(skipped)
