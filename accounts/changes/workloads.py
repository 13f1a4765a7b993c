"""Changes of trusted issuers and of the rules by which workloads of theirs come in."""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.urls import reverse

from accounts import scopes
from accounts.changes.kinds import Kind, Line, Payload
from accounts.linked import are_linked
from accounts.models import TrustedIssuer, User, WorkloadRule
from accounts.scopes import Verb
from accounts.stepup import Action, Purpose
from accounts.workloads import actions
from accounts.workloads.actions import ISSUER_FIELDS, RULE_FIELDS, checked_rule, rule_said
from audit.templatetags.keyturn import and_list
from broker.errors import InvalidInput, NotFound

WORDS = {
    "slug": "Short name",
    "name": "Name",
    "issuer": "Issuer (iss)",
    "audience": "For (aud)",
    "jwks_uri": "Its keys are at",
}


def _only(payload: Mapping[str, Any], known: Iterable[str]) -> None:
    known = list(known)
    unknown = [key for key in payload if key not in known]
    if unknown:
        can = f"Can't be changed here. What can be: {', '.join(known)}."
        raise InvalidInput(dict.fromkeys(unknown, can))


class Issuer(Kind):
    """Another issuer is trusted, or one of those otherwise. `payload`: `slug`, `name`, `issuer`,
    `audience` and `jwks_uri`; of one that is there, `name`, `audience` and `jwks_uri`."""

    name = "trusted_issuer"
    words = "Trust an issuer of workloads"
    action = Action.ISSUER

    def find(self, about: Any, *, lock: bool) -> TrustedIssuer:
        rows = TrustedIssuer.objects.filter(pk=about, retired_at=None)
        row: TrustedIssuer | None = (rows.select_for_update(no_key=True) if lock else rows).first()
        if row is None:
            raise NotFound(kind="trustedissuer", id=str(about))
        return row

    def checked(self, row: TrustedIssuer | None, payload: Mapping[str, Any]) -> Payload:
        known = WORDS if row is None else ISSUER_FIELDS
        _only(payload, known)
        said = {name: str(payload.get(name, getattr(row, name, ""))).strip() for name in known}
        if row is None:
            actions.check_new_issuer(TrustedIssuer(**said))
        else:
            after = actions.changed_issuer(row, said)
            if all(getattr(after, name) == getattr(row, name) for name in known):
                raise InvalidInput({"name": "Nothing of it would be otherwise."})
        return said

    def part(self, row: TrustedIssuer | None, payload: Payload) -> str:
        return payload["slug"] if row is None else ""

    def label(self, row: TrustedIssuer | None, payload: Payload) -> str:
        return f"Trust {payload['name']}" if row is None else f"Change the issuer {row}"

    def path(self, row: TrustedIssuer | None) -> str:
        return reverse("workloads") if row is None else reverse("workload-issuer", args=[row.pk])

    def state(self, row: TrustedIssuer | None, payload: Payload) -> Any:
        if row is not None:
            return {name: getattr(row, name) for name in ISSUER_FIELDS}
        there = TrustedIssuer.objects.filter(issuer=payload["issuer"], retired_at=None)
        return {
            "trusted": there.exists(),
            "named": TrustedIssuer.objects.filter(slug=payload["slug"]).exists(),
        }

    def difference(self, row: TrustedIssuer | None, payload: Payload) -> list[Line]:
        before = {name: getattr(row, name, "") for name in payload}
        if row is None and not payload["jwks_uri"]:
            payload = payload | {"jwks_uri": "what its discovery document says"}
        return [
            Line(WORDS[name], before[name], text)
            for name, text in payload.items()
            if before[name] != text
        ]

    def widens(self, row: TrustedIssuer | None, payload: Payload) -> bool:
        return row is None or actions.widens_issuer(row, actions.changed_issuer(row, payload))

    def gains(self, person: User, row: TrustedIssuer | None, payload: Payload) -> bool:
        if row is None:
            return False
        rules = row.rules.filter(retired_at=None)
        return rules.filter(service_account__owner=person).exists()

    def apply(
        self, *, by: User, proposed_by: User | None, row: TrustedIssuer | None, payload: Payload
    ) -> None:
        if row is None:
            actions.trust_issuer(by=by, proposed_by=proposed_by, **payload)
        else:
            actions.change_issuer(by=by, proposed_by=proposed_by, issuer=row, **payload)


