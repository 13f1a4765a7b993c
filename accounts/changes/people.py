"""Changes of people and groups: who is in a group, who has a role, whose lost factor goes."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.urls import NoReverseMatch, reverse

from accounts import actions, factors
from accounts.changes.kinds import Kind, Line, Payload
from accounts.changes.rights import rights_of
from accounts.linked import are_linked
from accounts.models import Group, User
from accounts.stepup import Action
from audit.templatetags.keyturn import and_list
from broker.errors import Forbidden, InvalidInput, NotFound

ROLES = {"administrator": "is_administrator", "auditor": "is_auditor"}
AS = ("member", "owner")


def _only(payload: Mapping[str, Any], known: Iterable[str]) -> None:
    known = list(known)
    errors = {
        key: f"Can't be changed here. What can be: {', '.join(known)}."
        for key in payload
        if key not in known
    }
    if errors:
        raise InvalidInput(errors)


def _person(payload: Mapping[str, Any]) -> User:
    """The person or service account whom this names. Raises InvalidInput."""
    try:
        found = User.objects.active().filter(pk=uuid.UUID(str(payload.get("person")))).first()
    except ValueError:
        found = None
    if found is None:
        raise InvalidInput({"person": "There is no such active account."})
    return found


def _page(name: str, *args: object) -> str:
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


class GroupMember(Kind):
    """Somebody joins a group as a member, or comes to own it. `payload`: `person`, their id, and
    `as`, `member` unless it says `owner`."""

    name = "group_member"
    words = "Add to a group"
    action = Action.PEOPLE

    def find(self, about: Any, *, lock: bool) -> Group:
        rows = Group.objects.select_for_update(of=("self",), no_key=True) if lock else Group.objects
        group = rows.filter(pk=about).first()
        if group is None:
            raise NotFound(kind="group", id=str(about))
        return group

    def check_may_propose(self, by: User, row: Group) -> None:
        """Its owners as well: they say who is in it."""
        if not by.is_administrator and not row.owners.filter(pk=by.pk).exists():
            raise Forbidden("Only its owners and administrators add people to a group.")

    def checked(self, row: Group, payload: Mapping[str, Any]) -> Payload:
        _only(payload, ("person", "as"))
        person, role = _person(payload), payload.get("as", "member")
        if role not in AS:
            raise InvalidInput({"as": "Must be member or owner."})
        if role == "owner" and person.is_service:
            raise InvalidInput({"person": "A service account owns no group."})
        return {"person": str(person.pk), "as": role}

    def part(self, row: Group, payload: Payload) -> str:
        return f"{payload['as']}:{payload['person']}"

    def label(self, row: Group, payload: Payload) -> str:
        return f"Make {_person(payload)} {_a(payload['as'])} of {row}"

    def path(self, row: Group) -> str:
        return _page("group", row.pk)

    def state(self, row: Group, payload: Payload) -> Any:
        return {"is": self._is(row, payload), "opens": sorted(rights_of(row))}

    def _is(self, row: Group, payload: Payload) -> bool:
        among = row.owners if payload["as"] == "owner" else row.members
        return among.filter(pk=payload["person"]).exists()

    def difference(self, row: Group, payload: Payload) -> list[Line]:
        person = _person(payload)
        who = f"{person} ({person.email})"
        if person.owner is not None:
            who += f", a service account of {person.owner}"
        what = "Owners" if payload["as"] == "owner" else "Members"
        among = row.owners if payload["as"] == "owner" else row.members
        rights = rights_of(row)
        return [
            Line(what, _so_many(among.count()), f"also {who}"),
            Line(
                "By that they could say who" if payload["as"] == "owner" else "By that they could",
                "",
                "\n".join(rights),
            ),
        ]

    def widens(self, row: Group, payload: Payload) -> bool:
        return not self._is(row, payload) and bool(rights_of(row))

    def gains(self, person: User, row: Group, payload: Payload) -> bool:
        whose = User.objects.filter(pk=payload["person"]).first()
        return whose is not None and are_linked(person, whose)

    def apply(self, *, by: User, proposed_by: User | None, row: Group, payload: Payload) -> None:
        user = _person(payload)
        if payload["as"] == "owner":
            actions.name_owner(by=by, group=row, user=user, proposed_by=proposed_by)
        else:
            actions.join_group(by=by, user=user, group=row, proposed_by=proposed_by)

    def concerned(self, row: Group, payload: Payload) -> Iterable[User]:
        return [*row.owners.all(), *User.objects.filter(pk=payload["person"])]


class Role(Kind):
    """Somebody becomes administrator or auditor, or is that no longer. `payload`: `administrator`
    and `auditor`, true or false; what isn't named stays."""

    name = "role"
    words = "Give a role"
    action = Action.PEOPLE

    def find(self, about: Any, *, lock: bool) -> User:
        return _user(about, lock=lock)

    def checked(self, row: User, payload: Mapping[str, Any]) -> Payload:
        _only(payload, ROLES)
        if not payload or not all(isinstance(value, bool) for value in payload.values()):
            raise InvalidInput({"administrator": "Must be true or false."})
        if not row.is_active:
            raise InvalidInput({"person": "Is deactivated."})
        if row.is_service and any(payload.values()):
            raise InvalidInput({"person": "A service account is neither."})
        return dict(payload)

    def label(self, row: User, payload: Payload) -> str:
        given = and_list([_a(role) for role, value in payload.items() if value])
        return f"Make {row} {given}" if given else f"Take a role from {row}"

    def path(self, row: User) -> str:
        return _page("person", row.pk)

    def state(self, row: User, payload: Payload) -> Any:
        return {role: getattr(row, column) for role, column in ROLES.items()} | {
            "active": row.is_active
        }

    def difference(self, row: User, payload: Payload) -> list[Line]:
        lines = []
        for role, value in payload.items():
            before = getattr(row, ROLES[role])
            if before != value:
                lines.append(Line(role.capitalize(), _yes(before), _yes(value)))
        return lines

    def widens(self, row: User, payload: Payload) -> bool:
        return any(value and not getattr(row, ROLES[role]) for role, value in payload.items())

    def gains(self, person: User, row: User, payload: Payload) -> bool:
        return are_linked(person, row)

    def apply(self, *, by: User, proposed_by: User | None, row: User, payload: Payload) -> None:
        actions.set_roles(
            by=by,
            user=row,
            proposed_by=proposed_by,
            **{ROLES[role]: value for role, value in payload.items()},
        )

    def concerned(self, row: User, payload: Payload) -> Iterable[User]:
        return [row]


