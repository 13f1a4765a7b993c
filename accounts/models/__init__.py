"""People, groups, tokens, second factors, sessions, and what waits for a second person."""

from accounts.models.agents import AgentConsent
from accounts.models.changes import Change, Changes
from accounts.models.directory import ScimRecord
from accounts.models.factors import PasskeyChallenge, RecoveryCode, Totp
from accounts.models.idempotency import IdempotencyKey
from accounts.models.people import Group, Groups, Membership, User, Users, check_time_zone
from accounts.models.signing_in import (
    Invitation,
    LogoutToken,
    ProviderSignIn,
    Session,
    SignInTry,
)
from accounts.models.tokens import ApiToken, ApiTokens, ScimToken
from accounts.models.workloads import TrustedIssuer, UsedAssertion, WorkloadRule

__all__ = [
    "AgentConsent",
    "ApiToken",
    "ApiTokens",
    "Change",
    "Changes",
    "Group",
    "Groups",
    "IdempotencyKey",
    "Invitation",
    "LogoutToken",
    "Membership",
    "PasskeyChallenge",
    "ProviderSignIn",
    "RecoveryCode",
    "ScimRecord",
    "ScimToken",
    "Session",
    "SignInTry",
    "Totp",
    "TrustedIssuer",
    "UsedAssertion",
    "User",
    "Users",
    "WorkloadRule",
    "check_time_zone",
]
