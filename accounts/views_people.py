"""People and service accounts, as administrators manage them and auditors read them."""

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import actions, changes, factors, invitations, people, sessions, stepup
from accounts.door import fetch
from accounts.forms_people import ExtendForm, PersonForm, RolesForm, ServiceForm, WhyForm, end_of
from accounts.models import AgentConsent, Change, User
from accounts.permissions import can_administer, can_answer_for, check_administer
from accounts.session import person as signed_in
from accounts.validation import add_errors
from audit import clock
from broker.errors import Conflict, InvalidInput, NotFound

ADMINISTRATION = "/people/"  # where these pages belong in the navigation
ROLES, WHY = "roles_%s", "why_%s"  # ids of two forms' fields on one page


def check_sees(user: User) -> None:
    """Raise NotFound for whoever neither administers nor audits: to them there is no such page."""
    if not user.sees_everything:
        raise NotFound


def _proved(request: HttpRequest, about: str = "") -> None:
    """Ask for the second factor before a form is filled in, rather than after."""
    stepup.proofs(request).check(stepup.Purpose(stepup.Action.PEOPLE, about))


@never_cache
@require_safe
def people_list(request: HttpRequest) -> HttpResponse:
    """Everybody, by name."""
    return _list(request, services=False)


@never_cache
@require_safe
def services(request: HttpRequest) -> HttpResponse:
    """Service accounts: everybody's for administrators and auditors, else one's own."""
    return _list(request, services=True)


