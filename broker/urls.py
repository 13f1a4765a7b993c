from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from accessrequests.api import (
    AbsenceViewSet,
    ApprovalViewSet,
    PolicyViewSet,
    RequestViewSet,
    ReviewsView,
)
from accessrequests.api.catalogue import OfferedProfileViewSet
from accounts.api import ApiView
from accounts.api_agents import AgentViewSet
from accounts.api_changes import ChangeViewSet
from accounts.api_groups import GroupViewSet
from accounts.api_me import EndOtherSessionsView, EndSessionView, MeView, OwnSessionsView
from accounts.api_people import PersonViewSet
from accounts.api_tokens import ApiTokenViewSet, ReportTokenView, TokenPatternView
from accounts.api_workloads import IssuerViewSet, RuleViewSet
from accounts.workloads.views import authorization_server, token
from audit.api import AuditEventViewSet
from broker.health import healthz
from broker.metrics import metrics
from broker.problem_pages import problem, problems
from broker.reference import api_reference
from credentials.api import CredentialViewSet, GrantViewSet, IntrospectionView, RevocationView
from credentials.operations_api import OperationsView, TryTargetView
from credentials.publishing import jwks, openid_configuration
from credentials.rotation_api import (
    KeysView,
    ReportLeakView,
    RotateView,
    RotationsView,
    RotationViewSet,
)
from endpoints.api import EndpointViewSet
from gateway.api import CallsView, LiveViewSet, PricesBySlugView, PricesView, StopViewSet, UsageView
from gateway.api_upstreams import UpstreamsView
from notifications.api import NotificationSettingsView, NotificationViewSet
from notifications.webhooks.api import WebhookMessageViewSet, WebhookViewSet


class AuditEvents(ApiView, AuditEventViewSet):
    # `audit` is below `accounts` and can't say so itself.
    __doc__ = AuditEventViewSet.__doc__


router = SimpleRouter(use_regex_path=False)
router.register("endpoints", EndpointViewSet, basename="api-endpoint")
router.register("profiles", OfferedProfileViewSet, basename="api-profile")
router.register("requests", RequestViewSet, basename="api-request")
router.register("approvals", ApprovalViewSet, basename="api-approval")
router.register("changes", ChangeViewSet, basename="api-change")
router.register("people", PersonViewSet, basename="api-person")
router.register("groups", GroupViewSet, basename="api-group")
router.register("issuers", IssuerViewSet, basename="api-issuer")
router.register("workload-rules", RuleViewSet, basename="api-workload-rule")
router.register("policies", PolicyViewSet, basename="api-policy")
router.register("agents", AgentViewSet, basename="api-agent")
router.register("absences", AbsenceViewSet, basename="api-absence")
router.register("grants", GrantViewSet, basename="api-grant")
router.register("live", LiveViewSet, basename="api-live")
router.register("stops", StopViewSet, basename="api-stop")
router.register("credentials", CredentialViewSet, basename="api-credential")
router.register("rotations", RotationViewSet, basename="api-rotation")
router.register("tokens", ApiTokenViewSet, basename="api-token")
router.register("audit/events", AuditEvents, basename="api-audit-event")
router.register("notifications", NotificationViewSet, basename="api-notification")
router.register("webhooks", WebhookViewSet, basename="api-webhook")
router.register("webhook-messages", WebhookMessageViewSet, basename="api-webhook-message")

api = [
    *router.urls,
    path("me/", MeView.as_view(), name="api-me"),
    path("me/sessions/", OwnSessionsView.as_view(), name="api-sessions"),
    path("me/sessions/end-others/", EndOtherSessionsView.as_view(), name="api-sessions-end-others"),
    path("me/sessions/<slug:name>/end/", EndSessionView.as_view(), name="api-session-end"),
    path(
        "notification-settings/",
        NotificationSettingsView.as_view(),
        name="api-notification-settings",
    ),
    path("tokens/report-leak/", ReportTokenView.as_view(), name="api-token-report-leak"),
    path("tokens/pattern/", TokenPatternView.as_view(), name="api-token-pattern"),
    path("introspect/", IntrospectionView.as_view(), name="api-introspect"),
    path("revoke/", RevocationView.as_view(), name="api-revoke"),
    path("grants/<uuid:pk>/calls/", CallsView.as_view(), name="api-grant-calls"),
    path("grants/<uuid:pk>/usage/", UsageView.as_view(), name="api-grant-usage"),
    path("endpoints/<uuid:pk>/prices/", PricesView.as_view(), name="api-endpoint-prices"),
    path(
        "endpoints/<slug:slug>/prices/",
        PricesBySlugView.as_view(),
        name="api-endpoint-prices-by-slug",
    ),
    path("operations/", OperationsView.as_view(), name="api-operations"),
    path("operations/try/", TryTargetView.as_view(), name="api-operations-try"),
    path("endpoints/<uuid:pk>/upstreams/", UpstreamsView.as_view(), name="api-endpoint-upstreams"),
    path("endpoints/<uuid:pk>/keys/", KeysView.as_view(), name="api-endpoint-keys"),
    path("endpoints/<uuid:pk>/rotations/", RotationsView.as_view(), name="api-endpoint-rotations"),
    path("endpoints/<uuid:pk>/rotate/", RotateView.as_view(), name="api-endpoint-rotate"),
    path(
        "endpoints/<uuid:pk>/report-leak/",
        ReportLeakView.as_view(),
        name="api-endpoint-report-leak",
    ),
    path("reviews/", ReviewsView.as_view(), name="api-reviews"),
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("docs/", api_reference, name="api-docs"),
]

urlpatterns = [
    path("healthz/", healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path(".well-known/jwks.json", jwks, name="jwks"),
    path(".well-known/openid-configuration", openid_configuration, name="openid-configuration"),
    path(
        ".well-known/oauth-authorization-server",
        authorization_server,
        name="oauth-authorization-server",
    ),
    path("oauth/token", token, name="oauth-token"),
    path("api/v1/", include(api)),
    path("scim/v2/", include("accounts.scim.urls")),
    path("problems/", problems, name="problems"),
    path("problems/<slug:code>/", problem, name="problem"),
    path("", include("broker.urls_portal")),
]
handler400 = "broker.views.bad_request"
handler403 = "broker.views.forbidden"
handler404 = "broker.views.not_found"
handler500 = "broker.views.server_error"
