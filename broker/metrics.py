"""Figures for Prometheus, for whoever has the token."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from credentials.metrics import registry
from notifications.webhooks.metrics import Webhooks

registry.register(Webhooks())


@never_cache
@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The figures. Without the token, or where none is set, there is no such page."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = settings.KEYTURN_METRICS_TOKEN
    if not expected or scheme.lower() != "bearer" or not constant_time_compare(token, expected):
        raise Http404
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
