"""The functions that decide, held to the one table of roles; and the page that is made of it."""

from collections.abc import Callable
from typing import Any

import pytest

from accessrequests import permissions as requests
from accessrequests.models import AccessRequest, Grant, Policy
from accounts import permissions
from accounts.actions import name_owner
from accounts.changes import can_decide, kind_of, propose
from accounts.models import Change, Group, TrustedIssuer, User
from accounts.roles import MAY, Permission, Role
from audit.models import AuditEvent
from broker.errors import KeyturnError
from broker.management.commands.roles import PATH, page
from credentials.actions import try_target_now
from endpoints import permissions as endpoints
from endpoints.models import AccessProfile, Endpoint
from tests.world import PROVED, World


def test_the_page_is_that_of_the_table() -> None:
    assert PATH.read_text() == page(), "docs/roles.md is stale: run `make docs`"


def allows(check: Callable[..., object], *args: Any, **named: Any) -> bool:
    """Whether this lets somebody by, or only finds nothing to do."""
    try:
        check(*args, **named)
    except KeyturnError as error:
        return error.status == 409
    return True


@pytest.mark.django_db
def test_who_may_do_what_is_what_the_table_says(world: World) -> None:
    profile = world.profile()
    endpoint, group = profile.endpoint, world.group()
    requester, reviewer = world.person(profile.requesters), world.person(profile.reviewers)
    request = world.request(profile=profile, requester=requester)
    both: Any = {"requesters": profile.requesters, "reviewers": profile.reviewers}
    grant = world.grant(
        profile=world.profile(endpoint=endpoint, **both), requester=requester, reviewer=reviewer
    )
    world.policy(profile=profile)
    rule = world.rule()
    owner, colleague, author = world.person(), world.person(), world.person(is_administrator=True)
    name_owner(by=None, group=group, user=owner)
    change = propose(
        by=author,
        kind="role",
        about=colleague,
        payload={"auditor": True},
        reason="New duty.",
        proofs=PROVED,
    )
    assert change is not None
    actors: dict[Role | None, User] = {
        Role.REQUESTER: requester,
        Role.REVIEWER: reviewer,
        Role.GROUP_OWNER: owner,
        Role.ENDPOINT_OWNER: endpoint.owner,
        Role.AUDITOR: world.person(is_auditor=True),
        Role.ADMINISTRATOR: world.person(is_administrator=True),
        None: world.person(),
    }

    def sees(rows: Any, row: Any) -> Callable[[User], bool]:
        return lambda user: rows.visible_to(user).filter(pk=row.pk).exists()

    def proposes(kind: str, about: Any) -> Callable[[User], bool]:
        return lambda user: allows(kind_of(kind).check_may_propose, user, about)

    # Anybody's events but one's own.
    event = AuditEvent.objects.about(colleague.pk).first()
    decides: dict[Permission, Callable[[User], bool]] = {
        Permission.PROFILE_ASK: lambda user: (
            AccessProfile.objects.open_to(user).filter(pk=profile.pk).exists()
        ),
        Permission.REQUEST_READ: sees(AccessRequest.objects, request),
        Permission.REQUEST_CANCEL: lambda user: allows(requests.check_cancel, user, request),
        Permission.REQUEST_COMMENT: lambda user: requests.can_comment(user, request),
        Permission.REQUEST_REVIEW: lambda user: requests.can_review(user, request),
        Permission.GRANT_READ: sees(Grant.objects, grant),
        Permission.GRANT_CHECK_OUT: lambda user: allows(requests.check_hold, user, grant),
        Permission.GRANT_END: lambda user: requests.can_end(user, grant),
        Permission.CREDENTIAL_TRY: lambda user: allows(
            try_target_now, by=user, kind="gateway", target=endpoint.slug
        ),
        Permission.ENDPOINT_READ: sees(Endpoint.objects, endpoint),
        Permission.ENDPOINT_STOP: lambda user: endpoints.can_stop(user, endpoint),
        Permission.ENDPOINT_PRICE: lambda user: allows(endpoints.check_price, user, endpoint),
        Permission.ENDPOINT_ROTATE: lambda user: allows(endpoints.check_rotate, user, endpoint),
        Permission.ALL_STOP: lambda user: endpoints.can_stop(user, None),
        Permission.POLICY_READ: lambda user: Policy.objects.visible_to(user).exists(),
        Permission.POLICY_CHANGE: lambda user: allows(requests.check_administer, user),
        Permission.GROUP_READ: sees(Group.objects, group),
        Permission.GROUP_MEMBERS: lambda user: (
            permissions.can_say_members(user, group) and proposes("group_member", group)(user)
        ),
        Permission.GROUP_CREATE: lambda user: allows(permissions.check_administer, user),
        Permission.USER_READ: sees(User.objects, colleague),
        Permission.USER_ADMINISTER: permissions.can_administer,
        Permission.USER_ROLES: proposes("role", colleague),
        Permission.FACTOR_RESET: proposes("factor_reset", colleague),
        Permission.ISSUER_READ: sees(TrustedIssuer.objects, rule.issuer),
        Permission.ISSUER_TRUST: proposes("trusted_issuer", rule.issuer),
        Permission.RULE_ADD: proposes("workload_rule", rule),
        Permission.CHANGE_READ: sees(Change.objects, change),
        Permission.CHANGE_DECIDE: lambda user: can_decide(user, change),
        Permission.RECORD_READ: sees(AuditEvent.objects, event),
    }
    assert decides.keys() == MAY.keys()
    found = {
        permission: {role for role, user in actors.items() if may(user)}
        for permission, may in decides.items()
    }
    assert found == {permission: set(rule.roles) for permission, rule in MAY.items()}
    User.objects.filter(pk__in=[user.pk for user in actors.values()]).update(is_active=False)
    for user in actors.values():
        user.refresh_from_db()
    # Whoever is deactivated is nobody to every door already; what is decided anew says so too.
    for permission in (
        Permission.PROFILE_ASK,
        Permission.REQUEST_REVIEW,
        Permission.GRANT_END,
        Permission.ENDPOINT_STOP,
        Permission.GROUP_MEMBERS,
        Permission.USER_ADMINISTER,
        Permission.CHANGE_DECIDE,
        Permission.POLICY_CHANGE,
    ):
        assert not any(decides[permission](user) for user in actors.values()), permission
