"""Verbs on trusted issuers and the rules by which workloads of theirs come in.

What lets anybody do more takes two administrators (accounts.changes); taking away takes one.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from accounts import scopes
from accounts.actions import revoke_token
from accounts.linked import check_second
from accounts.models import ApiToken, TrustedIssuer, User, WorkloadRule
from accounts.models.workloads import LONGEST
from accounts.permissions import check_administer
from accounts.published import safe_url
from accounts.scopes import BY_ITSELF
from accounts.stepup import NONE, Action, Proofs, Purpose
from accounts.validation import messages
from accounts.workloads.claims import checked
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import InvalidInput

SHORTEST = dt.timedelta(minutes=1)
ISSUER_FIELDS = ("name", "audience", "jwks_uri")  # that change; another `iss` is another issuer
RULE_FIELDS = ("name", "service_account", "claims", "verbs", "endpoints", "lifetime")


def _check_issuer(row: TrustedIssuer) -> None:
    errors = {}
    try:
        row.clean_fields(exclude={"created_at", "retired_at"})
    except ValidationError as error:
        errors = messages(error)
    for name in ("issuer", "jwks_uri"):
        url = getattr(row, name)
        plain = url.isascii() and url.isprintable() and not set(url) & set(" \\?#@")
        if (url or name == "issuer") and not (plain and safe_url(url)):
            errors[name] = "Must be an https URL" + (
                ", exactly as `iss` of its tokens has it." if name == "issuer" else "."
            )
    for name in ("name", "audience"):
        text = getattr(row, name)
        if not text.strip() or not text.isprintable():
            errors[name] = "Must be one line of text."
    if errors:
        raise InvalidInput(errors)


@transaction.atomic
def trust_issuer(
    *,
    by: User | None,
    proposed_by: User | None = None,
    slug: str,
    name: str,
    issuer: str,
    audience: str,
    jwks_uri: str = "",
) -> TrustedIssuer:
    """Take JWTs of this issuer from now on, by rules that are still to be added.

    Raises InvalidInput by field, and SecondPerson for one person alone.
    """
    check_administer(by)
    check_second(by, proposed_by, wider=True)
    row = TrustedIssuer(slug=slug, name=name, issuer=issuer, audience=audience, jwks_uri=jwks_uri)
    check_new_issuer(row)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise InvalidInput({"issuer": "Is trusted already."}) from None
    row.refresh_from_db()
    record(Event.ISSUER_TRUSTED, by=by, about=row, **_with(proposed_by), **_said(row))
    return row


def check_new_issuer(row: TrustedIssuer) -> None:
    """Raise InvalidInput, by field, unless this can be trusted."""
    _check_issuer(row)
    if TrustedIssuer.objects.filter(slug=row.slug).exists():
        raise InvalidInput({"slug": "There is one of this name, or was."})
    if TrustedIssuer.objects.filter(issuer=row.issuer, retired_at=None).exists():
        raise InvalidInput({"issuer": "Is trusted already."})


def changed_issuer(row: TrustedIssuer, fields: Mapping[str, str]) -> TrustedIssuer:
    """What the issuer would be with these fields. Raises InvalidInput."""
    known = {name: fields.get(name, getattr(row, name)) for name in ISSUER_FIELDS}
    after = TrustedIssuer(pk=row.pk, slug=row.slug, issuer=row.issuer, **known)
    _check_issuer(after)
    return after


@transaction.atomic
def change_issuer(
    *, by: User | None, proposed_by: User | None = None, issuer: TrustedIssuer, **fields: str
) -> bool:
    """Change its name, audience or where its keys are; whether that is news. Tokens that were
    given for its JWTs end, unless only the name changes.

    Raises InvalidInput, and SecondPerson for one person alone.
    """
    check_administer(by)
    row = _lock(issuer.pk)
    after = changed_issuer(row, fields)
    before = {name: getattr(row, name) for name in ISSUER_FIELDS}
    news = {name: getattr(after, name) for name in ISSUER_FIELDS} != before
    if not news:
        return False
    check_second(by, proposed_by, wider=widens_issuer(row, after))
    for name in ISSUER_FIELDS:
        setattr(row, name, getattr(after, name))
    row.save(update_fields=ISSUER_FIELDS)
    ended = 0
    if widens_issuer(row, TrustedIssuer(**before)):
        ended = _end_tokens(by, ApiToken.objects.filter(rule__issuer=row))
    record(
        Event.ISSUER_CHANGED,
        by=by,
        about=row,
        before=before,
        tokens_ended=ended,
        **_with(proposed_by),
        **_said(row),
    )
    return True


def widens_issuer(row: TrustedIssuer, after: TrustedIssuer) -> bool:
    """Whether tokens would be taken that aren't now."""
    return (row.audience, row.jwks_uri) != (after.audience, after.jwks_uri)


