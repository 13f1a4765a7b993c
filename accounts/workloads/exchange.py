"""Exchanging the JWT of a workload's platform for an API token (RFC 8693)."""

import datetime as dt
import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jwt
from django.db import connection, transaction

from accounts import published, tokens
from accounts.actions.signing_in import TRY_WINDOW
from accounts.models import (
    ApiToken,
    SignInTry,
    TrustedIssuer,
    UsedAssertion,
    User,
    WorkloadRule,
)
from accounts.published import ALGORITHMS, NoAnswer, NotGood
from accounts.scopes import BY_ITSELF
from accounts.workloads.claims import fit, neutral, read
from audit import clock
from audit.context import origin
from audit.events import Event
from audit.record import record
from broker.errors import TooManyTries, Unavailable

logger = logging.getLogger(__name__)

LEEWAY = dt.timedelta(seconds=published.LEEWAY)
OLDEST = dt.timedelta(hours=1)  # since its issuer signed it
KEPT = dt.timedelta(days=7)
LONGEST = 16_000  # characters of a JWT
LONGEST_JTI = 500
TIMES = ("exp", "nbf", "iat")
# By PyJWT: those follow, to the letter, and by the database's clock.
UNVERIFIED: Any = {f"verify_{name}": False for name in ("iss", "aud", "sub", "jti", *TIMES)}
# Within TRY_WINDOW: of one address, and of one issuer from wherever. What is good is never held up
# by either: addresses are shared, and whoever fails on purpose must not lock others out.
REFUSED_PER_ADDRESS = 30
REFUSED_PER_ISSUER = 300


@dataclass(eq=False)
class Refused(Exception):
    """There is no token for this. `error` is as in RFC 6749, §5.2, and `description` is for whoever
    called; what else is known is for the record."""

    error: str
    description: str
    issuer: TrustedIssuer | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    service_account: User | None = None

    def __str__(self) -> str:
        return self.description


def exchange(
    *, subject_token: str, scope: Iterable[str] = (), service_account: str = ""
) -> tuple[ApiToken, str]:
    """An API token for a JWT of a trusted issuer, once; its text is here and nowhere else.

    `scope` narrows it to these verbs. `service_account`, an e-mail address, says which where rules
    fit several. Raises Refused, TooManyTries instead where there were too many of those, and
    Unavailable where the issuer's keys can't be read: then nothing is written.
    """
    try:
        issuer, claims = _verified(subject_token)
        with transaction.atomic():
            return _give(issuer, claims, subject_token, set(scope), service_account)
    except Refused as error:
        _put_on_record(error)
        raise


def _verified(token: str) -> tuple[TrustedIssuer, dict[str, Any]]:
    """Who signed it, and what it says: signed for us, and of now."""
    if len(token) > LONGEST:
        raise Refused("invalid_request", f"A subject_token has at most {LONGEST} characters.")
    issuer = _named_in(token)
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=published.key_of(token, lambda: _jwks_uri(issuer)),
            algorithms=ALGORITHMS,
            options=UNVERIFIED,
        )
    except (jwt.PyJWTError, NotGood) as error:
        logger.warning("JWT of %s: %s", issuer.slug, error)
        raise Refused(
            "invalid_grant", "The token is not signed by a key of its issuer.", issuer
        ) from None
    except NoAnswer as error:
        logger.warning("keys of %s: %s", issuer.slug, error)
        raise Unavailable(
            f"The keys of {issuer} can't be read at the moment. Nothing was done, and the token is "
            "still good: try again in a few seconds."
        ) from None
    _check(issuer, claims)
    return issuer, claims


def _named_in(token: str) -> TrustedIssuer:
    """The issuer that a token says it is of; nothing else of it is believed yet."""
    try:
        named = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refused("invalid_request", "The subject_token is no signed JWT.") from None
    text = named if isinstance(named, str) and named == neutral(named) else ""
    issuer: TrustedIssuer | None
    issuer = TrustedIssuer.objects.filter(issuer=text, retired_at=None).first()
    if issuer is None:
        raise Refused(
            "invalid_grant",
            "The issuer of this token is not trusted here.",
            claims={"iss": neutral(named)},
        )
    return issuer


