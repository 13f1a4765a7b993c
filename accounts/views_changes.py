"""Changes that wait for a second administrator, and what became of those before."""

import difflib
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts import changes, stepup
from accounts.changes.deciding import TEXT
from accounts.door import fetch
from accounts.models import Change, User
from accounts.session import person
from accounts.standing import check_standing
from accounts.stepup import Action, Purpose
from audit import clock
from broker.errors import InvalidInput, KeyturnError, NotFound

SHOWN = 25


class NoteForm(forms.Form):
    """What whoever decides has to say about it."""

    note = forms.CharField(
        label="Note",
        required=False,
        strip=True,
        help_text="Needed to reject. Whoever proposed it reads it, and it stays on record.",
        widget=forms.Textarea(attrs={"class": "form-control", "rows": 2, "maxlength": TEXT}),
    )


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """What changed from one text to the other, with three lines around: (`+`, `-`, `…` for what
    is left out, or blank; line)."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm=""))
    return [("…", "") if line[0] == "@" else (line[0].strip(), line[1:]) for line in lines[2:]]


def _read(lines: list[dict[str, str]]) -> list[dict[str, Any]]:
    """A change's difference as the page shows it: long texts line by line."""
    return [
        line
        | {
            "lines": differences(line["before"], line["after"])
            if line["before"].count("\n") + line["after"].count("\n") > 8
            else None
        }
        for line in lines
    ]


def _see(user: User) -> None:
    # Whoever proposed one sees theirs by its address; the list is for those who see everything.
    if not user.sees_everything and not Change.objects.visible_to(user).exists():
        raise NotFound


@never_cache
@require_safe
def change_list(request: HttpRequest) -> HttpResponse:
    """Those that wait, with who may decide them; and those that are over."""
    user = person(request)
    _see(user)
    rows = Change.objects.visible_to(user).select_related("proposed_by", "decided_by")
    now = clock.now()
    waiting = list(rows.waiting().order_by("expires_at"))
    over = rows.exclude(state=Change.State.PENDING, expires_at__gt=now)
    page = Paginator(over, SHOWN).get_page(request.GET.get("page"))
    return render(
        request,
        "accounts/changes.html",
        {
            "waiting": [(row, _whom(row, user)) for row in waiting],
            "over": [(row, _word(row.state_at(now))) for row in page],
            "page": page,
        },
    )


def _whom(change: Change, user: User) -> dict[str, Any]:
    who = changes.deciders(change)
    return {"mine": user in who, "people": [each for each in who if each != user]}


def _word(state: Change.State) -> dict[str, str]:
    """Its state as an icon, a colour and a word."""
    return {
        Change.State.PENDING: {"kind": "wait", "icon": "hourglass", "word": "Waits"},
        Change.State.APPLIED: {"kind": "good", "icon": "circle-check", "word": "Done"},
        Change.State.REJECTED: {"kind": "bad", "icon": "circle-x", "word": "Rejected"},
        Change.State.WITHDRAWN: {"kind": "", "icon": "circle-dashed", "word": "Withdrawn"},
        Change.State.EXPIRED: {"kind": "", "icon": "hourglass", "word": "Expired"},
    }[state]


def _about(change: Change) -> str:
    """The page of what it changes, if there is one."""
    kind = changes.kind_of(change.kind)
    try:
        row = kind.find(change.about, lock=False) if change.about is not None else None
    except NotFound:
        return ""
    return kind.path(row)


def _page(
    request: HttpRequest, change: Change, form: NoteForm, *, status: int = 200
) -> HttpResponse:
    user = person(request)
    state = change.state_at(clock.now())
    waits = state == Change.State.PENDING
    stale = waits and changes.stale(change)
    refusal = ""
    if waits:
        try:
            changes.check_decide(user, change)
        except KeyturnError as found:
            refusal = found.detail
    purpose = Purpose(Action.CHANGE, str(change.pk))
    context = {
        "change": change,
        "kind": changes.kind_of(change.kind),
        "difference": _read(change.difference),
        "state": state,
        "word": _word(state),
        "waits": waits,
        "stale": stale,
        "refusal": refusal,
        "deciders": changes.deciders(change) if waits else [],
        "mine": change.proposed_by_id == user.pk,
        "fresh": stepup.proofs(request).fresh(purpose),
        "form": form,
        "about_path": _about(change),
    }
    return render(request, "accounts/change.html", context, status=status)


def _found(request: HttpRequest, pk: object) -> Change:
    rows = Change.objects.select_related("proposed_by", "decided_by")
    return fetch(rows.visible_to(person(request)), str(pk))


@never_cache
@require_safe
def change(request: HttpRequest, pk: object) -> HttpResponse:
    """One change: what would be otherwise, who waits for whom and until when."""
    typed = stepup.posted(request, reverse("change-decide", args=[pk]))
    return _page(request, _found(request, pk), NoteForm(typed))


@never_cache
@require_POST
def change_decide(request: HttpRequest, pk: object) -> HttpResponse:
    """Agree to it, or reject it."""
    form = NoteForm(request.POST)
    row, note = _found(request, pk), request.POST.get("note", "")
    check_standing(request)
    verbs = {"approve": changes.approve, "reject": changes.reject}
    verb = verbs.get(request.POST.get("verdict", ""))
    try:
        if verb is None:
            raise InvalidInput({"verdict": "Choose one of the two."})
        verb(by=person(request), change_id=row.pk, note=note, proofs=stepup.proofs(request))
    except InvalidInput as found:
        form.is_valid()
        for field, text in found.errors.items():
            form.add_error(field if field in form.fields else None, text)
        return _page(request, row, form, status=400)
    said = "Done, as the two of you agreed." if verb is changes.approve else "Rejected."
    messages.success(request, said)
    return redirect("change", pk=row.pk)


@never_cache
@require_POST
def change_withdraw(request: HttpRequest, pk: object) -> HttpResponse:
    """Take one's own proposal back."""
    changes.withdraw(by=person(request), change_id=_found(request, pk).pk)
    messages.success(request, "Withdrawn. Nothing was changed.")
    return redirect("change", pk=pk)
