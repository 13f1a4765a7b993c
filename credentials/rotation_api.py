"""An endpoint's keys: storing one, rotating, reporting a leak. No key is in any answer."""

import uuid
from typing import Any, ClassVar

import django_filters
from django.db.models import QuerySet
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import extend_schema
from rest_framework import generics, mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    ApiView,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
    check_person,
    created,
    said_in,
)
from accounts.door import fetch
from accounts.parsers import StrictJSONParser
from accounts.scope_permission import check_verb, within
from accounts.scopes import Verb
from credentials import actions
from credentials.actions.rotations import NOTE_LENGTH
from credentials.models import Rotation, UpstreamSecret, Use
from endpoints.models import Endpoint

ALONE = "Rotating and stopping take a person."


class RotationSerializer(serializers.ModelSerializer[Rotation]):
    endpoint = serializers.SlugField(source="secret.endpoint.slug", read_only=True)
    use = serializers.ChoiceField(source="secret.use", choices=Use.choices, read_only=True)
    rotator = serializers.CharField(source="secret.rotator", read_only=True)
    by = serializers.EmailField(
        source="by.email", read_only=True, allow_null=True, default=None, help_text="null: Keyturn"
    )

    class Meta:
        model = Rotation
        fields: tuple[str, ...] = (
            "id",
            "name",
            "endpoint",
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
            "confirmed_at",
            "retired_at",
            "proof",
            "waits_for",
            "attempts",
            "next_attempt_at",
            "last_error",
        )
        read_only_fields = fields


class KeySerializer(serializers.ModelSerializer[UpstreamSecret]):
    max_age = serializers.DurationField(
        format="iso-8601", read_only=True, allow_null=True, help_text="due for rotation after this"
    )
    rotation = serializers.SerializerMethodField(help_text="the one that is under way")

    class Meta:
        model = UpstreamSecret
        fields = (
            "use",
            "rotator",
            "version",
            "stored_at",
            "max_age",
            "last_rotated",
            "exposed_at",
            "leaked_at",
            "rotation",
        )
        read_only_fields = fields

    def get_rotation(self, secret: UpstreamSecret) -> uuid.UUID | None:
        return secret.rotations.open().values_list("pk", flat=True).first()


class StoreSerializer(StrictSerializer):
    use = serializers.ChoiceField(choices=Use.choices, default=Use.UPSTREAM)
    key = serializers.CharField(
        max_length=4000,
        write_only=True,
        trim_whitespace=False,
        help_text="goes to Vault, and is in no answer",
    )


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
        rows = rows.filter(secret__endpoint=endpoint)
        return rows.select_related("secret__endpoint", "by").order_by()


class AnyRotationFilter(RotationFilter):
    endpoint = django_filters.CharFilter(field_name="secret__endpoint__slug", label="its slug")


class RotationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[Rotation]):
    """Rotations of keys, newest first: of one's own endpoints, all for auditors and
    administrators."""

    queryset = Rotation.objects.select_related("secret__endpoint", "by").order_by()
    serializer_class = RotationSerializer
    filterset_class: Any = AnyRotationFilter
    endpoint_path = "secret__endpoint"

    @extend_schema(request=None, responses={200: RotationSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def confirm(self, request: Request, pk: str) -> Response:
        """Say that the old key was deleted at its provider: Keyturn tries it, and it must be
        refused. Takes what rotating takes."""
        self.get_object()
        check_person(request, ALONE)
        check_empty(request)
        actions.confirm_retired(by=caller(request), rotation_id=pk, proofs=stepup.proofs(request))
        return Response(RotationSerializer(self.get_object()).data)


@extend_schema(tags=["endpoints"])
class KeysView(ApiView):
    """The keys of an endpoint, as far as Keyturn knows them: not the keys."""

    # Vault keeps the key.
    one_transaction = False
    parser_classes = (StrictJSONParser,)
    endpoint_path = "pk"

    @extend_schema(operation_id="endpoints_keys_list", responses={200: KeySerializer(many=True)})
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """How old they are and what rotates them: for the endpoint's owner, auditors and
        administrators; nothing for others."""
        endpoint, user = _endpoint(request, pk), caller(request)
        sees = user.sees_everything or endpoint.owner_id == user.pk
        rows = endpoint.secrets.order_by("-use") if sees else ()
        return Response(KeySerializer(rows, many=True).data)

    @extend_schema(
        operation_id="endpoints_keys_store",
        request=StoreSerializer,
        responses={201: KeySerializer},
        auth=IN_PERSON,
    )
    @sensitive_variables("said")
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        """Store a key, which nobody can read back. While a rotation waits for one, this is it.
        Takes what rotating takes."""
        endpoint = _endpoint(request, pk)
        check_person(request, ALONE)
        said = said_in(StoreSerializer, request)
        use = Use(said["use"])
        actions.enter_key(
            by=caller(request),
            endpoint=endpoint,
            key=said["key"],
            use=use,
            proofs=stepup.proofs(request),
        )
        row = endpoint.secrets.get(use=use)
        return Response(KeySerializer(row).data, status=status.HTTP_201_CREATED)


@extend_schema(tags=["endpoints"])
class RotateView(ApiView, generics.GenericAPIView[Any]):
    """Replace a key of an endpoint now."""

    # Vault may be asked for what is stored.
    one_transaction = False
    serializer_class = RotateSerializer
    parser_classes = (StrictJSONParser,)
    endpoint_path = "pk"

    @extend_schema(
        request=RotateSerializer,
        responses={201: RotationSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
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
        return created(RotationSerializer(rotation).data, "api-rotation-detail", rotation.pk)


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
        endpoint, which takes what an emergency stop takes: of a token, that it's to manage."""
        endpoint = _endpoint(request, pk)
        body = LeakSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        said = body.validated_data
        if said["stop"]:
            check_verb(request, Verb.MANAGE)
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