def _jwks_uri(issuer: TrustedIssuer) -> str:
    if issuer.jwks_uri:
        return issuer.jwks_uri
    found: str = published.discovered(issuer.issuer, need=("jwks_uri",))["jwks_uri"]
    return found


def _check(issuer: TrustedIssuer, claims: dict[str, Any]) -> None:
    """Raise Refused unless these are for us, and of now."""
    why = ""
    now = clock.now().timestamp()
    times: list[Any] = [claims.get(name) for name in TIMES]
    jti = claims.get("jti")
    if claims.get("aud") not in (issuer.audience, [issuer.audience]):
        # Of several, each other one could hand it on to here.
        why = f"The token must be for {issuer.audience} (aud), and for nobody else."
    elif not all(isinstance(at, int | float) and not isinstance(at, bool) for at in times):
        why = "The token must have exp, nbf and iat, each a number."
    elif jti is not None and not (isinstance(jti, str) and 1 <= len(jti) <= LONGEST_JTI):
        why = f"The jti of the token must be text of at most {LONGEST_JTI} characters."
    else:
        exp, nbf, iat = times
        leeway = LEEWAY.total_seconds()
        if not now - leeway < exp:
            why = "The token has ended (exp)."
        elif not (nbf <= now + leeway and iat <= now + leeway):
            why = "The token is not good yet (nbf, iat)."
        elif not now - OLDEST.total_seconds() - leeway < iat:
            why = "The token was signed more than an hour ago (iat). Have a new one made."
    if why:
        raise Refused("invalid_grant", why, issuer, claims)


def _give(
    issuer: TrustedIssuer,
    claims: dict[str, Any],
    subject_token: str,
    asked: set[str],
    service_account: str,
) -> tuple[ApiToken, str]:
    rule = _rule(issuer, claims, asked, service_account)
    service = rule.service_account
    _use_up(issuer, claims, subject_token, service)
    now = clock.now()
    ends = [now + rule.lifetime, *([service.ends_at] if service.ends_at is not None else [])]
    token = tokens.generate("wl")
    row = ApiToken.objects.create(
        lookup=token.lookup,
        digest=tokens.digest(token),
        kind=ApiToken.Kind.WORKLOAD,
        owner=service,
        name=rule.name,
        verbs=_given(rule, asked),
        endpoints=rule.endpoints,
        rule=rule,
        claims=read(rule.claims, claims),
        expires_at=min(ends),
    )
    record(
        Event.TOKEN_EXCHANGED,
        by=service,
        about=row,
        related=(rule, issuer, *([service.owner] if service.owner is not None else [])),
        lookup=token.lookup,
        issuer=issuer.slug,
        rule=rule.name,
        claims=row.claims,
        verbs=row.verbs,
    )
    return row, token.text


def _standing(issuer: TrustedIssuer, claims: dict[str, Any]) -> list[WorkloadRule]:
    """The issuer's rules of this moment, which stay as they are until this is committed: whoever
    changes one locks the issuer, and takes back what the old one gave."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT audience FROM accounts_trustedissuer"
            " WHERE id = %s AND retired_at IS NULL FOR SHARE",
            [issuer.pk],
        )
        found = cursor.fetchone()
    if found != (issuer.audience,):
        raise Refused(
            "invalid_grant", "The issuer of this token is not trusted here.", issuer, claims
        )
    rules = issuer.rules.filter(retired_at=None).select_related("service_account__owner")
    return list(rules.order_by("pk"))


def _rule(
    issuer: TrustedIssuer, claims: dict[str, Any], asked: set[str], service_account: str
) -> WorkloadRule:
    """Which of the issuer's rules it is taken by."""
    fitting = [rule for rule in _standing(issuer, claims) if fit(rule.claims, claims)]
    if service_account:
        email = User.objects.normalize_email(service_account)
        fitting = [rule for rule in fitting if rule.service_account.email == email]
    if not fitting:
        raise Refused("invalid_grant", "No rule fits what the token says.", issuer, claims)
    accounts = {rule.service_account for rule in fitting}
    if len(accounts) > 1:
        names = ", ".join(sorted(each.email for each in accounts))
        raise Refused("invalid_request", f"Say which service_account: {names}.", issuer, claims)
    service = fitting[0].service_account
    stands = service.is_active and service.owner is not None and service.owner.is_active
    if not stands or (service.ends_at is not None and service.ends_at <= clock.now()):
        why = f"The service account {service.email} has ended."
        raise Refused("invalid_grant", why, issuer, claims, service)
    best = max(fitting, key=lambda rule: (len(_given(rule, asked)) if asked else 0, *_narrow(rule)))
    if not _given(best, asked):
        why = "Nothing of this scope may be given for this token."
        raise Refused("invalid_scope", why, issuer, claims, service)
    return best


