"""One state change, one audit row, one transaction."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, connection, transaction
from django.test import Client
from pydantic import SecretStr

from accessrequests.actions import cancel_request, expire_requests, review_request
from accessrequests.models import Grant, Review
from accounts import actions as accounts
from accounts import changes, factors, invitations, leaks, passkeys, recovery
from accounts.models import Change, ProviderSignIn, User
from accounts.passkeys import Ceremony
from accounts.scim import actions as scim
from accounts.scim import tokens as scim_tokens
from accounts.sso import actions as sso
from accounts.sso.configuration import Provider
from accounts.workloads import actions as workloads
from accounts.workloads import exchange
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from audit.record import record
from broker.errors import WrapTaken
from credentials import actions as credentials
from credentials import stopping
from credentials.actions import check_out, checking_out, revoking, rotating
from credentials.kinds.base import Minted
from credentials.models import Credential, Rotation
from endpoints import actions as endpoints
from notifications import actions as notifications
from notifications.models import Webhook, WebhookMessage
from notifications.webhooks import actions as webhooks
from tests.accounts.authenticator import code, later
from tests.accounts.passkey import Passkey, passkey_of, proved_for_factors
from tests.invariants.by_hand import by_hand
from tests.servers import Servers
from tests.world import PASSWORD, PROVED, UPSTREAM_KEY, World, move, unique

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("proved")]

STATE = (
    "SELECT json_agg(t) FROM (SELECT 'user' AS kind, id::text,"
    " concat(is_active, password, manager_id, is_auditor, full_name, ends_at) AS state"
    " FROM accounts_user UNION ALL"
    " SELECT 'group', id::text, is_rota::text FROM accounts_group UNION ALL"
    " SELECT 'session', session_key, '' FROM accounts_session UNION ALL"
    " SELECT 'sign-in', id::text, '' FROM accounts_providersignin UNION ALL"
    " SELECT 'invitation', id::text, used_at::text FROM accounts_invitation UNION ALL"
    " SELECT 'member', group_id::text || user_id::text, '' FROM accounts_membership UNION ALL"
    " SELECT 'change', id::text, state FROM accounts_change UNION ALL"
    " SELECT 'group owner', group_id::text, user_id::text FROM accounts_group_owners UNION ALL"
    " SELECT 'factor', id::text, last_step::text FROM accounts_totp UNION ALL"
    " SELECT 'passkey', id::text, concat(name, sign_count)"
    " FROM django_otp_webauthn_webauthncredential UNION ALL"
    " SELECT 'recovery', id::text, used_at::text FROM accounts_recoverycode UNION ALL"
    " SELECT 'token', id::text, revoked_at::text FROM accounts_apitoken UNION ALL"
    " SELECT 'consent', id::text, taken_back_at::text FROM accounts_agentconsent UNION ALL"
    " SELECT 'scim token', id::text, revoked_at::text FROM accounts_scimtoken UNION ALL"
    " SELECT 'scim', id::text, may_widen::text FROM accounts_scimrecord UNION ALL"
    " SELECT 'endpoint', id::text, concat(retired_at, upstream_url) FROM endpoints_endpoint"
    " UNION ALL SELECT 'stop', id::text, lifted_at::text FROM endpoints_emergencystop"
    " UNION ALL SELECT 'price', id::text, model FROM endpoints_modelprice"
    " UNION ALL SELECT 'issuer', id::text, concat(audience, retired_at)"
    " FROM accounts_trustedissuer UNION ALL SELECT 'rule', id::text, concat(verbs, retired_at)"
    " FROM accounts_workloadrule UNION ALL SELECT 'used', id::text, '' FROM accounts_usedassertion"
    " UNION ALL SELECT 'told', person_id::text, email_access FROM notifications_preference"
    " UNION ALL SELECT 'profile', id::text, scope::text FROM endpoints_accessprofile UNION ALL"
    " SELECT 'webhook', id::text, concat(name, url, sealed, disabled_at) FROM notifications_webhook"
    " UNION ALL SELECT 'message', id::text, state FROM notifications_webhookmessage UNION ALL"
    " SELECT 'request', id::text, state FROM accessrequests_accessrequest UNION ALL"
    " SELECT 'review', id::text, verdict FROM accessrequests_review UNION ALL"
    " SELECT 'grant', id::text, state FROM accessrequests_grant UNION ALL"
    " SELECT 'credential', id::text, concat(state, expires_at, next_attempt_at)"
    " FROM credentials_credential UNION ALL"
    " SELECT 'secret', id::text, concat(version, max_age, leaked_at, last_rotated)"
    " FROM credentials_upstreamsecret UNION ALL SELECT 'rotation', id::text,"
    " concat(state, confirmed_at) FROM credentials_rotation ORDER BY 1, 2) t"
)


def state() -> Any:
    """The state of everything, but for the record."""
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        return cursor.fetchone()


@contextmanager
def a_record_that_cannot_be_written() -> Iterator[None]:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(
                "CREATE FUNCTION pg_temp.full() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$;"
                "CREATE TRIGGER full_disk BEFORE INSERT ON audit_auditevent"
                " FOR EACH ROW EXECUTE FUNCTION pg_temp.full()"
            )
        try:
            yield
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TRIGGER full_disk ON audit_auditevent")


Verb = tuple[Callable[[], Any], Event]


def create_user(world: World) -> Verb:
    return world.person, Event.USER_CREATED


def create_group(world: World) -> Verb:
    return world.group, Event.GROUP_CREATED


def set_manager(world: World) -> Verb:
    user, manager = world.person(), world.person()
    return lambda: accounts.set_manager(by=None, user=user, manager=manager), Event.MANAGER_SET


def set_rota(world: World) -> Verb:
    group = world.group()
    return lambda: accounts.set_rota(by=None, group=group, is_rota=True), Event.GROUP_ROTA_SET


def join_group(world: World) -> Verb:
    user, group = world.person(), world.group()
    return lambda: accounts.join_group(by=None, user=user, group=group), Event.GROUP_JOINED


def leave_group(world: World) -> Verb:
    group = world.group()
    user = world.person(group)
    return lambda: accounts.leave_group(by=None, user=user, group=group), Event.GROUP_LEFT


def create_token(world: World) -> Verb:
    user = world.person()
    return lambda: accounts.create_token(by=user, owner=user, name="x"), Event.TOKEN_CREATED


def report_token(world: World) -> Verb:
    user = world.person()
    _, text = accounts.create_token(by=user, owner=user, name="x")
    return lambda: leaks.report(text=text), Event.TOKEN_LEAKED


def allow_agent(world: World) -> Verb:
    person, agent = world.person(), world.person(owner=world.person())
    return lambda: accounts.allow_agent(by=person, agent=agent.email), Event.AGENT_ALLOWED


def take_back_agent(world: World) -> Verb:
    person, agent = world.person(), world.person(owner=world.person())
    row = accounts.allow_agent(by=person, agent=agent.email)
    return (
        lambda: accounts.take_back_agent(by=person, consent_id=row.pk),
        Event.AGENT_DISALLOWED,
    )


def set_password(world: World) -> Verb:
    user = world.person()
    return (
        lambda: accounts.set_password(by=None, user=user, password=PASSWORD),
        Event.PASSWORD_SET,
    )


def revoke_token(world: World) -> Verb:
    user = world.person()
    token, _ = accounts.create_token(by=user, owner=user, name="CI")
    return lambda: accounts.revoke_token(by=None, token=token), Event.TOKEN_REVOKED


def trust_issuer(_: World) -> Verb:
    mark, url = unique(), "https://ci.example"
    fields: dict[str, Any] = {"slug": mark, "name": "CI", "issuer": url, "audience": "x"}
    return lambda: workloads.trust_issuer(by=None, **fields), Event.ISSUER_TRUSTED


def change_issuer(world: World) -> Verb:
    issuer = world.rule().issuer
    return (
        lambda: workloads.change_issuer(by=None, issuer=issuer, audience="y"),
        Event.ISSUER_CHANGED,
    )


def retire_issuer(world: World) -> Verb:
    issuer = world.rule().issuer
    return lambda: workloads.retire_issuer(by=None, issuer=issuer), Event.ISSUER_RETIRED


def add_rule(world: World) -> Verb:
    rule = world.rule()
    fields: dict[str, Any] = {
        "name": "Weekly",
        "service_account": rule.service_account,
        "claims": rule.claims,
        "verbs": ["read"],
    }
    return lambda: workloads.add_rule(by=None, issuer=rule.issuer, **fields), Event.RULE_ADDED


def change_rule(world: World) -> Verb:
    rule = world.rule()
    return lambda: workloads.change_rule(by=None, rule=rule, verbs=["read"]), Event.RULE_CHANGED


def retire_rule(world: World) -> Verb:
    rule = world.rule()
    return lambda: workloads.retire_rule(by=None, rule=rule), Event.RULE_RETIRED


def exchange_jwt(world: World) -> Verb:
    rule, now = world.rule(), clock.now().timestamp()
    claims = {"iss": rule.issuer.issuer, "project": "7", "exp": now + 60, "iat": now, "jti": "1"}
    # Past its signature, which changes nothing.
    give = partial(exchange._give, rule.issuer, claims, "a.b.c", set(), "")
    return transaction.atomic(give), Event.TOKEN_EXCHANGED


def deactivate_user(world: World) -> Verb:
    user = world.person()
    return lambda: accounts.deactivate_user(by=None, user=user), Event.USER_DEACTIVATED


def invite(world: World) -> Verb:
    user = world.person()
    return lambda: invitations.invite(by=None, person=user), Event.USER_INVITED


def claim(world: World) -> Verb:
    link = invitations.invite(by=None, person=world.person())
    stored = invitations.digest(link.split("/")[-2])
    password = "a quiet harbour in november"
    return lambda: invitations.claim(stored=stored, password=password), Event.INVITATION_USED


ACME = Provider(
    slug="acme",
    name="Acme",
    issuer="https://acme.example",
    client_id="keyturn",
    client_secret=SecretStr("s3cret"),
    domains=["example.com"],
    new_accounts=True,
)


def come_by_provider(_: World) -> Verb:
    sub = unique()
    claims = {"sub": sub, "email": f"{sub}@example.com", "email_verified": True}
    return lambda: sso.admit(by_provider=ACME, claims=claims), Event.PROVIDER_LINKED


def end_by_provider(world: World) -> Verb:
    fields: dict[str, Any] = {"claims": {"sub": unique()}, "tokens": {}}
    row = sso.keep(by_provider=ACME, person=world.person(), **fields)
    rows = ProviderSignIn.objects.filter(pk=row.pk)
    return lambda: sso.end(rows, why="logout token"), Event.PROVIDER_ENDED


def change_own_profile(world: World) -> Verb:
    user = world.person()
    return (
        lambda: accounts.change_profile(by=user, full_name="Noor", time_zone="UTC"),
        Event.USER_CHANGED,
    )


def reactivate_user(world: World) -> Verb:
    user = world.person()
    accounts.deactivate_user(by=None, user=user)
    return lambda: accounts.reactivate_user(by=None, user=user), Event.USER_REACTIVATED


def extend_service(world: World) -> Verb:
    service, until = world.person(owner=world.person()), clock.now() + dt.timedelta(days=9)
    return (
        lambda: accounts.extend_service(by=None, service=service, ends_at=until),
        Event.USER_EXTENDED,
    )


def name_owner(world: World) -> Verb:
    user, group = world.person(), world.group()
    return (
        lambda: accounts.name_owner(by=None, group=group, user=user),
        Event.GROUP_OWNER_NAMED,
    )


def drop_owner(world: World) -> Verb:
    user, group = world.person(), world.group()
    accounts.name_owner(by=None, group=group, user=user)
    return (
        lambda: accounts.drop_owner(by=None, group=group, user=user),
        Event.GROUP_OWNER_DROPPED,
    )


def end_sessions(world: World) -> Verb:
    user = world.person()
    Client().force_login(user)
    return lambda: accounts.end_sessions(by=user, person=user), Event.SESSIONS_ENDED


def create_scim_token(_: World) -> Verb:
    return lambda: scim_tokens.create_token(name="Okta"), Event.SCIM_TOKEN_CREATED


def revoke_scim_token(_: World) -> Verb:
    token, _text = scim_tokens.create_token(name="Okta")
    return lambda: scim_tokens.revoke_token(token=token), Event.SCIM_TOKEN_REVOKED


def govern_group(world: World) -> Verb:
    group = world.group()
    return lambda: scim.govern_group(group=group), Event.GROUP_GOVERNED


def release_group(world: World) -> Verb:
    group = world.group()
    scim.govern_group(group=group)
    return lambda: scim.release_group(group=group), Event.GROUP_RELEASED


def _factor(user: User) -> bytes:
    sealed = factors.new_secret(by=user)
    secret = factors.reveal(by=user, sealed=sealed)
    factors.add(by=user, sealed=sealed, code=code(secret))
    return secret


def add_factor(world: World) -> Verb:
    user = world.person()
    return lambda: _factor(user), Event.FACTOR_ADDED


def prove_factor(world: World) -> Verb:
    user = world.person()
    secret = _factor(user)
    later(user)
    return lambda: factors.prove(by=user, code=code(secret)), Event.STEP_UP_PROVED


def remove_factor(world: World) -> Verb:
    user = world.person()
    _factor(user)
    return lambda: factors.remove(by=None, person=user), Event.FACTOR_REMOVED


def set_roles(world: World) -> Verb:
    user = world.person()
    return lambda: accounts.set_roles(by=None, user=user, is_auditor=True), Event.ROLES_SET


def _proposed(world: World) -> tuple[Callable[[], Change | None], User]:
    ada, ben = (world.person(is_administrator=True) for _ in range(2))
    person = world.person()
    act = partial(
        changes.propose,
        by=ada,
        kind="role",
        about=person,
        payload={"auditor": True},
        reason="New duty.",
        proofs=PROVED,
    )
    return act, ben


def propose(world: World) -> Verb:
    act, _ = _proposed(world)
    return act, Event.CHANGE_PROPOSED


def agree(world: World) -> Verb:
    act, ben = _proposed(world)
    change = act()
    assert change is not None
    return (
        lambda: changes.approve(by=ben, change_id=change.pk, proofs=PROVED),
        Event.CHANGE_APPROVED,
    )


def reject(world: World) -> Verb:
    act, ben = _proposed(world)
    change = act()
    assert change is not None
    return (
        lambda: changes.reject(by=ben, change_id=change.pk, note="No.", proofs=PROVED),
        Event.CHANGE_REJECTED,
    )


def withdraw(world: World) -> Verb:
    change = _proposed(world)[0]()
    assert change is not None
    return (
        lambda: changes.withdraw(by=change.proposed_by, change_id=change.pk),
        Event.CHANGE_WITHDRAWN,
    )


def expire_a_change(world: World) -> Verb:
    change = _proposed(world)[0]()
    assert change is not None
    Change.objects.filter(pk=change.pk).update(expires_at=clock.now())
    return changes.expire, Event.CHANGE_EXPIRED


def reset_factors(world: World) -> Verb:
    ada, ben, user = (world.person() for _ in range(3))
    _factor(user)
    return lambda: factors.reset(by=ben, person=user, with_=ada), Event.FACTORS_RESET


def add_passkey(world: World) -> Verb:
    user = world.person()
    session = SessionStore()
    made = Passkey().made(passkeys.begin_adding(session, by=user))
    begun = passkeys.taken(session, Ceremony.ADD, str(user.pk))
    return (
        lambda: passkeys.add(by=user, begun=begun, credential=made, name=""),
        Event.FACTOR_ADDED,
    )


def prove_passkey(world: World) -> Verb:
    user, _, key = passkey_of(world)
    session = SessionStore()
    used = key.used(passkeys.begin(session, Ceremony.PROVE, by=user))
    begun = passkeys.taken(session, Ceremony.PROVE)
    return (
        lambda: passkeys.prove(by=user, begun=begun, credential=used),
        Event.STEP_UP_PROVED,
    )


def rename_passkey(world: World) -> Verb:
    user, row, _ = passkey_of(world)
    return lambda: passkeys.rename(by=user, pk=row.pk, name="Other"), Event.FACTOR_RENAMED


def remove_passkey(world: World) -> Verb:
    user, row, _ = passkey_of(world)
    proofs = proved_for_factors(user)
    return (
        lambda: passkeys.remove(by=user, pk=row.pk, proofs=proofs),
        Event.FACTOR_REMOVED,
    )


def make_codes(world: World) -> Verb:
    user, _, _ = passkey_of(world)
    return lambda: recovery.make(by=user, proofs=proved_for_factors(user)), Event.CODES_MADE


def use_code(world: World) -> Verb:
    user, _, _ = passkey_of(world)
    [code, *_] = recovery.make(by=user, proofs=proved_for_factors(user))
    return lambda: recovery.use(by=user, code=code), Event.CODE_USED


def change_notifications(world: World) -> Verb:
    user = world.person()
    return (
        lambda: notifications.change_settings(by=user, email_access="off"),
        Event.NOTIFICATIONS_CHANGED,
    )


def create_endpoint(world: World) -> Verb:
    owner = world.person()
    return lambda: world.endpoint(with_key=False, owner=owner), Event.ENDPOINT_CREATED


def change_endpoint(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    return (
        lambda: endpoints.change(endpoint, by=None, upstream_url="https://else.example"),
        Event.ENDPOINT_CHANGED,
    )


def change_profile(world: World) -> Verb:
    profile = world.profile()
    return (
        lambda: endpoints.change(profile, by=None, scope={"models": ["demo-small"]}),
        Event.PROFILE_CHANGED,
    )


def retire_endpoint(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    return lambda: endpoints.retire_endpoint(by=None, endpoint=endpoint), Event.ENDPOINT_RETIRED


def create_profile(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    requesters, reviewers = world.group(), world.group()
    return (
        lambda: world.profile(endpoint=endpoint, requesters=requesters, reviewers=reviewers),
        Event.PROFILE_CREATED,
    )


def file_request(world: World) -> Verb:
    profile = world.profile()
    requester, reviewer = world.person(profile.requesters), world.person(profile.reviewers)
    return (
        lambda: world.request(profile=profile, requester=requester, reviewer=reviewer),
        Event.REQUEST_FILED,
    )


def approve(world: World) -> Verb:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    return (
        lambda: review_request(
            by=reviewer, request_id=request.pk, verdict=Review.Verdict.APPROVE, proofs=PROVED
        ),
        Event.REQUEST_APPROVED,
    )


def deny(world: World) -> Verb:
    request = world.request()
    reviewer = world.person(request.profile.reviewers)
    return (
        lambda: review_request(
            by=reviewer,
            request_id=request.pk,
            verdict=Review.Verdict.DENY,
            reason="No.",
            proofs=PROVED,
        ),
        Event.REQUEST_DENIED,
    )


def cancel(world: World) -> Verb:
    request = world.request()
    return (
        lambda: cancel_request(by=request.requester, request_id=request.pk),
        Event.REQUEST_CANCELLED,
    )


def expire_a_request(world: World) -> Verb:
    request = world.request()
    move(request, pending_until=dt.timedelta(days=-2))
    return expire_requests, Event.REQUEST_EXPIRED


def begin_to_mint(world: World) -> Verb:
    grant = world.grant()
    return (
        lambda: checking_out._begin(by=grant.holder, grant_id=grant.pk),
        Event.CREDENTIAL_ISSUING,
    )


def issue(world: World) -> Verb:
    grant = world.grant()
    credential = checking_out._begin(by=grant.holder, grant_id=grant.pk)
    return (
        lambda: checking_out._confirm(credential, Minted(accessor="an accessor"), grant.holder),
        Event.CREDENTIAL_ISSUED,
    )


def end(world: World) -> Verb:
    grant = world.grant()
    return (
        lambda: credentials.end_grant(grant_id=grant.pk, by=grant.holder),
        Event.GRANT_ENDED,
    )


def declare_stop(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    return (
        lambda: stopping.stop(by=endpoint.owner, endpoint=endpoint, reason="!", proofs=PROVED),
        Event.STOP_DECLARED,
    )


def end_all(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    return (
        lambda: stopping.end_all(by=endpoint.owner, endpoint=endpoint, reason="!", proofs=PROVED),
        Event.ALL_ENDED,
    )


def lift_stop(world: World) -> Verb:
    owner = world.person(is_administrator=True)
    row = stopping.stop(by=owner, endpoint=None, reason="!", proofs=PROVED)
    return (
        lambda: stopping.lift(by=owner, stop_id=row.pk, proofs=PROVED),
        Event.STOP_LIFTED,
    )


def set_price(world: World) -> Verb:
    endpoint = world.endpoint(with_key=False)
    price: dict[str, Any] = {
        "model": "demo-small",
        "input_price": Decimal(1),
        "output_price": Decimal(2),
    }
    return (
        lambda: endpoints.set_price(by=endpoint.owner, endpoint=endpoint, proofs=PROVED, **price),
        Event.PRICE_SET,
    )


def expire_a_grant(world: World) -> Verb:
    grant = world.grant()
    move(grant, starts_at=dt.timedelta(hours=-3), ends_at=dt.timedelta(hours=-3))
    return credentials.end_due_grants, Event.GRANT_ENDED


def begin_to_revoke(world: World) -> Verb:
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    return (
        lambda: credentials.end_grant(grant_id=grant.pk, by=grant.holder),
        Event.CREDENTIAL_REVOKING,
    )


def refresh(world: World) -> Verb:
    grant = world.grant(profile=world.profile(credential_kind="jwt"))
    out = check_out(by=grant.holder, grant_id=grant.pk)
    Credential.objects.filter(pk=out.credential.pk).update(
        expires_at=clock.now() + dt.timedelta(minutes=1)
    )
    return (
        lambda: credentials.refresh(by=grant.holder, grant_id=grant.pk),
        Event.CREDENTIAL_REFRESHED,
    )


def take_back(world: World) -> Verb:
    grant = world.grant()
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    return lambda: credentials.take_back(by=None, secret=secret), Event.CREDENTIAL_REVOKING


def owed(world: World) -> Credential:
    grant = world.grant()
    out = check_out(by=grant.holder, grant_id=grant.pk)
    credentials.end_grant(grant_id=grant.pk, by=grant.holder)
    later = clock.now() + dt.timedelta(minutes=1)
    Credential.objects.filter(pk=out.credential.pk).update(next_attempt_at=later)
    return Credential.objects.get(pk=out.credential.pk)


def try_now(world: World) -> Verb:
    admin, row = world.person(is_administrator=True), owed(world)
    return (
        lambda: credentials.try_now(by=admin, credential_id=row.pk),
        Event.CREDENTIAL_TRIED,
    )


def try_target_now(world: World) -> Verb:
    admin, row = world.person(is_administrator=True), owed(world)
    return (
        lambda: credentials.try_target_now(by=admin, kind=row.kind, target="Vault"),
        Event.CREDENTIAL_TRIED,
    )


def close(world: World) -> Verb:
    grant = world.grant()
    out = check_out(by=grant.holder, grant_id=grant.pk)
    credentials.end_grant(grant_id=grant.pk, by=grant.holder)
    fresh = Credential.objects.get(pk=out.credential.pk)
    return lambda: revoking._close([fresh], {str(fresh.pk): "a proof"}), Event.CREDENTIAL_REVOKED


def rotated(world: World) -> Rotation:
    endpoint = world.endpoint()
    return credentials.rotate(by=None, endpoint=endpoint)


def rotate(world: World) -> Verb:
    endpoint = world.endpoint()
    fields: dict[str, Any] = {"endpoint": endpoint, "proofs": PROVED}
    return lambda: credentials.rotate(by=endpoint.owner, **fields), Event.ROTATION_DUE


def report_leak(world: World) -> Verb:
    endpoint = world.endpoint()
    return (
        lambda: credentials.report_leak(by=endpoint.owner, endpoint=endpoint, reason="A log."),
        Event.SECRET_LEAKED,
    )


def set_rotator(world: World) -> Verb:
    endpoint = world.endpoint()
    fields: dict[str, Any] = {"settings": {}, "max_age": dt.timedelta(days=30)}
    return (
        lambda: credentials.set_rotator(by=None, endpoint=endpoint, rotator="manual", **fields),
        Event.ENDPOINT_CHANGED,
    )


def have_a_new_secret(world: World) -> Verb:
    rotation = rotated(world)
    return lambda: rotating._created(rotation, 2, {}), Event.ROTATION_CREATED


def publish(world: World) -> Verb:
    rotation = rotated(world)
    rotating._created(rotation, 2, {})
    return lambda: rotating._publish(rotation), Event.ROTATION_PUBLISHED


def confirm_retired(world: World) -> Verb:
    rotation = rotated(world)
    rotating._created(rotation, 2, {})
    rotating._publish(rotation)
    owner = rotation.secret.endpoint.owner
    return (
        lambda: credentials.confirm_retired(by=owner, rotation_id=rotation.pk, proofs=PROVED),
        Event.ROTATION_CONFIRMED,
    )


def retire(world: World) -> Verb:
    rotation = rotated(world)
    rotating._created(rotation, 2, {})
    rotating._publish(rotation)
    return lambda: rotating._retired(rotation, "a proof"), Event.ROTATION_RETIRED


def _hook(world: World) -> Webhook:
    row, _ = webhooks.create_webhook(
        by=world.person(), name="CI", url="http://127.0.0.1:9/", proofs=PROVED
    )
    return row


def create_webhook(world: World) -> Verb:
    return lambda: _hook(world), Event.WEBHOOK_CREATED


def change_webhook(world: World) -> Verb:
    row = _hook(world)
    return (
        lambda: webhooks.change_webhook(by=row.owner, webhook_id=row.pk, name="CD"),
        Event.WEBHOOK_CHANGED,
    )


def delete_webhook(world: World) -> Verb:
    row = _hook(world)
    return (
        lambda: webhooks.delete_webhook(by=row.owner, webhook_id=row.pk),
        Event.WEBHOOK_DELETED,
    )


def rotate_webhook_secret(world: World) -> Verb:
    row = _hook(world)
    return (
        lambda: webhooks.rotate_secret(by=row.owner, webhook_id=row.pk, proofs=PROVED),
        Event.WEBHOOK_SECRET_ROTATED,
    )


def disable_webhook(world: World) -> Verb:
    row = _hook(world)
    return (
        lambda: webhooks.disable_webhook(by=row.owner, webhook_id=row.pk),
        Event.WEBHOOK_DISABLED,
    )


def enable_webhook(world: World) -> Verb:
    row = _hook(world)
    webhooks.disable_webhook(by=row.owner, webhook_id=row.pk)
    return (
        lambda: webhooks.enable_webhook(by=row.owner, webhook_id=row.pk),
        Event.WEBHOOK_ENABLED,
    )


def send_test_event(world: World) -> Verb:
    row = _hook(world)
    return lambda: webhooks.send_test(by=row.owner, webhook_id=row.pk), Event.WEBHOOK_TESTED


def replay_message(world: World) -> Verb:
    row = _hook(world)
    message = webhooks.send_test(by=row.owner, webhook_id=row.pk)
    message.state = WebhookMessage.State.GIVEN_UP
    message.save()
    return (
        lambda: webhooks.replay_message(by=row.owner, message_id=message.pk),
        Event.WEBHOOK_REPLAYED,
    )


def replay_since(world: World) -> Verb:
    row = _hook(world)
    message = webhooks.send_test(by=row.owner, webhook_id=row.pk)
    message.state = WebhookMessage.State.GIVEN_UP
    message.save()
    return (
        lambda: webhooks.replay_since(by=row.owner, webhook_id=row.pk, since=message.at),
        Event.WEBHOOK_REPLAYED,
    )


VERBS = [
    create_user,
    create_group,
    set_manager,
    set_rota,
    join_group,
    leave_group,
    create_token,
    report_token,
    allow_agent,
    take_back_agent,
    deactivate_user,
    trust_issuer,
    change_issuer,
    retire_issuer,
    add_rule,
    change_rule,
    retire_rule,
    exchange_jwt,
    invite,
    claim,
    come_by_provider,
    end_by_provider,
    change_own_profile,
    reactivate_user,
    extend_service,
    name_owner,
    drop_owner,
    end_sessions,
    set_password,
    revoke_token,
    add_factor,
    prove_factor,
    remove_factor,
    create_scim_token,
    revoke_scim_token,
    govern_group,
    release_group,
    set_roles,
    propose,
    agree,
    reject,
    withdraw,
    expire_a_change,
    reset_factors,
    add_passkey,
    prove_passkey,
    rename_passkey,
    remove_passkey,
    make_codes,
    use_code,
    change_notifications,
    create_endpoint,
    change_endpoint,
    change_profile,
    retire_endpoint,
    create_profile,
    file_request,
    approve,
    deny,
    cancel,
    expire_a_request,
    begin_to_mint,
    issue,
    end,
    declare_stop,
    end_all,
    lift_stop,
    set_price,
    expire_a_grant,
    begin_to_revoke,
    refresh,
    take_back,
    try_now,
    try_target_now,
    close,
    rotate,
    report_leak,
    set_rotator,
    have_a_new_secret,
    publish,
    confirm_retired,
    retire,
    create_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook_secret,
    disable_webhook,
    enable_webhook,
    send_test_event,
    replay_message,
    replay_since,
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_leaves_its_row(verb: Callable[[World], Verb], world: World) -> None:
    act, event = verb(world)
    before, rows = state(), AuditEvent.objects.filter(event=event).count()
    act()
    assert state() != before
    assert AuditEvent.objects.filter(event=event).count() == rows + 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_change_whose_row_cannot_be_written_does_not_happen(
    verb: Callable[[World], Verb], world: World
) -> None:
    act, _ = verb(world)
    before = state()
    with (
        a_record_that_cannot_be_written(),
        pytest.raises(DatabaseError, match="the disk is full"),
        transaction.atomic(),
    ):
        act()
    assert state() == before


def test_no_credential_is_handed_over_without_a_record(world: World, servers: Servers) -> None:
    """Its row can't be written, so nothing is minted at all."""
    from tests.invariants.target import tokens_of

    grant = world.grant()
    with (
        a_record_that_cannot_be_written(),
        pytest.raises(DatabaseError, match="the disk is full"),
        transaction.atomic(),
    ):
        check_out(by=grant.holder, grant_id=grant.pk)
    assert tokens_of(servers, grant) == []


