import datetime as dt
import uuid
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Prefetch, Q
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accessrequests.actions.choosing import room
from accessrequests.models import AccessRequest, Grant, Grants
from accessrequests.permissions import can_end, check_hold
from accessrequests.routing import reviewers_of
from accessrequests.states import EndReason, RequestState
from accounts import stepup
from accounts.door import fetch
from accounts.models import User
from accounts.session import person
from accounts.standing import check_standing
from audit import clock
from audit.reading import timeline
from broker.errors import Conflict
from credentials import actions
from credentials.kinds import kind_of
from credentials.models import Credential
from credentials.parts import shown
from credentials.snippets import opens_gateway, snippets, unwrapping
from credentials.standing import standing
from credentials.states import CredentialState
from endpoints.kinds import Revocation
from endpoints.models import AccessProfile, Dialect, EmergencyStop, Endpoint

ENDED_SHOWN = dt.timedelta(days=30)
ROWS = 8
CREDENTIALS_SHOWN = 3


def _with_parts(rows: Grants) -> Grants:
    return rows.select_related(
        "holder",
        "request__requester",
        "request__on_behalf_of",
        "request__profile__endpoint__owner",
        "request__profile__reviewers",
        "request__extends",
    ).prefetch_related(
        "raises", Prefetch("credentials", queryset=Credential.objects.order_by("-id"))
    )


def _live_credential(grant: Grant) -> Credential | None:
    return next(
        (item for item in grant.credentials.all() if item.state == CredentialState.ACTIVE), None
    )


def _refreshable(grant: Grant, now: dt.datetime) -> bool:
    credential = _live_credential(grant)
    return (
        credential is not None
        and kind_of(credential.kind).short is not None
        and credential.expires_at is not None
        and credential.expires_at > now
    )


def _all_gone(grant: Grant) -> bool:
    return all(item.state == CredentialState.REVOKED for item in grant.credentials.all())


def _what_follows(grants: list[Grant], now: dt.datetime) -> dict[object, AccessRequest]:
    """For each of these grants the extension that waits or was approved, in one query."""
    rows = (
        AccessRequest.objects.filter(extends__in=grants)
        .filter(
            Q(state=RequestState.PENDING, pending_until__gt=now)
            | Q(state=RequestState.APPROVED, grant__ended_at=None)
        )
        .select_related("grant")
    )
    return {row.extends_id: row for row in rows}


def _extendable(grant: Grant, after: AccessRequest | None, open_ids: set[object]) -> bool:
    """Whether its holder may ask for more time on it."""
    return after is None and not grant.request.break_glass and grant.request.profile_id in open_ids


def _open_raise(grant: Grant, now: dt.datetime) -> AccessRequest | None:
    """The request for larger budgets of it that waits."""
    waiting = grant.raises_asked.filter(state=RequestState.PENDING, pending_until__gt=now)
    return waiting.first()


def _step_of(row: AccessRequest) -> dict[str, Any]:
    """At which of the steps that it has to take a request waits."""
    taken = [at for at, step in enumerate(row.policy["steps"]) if not step["skipped"]]
    return {
        "place": taken.index(row.step) + 1,
        "of": len(taken),
        "name": row.policy["steps"][row.step]["name"],
    }


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """My access: what can be used now, what is waited for, what can be asked for again."""
    user = person(request)
    now = clock.now()
    mine = _with_parts(Grant.objects.filter(holder=user))
    rows = list(mine.live().order_by("ends_at"))
    after = _what_follows(rows, now)
    open_ids: set[object] = set(AccessProfile.objects.open_to(user).values_list("pk", flat=True))
    live = [
        {
            "grant": grant,
            "credential": _live_credential(grant),
            "after": after.get(grant.pk),
            "can_extend": _extendable(grant, after.get(grant.pk), open_ids),
        }
        for grant in rows
    ]
    waiting = list(
        AccessRequest.objects.filter(
            requester=user, state=RequestState.PENDING, pending_until__gt=now
        ).select_related("profile__endpoint", "profile__reviewers", "requester")
    )
    reviewers = reviewers_of(waiting)
    pending = [
        {"row": row, "reviewers": reviewers[row.pk], "step": _step_of(row)} for row in waiting
    ]
    context = {
        "now": now,
        "live": live,
        "scheduled": [
            grant
            for grant in mine.filter(ended_at=None, starts_at__gt=now).order_by("starts_at")
            # What follows a live grant is said there.
            if grant.request.extends_id not in after
        ],
        "pending": pending,
        "ended": _ended(user, now),
        "anything": Endpoint.objects.visible_to(user).filter(retired_at=None).exists(),
    }
    part = getattr(request, "htmx", False) and request.htmx.target == "access"  # type: ignore[attr-defined]
    page = "credentials/_home.html" if part else "credentials/home.html"
    return render(request, page, context)