class FactorReset(Kind):
    """Somebody's lost second factors are taken away, so that they can set up new ones."""

    name = "factor_reset"
    words = "Reset second factors"
    action = Action.PEOPLE

    def find(self, about: Any, *, lock: bool) -> User:
        return _user(about, lock=lock)

    def checked(self, row: User, payload: Mapping[str, Any]) -> Payload:
        _only(payload, ())
        if not factors.held_by(row):
            raise InvalidInput({"person": "Has no second factor that could be lost."})
        return {}

    def label(self, row: User, payload: Payload) -> str:
        return f"Take away the second factors of {row}"

    def path(self, row: User) -> str:
        return _page("person", row.pk)

    def state(self, row: User, payload: Payload) -> Any:
        return [each.id for each in factors.held_by(row)]

    def difference(self, row: User, payload: Payload) -> list[Line]:
        held = "\n".join(each.words for each in factors.held_by(row))
        return [
            Line("Second factors", held, "none, until they set up new ones"),
            Line("Sessions", "as they are", "ended"),
        ]

    def widens(self, row: User, payload: Payload) -> bool:
        return True

    def gains(self, person: User, row: User, payload: Payload) -> bool:
        return are_linked(person, row)

    def apply(self, *, by: User, proposed_by: User | None, row: User, payload: Payload) -> None:
        if proposed_by is None or row.pk in (by.pk, proposed_by.pk):
            raise InvalidInput({"person": "Two administrators other than themself do this."})
        factors.reset(by=by, person=row, with_=proposed_by)

    def concerned(self, row: User, payload: Payload) -> Iterable[User]:
        return [row]


def _user(about: Any, *, lock: bool) -> User:
    rows = User.objects.select_for_update(of=("self",), no_key=True) if lock else User.objects
    user = rows.filter(pk=about).first()
    if user is None:
        raise NotFound(kind="user", id=str(about))
    return user


def _a(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _so_many(count: int) -> str:
    return "nobody" if not count else f"{count} {'person' if count == 1 else 'people'}"
