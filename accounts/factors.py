"""Second factors: who has and who needs one, and an authenticator's codes (TOTP, RFC 6238).

Passkeys are in accounts.passkeys, recovery codes in accounts.recovery.

The secret of a factor is stored as Vault sealed it, bound to its person: a copy of the database
makes no codes, and a row that is moved to somebody else can't be unsealed. Codes are computed by
django-otp; its own device isn't used, because that keeps its secret in clear.
"""

import datetime as dt
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from django.db import transaction
from django.db.models import F
from django_otp.oath import TOTP
from django_otp_webauthn.models import WebAuthnCredential

from accounts import stepup
from accounts.models import RecoveryCode, Totp, User
from accounts.stepup import NONE, Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    TooManyTries,
    Unavailable,
)

STEP = 30  # seconds that a code is shown for; the one before and the one after are taken too
SECRET_BYTES = 20
FREE_FAILURES = 5
FIRST_WAIT = dt.timedelta(seconds=30)  # doubled by each failure more
LONGEST_WAIT = dt.timedelta(minutes=15)
ENROLLED = "factor.enrolled"  # in the session: they have one; a change of factors ends sessions


def _no_vault(*_: object) -> NoReturn:
    raise Unavailable("Nothing here can seal or unseal a second factor.")


# Vault is spoken to by `credentials`, a layer above this one, which sets these two when it starts.
# Each takes what is to be sealed or unsealed and whom it's bound to. They raise Unavailable.
seal: Callable[[bytes, str], str] = _no_vault
unseal: Callable[[str, str], bytes] = _no_vault


def _nobody_told(person: User, what: str) -> None:
    """Until `notifications`, a layer above this one too, sets `tell`."""


# Tells the person, in the transaction that changes their factor, in case it wasn't them.
tell: Callable[[User, str], None] = _nobody_told


stepup.in_words_by(stepup.Action.FACTOR, lambda _reader, _about: "Change how you sign in")


def has_factor(user: User) -> bool:
    """Whether this person has set up a second factor."""
    return has_app(user) or WebAuthnCredential.objects.filter(user=user).exists()


def has_app(user: User) -> bool:
    """Whether this person has set up an authenticator app."""
    return Totp.objects.filter(person=user).exists()


# Who must have a second factor, and why: "You review requests". Empty where they needn't.
Why = Callable[[User], str]


def _by_role(user: User) -> str:
    if user.is_service:
        return ""
    if user.is_administrator:
        return "You administer Keyturn"
    if user.is_auditor:
        return "You read everything in Keyturn"
    return "You say who is in a group" if user.owns_groups.exists() else ""


_needed: list[Why] = [_by_role]


def needed_by(why: Why) -> None:
    """Register who else needs one: apps above this one know what more people may do."""
    _needed.append(why)


def needed_because(user: User) -> str:
    """Why this person must have a second factor; empty where they needn't."""
    return next(filter(None, (why(user) for why in _needed)), "")


def check_may_change(by: User, proofs: Proofs) -> None:
    """Raise StepUpNeeded unless who has a factor proved one just now, to change their factors."""
    if has_factor(by):
        proofs.check(Purpose(Action.FACTOR, str(by.pk)))


def check_may_lose(person: User) -> None:
    """Raise Conflict where this person's last factor is gone, and they must have one."""
    if not has_factor(person) and (why := needed_because(person)):
        raise Conflict(f"{why}, which takes a second factor. Set up another one first.")


def new_secret(*, by: User) -> str:
    """A secret for this person's authenticator, sealed. It counts once `add` has taken it."""
    return seal(secrets.token_bytes(SECRET_BYTES), str(by.pk))


def reveal(*, by: User, sealed: str) -> bytes:
    """A secret of `new_secret`, to be shown to this person while they set it up."""
    return unseal(sealed, str(by.pk))


def add(*, by: User, sealed: str, code: str, proofs: Proofs = NONE) -> dt.datetime:
    """Make this secret the person's second factor, once its first code is right; when that was.

    Their sessions end by it. Raises InvalidInput for a wrong code, and StepUpNeeded where there
    is a factor already that wasn't proved just now.
    """
    code = _well_formed(code)
    secret = unseal(sealed, str(by.pk))
    with transaction.atomic():
        # Of two sessions that set one up at once, the second finds the first one's.
        User.objects.select_for_update().get(pk=by.pk)
        now = clock.now()
        old = Totp.objects.filter(person=by)
        check_may_change(by, proofs)
        step = _step_of(code, secret=secret, now=now, after=-1)
        if step is None:
            raise InvalidInput({"code": "This isn't the code that belongs to this secret."})
        replaced, _ = old.delete()
        Totp.objects.create(person=by, sealed=sealed, last_step=step)
        end_sessions(by)
        record(Event.FACTOR_ADDED, by=by, replaced=bool(replaced))
        tell(by, "replaced" if replaced else "set up")
    return now