def _ended(user: User, now: dt.datetime) -> list[dict[str, Any]]:
    """What ended of late, once for each profile: grants, and requests that came to nothing."""
    open_ids: set[object] = set(AccessProfile.objects.open_to(user).values_list("pk", flat=True))
    busy = set(
        AccessRequest.objects.filter(
            requester=user, state=RequestState.PENDING, pending_until__gt=now
        ).values_list("profile_id", flat=True)
    ) | set(
        Grant.objects.filter(holder=user, ended_at=None, ends_at__gt=now).values_list(
            "request__profile_id", flat=True
        )
    )
    rows = (
        AccessRequest.objects.filter(requester=user, raises=None, created_at__gt=now - ENDED_SHOWN)
        .select_related("profile__endpoint", "grant")
        .prefetch_related("grant__credentials")
    )
    found: dict[object, dict[str, Any]] = {}
    for row in rows[:200]:
        if row.profile_id in busy or row.profile_id in found:
            continue
        grant = getattr(row, "grant", None)
        found[row.profile_id] = {
            "row": row,
            "grant": grant,
            "ended_at": (grant.ended_at or grant.ends_at) if grant else row.decided_at or now,
            "gone": grant is not None and _all_gone(grant),
            "can_ask": row.profile_id in open_ids,
        }
        if len(found) == ROWS:
            break
    return list(found.values())


def opens_in_browser(grant: Grant) -> bool:
    """Whether there are pages that this grant lets a browser read."""
    return Dialect.HTTP in grant.request.profile.endpoint.dialects and any(
        operation.startswith(("GET ", "* ")) for operation in grant.allowed.operations
    )


def _waits(row: AccessRequest) -> bool:
    return row.state == RequestState.PENDING


def _stop_of(grant: Grant) -> EmergencyStop | None:
    if grant.end_reason != EndReason.EMERGENCY_STOP:
        return None
    rows = EmergencyStop.objects.against(
        grant.request.profile.endpoint_id, grant.request.decided_at
    )
    return rows.filter(stopped_at__lte=grant.ended_at).select_related("stopped_by").first()


def _page(user: User, grant: Grant) -> dict[str, Any]:
    now = clock.now()
    endpoint = grant.request.profile.endpoint
    live = grant.is_live(now)
    owed = grant.request.break_glass and grant.request.reviewed_at is None
    over = grant.ended_at is not None or grant.ends_at <= now
    after = None if over else _what_follows([grant], now).get(grant.pk)
    open_ids: set[object] = set(AccessProfile.objects.open_to(user).values_list("pk", flat=True))
    mine = grant.holder_id == user.pk
    credentials = list(grant.credentials.all())
    # The newest few, and all that are not gone; the rest folds away.
    shown = [
        item
        for at, item in enumerate(credentials)
        if at < CREDENTIALS_SHOWN or item.state != CredentialState.REVOKED
    ]
    return {
        "grant": grant,
        "row": grant.request,
        "profile": grant.request.profile,
        "endpoint": endpoint,
        "now": now,
        "live": live,
        # Over by the clock; the row follows within the second.
        "ended_at": grant.ended_at or (grant.ends_at if grant.ends_at <= now else None),
        "stop": _stop_of(grant),
        "mine": mine,
        "belongs_to": "" if mine else reverse("approvals"),
        "can_end": not over and can_end(user, grant),
        "length": grant.ends_at - grant.starts_at,
        "after": after,
        "after_waits_for": reviewers_of([after])[after.pk] if after and _waits(after) else [],
        "can_extend": mine and not over and _extendable(grant, after, open_ids),
        "raise": None if over else _open_raise(grant, now),
        "can_raise": mine
        and live
        and not grant.request.break_glass
        and grant.request.profile_id in open_ids
        and bool(room(grant.allowed, grant.request.profile.ceiling)),
        "owed_by": reviewers_of([grant.request])[grant.request_id] if owed else [],
        "owed": owed,
        "judged": grant.request.reviews.select_related("reviewer").last()
        if grant.request.reviewed_at
        else None,
        "credential": _live_credential(grant),
        "refreshable": _refreshable(grant, now),
        "credentials": [standing(item, now) for item in shown],
        "earlier": [standing(item, now) for item in credentials if item not in shown],
        "all_gone": bool(credentials) and _all_gone(grant),
        "at_gateway": opens_gateway(grant.request.profile),
        "snippets": snippets(grant.request.profile, min(grant.allowed.models, default="")),
        "opens": live and mine and opens_in_browser(grant),
        "steps": timeline(grant.pk, grant.request_id, *(item.pk for item in credentials)),
    }