@transaction.atomic
def retire_issuer(*, by: User | None, issuer: TrustedIssuer, proofs: Proofs = NONE) -> bool:
    """Take nothing of this issuer any more; whether that is news. What was given for its JWTs
    ends now. Raises Forbidden and StepUpNeeded."""
    _check_may_retire(by, issuer, proofs)
    row = _lock(issuer.pk)
    if row.retired_at is not None:
        return False
    row.retired_at = clock.now()
    row.save(update_fields=["retired_at"])
    issuer.retired_at = row.retired_at
    ended = _end_tokens(by, ApiToken.objects.filter(rule__issuer=row))
    record(Event.ISSUER_RETIRED, by=by, about=row, slug=row.slug, tokens_ended=ended)
    return True


def _check_may_retire(by: User | None, row: TrustedIssuer | WorkloadRule, proofs: Proofs) -> None:
    check_administer(by)
    if by is not None:
        proofs.check(Purpose(Action.ISSUER, str(row.pk)))


def checked_rule(
    issuer: TrustedIssuer,
    *,
    name: str,
    service_account: User | None,
    claims: Any,
    verbs: Iterable[str],
    endpoints: Iterable[uuid.UUID] = (),
    lifetime: dt.timedelta = dt.timedelta(minutes=15),
) -> WorkloadRule:
    """A rule of this issuer as it could be stored. Raises InvalidInput by field."""
    errors = {}
    name, asked = name.strip(), set(verbs)
    endpoints = sorted(set(endpoints))
    if not 1 <= len(name) <= 100 or not name.isprintable():
        errors["name"] = "Must be one line of at most 100 characters."
    if service_account is None or not service_account.is_service or not service_account.is_active:
        errors["service_account"] = "Must be a service account that is active."
    elif not set(endpoints) <= scopes.endpoints_seen_by(service_account).keys():
        errors["endpoints"] = f"Must be endpoints that {service_account} sees; none for all."
    if not asked or not asked <= set(BY_ITSELF):
        errors["verbs"] = f"Must be some of {', '.join(BY_ITSELF)}."
    if not SHORTEST <= lifetime <= LONGEST:
        errors["lifetime"] = "Must be from 1 to 60 minutes."
    wanted = {}
    try:
        wanted = checked(issuer.issuer, claims)
    except InvalidInput as error:
        errors |= error.errors
    if errors:
        raise InvalidInput(errors)
    return WorkloadRule(
        issuer=issuer,
        name=name,
        service_account=service_account,
        claims=wanted,
        verbs=[verb.value for verb in BY_ITSELF if verb in asked],
        endpoints=endpoints,
        lifetime=lifetime,
    )


@transaction.atomic
def add_rule(
    *, by: User | None, proposed_by: User | None = None, issuer: TrustedIssuer, **fields: Any
) -> WorkloadRule:
    """Let workloads whose tokens fit act as a service account. Fields as of `checked_rule`.

    Raises InvalidInput by field, and SecondPerson for one person alone.
    """
    check_administer(by)
    check_second(by, proposed_by, wider=True)
    issuer = _lock(issuer.pk)
    if issuer.retired_at is not None:
        raise InvalidInput({"issuer": "Is retired."})
    row = checked_rule(issuer, **fields)
    row.save(force_insert=True)
    row.refresh_from_db()
    record(
        Event.RULE_ADDED,
        by=by,
        about=row,
        related=(issuer, row.service_account),
        **_with(proposed_by),
        **rule_said(row),
    )
    return row


