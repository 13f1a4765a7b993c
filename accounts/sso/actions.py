"""Verbs on those who come by an OpenID provider: letting them in, asking again, letting them go."""

import datetime as dt
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import jwt
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import OperationalError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts import factors
from accounts.actions import create_user, join_group, leave_group
from accounts.models import Group, LogoutToken, ProviderSignIn, Session, User
from accounts.published import NoAnswer, NotGood
from accounts.sso import speaking
from accounts.sso.configuration import Provider, provider
from accounts.sso.speaking import Gone
from audit import clock
from audit.events import Event
from audit.ids import new_id
from audit.record import record
from broker.errors import InvalidInput, SignInAgain, Unavailable

logger = logging.getLogger(__name__)

ASKED_WITHIN = dt.timedelta(minutes=1)
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_AGE = 300  # seconds that a logout token may be on its way
LONGEST_SID = 150
KEPT = dt.timedelta(hours=1)  # longer than a sign-in takes, and than a logout token counts


class NotAdmitted(Exception):
    """Nobody is let in. The text is for the record: to whoever tried all reasons read the same."""


def admit(*, by_provider: Provider, claims: Mapping[str, Any]) -> User:
    """The person for whom the provider has just spoken, as a member of the groups it governs.

    Known by the provider's `sub`; by e-mail once, where nobody else's `sub` was known for them.
    Raises NotAdmitted.
    """
    try:
        with transaction.atomic():
            user = _person(by_provider, claims)
            _take_groups(user, by_provider, claims)
            return user
    except NotAdmitted as error:
        with transaction.atomic():
            record(Event.SIGN_IN_REFUSED, by=None, provider=by_provider.slug, reason=str(error))
        raise


def _person(by_provider: Provider, claims: Mapping[str, Any]) -> User:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= 150:
        raise NotAdmitted("sub")
    # Two first sign-ins at once must make one account.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 3))",
            [f"{by_provider.slug} {subject}"],
        )
    known = (
        SocialAccount.objects.select_related("user")
        .filter(provider=by_provider.slug, uid=subject)
        .first()
    )
    if known is not None:
        # A slug that was given to another issuer: its `sub` is somebody else.
        if known.extra_data.get("issuer") != by_provider.issuer:
            raise NotAdmitted("issuer")
        return _may_enter(known.user)
    email = _email(by_provider, claims)
    user = User.objects.select_for_update().filter(email=email).first()
    if user is None:
        if not by_provider.new_accounts:
            raise NotAdmitted("unknown")
        user = _new(email, claims)
    else:
        _may_enter(user)
        if SocialAccount.objects.filter(user=user).exists():
            raise NotAdmitted("has another identity")
    SocialAccount.objects.create(
        user=user,
        provider=by_provider.slug,
        uid=subject,
        extra_data={"issuer": by_provider.issuer},
    )
    record(Event.PROVIDER_LINKED, by=user, about=user, provider=by_provider.slug)
    return user


def _may_enter(user: AbstractBaseUser) -> User:
    if not isinstance(user, User) or not user.is_active:
        raise NotAdmitted("deactivated")
    if user.is_service:
        raise NotAdmitted("service account")
    return user


def _email(by_provider: Provider, claims: Mapping[str, Any]) -> str:
    said = claims.get("email")
    email = User.objects.normalize_email(said if isinstance(said, str) else "")
    try:
        validate_email(email)
    except ValidationError:
        raise NotAdmitted("email") from None
    # Nothing but `true`: some providers send text.
    if claims.get("email_verified") is not True and not by_provider.vouches_for_email:
        raise NotAdmitted("email not verified")
    if not by_provider.speaks_for(email):
        raise NotAdmitted("domain")
    return email


def _new(email: str, claims: Mapping[str, Any]) -> User:
    said = claims.get("name")
    name = said.strip()[:150] if isinstance(said, str) else ""
    try:
        return create_user(by=None, email=email, full_name=name or email.partition("@")[0])
    except InvalidInput:
        raise NotAdmitted("account") from None


def _take_groups(user: User, by_provider: Provider, claims: Mapping[str, Any]) -> None:
    if by_provider.groups is None:
        return
    member_of = by_provider.groups.of(claims)
    for group in Group.objects.filter(slug__in=by_provider.groups.governed):
        if group.slug in member_of:
            join_group(by=None, user=user, group=group)
        else:
            leave_group(by=None, user=user, group=group)


def keep(
    *, by_provider: Provider, person: User, claims: Mapping[str, Any], tokens: Mapping[str, str]
) -> ProviderSignIn:
    """Note the sign-in with the provider's tokens, to ask it again by. Raises Unavailable."""
    key = new_id()
    sid = claims.get("sid")
    if not isinstance(sid, str) or not 1 <= len(sid) <= LONGEST_SID:
        sid = str(key)
    return ProviderSignIn.objects.create(
        id=key,
        person=person,
        provider=by_provider.slug,
        subject=claims["sub"],
        provider_session=session_at(by_provider, sid),
        sealed=_seal(key, tokens),
        asked_at=clock.now(),
    )


def _seal(key: UUID, tokens: Mapping[str, str]) -> str:
    return factors.seal(json.dumps(dict(tokens)).encode(), str(key))


def session_at(by_provider: Provider, sid: str) -> str:
    """What names a provider's session among those of all providers."""
    return f"{by_provider.slug}/{sid}"


def given(answer: Mapping[str, Any]) -> dict[str, str]:
    """The tokens in what a token endpoint answered."""
    names = ("access_token", "refresh_token", "id_token")
    return {name: answer[name] for name in names if isinstance(answer.get(name), str)}