class Rule(Kind):
    """Another rule of an issuer, or one of those otherwise. `payload`: `issuer`, its id, of a new
    one; `name`, `service_account` and `endpoints` by their ids, `claims`, `verbs`, and `lifetime`
    in seconds. What isn't said of one that is there stays."""

    name = "workload_rule"
    words = "Let workloads in"
    action = Action.ISSUER

    def find(self, about: Any, *, lock: bool) -> WorkloadRule:
        rows = WorkloadRule.objects.select_related("issuer", "service_account")
        rows = rows.filter(pk=about, retired_at=None, issuer__retired_at=None)
        row: WorkloadRule | None = (
            rows.select_for_update(of=("self",), no_key=True) if lock else rows
        ).first()
        if row is None:
            raise NotFound(kind="workloadrule", id=str(about))
        return row

    def checked(self, row: WorkloadRule | None, payload: Mapping[str, Any]) -> Payload:
        _only(payload, RULE_FIELDS if row is not None else ("issuer", *RULE_FIELDS))
        before = {} if row is None else rule_said(row)
        said = before | dict(payload)
        rule = self._rule(row, said)
        after = rule_said(rule)
        if after == before:
            raise InvalidInput({"name": "Nothing of it would be otherwise."})
        return after if row is not None else after | {"issuer": str(rule.issuer_id)}

    def _rule(self, row: WorkloadRule | None, payload: Mapping[str, Any]) -> WorkloadRule:
        issuer = row.issuer if row is not None else _issuer(payload)
        return checked_rule(issuer, **fields_of(payload))

    def part(self, row: WorkloadRule | None, payload: Payload) -> str:
        return f"{payload['issuer']}:{payload['name']}"[:100] if row is None else ""

    def label(self, row: WorkloadRule | None, payload: Payload) -> str:
        if row is not None:
            return f"Change the rule {row} of {row.issuer}"
        return f"Let workloads of {_issuer(payload)} in as {_account(payload)}"

    def path(self, row: WorkloadRule | None) -> str:
        if row is None:
            return reverse("workloads")
        return reverse("workload-issuer", args=[row.issuer_id])

    def purpose(self, row: WorkloadRule | None, payload: Payload) -> Purpose:
        return Purpose(self.action, payload["issuer"] if row is None else str(row.pk))

    def state(self, row: WorkloadRule | None, payload: Payload) -> Any:
        return str(_issuer(payload).issuer) if row is None else rule_said(row)

    def difference(self, row: WorkloadRule | None, payload: Payload) -> list[Line]:
        after = in_words(self._rule(row, payload))
        before = {} if row is None else in_words(row)
        return [
            Line(what, before.get(what, ""), text)
            for what, text in after.items()
            if before.get(what, "") != text
        ]

    def widens(self, row: WorkloadRule | None, payload: Payload) -> bool:
        return row is None or actions.widens_rule(row, self._rule(row, payload))

    def gains(self, person: User, row: WorkloadRule | None, payload: Payload) -> bool:
        account = _account(payload)
        return account is not None and are_linked(person, account)

    def apply(
        self, *, by: User, proposed_by: User | None, row: WorkloadRule | None, payload: Payload
    ) -> None:
        fields = fields_of(payload)
        if row is None:
            issuer = _issuer(payload)
            actions.add_rule(by=by, proposed_by=proposed_by, issuer=issuer, **fields)
        else:
            actions.change_rule(by=by, proposed_by=proposed_by, rule=row, **fields)

    def concerned(self, row: WorkloadRule | None, payload: Payload) -> Iterable[User]:
        """Who answers for it."""
        account = _account(payload)
        return [account.owner] if account is not None and account.owner is not None else []


def fields_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What `checked_rule` takes, of a payload as it is stored. Raises InvalidInput."""
    try:
        return {
            "name": str(payload.get("name", "")),
            "service_account": _account(payload),
            "claims": payload.get("claims"),
            "verbs": [str(verb) for verb in payload.get("verbs", ())],
            "endpoints": [uuid.UUID(str(each)) for each in payload.get("endpoints", ())],
            "lifetime": dt.timedelta(seconds=int(payload.get("lifetime", 900))),
        }
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput({"name": "What a rule says isn't in its form."}) from None


def _issuer(payload: Mapping[str, Any]) -> TrustedIssuer:
    try:
        rows = TrustedIssuer.objects.filter(pk=uuid.UUID(str(payload.get("issuer"))))
    except ValueError:
        rows = TrustedIssuer.objects.none()
    row: TrustedIssuer | None = rows.filter(retired_at=None).first()
    if row is None:
        raise InvalidInput({"issuer": "Must be an issuer that is trusted."})
    return row


def _account(payload: Mapping[str, Any]) -> User | None:
    try:
        key = uuid.UUID(str(payload.get("service_account")))
    except ValueError:
        return None
    return User.objects.select_related("owner").filter(pk=key).first()


def in_words(rule: WorkloadRule) -> dict[str, str]:
    """What a rule says, to be read."""
    slugs = scopes.endpoints_seen_by(rule.service_account)
    named = [slugs.get(each, str(each)) for each in rule.endpoints]
    account = rule.service_account
    return {
        "Name": rule.name,
        "Whose token says": "\n".join(claims_in_words(rule.claims)),
        "Acts as": f"{account} ({account.email}), a service account of {account.owner}",
        "To": and_list([Verb(verb).label for verb in rule.verbs]),
        "At": ", ".join(named) or "every endpoint that it sees",
        "For": f"{rule.lifetime.total_seconds() / 60:g} minutes each time",
    }


def claims_in_words(claims: Mapping[str, list[str]]) -> list[str]:
    """A line for each claim."""
    return [f"{name} is {' or '.join(patterns)}" for name, patterns in claims.items()]
