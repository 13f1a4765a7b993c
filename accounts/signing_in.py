"""From knowing who it is to their being signed in: between is a second factor, if they have one.

Whoever is half-way is nobody to every page but the one that takes the factor.
"""

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import login
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django.utils.crypto import constant_time_compare

from accounts import factors, sessions, stepup
from accounts.models import User
from audit import clock
from audit.events import Event
from audit.record import record

HALF = "sign_in.half"  # in the session: who has still to prove a factor
HALF_WAY = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class Half:
    """Somebody who gave a password, or whom a provider vouches for, and has a factor to prove."""

    person: str
    how: str
    at: str
    standing: str  # what a session of theirs must carry: a new password ends this too
    notes: Mapping[str, str] = field(default_factory=dict)


def begin(
    request: HttpRequest,
    user: User,
    *,
    how: str,
    back: str = "",
    notes: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Sign this person in, or send them to prove their second factor first.

    `how` is what told who it is: `password`, or a provider's name. `notes` go to the session that
    it becomes, as its keys.
    """
    if not factors.has_factor(user):
        finish(request, user, how=how, notes=notes)
        return redirect(back or resolve_url(settings.LOGIN_REDIRECT_URL))
    half = Half(
        person=str(user.pk),
        how=how,
        at=clock.now().isoformat(),
        standing=user.get_session_auth_hash(),
        notes=dict(notes or {}),
    )
    # Nothing of what this browser was before goes along, and its key is a new one.
    request.session.flush()
    request.session.update({HALF: asdict(half), **half.notes})
    where = reverse("sign-in-factor")
    return redirect(f"{where}?{urlencode({'next': back})}" if back else where)


def half_way(request: HttpRequest) -> tuple[User, Half] | None:
    """Who has still to prove a factor in this session, if that is still so."""
    kept = request.session.get(HALF)
    if kept is None:
        return None
    half = Half(**kept)
    user = User.objects.active().filter(pk=half.person).first()
    if (
        user is None
        or clock.now() - dt.datetime.fromisoformat(half.at) > HALF_WAY
        or not constant_time_compare(half.standing, user.get_session_auth_hash())
    ):
        give_up(request)
        return None
    return user, half


def give_up(request: HttpRequest) -> None:
    """Forget who was half-way."""
    request.session.pop(HALF, None)


def finish(
    request: HttpRequest,
    user: User,
    *,
    how: str,
    factor: str = "",
    notes: Mapping[str, str] | None = None,
) -> None:
    """Make this session theirs. No step-up counts in it yet, whatever was proved to get here."""
    give_up(request)
    stepup.forget(request)
    with transaction.atomic():
        record(Event.SIGNED_IN, by=user, how=how, factor=factor)
        login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    request.session.update({sessions.HOW: how, sessions.BEGAN: int(time.time()), **(notes or {})})
