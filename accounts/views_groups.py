"""Groups: who is in them, who says so, and what they open."""

import uuid
from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import actions, changes, stepup
from accounts.door import fetch
from accounts.forms_people import ByEmailForm, GroupForm
from accounts.models import Change, Group, ScimRecord, User
from accounts.permissions import (
    can_administer,
    can_say_members,
    check_administer,
    check_say_members,
)
from accounts.session import person
from accounts.validation import add_errors
from accounts.views_people import ADMINISTRATION, check_sees
from broker.errors import Conflict, InvalidInput

MEMBERS = 100  # on one page


@never_cache
@require_safe
def groups(request: HttpRequest) -> HttpResponse:
    """All groups for those who see everything, else those that one owns."""
    user = person(request)
    active = Q(memberships__user__is_active=True)
    rows = (
        Group.objects.visible_to(user)
        .annotate(size=Count("memberships", filter=active, distinct=True))
        .prefetch_related("owners", "may_request__endpoint", "may_review__endpoint")
    )
    words = request.GET.get("q", "").replace("\x00", "").strip()[:100]
    if words:
        rows = rows.filter(Q(name__icontains=words) | Q(slug__icontains=words))
    context = {
        "rows": rows[:200],
        "words": words,
        "administers": can_administer(user),
        "belongs_to": ADMINISTRATION if user.sees_everything else "",
    }
    return render(request, "accounts/groups.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def group_new(request: HttpRequest) -> HttpResponse:
    """Add an empty group."""
    user = person(request)
    check_sees(user)
    check_administer(user)
    form, status = GroupForm(request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            try:
                row = actions.create_group(by=user, **form.cleaned_data)
            except InvalidInput as error:
                add_errors(form, error)
            else:
                return redirect("group", row.pk)
    context = {"form": form, "belongs_to": ADMINISTRATION}
    return render(request, "accounts/group_new.html", context, status=status)


def _fetch(request: HttpRequest, pk: uuid.UUID) -> Group:
    return fetch(Group.objects.visible_to(person(request)), pk)


@never_cache
@require_safe
def group(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One group."""
    return _page(request, _fetch(request, pk))


def _page(
    request: HttpRequest, row: Group, form: ByEmailForm | None = None, status: int = 200
) -> HttpResponse:
    user = person(request)
    words = request.GET.get("q", "").replace("\x00", "").strip()[:100]
    members = row.memberships.select_related("user__owner").order_by("user__full_name", "pk")
    if words:
        members = members.filter(
            Q(user__full_name__icontains=words) | Q(user__email__icontains=words)
        )
    context = {
        "group": row,
        "words": words,
        "members": members[:MEMBERS],
        "count": row.memberships.count(),
        "owners": row.owners.order_by("full_name"),
        "governed": ScimRecord.objects.filter(group=row, gone_at=None).exists(),
        "asks": row.may_request.filter(retired_at=None).select_related("endpoint"),
        "reviews": row.may_review.filter(retired_at=None).select_related("endpoint"),
        "waiting": Change.objects.visible_to(user)
        .waiting()
        .filter(about=row.pk)
        .select_related("proposed_by"),
        "opens": changes.rights_of(row),
        "administers": can_administer(user),
        "says_members": can_say_members(user, row),
        "form": form or _form(row, again=_again(request, row)),
        "belongs_to": ADMINISTRATION if user.sees_everything else "",
    }
    return render(request, "accounts/group.html", context, status=status)


def _form(
    row: Group, data: QueryDict | None = None, again: dict[str, Any] | None = None
) -> ByEmailForm:
    form = ByEmailForm(data, initial=again)
    form.fields["reason"].required = bool(changes.rights_of(row))
    return form


def _again(request: HttpRequest, row: Group) -> dict[str, Any]:
    """What was typed before a second factor was asked for."""
    for name in ("group-join", "group-owner"):
        typed = stepup.posted(request, reverse(name, args=[row.pk]))
        if typed is not None:
            return typed.dict()
    return {}


def _somebody(form: ByEmailForm) -> User | None:
    if not form.is_valid():
        return None
    email = User.objects.normalize_email(form.cleaned_data["email"])
    found = User.objects.active().filter(email=email).first()
    if found is None:
        form.add_error("email", "Nobody active has this e-mail address.")
    return found


@never_cache
@require_POST
def group_join(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Add a member; where the group opens something, that is a proposal."""
    row = _fetch(request, pk)
    check_say_members(person(request), row)
    return _add(request, row, "member")


def _add(request: HttpRequest, row: Group, role: str) -> HttpResponse:
    form = _form(row, request.POST)
    somebody = _somebody(form)
    if somebody is None:
        return _page(request, row, form, 400)
    try:
        change = changes.propose(
            by=person(request),
            kind="group_member",
            about=row,
            payload={"person": str(somebody.pk), "as": role},
            reason=form.cleaned_data["reason"],
            proofs=stepup.proofs(request),
        )
    except InvalidInput as error:
        add_errors(form, error, person="email", **{"as": "email"})
        return _page(request, row, form, 400)
    except Conflict as error:
        form.add_error(None, error.detail)
        return _page(request, row, form, 409)
    if change is None:
        messages.success(request, f"{somebody} is {_ROLES[role]} {row}.")
        return redirect("group", row.pk)
    return redirect("change", change.pk)


_ROLES = {"member": "in", "owner": "an owner of"}


@never_cache
@require_POST
def group_leave(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take somebody out of a group."""
    user, row = person(request), _fetch(request, pk)
    check_say_members(user, row)
    somebody = fetch(User.objects.filter(member_of=row), request.POST.get("person", ""))
    actions.remove_member(by=user, user=somebody, group=row)
    messages.success(request, f"{somebody} is no longer in {row}. What they held by it ends now.")
    return redirect("group", row.pk)


@never_cache
@require_POST
def group_owner(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Name an owner, which is a proposal where the group opens something; or take one away."""
    user, row = person(request), _fetch(request, pk)
    check_administer(user)
    if "drop" in request.POST:
        owner = fetch(User.objects.filter(owns_groups=row), request.POST["drop"])
        actions.drop_owner(by=user, group=row, user=owner)
        messages.success(request, f"{owner} is no longer an owner of {row}.")
        return redirect("group", row.pk)
    return _add(request, row, "owner")
