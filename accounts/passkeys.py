"""Passkeys (WebAuthn), by django-otp-webauthn's helper and models; pages and sessions are ours.

Its own views mark a session as verified for everything, and take a passkey without asking who
holds it. Here each ceremony has a challenge that is good for it alone: for its kind, for what it
is about, in the session in which it began, once, for a few minutes.
"""

import datetime as dt
import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction
from django_otp_webauthn.exceptions import OTPWebAuthnApiError
from django_otp_webauthn.helpers import WebAuthnHelper
from django_otp_webauthn.models import WebAuthnCredential, WebAuthnUserHandle
from webauthn import base64url_to_bytes, verify_authentication_response
from webauthn.helpers import parse_authentication_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from accounts import factors
from accounts.models import PasskeyChallenge, User
from accounts.stepup import NONE, Proofs
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import Conflict, InvalidInput, NotFound

LIFE = dt.timedelta(seconds=settings.OTP_WEBAUTHN_TIMEOUT_SECONDS + 60)  # of a challenge
MOST = 20  # passkeys of one person
NAME = 64  # characters
BIGGEST = 20_000  # characters of what a browser hands over
BEGUN = "passkey.begun"  # in the session: the ceremony that began last

# Whatever else a browser may hand over: the parsers raise these for it, and nothing was changed.
_MALFORMED = (WebAuthnException, OTPWebAuthnApiError, ValueError, TypeError, KeyError)


class Ceremony(StrEnum):
    """What a challenge is for."""

    ADD = "add"
    PROVE = "prove"  # anew, in a session
    SECOND = "second"  # after the password
    SIGN_IN = "sign-in"  # instead of it


@dataclass(frozen=True)
class Begun:
    """A ceremony that waits for its passkey. `about` is whom, or what it is to prove."""

    ceremony: Ceremony
    about: str
    challenge: str

    @property
    def state(self) -> dict[str, Any]:
        """As the helper wants it back."""
        return {"challenge": self.challenge, "require_user_verification": True}


class _Helper(WebAuthnHelper):  # type: ignore[misc]
    """As the library has it, but the passkey always asks who holds it, and can be found by it."""

    def __init__(self) -> None:
        super().__init__(request=None)

    def get_credential_display_name(self, user: User) -> str:
        return str(user)

    def get_generate_registration_options_kwargs(self, *, user: User) -> dict[str, Any]:
        options: dict[str, Any] = super().get_generate_registration_options_kwargs(user=user)
        options["authenticator_selection"] = AuthenticatorSelectionCriteria(
            user_verification=UserVerificationRequirement.REQUIRED,
            resident_key=ResidentKeyRequirement.REQUIRED,
            require_resident_key=True,
        )
        return options


def begin_adding(session: SessionBase, *, by: User, proofs: Proofs = NONE) -> dict[str, Any]:
    """What the browser of this person needs to make a passkey. Raises StepUpNeeded, Conflict."""
    factors.check_may_change(by, proofs)
    if WebAuthnCredential.objects.filter(user=by).count() >= MOST:
        raise Conflict(f"You have {MOST} passkeys. Remove one that you don’t use.")
    options, state = _Helper().register_begin(by)
    _keep(session, Begun(Ceremony.ADD, str(by.pk), state["challenge"]))
    return dict(options)


def begin(
    session: SessionBase, ceremony: Ceremony, *, by: User | None = None, about: str = ""
) -> dict[str, Any]:
    """What a browser needs to use a passkey of this person, or of whoever it finds."""
    options, state = _Helper().authenticate_begin(user=by, require_user_verification=True)
    _keep(session, Begun(ceremony, about, state["challenge"]))
    return dict(options)


def _keep(session: SessionBase, begun: Begun) -> None:
    session[BEGUN] = asdict(begun)
    PasskeyChallenge.objects.create(digest=_digest(begun.challenge), expires_at=clock.now() + LIFE)


def _digest(challenge: str) -> str:
    return hashlib.sha256(challenge.encode()).hexdigest()


def taken(session: SessionBase, ceremony: Ceremony, about: str = "") -> Begun:
    """The ceremony that this session began for exactly this, which is used up by it.

    Raises InvalidInput where it began none, or another one, or too long ago.
    """
    kept = session.pop(BEGUN, None)
    begun = Begun(**kept) if kept else None
    # Two requests may both have read it from the session: one of them deletes the row.
    if begun is None or not (
        PasskeyChallenge.objects.filter(
            digest=_digest(begun.challenge), expires_at__gt=clock.now()
        ).delete()[0]
        and (begun.ceremony, begun.about) == (ceremony, about)
    ):
        raise InvalidInput(
            {"credential": "That took too long, or began in another tab. Try again."}
        )
    return begun


def add(
    *, by: User, begun: Begun, credential: str, name: str, proofs: Proofs = NONE
) -> WebAuthnCredential:
    """Make this passkey one of the person's second factors; their sessions end by it.

    Raises InvalidInput, and StepUpNeeded where there is a factor already that wasn't proved.
    """
    data = _parsed(credential)
    with transaction.atomic():
        # Of two sessions that set one up at once, the second finds the first one's.
        User.objects.select_for_update().get(pk=by.pk)
        factors.check_may_change(by, proofs)
        try:
            with transaction.atomic():
                passkey: WebAuthnCredential = _Helper().register_complete(by, begun.state, data)
        except IntegrityError:
            # Whoever it belongs to, it stays theirs.
            raise InvalidInput({"credential": "This passkey is in use already."}) from None
        except _MALFORMED:
            raise InvalidInput(
                {"credential": "This passkey can’t be used here: it must ask who you are."}
            ) from None
        passkey.name = _name(name)
        passkey.save(update_fields=["name"])
        factors.end_sessions(by)
        record(Event.FACTOR_ADDED, by=by, passkey=passkey.name)
        factors.tell(by, f"set up: the passkey “{passkey.name}”")
    return passkey


