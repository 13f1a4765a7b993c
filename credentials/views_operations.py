"""The operators' page: what is still to be taken back, and having it tried at once."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from accounts.session import person
from broker.errors import NotFound
from credentials.actions import try_now, try_target_now
from credentials.operations import (
    GROUPS,
    SHOWN,
    Asked,
    found_outside,
    latest_look,
    listed,
    may_look,
    rotations,
    summary,
)


def _check_may_look(user: User) -> None:
    if not may_look(user):
        raise NotFound


def _plain(given: QueryDict) -> dict[str, str]:
    return {name: str(text).replace("\x00", "").strip()[:300] for name, text in given.items()}


def _asked(request: HttpRequest) -> Asked:
    given = _plain(request.GET)
    show, page = given.get("show", ""), given.get("page", "")
    return Asked(
        show=show if show in SHOWN else "",
        kind=given.get("kind", ""),
        target=given.get("target", ""),
        words=given.get("q", ""),
        page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
    )


def _address(asked: Asked, **changes: object) -> str:
    """The page of what was asked for, with these changes, from its first page on."""
    values = {"show": asked.show, "kind": asked.kind, "target": asked.target, "q": asked.words}
    query = urlencode({name: value for name, value in (values | changes).items() if value})
    return f"{reverse('operations')}?{query}" if query else reverse("operations")


@never_cache
@require_safe
def operations(request: HttpRequest) -> HttpResponse:
    """What is due, stuck, given up by Vault, or out there without a record."""
    user = person(request)
    _check_may_look(user)
    asked = _asked(request)
    found = summary()
    page = listed(asked, found.now)
    context = {
        "summary": found,
        "now": found.now,
        "asked": asked,
        "groups": found.groups[:GROUPS],
        "more_groups": len(found.groups) - GROUPS,
        "rows": page.rows,
        "tabs": [
            ("All", found.count, _address(asked, show=""), ""),
            ("Stuck", found.stuck, _address(asked, show="stuck"), "stuck"),
            ("Due", found.due, _address(asked, show="due"), "due"),
            ("Not yet due", found.waiting, _address(asked, show="waiting"), "waiting"),
        ],
        "earlier": _address(asked, page=asked.page - 1) if asked.page > 1 else "",
        "later": _address(asked, page=asked.page + 1) if page.has_next else "",
        "everything": _address(Asked(show=asked.show)),
        "here": request.get_full_path(),
        "query": request.GET.urlencode(),
        "may_act": user.is_administrator,
        "rotations": rotations(found.now),
        "look": latest_look(),
        "found_outside": found_outside(found.now),
    }
    htmx: Any = getattr(request, "htmx", None)
    part = htmx and htmx.target == "owed"
    return render(
        request, "credentials/_operations.html" if part else "credentials/operations.html", context
    )


@never_cache
@require_POST
def operations_try(request: HttpRequest) -> HttpResponse:
    """Have one revocation, or all that wait for a target, tried at once."""
    user = person(request)
    _check_may_look(user)
    posted = _plain(request.POST)
    if posted.get("target"):
        target = posted["target"]
        count = try_target_now(by=user, kind=posted.get("kind", ""), target=target)
        if count:
            what = f"{count:,} credential{'s are' if count != 1 else ' is'}"
            messages.success(request, f"{what} being tried now, at {target}.")
        else:
            messages.success(request, f"All that wait for {target} are being tried already.")
    else:
        row = try_now(by=user, credential_id=posted.get("credential", ""))
        messages.success(request, f"{row.name} is being tried now.")
    query = posted.get("query", "")
    return redirect(f"{reverse('operations')}?{query}" if query else "operations")
