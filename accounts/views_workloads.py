"""Workloads: whose JWTs are taken, and which of them act as which service account."""

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import changes, scopes, stepup
from accounts.changes.workloads import claims_in_words
from accounts.door import fetch
from accounts.forms_workloads import ChangeIssuerForm, IssuerForm, RuleForm
from accounts.models import Change, TrustedIssuer, User, WorkloadRule
from accounts.permissions import can_administer, check_administer
from accounts.scopes import Verb
from accounts.session import person
from accounts.stepup import Action, Purpose
from accounts.validation import add_errors
from accounts.views_people import ADMINISTRATION, check_sees
from accounts.workloads import actions
from audit.templatetags.keyturn import and_list
from broker.errors import Conflict, InvalidInput

SHOWN = 200  # issuers on one page


@never_cache
@require_safe
def workloads(request: HttpRequest) -> HttpResponse:
    """Issuers that are trusted, and the rules of each."""
    user = person(request)
    check_sees(user)
    rules = WorkloadRule.objects.filter(retired_at=None).select_related("service_account")
    rows = TrustedIssuer.objects.visible_to(user).filter(retired_at=None)
    context = {
        "rows": rows.prefetch_related(Prefetch("rules", rules, to_attr="standing"))[:SHOWN],
        "waiting": _waiting(user),
        "administers": can_administer(user),
        "belongs_to": ADMINISTRATION,
    }
    return render(request, "accounts/workloads.html", context)


def _waiting(user: User, issuer: TrustedIssuer | None = None) -> Any:
    kinds = Q(kind="trusted_issuer") | Q(kind="workload_rule")
    rows = Change.objects.visible_to(user).waiting().filter(kinds).select_related("proposed_by")
    if issuer is None:
        return rows
    about = [issuer.pk, *issuer.rules.values_list("pk", flat=True)]
    return rows.filter(Q(about__in=about) | Q(payload__issuer=str(issuer.pk)))


def _administering(request: HttpRequest) -> User:
    user = person(request)
    check_sees(user)
    check_administer(user)
    return user


def _ask(request: HttpRequest, about: str = "") -> None:
    """Ask for the second factor before a form is filled in, rather than after."""
    stepup.proofs(request).check(Purpose(Action.ISSUER, about))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def issuer_new(request: HttpRequest) -> HttpResponse:
    """Propose to trust another issuer."""
    _administering(request)
    _ask(request)
    form = IssuerForm(request.POST or None)
    return _form_page(request, form, "trusted_issuer", None, title="Trust another issuer")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def issuer_change(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Change what an issuer is called, or propose another audience or other keys."""
    row = _issuer(request, pk)
    _administering(request)
    _ask(request, str(row.pk))
    form = ChangeIssuerForm(request.POST or None, initial=ChangeIssuerForm.said(row))
    return _form_page(request, form, "trusted_issuer", row, issuer=row, title=f"Change {row}")


def _issuer(request: HttpRequest, pk: uuid.UUID) -> TrustedIssuer:
    return fetch(TrustedIssuer.objects.visible_to(person(request)), pk)


def _rule(request: HttpRequest, pk: uuid.UUID) -> WorkloadRule:
    rows = WorkloadRule.objects.select_related("issuer", "service_account")
    return fetch(rows.visible_to(person(request)), pk)


@never_cache
@require_safe
def issuer(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One issuer, and its rules."""
    user, row = person(request), _issuer(request, pk)
    rules = row.rules.filter(retired_at=None).select_related("service_account__owner")
    context = {
        "issuer": row,
        "rules": [_said(rule) for rule in rules],
        "retired": row.rules.exclude(retired_at=None).order_by("-retired_at")[:20],
        "waiting": _waiting(user, row),
        "administers": can_administer(user) and row.retired_at is None,
        "belongs_to": ADMINISTRATION,
    }
    return render(request, "accounts/workload_issuer.html", context)


def _said(rule: WorkloadRule) -> dict[str, Any]:
    slugs = scopes.endpoints_seen_by(rule.service_account)
    return {
        "rule": rule,
        "claims": claims_in_words(rule.claims),
        "verbs": and_list([Verb(verb).label for verb in rule.verbs]),
        "endpoints": [slugs.get(each, str(each)) for each in rule.endpoints],
        "minutes": int(rule.lifetime.total_seconds() / 60),
    }


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def rule_new(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Propose another rule of an issuer."""
    row = _issuer(request, pk)
    _administering(request)
    _ask(request, str(row.pk))
    form = RuleForm(request.POST or None)
    title = f"Let workloads of {row} in"
    return _form_page(request, form, "workload_rule", None, issuer=row, title=title)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def rule(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Narrow a rule, or propose what lets anybody do more."""
    row = _rule(request, pk)
    _administering(request)
    _ask(request, str(row.pk))
    slugs = dict(scopes.endpoints_seen_by(row.service_account))
    form = RuleForm(request.POST or None, initial=RuleForm.said(row, slugs))
    title = f"Change {row}"
    return _form_page(request, form, "workload_rule", row, issuer=row.issuer, title=title)


def _form_page(
    request: HttpRequest,
    form: forms.Form,
    kind: str,
    row: TrustedIssuer | WorkloadRule | None,
    *,
    title: str,
    issuer: TrustedIssuer | None = None,
) -> HttpResponse:
    back = reverse("workloads") if issuer is None else reverse("workload-issuer", args=[issuer.pk])
    status = 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                change = changes.propose(
                    by=person(request),
                    kind=kind,
                    about=row,
                    payload=_payload(form, row, issuer),
                    reason=form.cleaned_data["reason"],
                    proofs=stepup.proofs(request),
                )
            except InvalidInput as error:
                add_errors(form, error, lifetime="minutes")
            except ValidationError as error:
                form.add_error(None, error)
            except Conflict as error:
                form.add_error(None, error.detail)
                status = 409
            else:
                if change is not None:
                    return redirect("change", change.pk)
                messages.success(request, "Changed. It lets nobody do more, so it is done.")
                return redirect(back)
    context = {"form": form, "title": title, "back": back, "issuer": issuer}
    context |= {"new": row is None, "belongs_to": ADMINISTRATION}
    return render(request, "accounts/workload_form.html", context, status=status)


def _payload(
    form: forms.Form, row: TrustedIssuer | WorkloadRule | None, issuer: TrustedIssuer | None
) -> dict[str, Any]:
    if not isinstance(form, RuleForm):
        return {name: text for name, text in form.cleaned_data.items() if name != "reason"}
    email = User.objects.normalize_email(form.cleaned_data["service_account"])
    account = User.objects.active().filter(email=email, owner__isnull=False).first()
    if account is None:
        raise InvalidInput({"service_account": "No service account has this e-mail address."})
    said = form.payload(dict(scopes.endpoints_seen_by(account)))
    of = {} if row is not None or issuer is None else {"issuer": str(issuer.pk)}
    return said | of | {"service_account": str(account.pk)}


@never_cache
@require_POST
def issuer_retire(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take nothing of an issuer any more."""
    row = _issuer(request, pk)
    actions.retire_issuer(by=_administering(request), issuer=row, proofs=stepup.proofs(request))
    messages.success(request, f"{row} is trusted no more, and what its workloads held ends now.")
    return redirect("workload-issuer", row.pk)


@never_cache
@require_POST
def rule_retire(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Let nobody in by a rule any more."""
    row = _rule(request, pk)
    actions.retire_rule(by=_administering(request), rule=row, proofs=stepup.proofs(request))
    messages.success(request, f"{row} lets nobody in any more, and what it gave ends now.")
    return redirect("workload-issuer", row.issuer_id)