def tokens_of(row: ProviderSignIn) -> dict[str, str]:
    """The provider's tokens. Raises Unavailable."""
    found: dict[str, str] = json.loads(factors.unseal(row.sealed, str(row.pk)))
    return found


def ask_again(*, key: UUID | str) -> None:
    """Ask the provider whether it still stands for this sign-in, unless it just said so.

    Raises SignInAgain, once all sessions of the sign-in are ended, where it doesn't; Unavailable
    where it can't be asked.
    """
    # A refresh token works once: of two requests the second waits for what the first one hears.
    with _alone(f"sign-in {key}"):
        row = ProviderSignIn.objects.select_related("person").filter(pk=key).first()
        if row is None:
            raise SignInAgain
        if clock.now() - row.asked_at <= ASKED_WITHIN:
            return
        asked = provider(row.provider)
        if asked is None:
            end(ProviderSignIn.objects.filter(pk=row.pk), why="no such provider")
            raise SignInAgain
        try:
            claims = _standing(asked, row)
        except Gone as error:
            end(_same_session(row), why=str(error))
            raise SignInAgain(f"{asked.name} no longer stands for you. Sign in again.") from None
        except (NoAnswer, NotGood) as error:
            logger.warning("%s can't be asked again: %s", asked.slug, error)
            raise speaking.unavailable(asked) from None
        with transaction.atomic():
            _put(row, asked_at=clock.now())
            # Claims that only ID tokens carry say nothing by their absence elsewhere.
            if asked.groups is not None and ("aud" in claims or asked.groups.claim in claims):
                _take_groups(row.person, asked, claims)


def _standing(asked: Provider, row: ProviderSignIn) -> dict[str, Any]:
    """What the provider says of the person now. Raises Gone, NoAnswer, NotGood, Unavailable."""
    tokens = tokens_of(row)
    claims: dict[str, Any] = {}
    if refresh_token := tokens.get("refresh_token"):
        # First: an access token may be good until it ends by itself, whatever became of the person.
        new = given(speaking.refresh(asked, refresh_token))
        tokens |= new
        # At once: it works once, and what follows may fail.
        _put(row, sealed=_seal(row.pk, tokens))
        if "id_token" in new:
            claims = speaking.verified(asked, new["id_token"], need=["sub", "exp", "iat"])
    if not claims or speaking.has_userinfo(asked):
        said = speaking.userinfo(asked, tokens["access_token"])
        if claims and said.get("sub") != claims["sub"]:
            raise NotGood("userinfo is of another sub")
        claims = said | claims
    if claims.get("sub") != row.subject:
        raise Gone("another sub")
    return claims


def _put(row: ProviderSignIn, **fields: Any) -> None:
    # By the row: a logout in the meantime has deleted it.
    if not ProviderSignIn.objects.filter(pk=row.pk).update(**fields):
        raise SignInAgain


def _same_session(row: ProviderSignIn) -> QuerySet[ProviderSignIn]:
    return ProviderSignIn.objects.filter(
        provider=row.provider, provider_session=row.provider_session
    )


@transaction.atomic
def end(rows: QuerySet[ProviderSignIn], *, why: str) -> int:
    """End these sign-ins with all their sessions; how many there were."""
    found = list(rows.select_for_update(of=("self",)).select_related("person"))
    for row in found:
        record(
            Event.PROVIDER_ENDED, by=row.person, about=row.person, provider=row.provider, why=why
        )
    Session.objects.filter(provider_session__in=[row.provider_session for row in found]).delete()
    ProviderSignIn.objects.filter(pk__in=[row.pk for row in found]).delete()
    return len(found)


def take_logout(*, by_provider: Provider, token: str) -> int:
    """End what a logout token names (OpenID Connect Back-Channel Logout 1.0); how many sign-ins.

    Raises NotGood, and NoAnswer where the provider's keys can't be read.
    """
    claims = speaking.verified(by_provider, token, need=["iat", "jti"])
    header = jwt.get_unverified_header(token)
    # An ID token is signed by the same key: it must not pass for this.
    if header.get("typ", "logout+jwt").lower() not in {"logout+jwt", "jwt"}:
        raise NotGood("typ")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise NotGood("events")
    if "nonce" in claims:
        raise NotGood("nonce")
    subject, sid, jti = claims.get("sub"), claims.get("sid"), claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= 500:
        raise NotGood("jti")
    if abs(time.time() - int(claims["iat"])) > LOGOUT_AGE:
        raise NotGood("iat")
    named = Q()
    if sid is not None:
        named &= Q(provider_session=session_at(by_provider, str(sid)))
    if subject is not None:
        named &= Q(subject=str(subject))
    if sid is None and subject is None:
        raise NotGood("neither sub nor sid")
    digest = hashlib.sha256(f"{by_provider.slug} {jti}".encode()).digest()
    with transaction.atomic():
        # The constraint decides between two that bring it at once.
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO accounts_logouttoken (digest) VALUES (%s) ON CONFLICT DO NOTHING",
                [digest],
            )
            if cursor.rowcount == 0:
                raise NotGood("jti was taken before")
        return end(
            ProviderSignIn.objects.filter(named, provider=by_provider.slug), why="logout token"
        )


def forget_old() -> None:
    """Delete sign-ins whose sessions are over, and logout tokens that are too old to be taken."""
    before = clock.now() - KEPT
    sessions = Session.objects.filter(provider_session=OuterRef("provider_session"))
    ProviderSignIn.objects.filter(~Exists(sessions), created_at__lt=before).delete()
    LogoutToken.objects.filter(at__lt=before).delete()


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Whoever else comes with this name waits until the block is over, or at most 10 s."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 4))", [name])
        except OperationalError as error:
            raise Unavailable("Your provider is being asked at this moment. Try again.") from error
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 4))", [name])