def test_no_wrapped_secret_is_read_without_a_record(world: World) -> None:
    grant = world.grant()
    out = check_out(by=grant.holder, grant_id=grant.pk, wrap=True)
    read: dict[str, Any] = {
        "by": grant.holder,
        "credential_id": out.credential.pk,
        "token": out.secret,
    }
    with (
        a_record_that_cannot_be_written(),
        pytest.raises(DatabaseError, match="the disk is full"),
        transaction.atomic(),
    ):
        credentials.unwrap(**read)
    # It may have been read, so it counts as taken.
    with pytest.raises(WrapTaken):
        credentials.unwrap(**read)


def test_a_sign_in_whose_row_cannot_be_written_signs_nobody_in(world: World) -> None:
    user = world.person(password=PASSWORD)
    with (
        a_record_that_cannot_be_written(),
        pytest.raises(DatabaseError, match="the disk is full"),
        transaction.atomic(),
    ):
        Client().post("/sign-in/", {"username": user.email, "password": PASSWORD})


def test_no_row_outside_of_a_transaction(django_db_blocker: Any, world: World) -> None:
    """Shown with the connection as it is outside of a test's own transaction."""
    connection.in_atomic_block, was = False, connection.in_atomic_block
    try:
        with pytest.raises(RuntimeError, match="in the transaction that makes it true"):
            record(Event.SIGNED_IN, by=None)
    finally:
        connection.in_atomic_block = was


