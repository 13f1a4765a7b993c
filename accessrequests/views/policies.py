"""The pages on which administrators write policies and auditors read them."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accessrequests import actions
from accessrequests.forms import PolicyForm
from accessrequests.models import Policy, PolicyVersion
from accessrequests.permissions import check_administer
from accessrequests.policy.document import PolicyDocument
from accessrequests.policy.reading import read, write
from accessrequests.policy_changes import PolicyChange
from accessrequests.replay import replay
from accounts import stepup
from accounts.models import Change, User
from accounts.session import person
from accounts.views_changes import differences
from broker.errors import Conflict, InvalidInput, NotFound

SHOWN = 50
BEGIN = """\
slug: new-policy
name: A name that people recognise
applies_to:
  profiles: []
steps:
  - name: Review
    reviewers:
      profile_reviewers: true
"""


def _found(user: User, slug: str) -> Policy:
    """The policy of this name. Raises NotFound for whoever may not read policies."""
    rows = Policy.objects.visible_to(user).select_related("current")
    row = rows.filter(slug=slug, current__isnull=False).first()
    if row is None:
        raise NotFound(kind="policy", id=slug)
    return row


def _text(version: PolicyVersion | None) -> str:
    return write([version.parsed()]) if version is not None else ""


def _waiting(row: Policy | None) -> Change | None:
    """The change of this policy that waits for a second administrator."""
    if row is None:
        return None
    return Change.objects.waiting().filter(kind=PolicyChange.name, about=row.pk).first()


@never_cache
@require_safe
def policies(request: HttpRequest) -> HttpResponse:
    """All policies, and what each governs."""
    user = person(request)
    if not user.sees_everything:
        raise NotFound
    rows = Policy.objects.filter(current__isnull=False).select_related("current")
    found = [(row, row.current.parsed()) for row in rows if row.current is not None]
    return render(
        request,
        "accessrequests/policies.html",
        {"rows": found, "administers": user.is_administrator},
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


@never_cache
@require_safe
def policy(request: HttpRequest, slug: str) -> HttpResponse:
    """One policy: its text, its history, and how two of its versions differ."""
    user = person(request)
    row = _found(user, slug)
    versions = list(row.versions.all()[:SHOWN])
    wanted = _number(request.GET.get("version", ""))
    shown = next((each for each in versions if each.number == wanted), row.current)
    if shown is None:
        raise NotFound(kind="policy", id=slug)
    # The one before it unless two were chosen.
    against = _number(request.GET.get("against", "")) or shown.number - 1
    other = row.versions.filter(number=against).first()
    return render(
        request,
        "accessrequests/policy.html",
        {
            "row": row,
            "document": shown.parsed(),
            "shown": shown,
            "other": other,
            "versions": versions,
            "text": _text(shown),
            "lines": differences(_text(other), _text(shown)) if other else [],
            "administers": user.is_administrator,
            "waiting": _waiting(row),
        },
    )


def _checked(form: PolicyForm, slug: str | None) -> PolicyDocument:
    """The one policy in the form's text. Raises InvalidInput by line and key."""
    documents = read(form.cleaned_data["text"])
    if len(documents) != 1:
        raise InvalidInput({"text": "Must be one policy."})
    if slug is not None and documents[0].slug != slug:
        raise InvalidInput({"slug": f"Must stay {slug}: requests and the record name it so."})
    if slug is None and Policy.objects.filter(slug=documents[0].slug).exists():
        raise InvalidInput({"slug": f"There is a policy {documents[0].slug} already."})
    return documents[0]


def _preview(by: User, form: PolicyForm, slug: str | None) -> dict[str, Any]:
    """What saving the form's text would change; writes nothing."""
    try:
        document = _checked(form, slug)
        actions.check_policy(by=by, document=document)
    except InvalidInput as error:
        return {"faults": error.errors}
    current = Policy.objects.filter(slug=document.slug).select_related("current").first()
    before = _text(current.current) if current else ""
    return {
        "document": document,
        "lines": differences(before, write([document])) if before else [],
        "same": bool(before)
        and before == write([document])
        and current is not None
        and current.retired_at is None,
        "waits": actions.widens(current, document),
        "replay": replay(document),
    }


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def policy_edit(request: HttpRequest, slug: str | None = None) -> HttpResponseBase:
    """Write a policy: the text, with what it would change beside it."""
    user = person(request)
    row = _found(user, slug) if slug is not None else None
    if not user.sees_everything:
        raise NotFound
    check_administer(user)
    context: dict[str, Any] = {"row": row, "waiting": _waiting(row)}
    status = 200
    if request.method == "POST":
        form = PolicyForm(request.POST)
        status = 400
        if form.is_valid():
            try:
                document = _checked(form, slug)
                change = actions.change_policy(
                    by=user,
                    document=document,
                    note=form.cleaned_data["note"],
                    proofs=stepup.proofs(request),
                )
            except InvalidInput as error:
                if "note" in error.errors:
                    form.add_error("note", error.errors.pop("note"))
                context["faults"] = error.errors
            except Conflict as error:
                context["faults"], status = {"policy": error.detail}, error.status
            else:
                said = "Saved."
                if row is not None and row.current == _found(user, row.slug).current:
                    said = "Nothing was changed: it says the same as before."
                return _done(request, change, said, document.slug)
    else:
        text = _text(row.current) if row is not None else BEGIN
        form = PolicyForm(stepup.posted(request, request.path), initial={"text": text})
    return render(
        request, "accessrequests/policy_edit.html", context | {"form": form}, status=status
    )


@never_cache
@require_POST
def policy_check(request: HttpRequest, slug: str | None = None) -> HttpResponse:
    """What saving the text as it stands would change. Writes nothing."""
    user = person(request)
    if not user.sees_everything:
        raise NotFound
    check_administer(user)
    row = _found(user, slug) if slug is not None else None
    form = PolicyForm(request.POST)
    context = _preview(user, form, slug) if form.is_valid() else {"faults": {"text": "Is empty."}}
    htmx = getattr(request, "htmx", False)
    page = "_policy_check" if htmx else "policy_edit"
    return render(request, f"accessrequests/{page}.html", context | {"form": form, "row": row})


@never_cache
@require_POST
def policy_retire(request: HttpRequest, slug: str) -> HttpResponse:
    """End a policy."""
    user = person(request)
    _found(user, slug)
    change = actions.end_policy(by=user, slug=slug, proofs=stepup.proofs(request))
    said = "Retired. What it governed takes one reviewer of the profile again."
    return _done(request, change, said, slug)


def _done(request: HttpRequest, change: Change | None, said: str, slug: str) -> HttpResponse:
    """To what came of it: the change that waits, or the policy as it is now."""
    if change is None:
        messages.success(request, said)
        return redirect("policy", slug=slug)
    messages.info(request, "It waits for a second administrator. Until then nothing is changed.")
    return redirect("change", pk=change.pk)
