"""Which groups a directory has a say in."""

import pytest
from django.core.management import call_command

from accounts.actions import join_group, set_rota
from accounts.models import Group
from audit.events import Event
from audit.models import AuditEvent
from tests.scim.directory import GROUP, Directory, refused
from tests.world import World

pytestmark = pytest.mark.django_db


def members(group_id: str) -> set[str]:
    return {str(pk) for pk in Group.objects.get(pk=group_id).members.values_list("pk", flat=True)}


def test_members_come_and_go(directory: Directory) -> None:
    ada, ben = directory.hire()["id"], directory.hire()["id"]
    group = directory.group(ada)
    path = f"Groups/{group['id']}"
    assert members(group["id"]) == {ada}
    directory.patch(path, {"op": "Add", "path": "members", "value": [{"value": ben}]})
    assert members(group["id"]) == {ada, ben}
    assert directory.get(f"Users/{ben}").json()["groups"][0]["value"] == group["id"]
    # As the RFC says it, and as Entra does.
    directory.patch(path, {"op": "remove", "path": f'members[value eq "{ada}"]'})
    assert members(group["id"]) == {ben}
    directory.patch(path, {"op": "Remove", "path": "members", "value": [{"value": ben}]})
    assert members(group["id"]) == set()
    body = {"schemas": [GROUP], "displayName": "Platform", "members": [{"value": ada}]}
    assert directory.send("PUT", path, body).json()["displayName"] == "Platform"
    assert members(group["id"]) == {ada}
    left = AuditEvent.objects.filter(event=Event.GROUP_LEFT, subject_id=ben).get()
    assert (left.actor, left.via) == ("Acme (SCIM)", "scim")
    assert "members" not in directory.get(path, excludedAttributes="members").json()


def test_a_group_made_by_hand_is_not_there(directory: Directory, world: World) -> None:
    group = world.group()
    person = directory.hire()
    path = f"Groups/{group.pk}"
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        refused(directory.send(method, path, {}), 404)
    assert directory.get("Groups").json()["totalResults"] == 0
    join_group(by=None, user=world.person(), group=group)
    assert "groups" not in directory.get(f"Users/{person['id']}").json()
    body = {"schemas": [GROUP], "displayName": group.name.upper()}
    refused(directory.send("POST", "Groups", body), 409, "uniqueness")


@pytest.mark.parametrize("right", ["asks", "reviews", "on call", "policy"])
def test_a_group_with_rights_only_shrinks(right: str, directory: Directory, world: World) -> None:
    ada, ben = directory.hire()["id"], directory.hire()["id"]
    group = Group.objects.get(pk=directory.group(ada)["id"])
    path = f"Groups/{group.pk}"
    match right:
        case "asks":
            world.profile(requesters=group)
        case "reviews":
            world.profile(reviewers=group)
        case "on call":
            set_rota(by=None, group=group, is_rota=True)
        case "policy":
            by_name = {"name": "Review", "reviewers": {"groups": [group.slug]}}
            world.policy(profile=world.profile(), steps=[by_name])
    add = {"op": "add", "path": "members", "value": [{"value": ben}]}
    rename = {"op": "replace", "path": "displayName", "value": "Harmless"}
    assert "govern" in refused(directory.patch(path, add), 403)
    refused(directory.patch(path, rename), 403)
    body = {"schemas": [GROUP], "displayName": group.name, "members": [{"value": ben}]}
    refused(directory.send("PUT", path, body), 403)
    assert members(str(group.pk)) == {ada}
    assert AuditEvent.objects.filter(event=Event.ACCESS_REFUSED, actor="Acme (SCIM)").count() == 3
    call_command("scim_group", "govern", group.slug)
    assert directory.patch(path, add).status_code == 200
    call_command("scim_group", "release", group.slug)
    refused(directory.patch(path, add), 404)
    assert members(str(group.pk)) == {ada, ben}


def test_leaving_is_heard_whatever_the_rights(directory: Directory, world: World) -> None:
    ada = directory.hire()["id"]
    group = Group.objects.get(pk=directory.group(ada)["id"])
    world.profile(reviewers=group)
    path = f"Groups/{group.pk}"
    directory.patch(path, {"op": "remove", "path": "members"})
    assert members(str(group.pk)) == set()


def test_a_deleted_group_keeps_its_name(directory: Directory, world: World) -> None:
    ada = directory.hire()["id"]
    group = directory.group(ada, displayName="Night shift")
    world.profile(reviewers=Group.objects.get(pk=group["id"]))
    call_command("scim_group", "govern", "night-shift")
    assert directory.send("DELETE", f"Groups/{group['id']}").status_code == 204
    assert members(group["id"]) == set()
    refused(directory.get(f"Groups/{group['id']}"), 404)
    # Its rights are there still, and nobody has said anew that the directory may give them.
    body = {"schemas": [GROUP], "displayName": "Night shift", "members": [{"value": ada}]}
    refused(directory.send("POST", "Groups", body), 403)
    again = directory.send("POST", "Groups", body | {"members": []}).json()
    assert again["id"] == group["id"]


def test_members_are_people(directory: Directory, world: World) -> None:
    group, other = directory.group(), directory.group()
    service = world.person(owner=world.person())
    for pk in (other["id"], str(service.pk), "nobody"):
        operation = {"op": "add", "path": "members", "value": [{"value": pk}]}
        answer = directory.patch(f"Groups/{group['id']}", operation)
        assert "members" in refused(answer, 400, "invalidValue")