def prove(*, by: User | None, begun: Begun, credential: str) -> tuple[User, dt.datetime]:
    """Take what a passkey signed: whose it is, and when. `by` is whose it must be.

    Raises InvalidInput for one of somebody else, that didn't ask who holds it, that signed
    something else, or whose count went back, of which its owner is told.
    """
    data, copied = _parsed(credential), False
    refusal = Event.SIGN_IN_REFUSED if by is None else Event.STEP_UP_REFUSED
    with transaction.atomic():
        owner, passkey = _owner_of(data)
        now = clock.now()
        if owner is None or passkey is None or (by is not None and owner.pk != by.pk):
            record(refusal, by=by, passkey="of nobody, or of somebody else")
            owner = None
        else:
            try:
                used = _Helper().authenticate_complete(owner, begun.state, data)
            except _MALFORMED:
                copied = _signed_with_an_older_count(passkey, begun, data)
                record(refusal, by=by, passkey=passkey.name)
                if copied:
                    record(Event.FACTOR_COPIED, by=owner, passkey=passkey.name)
                    factors.tell(
                        owner, f"refused: the passkey “{passkey.name}” may have been copied"
                    )
                owner = None
            else:
                used.last_used_at = now
                used.save(update_fields=["last_used_at"])
                record(Event.STEP_UP_PROVED, by=owner, passkey=passkey.name)
    # After the commit, which has to keep what was refused.
    if owner is None:
        raise _refused(
            "This passkey may have been copied, and was refused. Use another way, and remove it."
            if copied
            else ""
        )
    return owner, now


def _owner_of(data: dict[str, Any]) -> tuple[User | None, WebAuthnCredential | None]:
    """Whose passkey this says it is. Its row is locked: of two answers at once, the second is
    held against the count of the first."""
    try:
        parsed = parse_authentication_credential_json(data)
    except _MALFORMED:
        return None, None
    digest = WebAuthnCredential.get_credential_id_sha256(parsed.raw_id)
    rows = WebAuthnCredential.objects.select_for_update(of=("self",))
    passkey = rows.filter(credential_id_sha256=digest).first()
    if passkey is None:
        return None, None
    owner = User.objects.active().filter(pk=passkey.user_id, owner=None).first()
    handle = parsed.response.user_handle
    if owner is None or (handle and handle != WebAuthnUserHandle.get_handle_for_user(owner)):
        return None, None
    return owner, passkey


def _signed_with_an_older_count(
    passkey: WebAuthnCredential, begun: Begun, data: dict[str, Any]
) -> bool:
    """Whether all is right but the count: then two devices sign with one key."""
    helper = _Helper()
    try:
        verify_authentication_response(
            credential=parse_authentication_credential_json(data),
            credential_current_sign_count=0,
            credential_public_key=bytes(passkey.public_key),
            expected_challenge=base64url_to_bytes(begun.challenge),
            expected_rp_id=helper.get_relying_party_domain(),
            expected_origin=helper.get_allowed_origins(),
            require_user_verification=True,
        )
    except _MALFORMED:
        return False
    return True


def _refused(why: str = "") -> InvalidInput:
    return InvalidInput(
        {"credential": why or "This passkey was refused. Try again, or another way."}
    )


def _parsed(credential: str) -> dict[str, Any]:
    try:
        data = json.loads(credential) if len(credential) <= BIGGEST else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _refused()
    return data


def _name(name: str) -> str:
    return " ".join(name.split())[:NAME] or "Passkey"


def mine(user: User) -> list[WebAuthnCredential]:
    """The passkeys of this person, the oldest first."""
    return list(WebAuthnCredential.objects.filter(user=user).order_by("pk"))


def _locked(by: User, pk: int) -> WebAuthnCredential:
    User.objects.select_for_update().get(pk=by.pk)
    passkey = WebAuthnCredential.objects.filter(user=by, pk=pk).first()
    if passkey is None:
        raise NotFound(kind="passkey", id=str(pk))
    return passkey


@transaction.atomic
def rename(*, by: User, pk: int, name: str) -> None:
    """Call one of one's own passkeys something else. Raises NotFound, InvalidInput."""
    passkey = _locked(by, pk)
    if not name.strip():
        raise InvalidInput({"name": "Give a name by which you will know it."})
    old, passkey.name = passkey.name, _name(name)
    passkey.save(update_fields=["name"])
    record(Event.FACTOR_RENAMED, by=by, before=old, after=passkey.name)


@transaction.atomic
def remove(*, by: User, pk: int, proofs: Proofs = NONE) -> None:
    """Take one of one's own passkeys away; sessions end by it.

    Raises NotFound, StepUpNeeded, and Conflict for the last factor of who must have one.
    """
    passkey = _locked(by, pk)
    factors.check_may_change(by, proofs)
    passkey.delete()
    factors.check_may_lose(by)
    factors.forget_codes_of_nothing(by)
    factors.end_sessions(by)
    record(Event.FACTOR_REMOVED, by=by, passkey=passkey.name)
    factors.tell(by, f"removed: the passkey “{passkey.name}”")


def forget_old_challenges() -> int:
    """Delete what was never signed in time; how many there were."""
    gone, _ = PasskeyChallenge.objects.filter(expires_at__lte=clock.now()).delete()
    return gone
