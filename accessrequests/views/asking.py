import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accessrequests import actions
from accessrequests.actions.choosing import room
from accessrequests.facts import effective_for
from accessrequests.forms import OTHER, RequestForm, minutes
from accessrequests.models import AccessRequest, Grant
from accessrequests.outlook import cost, seen, steps_in_words, told_at_once
from accessrequests.policy.effective import Effective
from accounts import stepup
from accounts.door import fetch
from accounts.models import Group, User
from accounts.session import person
from accounts.stepup import Action, Purpose
from audit import clock
from broker.errors import InvalidInput
from endpoints.models import AccessProfile
from endpoints.scope import LISTS, OPENING, Scope

BREAK_GLASS = "break-glass"
EARLIER = 3


def _rows() -> QuerySet[AccessRequest]:
    return AccessRequest.objects.select_related(
        "requester", "profile__endpoint__owner", "profile__reviewers", "profile__requesters"
    )


@dataclass(frozen=True)
class Desk:
    """What is asked for, by whom, and by which of the ways that are open to them."""

    user: User
    profile: AccessProfile
    holds: Effective
    extends: Grant | None
    may_break_glass: bool
    break_glass: bool
    raises: Grant | None = None
    typed: QueryDict | None = None  # what it said when a proof was asked for

    @cached_property
    def widest(self) -> Scope:
        """What may be chosen from."""
        ceiling = self.profile.ceiling
        if self.raises is not None:
            return Scope(**room(self.raises.allowed, ceiling))
        return self.extends.allowed & ceiling if self.extends else ceiling

    @cached_property
    def usual(self) -> Scope:
        """What the form starts with; to raise a budget, twice as much or the most."""
        if self.raises is not None:
            held = self.raises.allowed
            doubled = {key: 2 * getattr(held, key) for key in room(held, self.profile.ceiling)}
            return Scope(**doubled) & self.widest
        return self.widest if self.extends else self.profile.default_scope

    @property
    def way(self) -> dict[str, Any]:
        """How it's asked for, as the actions take it."""
        return {
            "break_glass": self.break_glass,
            "extends": self.extends.pk if self.extends else None,
            "raises": self.raises.pk if self.raises else None,
        }

    def form(self, *args: Any, **kwargs: Any) -> RequestForm:
        """The form for it."""
        return RequestForm(
            *args,
            holds=[self.holds],
            widest=self.widest,
            usual=self.usual,
            break_glass=self.break_glass,
            extension=self.extends is not None,
            raises=self.raises is not None,
            **kwargs,
        )

    def initial(
        self,
        *,
        length: dt.timedelta | None = None,
        scope: Mapping[str, Any] | None = None,
        ticket: str = "",
        justification: str = "",
    ) -> dict[str, Any]:
        """What the form starts with: the defaults, or this as far as it's within the limits."""
        form = self.form()
        if self.raises is not None:
            given = {"ticket": ticket, "justification": justification}
            return self._parts(form, scope or {}) | given
        length = min(length or form.usual, form.longest)
        number = str(minutes(length))
        is_shown = number in dict(form.fields["duration"].choices)  # type: ignore[attr-defined]
        return self._parts(form, scope or {}) | {
            "duration": number if is_shown else OTHER,
            "minutes": None if is_shown else number,
            "begin": "",
            "starts_at": form.usual_start(),
            "ticket": ticket,
            "justification": justification,
        }

    def _parts(self, form: RequestForm, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The parts of the scope that the form starts with: these as far as they're offered."""
        found = self.usual.spelled_out()
        for key in form.parts:
            given = scope.get(key)
            if key in LISTS and given is not None:
                offered = dict(form.fields[key].choices)  # type: ignore[attr-defined]
                # Models that are all gone from the profile make no form to start with.
                left = [name for name in given if name in offered]
                found[key] = left if left or key not in OPENING else found[key]
            elif given is not None:
                found[key] = given
        return {key: part for key, part in found.items() if key in form.parts}


def _desk(
    request: HttpRequest,
    profile: AccessProfile,
    extends: Grant | None = None,
    raises: Grant | None = None,
) -> Desk:
    user = person(request)
    holds = effective_for(profile)
    groups = Group.objects.filter(memberships__user=user).values_list("slug", flat=True)
    new = extends is None and raises is None
    may = new and holds.may_break_glass(groups)
    filing = request.method == "POST" and "change" not in request.POST
    typed = stepup.posted(request, request.path)
    said = request.POST if typed is None else typed
    way = said.get("change", said.get("way", request.GET.get("way", "")))
    # Whoever files what they may not is told so; whoever only looks is shown the usual way.
    break_glass = way == BREAK_GLASS and new and (may or filing)
    return Desk(user, profile, holds, extends, may, break_glass, raises, typed)


def _initial(request: HttpRequest, desk: Desk) -> dict[str, Any]:
    """The defaults, or what an earlier request of the reader's asked for."""
    if grant := desk.extends or desk.raises:
        return desk.initial(ticket=grant.request.ticket)
    if again := request.GET.get("again"):
        mine = AccessRequest.objects.filter(requester=desk.user, profile=desk.profile)
        earlier = fetch(mine, again)
        return desk.initial(
            length=earlier.duration,
            scope=earlier.asked.spelled_out(),
            ticket=earlier.ticket,
            justification=earlier.justification,
        )
    return desk.initial()


def _kept(said: QueryDict, desk: Desk) -> dict[str, Any]:
    """What was typed, for the same form in another way, or again."""
    typed = desk.form(said)
    typed.is_valid()
    given = typed.ask()
    return desk.initial(
        length=given["duration"],
        scope=given.get("scope"),
        ticket=given["ticket"],
        justification=given["justification"],
    )


def _lasts(user: User, profile: AccessProfile) -> list[AccessRequest]:
    """The reader's last few asks for this profile that differ from each other."""
    rows = AccessRequest.objects.filter(requester=user, profile=profile, extends=None, raises=None)[
        :30
    ]
    found: dict[object, AccessRequest] = {}
    for row in rows:
        key = (row.duration, row.asked, row.ticket, row.justification)
        found.setdefault(key, row)
    return list(found.values())[:EARLIER]


def needs_factor(
    request: HttpRequest, profile: AccessProfile, holds: Effective, *, break_glass: bool = False
) -> bool:
    """Whether asking for this takes a second factor that wasn't proved recently enough."""
    age = actions.ask_age(holds, break_glass=break_glass)
    wanted = Purpose(Action.ASK, str(profile.pk))
    return age is not None and not stepup.proofs(request).fresh(wanted, age)


def _preview(request: HttpRequest, desk: Desk, form: RequestForm) -> dict[str, Any]:
    """What filing the form as it stands would lead to, or why it can't be filed."""
    # Fields that are merely empty are named as missing, not as wrong.
    wrong = {
        name: " ".join(str(message) for message in found)
        for name, found in form.errors.items()
        if form.data.get(name) or name not in {"justification", "ticket"}
    }
    errors = wrong
    if not wrong:
        ask = form.ask()
        try:
            asked = actions.preview_request(
                by=desk.user, profile_id=desk.profile.pk, **ask, **desk.way
            )
        except InvalidInput as error:
            errors = error.errors
        else:
            return {
                "asked": asked,
                "scheduled": ask["starts_at"] is not None,
                "steps": steps_in_words(asked),
                "told": told_at_once(asked) if asked.break_glass else [],
                # Nobody decides by it where it's decided without them.
                "difference": [] if asked.automatic or asked.break_glass else seen(asked),
                "cost": cost(
                    desk.user, asked, ticket=ask["ticket"], justification=ask["justification"]
                ),
                "needs_factor": needs_factor(
                    request, desk.profile, desk.holds, break_glass=asked.break_glass
                ),
                "factor_age": actions.ask_age(desk.holds, break_glass=asked.break_glass),
                "missing": [form.fields[name].label for name in asked.missing],
            }
    return {"problems": list(errors.values()), "errors": errors}


def add_errors(form: RequestForm, errors: dict[str, str]) -> None:
    """Show these beside their fields, and above the form what has none."""
    for name, message in errors.items():
        name = name.removeprefix("scope.")
        if name not in form.fields:
            form.add_error(None, message)
        elif not form.has_error(name):
            form.add_error(name, message)


def _context(desk: Desk) -> dict[str, Any]:
    profile = desk.profile
    url, pk = "request-new", profile.pk
    if desk.extends is not None:
        url, pk = "grant-extend", desk.extends.pk
    elif desk.raises is not None:
        url, pk = "grant-raise", desk.raises.pk
    return {
        "desk": desk,
        "profile": profile,
        "endpoint": profile.endpoint,
        "extends": desk.extends,
        "raises": desk.raises,
        "ask_url": reverse(url, args=[pk]),
        "preview_url": reverse(f"{url.removesuffix('-new')}-preview", args=[pk]),
        "step_up": stepup.link(reverse(url, args=[pk]), [Purpose(Action.ASK, str(profile.pk))]),
    }


def _filed(request: HttpRequest, filed: AccessRequest) -> HttpResponseBase:
    if filed.automatic and filed.raises is not None:
        messages.success(request, "Decided automatically: you have the larger budget now.")
        return redirect("grant", pk=filed.raises.pk)
    if filed.break_glass:
        said = "You have access now. Everybody who would have reviewed it is being told."
    elif not filed.automatic:
        messages.success(request, "Asked. You don’t need to keep this page open.")
        return redirect("request", pk=filed.pk)
    elif filed.grant.starts_at > clock.now():
        said = "Decided automatically. It begins by itself."
    else:
        said = "Decided automatically: you have access now."
    messages.success(request, said)
    return redirect("grant", pk=filed.grant.pk)


def _ask(request: HttpRequest, desk: Desk) -> HttpResponseBase:
    status = 200
    if request.method == "POST" and "change" not in request.POST:
        form = desk.form(request.POST)
        form.is_valid()
        errors: dict[str, str] = {}
        if not form.errors:
            try:
                filed = actions.file_request(
                    by=desk.user,
                    profile_id=desk.profile.pk,
                    proofs=stepup.proofs(request),
                    **form.ask(),
                    **desk.way,
                )
            except InvalidInput as error:
                errors = error.errors
            else:
                return _filed(request, filed)
        status = 400
        preview = _preview(request, desk, form)
        # All that is wrong at once, not one thing after the other.
        add_errors(form, preview.pop("errors", {}) | errors)
    else:
        said = request.POST if request.method == "POST" else desk.typed
        initial = _kept(said, desk) if said is not None else _initial(request, desk)
        form = desk.form(initial=initial)
        trial = desk.form(initial)
        trial.is_valid()
        preview = _preview(request, desk, trial)
    context = _context(desk) | {"form": form} | preview
    if request.method != "POST" and not desk.extends and not desk.raises:
        context["lasts"] = _lasts(desk.user, desk.profile)
    return render(request, "accessrequests/new.html", context, status=status)


def _part(request: HttpRequest, desk: Desk) -> HttpResponse:
    form = desk.form(request.POST)
    form.is_valid()
    context = _context(desk) | _preview(request, desk, form)
    return render(request, "accessrequests/_preview.html", context)


def _profile(request: HttpRequest, pk: uuid.UUID) -> AccessProfile:
    return fetch(AccessProfile.objects.open_to(person(request)), pk)


def _held(request: HttpRequest, pk: uuid.UUID) -> Grant:
    """A grant of the reader's own, with its profile."""
    mine = Grant.objects.filter(holder=person(request))
    return fetch(
        mine.select_related("request__profile__endpoint", "request__profile__reviewers"), pk
    )


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def request_new(request: HttpRequest, profile_id: uuid.UUID) -> HttpResponseBase:
    """Ask for access: the form, with what would happen beside it."""
    return _ask(request, _desk(request, _profile(request, profile_id)))


@never_cache
@require_POST
def request_preview(request: HttpRequest, profile_id: uuid.UUID) -> HttpResponse:
    """What the form would lead to as it stands. Writes nothing."""
    return _part(request, _desk(request, _profile(request, profile_id)))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def grant_extend(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Ask for more time on a grant that runs: the same form, with less to choose."""
    grant = _held(request, pk)
    return _ask(request, _desk(request, grant.request.profile, extends=grant))


@never_cache
@require_POST
def grant_extend_preview(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What asking for more time would lead to. Writes nothing."""
    grant = _held(request, pk)
    return _part(request, _desk(request, grant.request.profile, extends=grant))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def grant_raise(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """Ask for a larger budget of a grant that runs, which goes on as it is."""
    grant = _held(request, pk)
    return _ask(request, _desk(request, grant.request.profile, raises=grant))


@never_cache
@require_POST
def grant_raise_preview(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What asking for a larger budget would lead to. Writes nothing."""
    grant = _held(request, pk)
    return _part(request, _desk(request, grant.request.profile, raises=grant))


@never_cache
@require_POST
def request_again(request: HttpRequest, pk: uuid.UUID) -> HttpResponseBase:
    """File the same ask once more. Where it no longer fits its profile, the form says why."""
    user = person(request)
    earlier = fetch(_rows().filter(requester=user, raises=None), pk)
    try:
        filed = actions.file_request(
            by=user,
            profile_id=earlier.profile_id,
            justification=earlier.justification,
            duration=earlier.duration,
            scope=earlier.asked.spelled_out(),
            ticket=earlier.ticket,
            proofs=stepup.proofs(request),
        )
    except InvalidInput as error:
        if not AccessProfile.objects.open_to(user).filter(pk=earlier.profile_id).exists():
            messages.error(
                request, "You may no longer ask for this. See the catalogue for what you may."
            )
            return redirect("catalogue")
        messages.error(
            request, f"It can’t be asked for as before. {' '.join(error.errors.values())}"
        )
        form = reverse("request-new", kwargs={"profile_id": earlier.profile_id})
        return redirect(f"{form}?again={earlier.pk}")
    if filed.automatic:
        return _filed(request, filed)
    messages.success(request, "Asked again, with the same reason.")
    return redirect("request", pk=filed.pk)


@never_cache
@require_safe
def requests(request: HttpRequest) -> HttpResponse:
    """All that the reader ever asked for, or what they asked for at once."""
    user = person(request)
    rows = _rows().filter(requester=user).select_related("grant")
    together = None
    try:
        together = uuid.UUID(request.GET["together"])
    except (KeyError, ValueError):
        pass
    else:
        rows = rows.filter(together=together)
    context = {"rows": rows[:200], "now": clock.now(), "together": together}
    return render(request, "accessrequests/requests.html", context)


@never_cache
@require_POST
def request_cancel(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Take a pending request back."""
    actions.cancel_request(by=person(request), request_id=pk)
    messages.success(request, "Cancelled. Nobody needs to decide it any more.")
    return redirect("request", pk=pk)