@transaction.atomic
def change_rule(
    *, by: User | None, proposed_by: User | None = None, rule: WorkloadRule, **fields: Any
) -> bool:
    """Change a rule; whether that is news. Tokens that were given by it end, unless only the name
    changes. Raises as `add_rule` does."""
    check_administer(by)
    issuer = _lock(rule.issuer_id)
    row = WorkloadRule.objects.select_related("issuer", "service_account").get(pk=rule.pk)
    if issuer.retired_at is not None or row.retired_at is not None:
        raise InvalidInput({"name": "Is retired."})
    now = {name: getattr(row, name) for name in RULE_FIELDS}
    after = checked_rule(row.issuer, **now | fields)
    before = rule_said(row)
    if rule_said(after) == before:
        return False
    check_second(by, proposed_by, wider=widens_rule(row, after))
    for name in RULE_FIELDS:
        setattr(row, name, getattr(after, name))
    row.save(update_fields=RULE_FIELDS)
    ended = 0
    if {**rule_said(row), "name": ""} != {**before, "name": ""}:
        ended = _end_tokens(by, ApiToken.objects.filter(rule=row))
    record(
        Event.RULE_CHANGED,
        by=by,
        about=row,
        related=(issuer, row.service_account),
        before=before,
        tokens_ended=ended,
        **_with(proposed_by),
        **rule_said(row),
    )
    return True


def widens_rule(row: WorkloadRule, after: WorkloadRule) -> bool:
    """Whether anybody could come by it who can't now, or as somebody else, for more or longer."""
    claims = row.claims.items()
    return not (
        row.service_account_id == after.service_account_id
        and all(set(after.claims.get(name, [None])) <= set(values) for name, values in claims)
        and set(after.verbs) <= set(row.verbs)
        and (not row.endpoints or (after.endpoints and set(after.endpoints) <= set(row.endpoints)))
        and after.lifetime <= row.lifetime
    )


@transaction.atomic
def retire_rule(*, by: User | None, rule: WorkloadRule, proofs: Proofs = NONE) -> bool:
    """Let nobody in by this rule any more; whether that is news. What was given by it ends now.
    Raises Forbidden and StepUpNeeded."""
    _check_may_retire(by, rule, proofs)
    issuer = _lock(rule.issuer_id)
    now = clock.now()
    if not WorkloadRule.objects.filter(pk=rule.pk, retired_at=None).update(retired_at=now):
        return False
    rule.retired_at = now
    ended = _end_tokens(by, ApiToken.objects.filter(rule=rule))
    record(
        Event.RULE_RETIRED,
        by=by,
        about=rule,
        related=(issuer, rule.service_account),
        issuer=issuer.slug,
        tokens_ended=ended,
    )
    return True


def _lock(pk: uuid.UUID) -> TrustedIssuer:
    """The issuer, and by it its rules: an exchange under way is over first."""
    found: TrustedIssuer = TrustedIssuer.objects.select_for_update(no_key=True).get(pk=pk)
    return found


def _end_tokens(by: User | None, rows: QuerySet[ApiToken]) -> int:
    live = rows.filter(revoked_at=None, expires_at__gt=clock.now()).select_related("owner")
    for token in (found := list(live)):
        revoke_token(by=by, token=token)
    return len(found)


def _with(proposed_by: User | None) -> dict[str, Any]:
    return {} if proposed_by is None else {"proposed_by": str(proposed_by)}


def _said(row: TrustedIssuer) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("slug", "name", "issuer", "audience", "jwks_uri")}


def rule_said(row: WorkloadRule) -> dict[str, Any]:
    """A rule as JSON, as the record and a change keep it."""
    return {
        "name": row.name,
        "service_account": str(row.service_account_id),
        "claims": row.claims,
        "verbs": list(row.verbs),
        "endpoints": [str(each) for each in row.endpoints],
        "lifetime": int(row.lifetime.total_seconds()),
    }