def prove(*, by: User, code: str) -> dt.datetime:
    """Take a code of this person's authenticator; when it was taken. Each works once.

    Raises NotFound where they have no factor, InvalidInput for a wrong or used code, TooManyTries
    after five of them in a row, Unavailable while Vault is away.
    """
    code = _well_formed(code)
    factor = Totp.objects.filter(person=by).first()
    if factor is None:
        raise NotFound("You have no authenticator app set up.")
    # Before the transaction: nobody waits for Vault while holding a lock.
    secret = unseal(factor.sealed, str(by.pk))
    with transaction.atomic():
        # Of two that bring the same code at once, the second sees what the first has used up.
        factor = Totp.objects.select_for_update().filter(pk=factor.pk).first()
        if factor is None:
            raise InvalidInput({"code": "Your second factor has just changed. Try again."})
        now = clock.now()
        _check_waited(factor, now)
        step = _step_of(code, secret=secret, now=now, after=factor.last_step)
        if step is not None:
            factor.last_step, factor.failures, factor.failed_at = step, 0, None
            record(Event.STEP_UP_PROVED, by=by)
        else:
            factor.failures, factor.failed_at = factor.failures + 1, now
            record(Event.STEP_UP_REFUSED, by=by, failures=factor.failures)
            if factor.failures == FREE_FAILURES:
                tell(by, f"tried in vain {FREE_FAILURES} times in a row")
        factor.save(update_fields=["last_step", "failures", "failed_at"])
    # After the commit, which has to count the failure.
    if step is None:
        raise InvalidInput(
            {"code": "This code is wrong or was used already. Wait for the next one."}
        )
    return now


@transaction.atomic
def remove(*, by: User | None, person: User, proofs: Proofs = NONE) -> None:
    """Take this person's authenticator app away; their sessions end by it.

    `by` is the person, who must have proved a factor just now, or None for an operator, who takes
    away all that they have. Raises Forbidden, StepUpNeeded, Conflict, and NotFound where there is
    none.
    """
    if by is not None and by.pk != person.pk:
        raise Forbidden("Only they themself, or an operator by command, can take it away.")
    User.objects.select_for_update().get(pk=person.pk)
    gone, _ = Totp.objects.filter(person=person).delete()
    if by is None:
        gone += WebAuthnCredential.objects.filter(user=person).delete()[0]
    if not gone:
        raise NotFound(f"{person} has no second factor.")
    if by is not None:
        proofs.check(Purpose(Action.FACTOR, str(by.pk)))
        check_may_lose(person)
    forget_codes_of_nothing(person)
    end_sessions(person)
    record(Event.FACTOR_REMOVED, by=by, about=person)
    tell(person, "removed")


@dataclass(frozen=True)
class Held:
    """One second factor that somebody has, without anything secret of it."""

    id: str
    words: str


def held_by(person: User) -> list[Held]:
    """The second factors of this person, in a fixed order."""
    held = [
        Held(f"totp:{each.pk}", "an authenticator app")
        for each in Totp.objects.filter(person=person)
    ]
    passkeys = WebAuthnCredential.objects.filter(user=person).order_by("pk")
    held += [Held(f"passkey:{each.pk}", f"the passkey “{each.name}”") for each in passkeys]
    return held


@transaction.atomic
def reset(*, by: User, person: User, with_: User) -> None:
    """Take all second factors of somebody who lost them away, as two administrators agreed
    (accounts.changes); their sessions end by it. The password stays as it is."""
    held = held_by(person)
    Totp.objects.filter(person=person).delete()
    WebAuthnCredential.objects.filter(user=person).delete()
    person.recovery_codes.all().delete()
    end_sessions(person)
    record(
        Event.FACTORS_RESET,
        by=by,
        about=person,
        related=(with_,),
        factors=[each.words for each in held],
        proposed_by=str(with_),
    )
    tell(person, f"taken away by {with_} and {by}")


def forget_codes_of_nothing(person: User) -> None:
    """Recovery codes stand in for a factor: without one they open nothing."""
    if not has_factor(person):
        RecoveryCode.objects.filter(person=person).delete()


def end_sessions(person: User) -> None:
    """End all sessions of this person; the one in which they ask for it is kept by its view."""
    person.sessions.all().delete()
    User.objects.filter(pk=person.pk).update(session_epoch=F("session_epoch") + 1)
    person.refresh_from_db(fields=["session_epoch"])


def _well_formed(code: str) -> str:
    code = "".join(code.split())
    if not re.fullmatch("[0-9]{6}", code):
        raise InvalidInput({"code": "Give the six digits that your authenticator shows."})
    return code


def _step_of(code: str, *, secret: bytes, now: dt.datetime, after: int) -> int | None:
    """The time step that this code belongs to, if it's one of those that count now."""
    totp = TOTP(secret, STEP)
    totp.time = now.timestamp()
    return int(totp.t()) if totp.verify(int(code), tolerance=1, min_t=after + 1) else None


def _check_waited(factor: Totp, now: dt.datetime) -> None:
    if factor.failed_at is None or factor.failures < FREE_FAILURES:
        return
    doubled = min(factor.failures - FREE_FAILURES, 10)
    left = factor.failed_at + min(FIRST_WAIT * 2**doubled, LONGEST_WAIT) - now
    if left > dt.timedelta(0):
        seconds = int(left.total_seconds()) + 1
        raise TooManyTries(
            f"Too many wrong codes. Wait {seconds} seconds, then try again.", retry_after=seconds
        )
