"""The verbs of accounts, a module for each noun."""

from accounts.actions.agents import allow_agent, take_back_agent
from accounts.actions.groups import (
    create_group,
    drop_owner,
    join_group,
    leave_group,
    name_owner,
    remove_member,
    set_rota,
)
from accounts.actions.passwords import change_password, check_has_password, has_password
from accounts.actions.people import (
    change_profile,
    create_service,
    create_user,
    deactivate_ended,
    deactivate_user,
    extend_service,
    reactivate_user,
    set_manager,
    set_password,
    set_roles,
    warn_of_ends,
)
from accounts.actions.sessions import end_session, end_sessions
from accounts.actions.signing_in import (
    TRIES_PER_ACCOUNT,
    TRIES_PER_ACCOUNT_AND_ADDRESS,
    TRY_WINDOW,
    forget_old_tries,
    sign_in,
)
from accounts.actions.tokens import (
    TOKEN_DAYS,
    create_token,
    find_token,
    is_good,
    revoke_token,
    token_owner,
)

__all__ = [
    "TOKEN_DAYS",
    "TRIES_PER_ACCOUNT",
    "TRIES_PER_ACCOUNT_AND_ADDRESS",
    "TRY_WINDOW",
    "allow_agent",
    "change_password",
    "change_profile",
    "check_has_password",
    "create_group",
    "create_service",
    "create_token",
    "create_user",
    "deactivate_ended",
    "deactivate_user",
    "drop_owner",
    "end_session",
    "end_sessions",
    "extend_service",
    "find_token",
    "forget_old_tries",
    "has_password",
    "is_good",
    "join_group",
    "leave_group",
    "name_owner",
    "reactivate_user",
    "remove_member",
    "revoke_token",
    "set_manager",
    "set_password",
    "set_roles",
    "set_rota",
    "sign_in",
    "take_back_agent",
    "token_owner",
    "warn_of_ends",
]
