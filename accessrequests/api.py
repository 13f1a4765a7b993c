"""Filing, reading, reviewing and cancelling access requests."""

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests import actions
from accessrequests.models import AccessRequest, Grant, Review
from accessrequests.states import RequestState
from accounts.api import StrictSerializer, VisibleViewSet, caller, check_empty, is_token
from broker.errors import NeedsPerson


class ScopeSerializer(serializers.Serializer[Any]):
    models = serializers.ListField(child=serializers.CharField())


class FileSerializer(StrictSerializer):
    """An ask for access. Duration and models default to the profile's."""

    profile = serializers.UUIDField()
    # Blank is for the action to refuse, with all else that is wrong.
    justification = serializers.CharField(
        max_length=actions.JUSTIFICATION_LENGTH, allow_blank=True, help_text="not empty"
    )
    duration = serializers.DurationField(
        format="iso-8601",
        required=False,
        help_text="ISO 8601, such as PT1H, or seconds",
    )
    models = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False, max_length=200
    )


class RequestSerializer(serializers.ModelSerializer[AccessRequest]):
    requester = serializers.EmailField(source="requester.email", read_only=True)
    endpoint = serializers.SlugField(source="profile.endpoint.slug", read_only=True)
    scope = ScopeSerializer(read_only=True)
    duration = serializers.DurationField(format="iso-8601", read_only=True)
    grant = serializers.PrimaryKeyRelatedField[Grant](
        read_only=True, help_text="once approved", allow_null=True
    )
    waits_for = serializers.SerializerMethodField(help_text="the group that may review it")

    class Meta:
        model = AccessRequest
        fields = (
            "id",
            "state",
            "profile",
            "endpoint",
            "requester",
            "scope",
            "duration",
            "justification",
            "created_at",
            "pending_until",
            "waits_for",
            "decided_at",
            "decided_by",
            "grant",
        )
        read_only_fields = fields

    def get_waits_for(self, request: AccessRequest) -> str | None:
        if request.state != RequestState.PENDING:
            return None
        return request.profile.reviewers.slug

    def to_representation(self, instance: AccessRequest) -> dict[str, Any]:
        grant = getattr(instance, "grant", None)
        instance.grant_id = grant.pk if grant else None  # type: ignore[attr-defined]
        return super().to_representation(instance)


class DecideSerializer(StrictSerializer):
    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=actions.REASON_LENGTH,
        help_text="needed for a denial",
    )


class ReviewSerializer(serializers.ModelSerializer[Review]):
    reviewer = serializers.EmailField(source="reviewer.email", read_only=True)

    class Meta:
        model = Review
        fields = ("id", "request", "reviewer", "verdict", "reason", "at")
        read_only_fields = fields


class RequestFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=RequestState.choices)
    profile = django_filters.UUIDFilter()
    endpoint = django_filters.CharFilter(field_name="profile__endpoint__slug", label="its slug")
    requester = django_filters.CharFilter(field_name="requester__email", label="their e-mail")


@extend_schema_view(
    create=extend_schema(request=FileSerializer, responses={201: RequestSerializer}),
)
class RequestViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[AccessRequest]
):
    """Access requests: the caller's own, and those that they may review."""

    queryset = AccessRequest.objects.select_related(
        "profile__endpoint", "profile__reviewers", "requester", "grant"
    ).order_by()
    serializer_class = RequestSerializer
    filterset_class = RequestFilter

    def create(self, request: Request) -> Response:
        """Ask for access."""
        body = FileSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        filed = actions.file_request(
            by=caller(request),
            profile_id=asked["profile"],
            justification=asked["justification"],
            duration=asked.get("duration"),
            models=asked.get("models"),
        )
        return Response(
            RequestSerializer(self.get_queryset().get(pk=filed.pk)).data,
            status=status.HTTP_201_CREATED,
        )

    @extend_schema(methods=["get"], responses=ReviewSerializer(many=True), filters=False)
    @extend_schema(methods=["post"], request=DecideSerializer, responses={201: ReviewSerializer})
    @action(detail=True, methods=["get", "post"], pagination_class=None, filter_backends=())
    def reviews(self, request: Request, pk: str) -> Response:
        """The verdicts on a request; POST adds the caller's own, which takes a person's session."""
        if request.method == "GET":
            rows = self.get_object().reviews.select_related("reviewer")
            return Response(ReviewSerializer(rows, many=True).data)
        self.get_object()
        if is_token(request):
            raise NeedsPerson
        body = DecideSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        review = actions.review_request(
            by=caller(request),
            request_id=pk,
            verdict=Review.Verdict(body.validated_data["verdict"]),
            reason=body.validated_data.get("reason", ""),
        )
        return Response(ReviewSerializer(review).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={200: RequestSerializer})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Take one's own pending request back."""
        check_empty(request)
        actions.cancel_request(by=caller(request), request_id=pk)
        return Response(RequestSerializer(self.get_object()).data)
