"""The verbs of accounts, a module for each noun."""

from accounts.actions.groups import create_group, join_group, leave_group, name_owner, set_rota
from accounts.actions.people import (
    create_user,
    deactivate_user,
    set_manager,
    set_password,
    set_roles,
)
from accounts.actions.signing_in import (
    TRIES_PER_ACCOUNT,
    TRIES_PER_ACCOUNT_AND_ADDRESS,
    TRY_WINDOW,
    forget_old_tries,
    sign_in,
)
from accounts.actions.tokens import TOKEN_DAYS, create_token, revoke_token, token_owner

__all__ = [
    "TOKEN_DAYS",
    "TRIES_PER_ACCOUNT",
    "TRIES_PER_ACCOUNT_AND_ADDRESS",
    "TRY_WINDOW",
    "create_group",
    "create_token",
    "create_user",
    "deactivate_user",
    "forget_old_tries",
    "join_group",
    "leave_group",
    "name_owner",
    "revoke_token",
    "set_manager",
    "set_password",
    "set_roles",
    "set_rota",
    "sign_in",
    "token_owner",
]
