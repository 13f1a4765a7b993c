"""Rotations of an endpoint's keys, rotating now, and reporting a leak."""

import uuid
from typing import Any, ClassVar

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import stepup
from accounts.api import (
    IN_PERSON,
    ApiView,
    StrictSerializer,
    caller,
    check_person,
)
from accounts.door import fetch
from accounts.parsers import StrictJSONParser
from accounts.scope_permission import within
from credentials import actions
from credentials.actions.rotations import NOTE_LENGTH
from credentials.models import Rotation, UpstreamSecret, Use
from endpoints.models import Endpoint

ALONE = "Rotating and stopping take a person."


class RotationSerializer(serializers.ModelSerializer[Rotation]):
    use = serializers.ChoiceField(source="secret.use", choices=Use.choices, read_only=True)
    rotator = serializers.CharField(source="secret.rotator", read_only=True)
    by = serializers.EmailField(
        source="by.email", read_only=True, allow_null=True, default=None, help_text="null: Keyturn"
    )

    class Meta:
        model = Rotation
        fields = (
            "id",
            "name",
            "use",
            "rotator",
            "state",
            "why",
            "note",
            "by",
            "due_at",
            "deadline",
            "old_version",
            "new_version",
            "created_at",
            "published_at",
            "retired_at",
            "proof",
            "waits_for",
            "attempts",
            "next_attempt_at",
            "last_error",
        )
        read_only_fields = fields


class RotateSerializer(StrictSerializer):
    use = serializers.ChoiceField(choices=Use.choices, default=Use.UPSTREAM)
    reason = serializers.CharField(max_length=NOTE_LENGTH, required=False, default="")


class LeakSerializer(StrictSerializer):
    use = serializers.ChoiceField(choices=Use.choices, default=Use.UPSTREAM)
    reason = serializers.CharField(
        max_length=NOTE_LENGTH, help_text="where it turned up; never the key itself"
    )
    stop = serializers.BooleanField(default=False, help_text="stop the endpoint too")


class LeakedSerializer(serializers.ModelSerializer[UpstreamSecret]):
    class Meta:
        model = UpstreamSecret
        fields = ("use", "version", "leaked_at")
        read_only_fields = fields


class RotationFilter(django_filters.FilterSet):
    use = django_filters.ChoiceFilter(field_name="secret__use", choices=Use.choices)
    state = django_filters.CharFilter()


def _endpoint(request: Request, pk: uuid.UUID) -> Endpoint:
    rows = Endpoint.objects.visible_to(caller(request)).select_related("owner")
    return fetch(within(request, rows, "pk"), pk)


@extend_schema(tags=["endpoints"])
class RotationsView(ApiView, generics.ListAPIView[Rotation]):
    """Rotations of an endpoint's keys, newest first: for its owner, auditors and administrators;
    nothing for others."""

    queryset = Rotation.objects.none()
    serializer_class = RotationSerializer
    filterset_class = RotationFilter
    ordering = ("-id",)
    endpoint_path = "secret__endpoint"

    def get_queryset(self) -> QuerySet[Rotation]:
        if getattr(self, "swagger_fake_view", False):
            return Rotation.objects.none()
        endpoint = _endpoint(self.request, self.kwargs["pk"])
        rows = Rotation.objects.visible_to(caller(self.request))
        return rows.filter(secret__endpoint=endpoint).select_related("secret", "by").order_by()


@extend_schema(tags=["endpoints"])
class RotateView(ApiView, generics.GenericAPIView[Any]):
    """Replace a key of an endpoint now."""

    # Vault may be asked for what is stored.
    one_transaction = False
    serializer_class = RotateSerializer
    parser_classes = (StrictJSONParser,)
    endpoint_path = "pk"

    @extend_schema(request=RotateSerializer, responses={201: RotationSerializer}, auth=IN_PERSON)
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        """Make a rotation due now. Takes the session of the endpoint's owner or an administrator,
        with a second factor proved within five minutes."""
        endpoint = _endpoint(request, pk)
        check_person(request, ALONE)
        body = RotateSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        rotation = actions.rotate(
            by=caller(request),
            endpoint=endpoint,
            use=Use(body.validated_data["use"]),
            reason=body.validated_data["reason"],
            proofs=stepup.proofs(request),
        )
        return Response(RotationSerializer(rotation).data, status=status.HTTP_201_CREATED)


@extend_schema(tags=["endpoints"])
class ReportLeakView(ApiView, generics.GenericAPIView[Any]):
    """Say that a key of an endpoint leaked."""

    one_transaction = False
    serializer_class = LeakSerializer
    parser_classes = (StrictJSONParser,)
    endpoint_path = "pk"
    verbs: ClassVar = {"post": None}

    @extend_schema(request=LeakSerializer, responses={201: LeakedSerializer})
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        """Report a leak: the key is rotated at once, its owner and all administrators are told.
        Open to everybody who sees the endpoint, and to their tokens. `stop` also stops the
        endpoint, which takes what an emergency stop takes."""
        endpoint = _endpoint(request, pk)
        body = LeakSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        said = body.validated_data
        if said["stop"]:
            check_person(request, ALONE)
        secret = actions.report_leak(
            by=caller(request),
            endpoint=endpoint,
            reason=said["reason"],
            use=Use(said["use"]),
            stop_it=said["stop"],
            proofs=stepup.proofs(request),
        )
        return Response(LeakedSerializer(secret).data, status=status.HTTP_201_CREATED)
