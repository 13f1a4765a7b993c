"""Somebody's authenticator, as tests need one."""

import uuid

from django_otp.oath import TOTP

from accounts import factors
from accounts.models import Totp, User
from audit import clock

SECRETS: dict[uuid.UUID, bytes] = {}  # of whom `authenticator` gave one


def authenticator(user: User) -> bytes:
    """The secret of an authenticator app that this person has set up."""
    sealed = factors.new_secret(by=user)
    secret = SECRETS[user.pk] = factors.reveal(by=user, sealed=sealed)
    factors.add(by=user, sealed=sealed, code=code(secret))
    later(user)
    return secret


def code(secret: bytes, *, steps: int = 0) -> str:
    """What the authenticator shows now, or `steps` later."""
    totp = TOTP(secret)
    totp.time = clock.now().timestamp() + steps * factors.STEP
    return f"{totp.token():06}"


def wrong(secret: bytes) -> str:
    now = {code(secret, steps=n) for n in (-2, -1, 0, 1, 2)}
    return next(text for text in ("000000", "111111", "222222", "3" * 6) if text not in now)


def later(user: User) -> None:
    """Let the last code have been taken long ago."""
    Totp.objects.filter(person=user).update(last_step=0)
