"""How an endpoint's upstreams answer."""

import uuid
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api import ApiView, caller
from accounts.door import fetch
from accounts.scope_permission import within
from endpoints.models import Endpoint
from gateway.health import upstreams_of


class UpstreamSerializer(serializers.Serializer[Any]):
    url = serializers.CharField()
    is_up = serializers.BooleanField(
        allow_null=True, help_text="null: no gateway has called it yet"
    )
    since = serializers.DateTimeField(allow_null=True)
    checked_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(allow_blank=True)


@extend_schema(tags=["endpoints"])
class UpstreamsView(ApiView):
    """An endpoint's upstreams."""

    endpoint_path = "pk"

    @extend_schema(
        operation_id="endpoints_upstreams_list", responses={200: UpstreamSerializer(many=True)}
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """Where an endpoint's calls go, in the order in which they are tried, and whether that
        answers. For its owner, auditors and administrators."""
        by = caller(request)
        visible = Endpoint.objects.visible_to(by).select_related("owner")
        found = upstreams_of(by, fetch(within(request, visible, "pk"), pk))
        rows = [
            {
                "url": url,
                "is_up": health and health.is_up,
                "since": health and health.since,
                "checked_at": health and health.checked_at,
                "last_error": health.last_error if health else "",
            }
            for url, health in found
        ]
        return Response(UpstreamSerializer(rows, many=True).data)
