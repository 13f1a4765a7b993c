"""Who may do what: the one table of it. docs/roles.md is made of it, and tests hold the functions
that decide (`permissions.py` of each app, `visible_to`, `accounts/changes/`) to it.

A role is never a right to everything of its kind. Requesters act on what is theirs, reviewers on
what a profile or policy leads to them, owners on the group or endpoint that they own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody can be to a thing. One person may be several."""

    REQUESTER = "requester"
    REVIEWER = "reviewer"
    GROUP_OWNER = "group owner"
    ENDPOINT_OWNER = "endpoint owner"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"


COMES_BY = {
    Role.REQUESTER: "being in the group that may ask for a profile",
    Role.REVIEWER: "a policy, or the profile's group of reviewers",
    Role.GROUP_OWNER: "being named by administrators",
    Role.ENDPOINT_OWNER: "the endpoint",
    Role.AUDITOR: "two administrators",
    Role.ADMINISTRATOR: "two administrators; the first by a command at the host",
}


class Permission(StrEnum):
    """Object and verb."""

    PROFILE_ASK = "access_profile:ask"
    REQUEST_READ = "access_request:read"
    REQUEST_CANCEL = "access_request:cancel"
    REQUEST_COMMENT = "access_request:comment"
    REQUEST_REVIEW = "access_request:review"
    GRANT_READ = "grant:read"
    GRANT_CHECK_OUT = "grant:check_out"
    GRANT_END = "grant:end"
    CREDENTIAL_TRY = "credential:try_now"
    ENDPOINT_READ = "endpoint:read"
    ENDPOINT_STOP = "endpoint:stop"
    ENDPOINT_PRICE = "endpoint:set_price"
    ENDPOINT_ROTATE = "endpoint:rotate"
    ALL_STOP = "all_endpoints:stop"
    POLICY_READ = "policy:read"
    POLICY_CHANGE = "policy:change"
    GROUP_READ = "group:read"
    GROUP_MEMBERS = "group:set_members"
    GROUP_CREATE = "group:create"
    USER_READ = "user:read"
    USER_ADMINISTER = "user:administer"
    USER_ROLES = "user:give_role"
    FACTOR_RESET = "factor:reset"
    ISSUER_READ = "trusted_issuer:read"
    ISSUER_TRUST = "trusted_issuer:trust"
    RULE_ADD = "workload_rule:add"
    CHANGE_READ = "change:read"
    CHANGE_DECIDE = "change:decide"
    RECORD_READ = "record:read_all"


@dataclass(frozen=True)
class Rule:
    """Who has a permission. `widening` takes a second administrator where it lets somebody do
    more than before (`accounts/changes/`)."""

    words: str
    roles: frozenset[Role]
    widening: bool = False


def _rule(words: str, *roles: Role, widening: bool = False) -> Rule:
    return Rule(words, frozenset(roles), widening)


_ASKS, _REVIEWS, _GROUP, _OWNS, _AUDITS, _ADMINISTERS = Role

MAY: dict[Permission, Rule] = {
    Permission.PROFILE_ASK: _rule("ask for a profile", _ASKS),
    Permission.REQUEST_READ: _rule("read a request", _ASKS, _REVIEWS, _AUDITS, _ADMINISTERS),
    Permission.REQUEST_CANCEL: _rule("take a request back", _ASKS),
    Permission.REQUEST_COMMENT: _rule("comment on a request", _ASKS, _REVIEWS),
    Permission.REQUEST_REVIEW: _rule("approve or deny a request", _REVIEWS),
    Permission.GRANT_READ: _rule(
        "read a grant, its calls and its use", _ASKS, _REVIEWS, _OWNS, _AUDITS, _ADMINISTERS
    ),
    Permission.GRANT_CHECK_OUT: _rule("check a credential out", _ASKS),
    Permission.GRANT_END: _rule("end a grant", _ASKS, _REVIEWS, _OWNS, _ADMINISTERS),
    Permission.CREDENTIAL_TRY: _rule("have a revocation tried at once", _ADMINISTERS),
    Permission.ENDPOINT_READ: _rule(
        "see an endpoint in the catalogue", _ASKS, _REVIEWS, _OWNS, _AUDITS, _ADMINISTERS
    ),
    Permission.ENDPOINT_STOP: _rule("stop an endpoint", _OWNS, _ADMINISTERS),
    Permission.ENDPOINT_PRICE: _rule("say what a model costs", _OWNS, _ADMINISTERS),
    Permission.ENDPOINT_ROTATE: _rule("store and rotate an endpoint's keys", _OWNS, _ADMINISTERS),
    Permission.ALL_STOP: _rule("stop all endpoints", _ADMINISTERS),
    Permission.POLICY_READ: _rule("read policies", _AUDITS, _ADMINISTERS),
    Permission.POLICY_CHANGE: _rule("change a policy", _ADMINISTERS, widening=True),
    Permission.GROUP_READ: _rule("see who is in a group", _GROUP, _AUDITS, _ADMINISTERS),
    Permission.GROUP_MEMBERS: _rule("say who is in a group", _GROUP, _ADMINISTERS, widening=True),
    Permission.GROUP_CREATE: _rule("add a group", _ADMINISTERS),
    Permission.USER_READ: _rule("read of people and service accounts", _AUDITS, _ADMINISTERS),
    Permission.USER_ADMINISTER: _rule(
        "add, invite, sign out and deactivate people and service accounts", _ADMINISTERS
    ),
    Permission.USER_ROLES: _rule(
        "make somebody administrator or auditor", _ADMINISTERS, widening=True
    ),
    Permission.FACTOR_RESET: _rule("take lost second factors away", _ADMINISTERS, widening=True),
    Permission.ISSUER_READ: _rule("read who signs for workloads", _AUDITS, _ADMINISTERS),
    Permission.ISSUER_TRUST: _rule("trust who signs for workloads", _ADMINISTERS, widening=True),
    Permission.RULE_ADD: _rule(
        "say which workloads act as which service account", _ADMINISTERS, widening=True
    ),
    Permission.CHANGE_READ: _rule("read changes that wait", _AUDITS, _ADMINISTERS),
    Permission.CHANGE_DECIDE: _rule("decide another administrator's change", _ADMINISTERS),
    Permission.RECORD_READ: _rule("read the whole record", _AUDITS, _ADMINISTERS),
}
