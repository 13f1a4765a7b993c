"""What a directory may do to people, and what not."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actions import create_token, deactivate_user, reactivate_user
from accounts.models import ScimRecord, User
from audit.events import Event
from audit.models import AuditEvent
from tests.scim.directory import ENTERPRISE, USER, Directory, refused
from tests.world import World

pytestmark = pytest.mark.django_db


def row(person: dict[str, Any]) -> User:
    return User.objects.get(pk=person["id"])


def test_a_person_is_made_as_the_directory_says(directory: Directory, world: World) -> None:
    boss = world.person()
    person = directory.hire(
        displayName=None,
        name={"givenName": "Ada", "familyName": "Lovelace"},
        timezone="Europe/Berlin",
        externalId="00u1",
        title="Countess",
        phoneNumbers=[{"value": "1"}],
        **{ENTERPRISE: {"manager": {"value": str(boss.pk)}}},
    )
    user = row(person)
    assert (user.full_name, user.time_zone, user.manager) == ("Ada Lovelace", "Europe/Berlin", boss)
    assert not user.has_usable_password()
    assert person["emails"] == [{"value": user.email, "type": "work", "primary": True}]
    assert person["externalId"] == "00u1"
    assert person["meta"]["location"].endswith(f"/scim/v2/Users/{user.pk}")
    assert "title" not in person
    made = AuditEvent.objects.get(event=Event.USER_CREATED, subject_id=user.pk)
    assert (made.actor, made.via) == ("Acme (SCIM)", "scim")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"userName": "not an address"}, "email"),
        ({"timezone": "Mars/Olympus"}, "time_zone"),
        ({"displayName": "x" * 151}, "displayName"),
        ({"displayName": "Ada\u202eecalevoL"}, "displayName"),
        ({"displayName": "Ada\u0000"}, "displayName"),
        ({"externalId": "a\nb"}, "externalId"),
        ({"active": "perhaps"}, "active"),
        ({ENTERPRISE: {"manager": {"value": "nobody"}}}, "manager"),
    ],
)
def test_what_cannot_be_is_named(said: dict[str, Any], named: str, directory: Directory) -> None:
    body = {"schemas": [USER], "userName": "q@example.com", "displayName": "Q"} | said
    answer = directory.send("POST", "Users", body)
    assert named in refused(answer, 400, "invalidValue")
    assert not User.objects.filter(email="q@example.com").exists()


@pytest.mark.parametrize("name", ["is_administrator", "owner"])
def test_nobody_is_made_administrator(name: str, directory: Directory) -> None:
    person = directory.hire()
    body = {"schemas": [USER], "userName": "q@example.com", "displayName": "Q", name: True}
    assert name in refused(directory.send("POST", "Users", body), 400, "invalidSyntax")
    path = f"Users/{person['id']}"
    replacing = directory.send("PUT", path, body | {"userName": person["userName"]})
    assert name in refused(replacing, 400, "invalidSyntax")
    for operation in (
        {"op": "replace", "path": name, "value": True},
        {"op": "add", "value": {name: True}},
        {"op": "add", "path": f"{USER}:{name}", "value": True},
    ):
        assert directory.patch(path, operation).status_code == 400
    # What RFC 7643 has, and means nothing here.
    assert (
        directory.patch(
            path, {"op": "add", "path": "roles", "value": [{"value": "administrator"}]}
        ).json()
        == directory.get(path).json()
    )
    user = row(person)
    assert not any((user.is_administrator, user.is_auditor, user.owner))


def test_an_address_is_kept_and_taken_once(directory: Directory, world: World) -> None:
    person, other = directory.hire(), world.person()
    path = f"Users/{person['id']}"
    change = {"op": "replace", "path": "userName", "value": "new@example.com"}
    refused(directory.patch(path, change), 400, "mutability")
    body = {"schemas": [USER], "userName": other.email.upper(), "displayName": "Q"}
    refused(directory.send("PUT", path, body), 400, "mutability")
    refused(directory.send("POST", "Users", body), 409, "uniqueness")


@pytest.mark.parametrize("role", ["is_administrator", "is_auditor"])
def test_of_administrators_it_says_only_that_they_left(
    role: str, directory: Directory, world: World
) -> None:
    user = world.person()
    setattr(user, role, True)
    user.save()
    path = f"Users/{user.pk}"
    for name, value in (("displayName", "Mallory"), ("timezone", "Asia/Kolkata")):
        operation = {"op": "replace", "path": name, "value": value}
        refused(directory.patch(path, operation), 403)
    linking = {"op": "add", "path": "externalId", "value": "00u7"}
    assert directory.patch(path, linking).status_code == 200
    user.refresh_from_db()
    assert (user.full_name, user.time_zone) != ("Mallory", "Asia/Kolkata")
    body = {"schemas": [USER], "userName": user.email, "displayName": "Mallory", "active": False}
    assert directory.send("PUT", path, body).status_code == 200
    user.refresh_from_db()
    assert not user.is_active
    # Back as anybody else.
    back = {"op": "replace", "path": "active", "value": True}
    assert directory.patch(path, back).json()["active"] is True
    user.refresh_from_db()
    assert not getattr(user, role)


def test_service_accounts_are_not_there(directory: Directory, world: World) -> None:
    service = world.person(owner=world.person())
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        refused(directory.send(method, f"Users/{service.pk}", {}), 404)
    found = directory.get("Users", filter=f'userName eq "{service.email}"').json()
    assert found["totalResults"] == 0
    body = {"schemas": [USER], "userName": service.email, "displayName": "Q"}
    refused(directory.send("POST", "Users", body), 409, "uniqueness")


def test_who_left_comes_back_with_nothing(directory: Directory, world: World) -> None:
    person = directory.hire()
    user, path = row(person), f"Users/{person['id']}"
    group = directory.group(person["id"])
    create_token(by=user, owner=user, name="script")
    assert directory.send("DELETE", path).status_code == 204
    user.refresh_from_db()
    assert not user.is_active
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        refused(directory.send(method, path, {}), 404)
    again = directory.hire(userName=person["userName"], displayName="Ada King")
    assert (again["id"], again["displayName"], again["active"]) == (person["id"], "Ada King", True)
    assert "groups" not in again
    assert "members" not in directory.get(f"Groups/{group['id']}").json()
    assert not user.api_tokens.filter(revoked_at=None).exists()
    assert AuditEvent.objects.filter(event=Event.USER_REACTIVATED, subject_id=user.pk).exists()


def test_whom_an_administrator_deactivated_stays_out(directory: Directory, world: World) -> None:
    person = directory.hire()
    user, path = row(person), f"Users/{person['id']}"
    back = {"op": "replace", "path": "active", "value": True}
    # That the directory did so once, too, says nothing of this time.
    assert directory.patch(path, back | {"value": False}).status_code == 200
    reactivate_user(by=None, user=row(person))
    deactivate_user(by=None, user=row(person))
    refused(directory.patch(path, back), 403)
    assert directory.send("DELETE", path).status_code == 204
    body = {"schemas": [USER], "userName": person["userName"], "displayName": "Q"}
    refused(directory.send("POST", "Users", body), 403)
    user.refresh_from_db()
    assert not user.is_active
    assert ScimRecord.objects.get(user=user).gone_at is not None


def test_as_okta_and_entra_say_it(directory: Directory, world: World) -> None:
    boss, person = world.person(), directory.hire()
    path = f"Users/{person['id']}"
    directory.patch(path, {"op": "Replace", "path": "active", "value": "False"})
    assert not row(person).is_active
    directory.patch(path, {"op": "Replace", "path": "active", "value": "True"})
    assert row(person).is_active
    manager = {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": {"value": str(boss.pk)}}
    assert directory.patch(path, manager).status_code == 200
    assert row(person).manager == boss
    replaced = directory.patch(path, manager | {"op": "Replace", "value": str(world.person().pk)})
    assert replaced.status_code == 200, replaced.content
    gone = {"op": "Remove", "path": f"{ENTERPRISE}:manager"}
    assert directory.patch(path, gone).status_code == 200
    assert row(person).manager is None
    several = {"displayName": "Ada King", "name.familyName": "King", "title": "Countess"}
    assert directory.patch(path, {"op": "Add", "value": several}).status_code == 200
    assert directory.get(path).json()["name"]["familyName"] == "King"
    directory.patch(path, {"op": "replace", "value": {"active": False}})
    assert not row(person).is_active
    whole = {
        "schemas": [USER, ENTERPRISE],
        "id": person["id"],
        "userName": person["userName"],
        "name": {"givenName": "Ada", "familyName": "King"},
        "emails": [{"primary": True, "value": "other@example.com", "type": "work"}],
        "phoneNumbers": [{"type": "work", "value": ""}],
        "photos": [{"value": "no address"}],
        "groups": [],
        "locale": "en-US",
        "active": True,
        "meta": {"resourceType": "User"},
    }
    assert directory.send("PUT", path, whole).status_code == 200
    assert (row(person).full_name, row(person).is_active) == ("Ada King", True)


@pytest.mark.parametrize("path", ["Users/%00", "Groups/a%00%1b"])
def test_an_id_that_cannot_be_stored_is_refused_on_record(path: str, directory: Directory) -> None:
    refused(directory.send("GET", path), 404)
    tried = AuditEvent.objects.get(event=Event.ACCESS_REFUSED)
    assert tried.data["path"].startswith("/scim/v2/")
    assert tried.data["path"].isprintable()


def test_a_version_of_before_changes_nothing(directory: Directory) -> None:
    person = directory.hire()
    path, version = f"Users/{person['id']}", person["meta"]["version"]
    rename = {"op": "replace", "path": "displayName", "value": "Ada King"}
    answer = directory.patch(path, rename, **{"If-Match": version})
    assert (answer.status_code, answer["ETag"] != version) == (200, True)
    refused(directory.patch(path, rename, **{"If-Match": version}), 412)
    refused(directory.send("DELETE", path, None, **{"If-Match": version}), 412)
    unchanged = directory.send("GET", path, None, **{"If-None-Match": answer["ETag"]})
    assert unchanged.status_code == 304


def test_a_call_whose_row_cannot_be_written_changes_nothing(directory: Directory) -> None:
    from tests.invariants.test_7_nothing_unaudited import a_record_that_cannot_be_written

    person = directory.hire()
    with a_record_that_cannot_be_written():
        left = {"op": "replace", "path": "active", "value": False}
        assert directory.patch(f"Users/{person['id']}", left).status_code == 500
    assert row(person).is_active


def test_filters_find_what_they_say(directory: Directory, world: World) -> None:
    people = [directory.hire(displayName=f"Zoë {n}", externalId=f"x{n}") for n in range(3)]
    group = directory.group(people[0]["id"], people[1]["id"])
    first, address = people[0]["id"], people[0]["userName"]

    def found(kind: str, text: str) -> set[str]:
        answer = directory.get(kind, filter=text)
        assert answer.status_code == 200, answer.content
        return {each["id"] for each in answer.json().get("Resources", [])}

    for text in (
        f'userName eq "{address.upper()}"',
        f'emails[type eq "work" and value eq "{address}"]',
        f'emails.value sw "{address[:-4]}"',
        'externalId eq "x0" and active eq true',
        f'id eq "{first}"',
        'displayName eq "zoë 0"',
        'displayName sw "Zoë" and not (externalId ne "x0")',
        f'externalId eq "x0" or userName eq "{address}"',
    ):
        assert found("Users", text) == {first}, text
    assert found("Users", 'externalId eq "X0"') == set()
    assert found("Users", 'displayName co "zoë" and externalId pr') == {e["id"] for e in people}
    both = " and ".join(f'members eq "{each["id"]}"' for each in people[:2])
    assert found("Groups", both) == {group["id"]}
    assert found("Groups", f'{both} and members eq "{people[2]["id"]}"') == set()
    page = directory.get("Users", filter='displayName co "zoë"', startIndex="2", count="1").json()
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (3, 2, 1)
    directory.group(*(each["id"] for each in people))
    for kind in ("Users", "Groups"):
        with CaptureQueriesContext(connection) as queries:
            whole = directory.get(kind).json()["Resources"]
        assert len(whole) > 1
        assert len(queries) < 10, "none for each row"
    [one] = directory.get("Users", filter='externalId eq "x1"', attributes="userName").json()[
        "Resources"
    ]
    assert set(one) == {"schemas", "id", "userName"}


@pytest.mark.parametrize(
    "text",
    [
        "userName eq",
        'userName eq "a" or 1=1',
        "userName eq 'a'; DROP TABLE accounts_user",
        'password eq "x"',
        'is_administrator eq "true"',
        "is_administrator pr",
        'email__startswith eq "a"',
        'userName eq "a\\u0000"',
        "(" * 5000 + 'userName eq "a"' + ")" * 5000,
        " or ".join(['userName eq "a"'] * 200),
        'groups.display eq "x"',
        'active gt "a"',
    ],
)
def test_no_filter_asks_for_more(text: str, directory: Directory) -> None:
    refused(directory.get("Users", filter=text), 400, "invalidFilter")
    body = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": text}
    refused(directory.send("POST", "Users/.search", body), 400, "invalidFilter")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"a": 1, "a": 2}', 400),
        (b"[" * 100_000, 400),
        (b'{"name": ' * 5_000 + b"1" + b"}" * 5_000, 400),
        (b'{"userName": "' + b"x" * 10_000_000 + b'"}', 413),
        (b'{"schemas": ["' + USER.encode() + b'"], "userName": "\\ud800@example.com"}', 400),
        (json.dumps({"schemas": [USER], "userName": None}).encode(), 400),
    ],
    ids=["empty", "list", "twice", "deep", "deep objects", "10 MB", "surrogate", "null"],
)
def test_bodies_that_are_none(body: bytes, status: int, directory: Directory) -> None:
    answer = directory.send("POST", "Users", body)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/scim+json"
    person = directory.hire()
    assert directory.send("PATCH", f"Users/{person['id']}", body).status_code == status