@sensitive_variables("checked_out", "parts")
def handed_over(checked_out: actions.CheckedOut) -> dict[str, Any]:
    """What the grant's page shows of a secret, this once."""
    parts = shown(checked_out.parts)
    if checked_out.wrapped:
        parts = [replace(parts[0], label="Wrapping token")]
    return {
        "parts": parts,
        "files": [part for part in parts[1:] if part.file],
        "wrapped": checked_out.wrapped,
        "wrapped_for": dt.timedelta(seconds=actions.WRAPPED_FOR),
        "unwrapping": unwrapping(checked_out.credential) if checked_out.wrapped else [],
    }


@never_cache
@require_safe
def grant_page(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """How long it still lasts, and how to use it."""
    user = person(request)
    grant = fetch(_with_parts(Grant.objects.visible_to(user)), pk)
    return render(request, "credentials/grant.html", _page(user, grant))


@never_cache
@sensitive_variables("checked_out", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def grant_check_out(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Mint a credential and show it in this one answer.

    The secret goes into the response and nowhere else: no session, no message, no URL, so there
    is no redirect after this POST. `no-store` keeps it out of the browser's caches.
    """
    if request.method != "POST":
        return redirect("grant", pk=pk)
    user = person(request)
    check_standing(request)
    checked_out = actions.check_out(
        by=user,
        grant_id=pk,
        wrap=request.POST.get("wrap") == "on",
        proofs=stepup.proofs(request),
    )
    grant = fetch(_with_parts(Grant.objects.visible_to(user)), pk)
    context = _page(user, grant) | handed_over(checked_out)
    return render(request, "credentials/grant.html", context)


@never_cache
@sensitive_variables("refreshed", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def grant_refresh(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Another secret of the credential that is out, shown in this one answer as at check-out."""
    if request.method != "POST":
        return redirect("grant", pk=pk)
    user = person(request)
    check_standing(request)
    refreshed = actions.refresh(by=user, grant_id=pk, proofs=stepup.proofs(request))
    grant = fetch(_with_parts(Grant.objects.visible_to(user)), pk)
    context = _page(user, grant) | handed_over(refreshed)
    return render(request, "credentials/grant.html", context)


@never_cache
@sensitive_variables("checked_out", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def grant_open(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Mint a credential and have the browser hand it to the gateway, which opens a session on it.

    As in `grant_check_out`, it is in this one answer: in a form that goes to the gateway alone.
    """
    if request.method != "POST":
        return redirect("grant", pk=pk)
    user = person(request)
    grant = fetch(_with_parts(Grant.objects.visible_to(user)), pk)
    check_hold(user, grant)
    endpoint = grant.request.profile.endpoint
    if not opens_in_browser(grant):
        raise Conflict(f"{endpoint} isn’t opened in a browser: it has no pages.")
    check_standing(request)
    checked_out = actions.check_out(by=user, grant_id=pk, proofs=stepup.proofs(request))
    gateway = settings.KEYTURN_GATEWAY_URL
    context = {
        "endpoint": endpoint,
        "action": f"{gateway}/e/{endpoint.slug}/.keyturn/session",
        "secret": checked_out.secret,
    }
    response = render(request, "credentials/open.html", context)
    # To these the policy is added; nothing else on this page differs from the others.
    response._csp_update = {"form-action": [gateway]}  # type: ignore[attr-defined]
    # The gateway takes it from a page of the portal's alone, and must be told that it is one.
    response["Referrer-Policy"] = "strict-origin"
    return response


@never_cache
@require_POST
def grant_end(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """End access now: given back by its holder, revoked by anybody else who may."""
    user = person(request)
    grant = actions.end_grant(by=user, grant_id=pk)
    if grant.ended_at is not None and grant.ended_at < grant.starts_at:
        messages.success(request, "Ended before it began: nothing was opened.")
    else:
        done = "Given back." if grant.holder_id == user.pk else f"{grant.holder}’s access ended."
        messages.success(request, f"{done} {_what_now(grant)}")
    return redirect("grant", pk=pk)


def _what_now(grant: Grant) -> str:
    """What becomes of what is out under a grant that has just ended."""
    profile = grant.request.profile
    if profile.revocation == Revocation.BY_ROTATION:
        return "Whoever got its key can use it until that is rotated."
    if opens_gateway(profile):
        return "Its credential is refused from now on."
    return "Its credential is being taken back."