def _list(request: HttpRequest, *, services: bool) -> HttpResponse:
    user = signed_in(request)
    if not services:
        check_sees(user)
    filters = people.Filters.parse(request.GET)
    rows = User.objects.visible_to(user).filter(owner__isnull=not services)
    found, after = people.find(rows, filters)
    context = {
        "rows": found,
        "services": services,
        "filters": filters,
        "states": {
            key: label
            for key, label in people.STATES.items()
            if not services or key in {"active", "deactivated"}
        },
        "older": f"?{filters.query(after=after)}" if after else "",
        "newer": f"?{filters.query()}" if filters.after else "",
        "here_url": reverse("services" if services else "people"),
        "administers": can_administer(user),
        "belongs_to": ADMINISTRATION if user.sees_everything else "",
        "now": clock.now(),
    }
    part = getattr(request, "htmx", False) and request.htmx.target == "results"  # type: ignore[attr-defined]
    page = "accounts/_people.html" if part else "accounts/people.html"
    return render(request, page, context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("link", "context")
def person_new(request: HttpRequest) -> HttpResponse:
    """Add a person; the answer has the link that lets them in."""
    user = signed_in(request)
    check_sees(user)
    check_administer(user)
    _proved(request)
    form, status = PersonForm(request.POST or None), 200
    if request.method == "POST":
        status, proofs = 400, stepup.proofs(request)
        if form.is_valid():
            try:
                made, link = invitations.invite_new(by=user, proofs=proofs, **form.cleaned_data)
            except InvalidInput as error:
                add_errors(form, error)
            else:
                return _invited(request, made, link)
    context = {"form": form, "belongs_to": ADMINISTRATION}
    return render(request, "accounts/person_new.html", context, status=status)


def _invited(request: HttpRequest, person: User, link: str) -> HttpResponse:
    context = {"person": person, "link": link, "belongs_to": ADMINISTRATION}
    return render(request, "accounts/invited.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def service_new(request: HttpRequest) -> HttpResponse:
    """Add a service account."""
    user = signed_in(request)
    check_sees(user)
    check_administer(user)
    _proved(request)
    form, status = ServiceForm(request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            data = form.cleaned_data
            email = User.objects.normalize_email(data["owner"])
            owner = User.objects.active().filter(email=email).first()
            if owner is None:
                form.add_error("owner", "Nobody active has this e-mail address.")
            else:
                try:
                    made = actions.create_service(
                        by=user,
                        email=data["email"],
                        full_name=data["full_name"],
                        owner=owner,
                        ends_at=end_of(data["ends_on"]),
                        proofs=stepup.proofs(request),
                    )
                except InvalidInput as error:
                    add_errors(form, error, ends_at="ends_on")
                else:
                    messages.success(request, f"{made} is there. It is in no group yet.")
                    return redirect("person", made.pk)
    context = {"form": form, "belongs_to": ADMINISTRATION}
    return render(request, "accounts/service_new.html", context, status=status)


def _fetch(request: HttpRequest, pk: uuid.UUID) -> User:
    return fetch(User.objects.visible_to(signed_in(request)).select_related("owner", "manager"), pk)


@never_cache
@require_safe
def person(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One person or service account: what they are, are in, and how they get in."""
    user, row = signed_in(request), _fetch(request, pk)
    return _page(request, user, row)


def _page(
    request: HttpRequest, user: User, row: User, *, status: int = 200, **forms: Any
) -> HttpResponse:
    ends = {"ends_on": row.ends_at.date()} if row.ends_at else {}
    context = {
        "person": row,
        "groups": row.member_of.order_by("name"),
        "owned": row.owns_groups.order_by("name"),
        "services": row.service_accounts.order_by("full_name"),
        "held": factors.held_by(row),
        "needs_factor": "" if row.is_service else factors.needed_because(row),
        "waiting": Change.objects.visible_to(user)
        .waiting()
        .filter(about=row.pk)
        .select_related("proposed_by"),
        "sessions": len(sessions.opened(row)) if row.is_active else 0,
        "acts_for": AgentConsent.objects.standing().filter(agent=row).select_related("person"),
        "tokens": row.api_tokens.filter(revoked_at=None, expires_at__gt=clock.now()),
        "invitation": row.invitations.filter(used_at=None, expires_at__gt=clock.now()).first(),
        "may_be_invited": invitations.may_be_invited(row),
        "administers": can_administer(user) and row.pk != user.pk,
        "answers": row.is_service and can_answer_for(user, row),
        "form": ExtendForm(initial=ends),
        "roles": RolesForm(initial=_roles(row), auto_id=ROLES),
        "why": WhyForm(auto_id=WHY),
        "belongs_to": ADMINISTRATION if user.sees_everything else "",
    }
    return render(request, "accounts/person.html", context | forms, status=status)


def _roles(row: User) -> dict[str, bool]:
    return {"administrator": row.is_administrator, "auditor": row.is_auditor}


@never_cache
@require_POST
def person_deactivate(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Close an account; the page that follows says what is gone."""
    row = _fetch(request, pk)
    actions.deactivate_user(by=signed_in(request), user=row, proofs=stepup.proofs(request))
    return redirect("person-access", row.pk)


@never_cache
@require_POST
def person_reactivate(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Open an account again, with nothing in it."""
    row = _fetch(request, pk)
    actions.reactivate_user(by=signed_in(request), user=row, proofs=stepup.proofs(request))
    messages.success(request, f"{row} is active again, in no group and without a password.")
    return redirect("person", row.pk)


@never_cache
@require_POST
@sensitive_variables("link")
def person_invite(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """A new link for somebody who hasn't signed in yet."""
    row = _fetch(request, pk)
    link = invitations.invite(by=signed_in(request), person=row, proofs=stepup.proofs(request))
    return _invited(request, row, link)


@never_cache
@require_POST
def person_sign_out(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """End all of somebody's sessions."""
    row = _fetch(request, pk)
    ended = actions.end_sessions(by=signed_in(request), person=row)
    messages.success(request, f"{row} is signed out everywhere ({ended}).")
    return redirect("person", row.pk)


@never_cache
@require_POST
def service_extend(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Let a service account go on."""
    user, row = signed_in(request), _fetch(request, pk)
    form = ExtendForm(request.POST)
    if form.is_valid():
        try:
            actions.extend_service(
                by=user,
                service=row,
                ends_at=end_of(form.cleaned_data["ends_on"]),
                proofs=stepup.proofs(request),
            )
        except InvalidInput as error:
            add_errors(form, error, ends_at="ends_on")
        else:
            messages.success(request, f"{row} goes on.")
            return redirect("person", row.pk)
    return _page(request, user, row, form=form, status=400)


@never_cache
@require_POST
def person_roles(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Propose that somebody be administrator or auditor; taking that away is done at once."""
    row, form = _fetch(request, pk), RolesForm(request.POST, auto_id=ROLES)
    check_administer(signed_in(request))
    if not form.is_valid():
        return _page(request, signed_in(request), row, roles=form, status=400)
    before, wanted = _roles(row), form.cleaned_data
    payload = {role: wanted[role] for role in before if wanted[role] != before[role]}
    if not payload:
        messages.info(request, "Nothing was changed.")
        return redirect("person", row.pk)
    return _propose(request, row, "role", payload, roles=form)


@never_cache
@require_POST
def person_reset(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Propose that somebody's lost second factors be taken away."""
    row, form = _fetch(request, pk), WhyForm(request.POST, auto_id=WHY)
    check_administer(signed_in(request))
    if not form.is_valid():
        return _page(request, signed_in(request), row, why=form, status=400)
    return _propose(request, row, "factor_reset", {}, why=form)


def _propose(
    request: HttpRequest, row: User, kind: str, payload: dict[str, Any], **named: Any
) -> HttpResponse:
    user, [form] = signed_in(request), named.values()
    status = 400
    try:
        change = changes.propose(
            by=user,
            kind=kind,
            about=row,
            payload=payload,
            reason=form.cleaned_data["reason"],
            proofs=stepup.proofs(request),
        )
    except InvalidInput as error:
        add_errors(form, error)
    except Conflict as error:
        form.add_error(None, error.detail)
        status = 409
    else:
        if change is not None:
            return redirect("change", change.pk)
        messages.success(request, f"The roles of {row} are changed.")
        return redirect("person", row.pk)
    return _page(request, user, row, status=status, **named)
