"""Links that let one person in once, to set a password.

Whoever has such a link is that person, so it's made for accounts that nobody has signed in to
yet: else any administrator could become anybody. The link is in the answer and nowhere else.
"""

import datetime as dt
import hashlib
import re
import secrets
from typing import Any

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from accounts.actions.people import check_proved, create_user, set_password
from accounts.models import Invitation, User
from accounts.permissions import check_administer
from accounts.stepup import NONE, Proofs
from accounts.tokens import BASE62
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, NotFound

LASTS = dt.timedelta(days=7)
FIRST_LASTS = dt.timedelta(hours=24)  # the first administrator's
_TOKEN = re.compile(r"kt_inv_[0-9A-Za-z]{43}")


def new_token() -> str:
    """A token of 256 bits."""
    return "kt_inv_" + "".join(secrets.choice(BASE62) for _ in range(43))


def digest(token: str) -> bytes:
    """What is stored of a token. It has too many bits to be guessed from this."""
    return hashlib.sha256(b"keyturn.invitation:" + token.encode()).digest()


def link(token: str) -> str:
    """What the invited person opens."""
    return settings.KEYTURN_BASE_URL + reverse("welcome", args=[token])


def may_be_invited(person: User) -> bool:
    """Whether nobody has signed in to this account yet, or since it was opened again."""
    return (
        person.is_active
        and not person.is_service
        and person.last_login is None
        and not person.has_usable_password()
    )


@transaction.atomic
def invite(
    *,
    by: User | None,
    person: User,
    lasts: dt.timedelta = LASTS,
    proofs: Proofs = NONE,
    anew: bool = False,
) -> str:
    """A link for this person, which takes the place of earlier ones; its text is in the answer
    alone.

    `anew` is for somebody who lost their way in: an operator's command, or what two
    administrators decided. Raises Forbidden, StepUpNeeded, and Conflict for somebody who has
    signed in already.
    """
    check_administer(by)
    check_proved(by, proofs, person)
    row = User.objects.select_for_update().get(pk=person.pk)
    if not row.is_active or row.is_service:
        raise Conflict("Only people whose account is active are invited.")
    if not anew and not may_be_invited(row):
        raise Conflict(
            f"{row} has signed in already. A lost second factor is reset by two administrators."
        )
    return _link_for(row, by, lasts)


@transaction.atomic
def invite_new(
    *, by: User | None, email: str, full_name: str, proofs: Proofs = NONE, **fields: Any
) -> tuple[User, str]:
    """Add a person, and a link for them. Raises as `create_user` does."""
    person = create_user(by=by, email=email, full_name=full_name, proofs=proofs, **fields)
    return person, _link_for(person, by, LASTS)


def _link_for(row: User, by: User | None, lasts: dt.timedelta) -> str:
    Invitation.objects.filter(person=row, used_at=None).delete()
    token = new_token()
    Invitation.objects.create(
        person=row, digest=digest(token), invited_by=by, expires_at=clock.now() + lasts
    )
    record(Event.USER_INVITED, by=by, about=row, hours=int(lasts.total_seconds() // 3600))
    return link(token)


def find(token: str) -> Invitation | None:
    """The invitation that this token is of, if it still lets its person in."""
    return find_digest(digest(token)) if _TOKEN.fullmatch(token) else None


def find_digest(stored: bytes) -> Invitation | None:
    """The same by what is stored of the token."""
    return (
        Invitation.objects.select_related("person")
        .filter(
            digest=stored,
            used_at=None,
            expires_at__gt=clock.now(),
            person__is_active=True,
        )
        .first()
    )


def opens(person: User) -> bool:
    """Whether an invitation lets this person in. Where people come by a provider, only
    administrators are: somebody must get in before one works."""
    return settings.KEYTURN_PASSWORD_SIGN_IN or person.is_administrator


@transaction.atomic
def claim(*, stored: bytes, password: str) -> User:
    """Set the password of the person whose invitation this is, and use it up.

    Raises NotFound for one that is used, over or unknown, and InvalidInput for the password, by
    which nothing is used up.
    """
    # In one statement, of two who bring the same link at once, one gets in. Only by columns of
    # this table: a condition on the person would be a subquery, which the second one, having
    # waited for the first, wouldn't look at again.
    used = Invitation.objects.filter(
        digest=stored, used_at=None, expires_at__gt=clock.now()
    ).update(used_at=clock.now())
    # Who comes too late locks nothing: locks of several, taken in any order, would be a deadlock.
    waiting = User.objects.select_for_update(of=("self",)).filter(invitations__digest=stored)
    person = waiting.first() if used else None
    if person is None or not person.is_active or not opens(person):
        raise NotFound("This link was used already, or its time is over.")
    record(Event.INVITATION_USED, by=person, about=person)
    set_password(by=person, user=person, password=password)
    return person