def _given(rule: WorkloadRule, asked: set[str]) -> list[str]:
    return [verb.value for verb in BY_ITSELF if verb in rule.verbs and (not asked or verb in asked)]


def _narrow(rule: WorkloadRule) -> tuple[float, ...]:
    """The greater, the less it gives."""
    endpoints = -len(rule.endpoints) if rule.endpoints else float("-inf")
    return -len(rule.verbs), endpoints, -rule.lifetime.total_seconds()


def _use_up(
    issuer: TrustedIssuer, claims: dict[str, Any], subject_token: str, service: User
) -> None:
    """Raise Refused for a token that was exchanged before."""
    # Without a `jti` what was signed: of that, unlike of the signature, there is one spelling.
    signed = claims.get("jti") or subject_token.rpartition(".")[0]
    kind = "jti" if claims.get("jti") else "token"
    digest = hashlib.sha256(json.dumps([issuer.issuer, kind, signed]).encode()).digest()
    ends = min(claims["exp"], claims["iat"] + OLDEST.total_seconds())
    # Twice the leeway: it is kept longer than it could be taken.
    until = dt.datetime.fromtimestamp(ends, dt.UTC) + 2 * LEEWAY
    with connection.cursor() as cursor:
        # The constraint decides between two that bring it at once.
        cursor.execute(
            "INSERT INTO accounts_usedassertion (digest, expires_at) VALUES (%s, %s)"
            " ON CONFLICT DO NOTHING",
            [digest, until],
        )
        if cursor.rowcount == 0:
            why = "The token was exchanged before. Have a new one made for each exchange."
            raise Refused("invalid_grant", why, issuer, claims, service)


@transaction.atomic
def _put_on_record(error: Refused) -> None:
    """Count and record a refusal. Raises TooManyTries, and writes nothing, where an address or an
    issuer had too many: a record that anybody can fill hides what is in it."""
    of = f"exchange:{error.issuer.slug if error.issuer is not None else ''}"
    digest, address = hashlib.sha256(of.encode()).hexdigest(), origin().address
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('exchange', 5))")
    recent = SignInTry.objects.filter(account=digest, at__gt=clock.now() - TRY_WINDOW)
    if (
        recent.filter(address=address).count() >= REFUSED_PER_ADDRESS
        or recent.count() >= REFUSED_PER_ISSUER
    ):
        raise TooManyTries(
            "Too many tokens were refused. Wait 15 minutes, then try again.",
            retry_after=int(TRY_WINDOW.total_seconds()),
        ) from error
    SignInTry.objects.create(account=digest, address=address)
    record(
        Event.EXCHANGE_REFUSED,
        by=None,
        about=error.issuer,
        related=() if error.service_account is None else (error.service_account,),
        why=error.description,
        iss=neutral(error.claims.get("iss", "")),
        sub=neutral(error.claims.get("sub", "")),
    )


def forget_used() -> int:
    """Forget JWTs that would be refused for their age anyway, how many; and tokens that ended a
    week ago, of which there is one for each job."""
    now = clock.now()
    ApiToken.objects.filter(kind=ApiToken.Kind.WORKLOAD, expires_at__lt=now - KEPT).delete()
    gone, _ = UsedAssertion.objects.filter(expires_at__lt=now).delete()
    return gone