def test_a_row_says_who_from_where_and_about_what(world: World) -> None:
    request = world.request()
    client = Client(REMOTE_ADDR="192.0.2.7")
    reviewer = world.person(request.profile.reviewers)
    client.force_login(reviewer)
    answer = client.post(
        f"/api/v1/requests/{request.pk}/reviews/",
        {"verdict": "approve", "reason": "Read it."},
        content_type="application/json",
    )
    row = AuditEvent.objects.get(event=Event.REQUEST_APPROVED, subject_id=request.pk)
    assert (row.actor_id, row.actor) == (reviewer.pk, str(reviewer))
    assert (row.via, row.address) == ("api", "192.0.2.7")
    assert str(row.trace) == answer["X-Request-Id"]
    grant = Grant.objects.get(request=request)
    started = AuditEvent.objects.get(event=Event.GRANT_STARTED, subject_id=grant.pk)
    assert started.trace == row.trace, "one id for all that one request caused"
    assert {request.pk, request.profile_id, request.requester_id} <= set(row.related)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_auditevent SET actor = 'somebody else'",
        "UPDATE audit_auditevent SET at = at - interval '1 day'",
        "UPDATE audit_auditevent SET id = id + 1000000",
        "DELETE FROM audit_auditevent",
        "TRUNCATE audit_auditevent",
        "TRUNCATE accounts_user CASCADE",
        "DELETE FROM accessrequests_accessrequest",
    ],
)
def test_postgresql_refuses_to_change_the_past(sql: str, world: World) -> None:
    world.request()
    rows = AuditEvent.objects.count()
    assert rows
    with pytest.raises(DatabaseError, match="pgtrigger: Cannot"):
        by_hand(sql)
    assert AuditEvent.objects.count() == rows


def test_rows_outlive_what_they_tell_of(world: World) -> None:
    user = world.person()
    User.objects.filter(pk=user.pk).delete()
    assert AuditEvent.objects.filter(subject_id=user.pk, event=Event.USER_CREATED).exists()


def test_no_row_holds_what_only_the_answer_may(world: World) -> None:
    grant = world.grant(profile=world.profile(with_key=True))
    out = check_out(by=grant.holder, grant_id=grant.pk)
    _, token = accounts.create_token(by=grant.holder, owner=grant.holder, name="x")
    world.person(password=PASSWORD)
    said = " ".join(str(row) for row in AuditEvent.objects.values_list())
    for secret in (out.secret, token, PASSWORD, UPSTREAM_KEY):
        assert secret not in said
