"""The portal's addresses."""

from django.urls import path

from accessrequests import views as accessrequests
from accounts import views as accounts
from accounts import views_changes as changes
from accounts import views_factors as factors
from accounts import views_groups as groups
from accounts import views_people as people
from accounts import views_proving as proving
from accounts import views_settings as own
from accounts import views_tokens as tokens
from accounts import views_welcome as welcome
from accounts import views_workloads as workloads
from accounts.sso import views as sso
from audit import views as audit
from credentials import rotation_views as rotation
from credentials import views as credentials
from credentials import views_leaving as leaving
from credentials import views_operations as operations
from endpoints import views as endpoints
from gateway import views as gateway
from notifications import views as notifications
from notifications.webhooks import views as webhooks

urlpatterns = [
    path("", credentials.home, name="home"),
    path("sign-in/", accounts.sign_in, name="sign-in"),
    path("sign-out/", accounts.sign_out, name="sign-out"),
    path("sso/<slug:slug>/login/", sso.start, name="sso-start"),
    path("sso/<slug:slug>/callback/", sso.callback, name="sso-callback"),
    path(
        "sso/<slug:slug>/backchannel-logout",
        sso.backchannel_logout,
        name="sso-backchannel-logout",
    ),
    path("sign-in/factor/", proving.sign_in_factor, name="sign-in-factor"),
    path("sign-in/passkey/", proving.sign_in_passkey, name="sign-in-passkey"),
    path("step-up/", proving.step_up, name="step-up"),
    path("step-up/passkey/", proving.step_up_passkey, name="step-up-passkey"),
    path("welcome/", welcome.welcome_password, name="welcome-password"),
    path("welcome/<str:token>/", welcome.welcome, name="welcome"),
    path("settings/profile/", own.profile, name="profile"),
    path("settings/password/", own.password, name="password"),
    path("settings/sessions/", own.own_sessions, name="sessions"),
    path("settings/sessions/end/", own.session_end, name="session-end"),
    path("settings/sessions/end-others/", own.sessions_end, name="sessions-end"),
    path("settings/tokens/", tokens.tokens, name="tokens"),
    path("settings/tokens/new/", tokens.token_new, name="token-new"),
    path("settings/tokens/<uuid:pk>/revoke/", tokens.token_revoke, name="token-revoke"),
    path("settings/agents/", accessrequests.agents, name="agents"),
    path(
        "settings/agents/<uuid:pk>/take-back/",
        accessrequests.agent_take_back,
        name="agent-take-back",
    ),
    path("people/", people.people_list, name="people"),
    path("people/new/", people.person_new, name="person-new"),
    path("people/<uuid:pk>/", people.person, name="person"),
    path("people/<uuid:pk>/access/", leaving.person_access, name="person-access"),
    path("people/<uuid:pk>/deactivate/", people.person_deactivate, name="person-deactivate"),
    path("people/<uuid:pk>/reactivate/", people.person_reactivate, name="person-reactivate"),
    path("people/<uuid:pk>/invite/", people.person_invite, name="person-invite"),
    path("people/<uuid:pk>/sign-out/", people.person_sign_out, name="person-sign-out"),
    path("people/<uuid:pk>/roles/", people.person_roles, name="person-roles"),
    path("people/<uuid:pk>/reset/", people.person_reset, name="person-reset"),
    path("people/<uuid:pk>/extend/", people.service_extend, name="service-extend"),
    path("service-accounts/", people.services, name="services"),
    path("service-accounts/new/", people.service_new, name="service-new"),
    path("groups/", groups.groups, name="groups"),
    path("groups/new/", groups.group_new, name="group-new"),
    path("groups/<uuid:pk>/", groups.group, name="group"),
    path("groups/<uuid:pk>/join/", groups.group_join, name="group-join"),
    path("groups/<uuid:pk>/leave/", groups.group_leave, name="group-leave"),
    path("groups/<uuid:pk>/owner/", groups.group_owner, name="group-owner"),
    path("workloads/", workloads.workloads, name="workloads"),
    path("workloads/new/", workloads.issuer_new, name="workload-issuer-new"),
    path("workloads/<uuid:pk>/", workloads.issuer, name="workload-issuer"),
    path("workloads/<uuid:pk>/change/", workloads.issuer_change, name="workload-issuer-change"),
    path("workloads/<uuid:pk>/retire/", workloads.issuer_retire, name="workload-issuer-retire"),
    path("workloads/<uuid:pk>/rules/new/", workloads.rule_new, name="workload-rule-new"),
    path("workloads/rules/<uuid:pk>/", workloads.rule, name="workload-rule"),
    path("workloads/rules/<uuid:pk>/retire/", workloads.rule_retire, name="workload-rule-retire"),
    path("settings/factor/", factors.factor, name="factor"),
    path("settings/factor/set-up/", factors.factor_set_up, name="factor-set-up"),
    path("settings/factor/remove/", factors.factor_remove, name="factor-remove"),
    path("settings/factor/codes/", factors.factor_codes, name="factor-codes"),
    path("settings/factor/passkeys/", factors.passkey_add, name="passkey-add"),
    path("settings/factor/passkeys/begin/", factors.passkey_begin, name="passkey-begin"),
    path("settings/factor/passkeys/<int:pk>/", factors.passkey_rename, name="passkey-rename"),
    path(
        "settings/factor/passkeys/<int:pk>/remove/", factors.passkey_remove, name="passkey-remove"
    ),
    path(
        "settings/notifications/", notifications.notification_settings, name="notification-settings"
    ),
    path("notifications/", notifications.notifications, name="notifications"),
    path("notifications/read/", notifications.notifications_read, name="notifications-read"),
    path(
        "notifications/<uuid:pk>/read/", notifications.notification_read, name="notification-read"
    ),
    path("webhooks/", webhooks.webhooks, name="webhooks"),
    path("webhooks/new/", webhooks.webhook_new, name="webhook-new"),
    path("webhooks/<uuid:pk>/", webhooks.webhook, name="webhook"),
    path("webhooks/<uuid:pk>/edit/", webhooks.webhook_edit, name="webhook-edit"),
    path("webhooks/<uuid:pk>/rotate-secret/", webhooks.webhook_rotate, name="webhook-rotate"),
    path("webhooks/<uuid:pk>/test/", webhooks.webhook_test, name="webhook-test"),
    path("webhooks/<uuid:pk>/replay/", webhooks.webhook_replay, name="webhook-replay"),
    path("webhooks/<uuid:pk>/enable/", webhooks.webhook_enable, name="webhook-enable"),
    path("webhooks/<uuid:pk>/disable/", webhooks.webhook_disable, name="webhook-disable"),
    path("webhooks/<uuid:pk>/delete/", webhooks.webhook_delete, name="webhook-delete"),
    path(
        "webhooks/messages/<uuid:pk>/replay/",
        webhooks.webhook_message_replay,
        name="webhook-message-replay",
    ),
    path("catalogue/", accessrequests.catalogue, name="catalogue"),
    path("endpoints/<slug:slug>/", accessrequests.endpoint, name="endpoint"),
    path("endpoints/<slug:slug>/prices/", endpoints.price_set, name="price-set"),
    path("endpoints/<slug:slug>/upstreams/", gateway.upstreams, name="upstreams"),
    path("endpoints/<slug:slug>/key/", rotation.upstream_key, name="upstream-key"),
    path(
        "endpoints/<slug:slug>/key/rotate/",
        rotation.upstream_key_rotate,
        name="upstream-key-rotate",
    ),
    path(
        "endpoints/<slug:slug>/key/store/", rotation.upstream_key_store, name="upstream-key-store"
    ),
    path("endpoints/<slug:slug>/key/leak/", rotation.upstream_key_leak, name="upstream-key-leak"),
    path("rotations/<uuid:pk>/confirm/", rotation.rotation_confirm, name="rotation-confirm"),
    path("settings/absence/", accessrequests.absences, name="absences"),
    path("settings/absence/<uuid:pk>/drop/", accessrequests.absence_drop, name="absence-drop"),
    path("request/", accessrequests.request_together, name="request-together"),
    path("request/preview/", accessrequests.together_preview, name="together-preview"),
    path("request/<uuid:profile_id>/", accessrequests.request_new, name="request-new"),
    path(
        "request/<uuid:profile_id>/preview/", accessrequests.request_preview, name="request-preview"
    ),
    path("requests/", accessrequests.requests, name="requests"),
    path("requests/<uuid:pk>/", accessrequests.request_page, name="request"),
    path("requests/<uuid:pk>/review/", accessrequests.request_review, name="request-review"),
    path("requests/<uuid:pk>/cancel/", accessrequests.request_cancel, name="request-cancel"),
    path("requests/<uuid:pk>/again/", accessrequests.request_again, name="request-again"),
    path("requests/<uuid:pk>/comment/", accessrequests.request_comment, name="request-comment"),
    path(
        "requests/<uuid:pk>/hand-over/", accessrequests.request_hand_over, name="request-hand-over"
    ),
    path("approvals/", accessrequests.approvals, name="approvals"),
    path("approvals/decide/", accessrequests.approvals_decide, name="approvals-decide"),
    path("approvals/decided/", accessrequests.approvals_decided, name="approvals-decided"),
    path("approvals/others/", accessrequests.approvals_others, name="approvals-others"),
    path("approvals/figures/", accessrequests.approvals_figures, name="approvals-figures"),
    path("changes/", changes.change_list, name="changes"),
    path("changes/<uuid:pk>/", changes.change, name="change"),
    path("changes/<uuid:pk>/decide/", changes.change_decide, name="change-decide"),
    path("changes/<uuid:pk>/withdraw/", changes.change_withdraw, name="change-withdraw"),
    path("policies/", accessrequests.policies, name="policies"),
    path("policies/new/", accessrequests.policy_edit, name="policy-new"),
    path("policies/new/check/", accessrequests.policy_check, name="policy-new-check"),
    path("policies/<slug:slug>/", accessrequests.policy, name="policy"),
    path("policies/<slug:slug>/edit/", accessrequests.policy_edit, name="policy-edit"),
    path("policies/<slug:slug>/check/", accessrequests.policy_check, name="policy-check"),
    path("policies/<slug:slug>/retire/", accessrequests.policy_retire, name="policy-retire"),
    path("grants/<uuid:pk>/", credentials.grant_page, name="grant"),
    path("grants/<uuid:pk>/check-out/", credentials.grant_check_out, name="grant-check-out"),
    path("grants/<uuid:pk>/refresh/", credentials.grant_refresh, name="grant-refresh"),
    path("grants/<uuid:pk>/open/", credentials.grant_open, name="grant-open"),
    path("grants/<uuid:pk>/end/", credentials.grant_end, name="grant-end"),
    path("grants/<uuid:pk>/extend/", accessrequests.grant_extend, name="grant-extend"),
    path(
        "grants/<uuid:pk>/extend/preview/",
        accessrequests.grant_extend_preview,
        name="grant-extend-preview",
    ),
    path("grants/<uuid:pk>/raise/", accessrequests.grant_raise, name="grant-raise"),
    path(
        "grants/<uuid:pk>/raise/preview/",
        accessrequests.grant_raise_preview,
        name="grant-raise-preview",
    ),
    path("grants/<uuid:pk>/usage/", gateway.grant_usage, name="grant-usage"),
    path("live/", gateway.live, name="live"),
    path("live/end/", gateway.live_end, name="live-end"),
    path("live/stop/", gateway.stop_new, name="stop-new"),
    path("live/stops/<uuid:pk>/", gateway.stop, name="stop"),
    path("live/stops/<uuid:pk>/lift/", gateway.stop_lift, name="stop-lift"),
    path("operations/", operations.operations, name="operations"),
    path("operations/try/", operations.operations_try, name="operations-try"),
    path("record/", audit.record, name="record"),
    path("record/<int:pk>/", audit.record_event, name="record-event"),
]
