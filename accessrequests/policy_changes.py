"""Changes of policies, as accounts.changes takes them; and the groups that policies name."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Q
from django.urls import reverse

from accessrequests.actions import policies
from accessrequests.models import Policy
from accessrequests.policy.document import PolicyDocument, parse
from accessrequests.policy.reading import write
from accounts.changes import Kind, Line
from accounts.models import Group, Membership, User
from accounts.stepup import Action, Purpose
from broker.errors import InvalidInput, NotFound
from endpoints.models import AccessProfile


def rights(group: Group) -> Iterator[str]:
    """The policies that name this group: as reviewers, for break-glass, or in a condition."""
    rows = Policy.objects.filter(retired_at=None, current__isnull=False).select_related("current")
    for policy in rows:
        if policy.current is not None and _names(policy.current.document, group.slug):
            yield f"count where policy {policy} names {group}"


def _names(document: Any, slug: str) -> bool:
    # In whatever part of it, also within an expression; too much rather than too little.
    return slug in json.dumps(document)


def _document(payload: Mapping[str, Any]) -> PolicyDocument | None:
    data = payload.get("document")
    return None if data is None else parse(data)


class PolicyChange(Kind):
    """Another text of a policy, a new policy, or its end. `payload`: `document`, none to retire
    it, and `note`."""

    name = "policy"
    words = "Change a policy"
    action = Action.POLICY

    def find(self, about: Any, *, lock: bool) -> Policy:
        if lock:
            policies.one_at_a_time()
        rows = Policy.objects.select_related("current")
        policy = (rows.select_for_update(of=("self",)) if lock else rows).filter(pk=about).first()
        if policy is None or policy.current is None:
            raise NotFound(kind="policy", id=str(about))
        return policy

    def checked(self, row: Policy | None, payload: Mapping[str, Any]) -> dict[str, Any]:
        policies.one_at_a_time()
        document, note = _document(payload), str(payload.get("note", "")).strip()
        if len(note) > policies.NOTE_LENGTH:
            raise InvalidInput({"note": f"Must be at most {policies.NOTE_LENGTH} characters."})
        if document is not None:
            policies.check_document(document)
            slug = document.slug if row is None else row.slug
            if document.slug != slug:
                raise InvalidInput({"slug": f"Must stay {slug}."})
            if row is None and _exists(slug):
                raise InvalidInput({"slug": f"There is a policy {slug} already."})
        elif row is None:
            raise InvalidInput({"document": "Give the new policy."})
        data = None if document is None else document.as_data()
        return {"document": data, "note": note}

    def part(self, row: Policy | None, payload: Mapping[str, Any]) -> str:
        """Of new ones, one of each name waits."""
        return payload["document"]["slug"] if row is None else ""

    def label(self, row: Policy | None, payload: Mapping[str, Any]) -> str:
        if row is None:
            return f"Create policy {payload['document']['slug']}"
        return f"{'Retire' if payload['document'] is None else 'Change'} policy {row}"

    def path(self, row: Policy | None) -> str:
        return "" if row is None else reverse("policy", args=[row.slug])

    def purpose(self, row: Policy | None, payload: Mapping[str, Any]) -> Purpose:
        return Purpose(self.action, payload["document"]["slug"] if row is None else row.slug)

    def state(self, row: Policy | None, payload: Mapping[str, Any]) -> Any:
        if row is None:
            return {"exists": _exists(payload["document"]["slug"])}
        return {"current": str(row.current_id), "retired": row.retired_at is not None}

    def difference(self, row: Policy | None, payload: Mapping[str, Any]) -> list[Line]:
        before = row.current.parsed() if row is not None and row.current is not None else None
        governs = None if row is None or row.retired_at is not None else before
        after = _document(payload)
        lines = []
        if _governed(governs) != _governed(after):
            lines.append(
                Line("Governs", _governed(governs) or "nothing", _governed(after) or "nothing")
            )
        if after is not None:
            lines.append(Line("Text", "" if before is None else write([before]), write([after])))
        return lines

    def widens(self, row: Policy | None, payload: Mapping[str, Any]) -> bool:
        return policies.widens(row, _document(payload))

    def gains(self, person: User, row: Policy | None, payload: Mapping[str, Any]) -> bool:
        """Whether they, or a program of theirs, may ask for what it governs."""
        profiles = policies.profiles_of(row, _document(payload))
        return Membership.objects.filter(
            Q(user=person) | Q(user__owner=person), group__may_request__in=profiles
        ).exists()

    def apply(
        self, *, by: User, proposed_by: User | None, row: Policy | None, payload: Mapping[str, Any]
    ) -> None:
        document = _document(payload)
        if row is None and document is not None:
            policies.one_at_a_time()
            if _exists(document.slug):
                raise InvalidInput({"slug": f"There is a policy {document.slug} already."})
        if document is not None:
            policies.save_policy(
                by=by, document=document, note=payload["note"], proposed_by=proposed_by
            )
        elif row is not None:
            policies.retire_policy(by=by, slug=row.slug, proposed_by=proposed_by)

    def concerned(self, row: Policy | None, payload: Mapping[str, Any]) -> Iterator[User]:
        """The owners of the endpoints that it governs."""
        rows: set[AccessProfile] = set(policies.profiles_of(row, _document(payload)))
        yield from {profile.endpoint.owner for profile in rows}


def _exists(slug: str) -> bool:
    return Policy.objects.filter(slug=slug, current__isnull=False).exists()


def _governed(document: PolicyDocument | None) -> str:
    if document is None:
        return ""
    return "\n".join([*document.applies_to.endpoints, *document.applies_to.profiles])
