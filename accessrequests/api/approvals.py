"""What waits for the caller's decision, and what was decided with or without them."""

from typing import Any, ClassVar

import django_filters
from django.db.models import Exists, OuterRef, Q, QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests.api.asking import DurationField
from accessrequests.api.requests import EXPANSIONS, SHOWN, RequestFilter, RequestSerializer
from accessrequests.figures import PERIODS, figures
from accessrequests.models import AccessRequest, Review, Route
from accessrequests.models.figures import WAITS
from accessrequests.models.requests import own_of
from accessrequests.queue import waiting_for
from accounts.api import VisibleViewSet, caller
from accounts.expanding import Expansions, expand
from accounts.scope_permission import check_everywhere, within
from audit import clock
from endpoints.models import Endpoint


class ApprovalSerializer(RequestSerializer):
    risk = serializers.ChoiceField(
        source="profile.endpoint.risk", choices=Endpoint.Risk.choices, read_only=True
    )
    sort_at = serializers.DateTimeField(
        read_only=True, help_text="when to decide it, brought forward by its risk"
    )

    class Meta(RequestSerializer.Meta):
        fields = (*RequestSerializer.Meta.fields, "risk", "sort_at")
        read_only_fields = fields


class ApprovalFilter(django_filters.FilterSet):
    profile = django_filters.UUIDFilter(field_name="request__profile")
    endpoint = django_filters.CharFilter(
        field_name="request__profile__endpoint__slug", label="its slug"
    )
    requester = django_filters.CharFilter(
        field_name="request__requester__email", label="their e-mail"
    )
    risk = django_filters.ChoiceFilter(
        field_name="request__profile__endpoint__risk", choices=Endpoint.Risk.choices
    )
    break_glass = django_filters.BooleanFilter(field_name="request__break_glass")


class DecidedFilter(RequestFilter):
    by = django_filters.ChoiceFilter(
        method="decided_by",
        choices=[("me", "with the caller's verdict"), ("others", "without it")],
        label="whether the caller had a part in it",
    )

    def decided_by(
        self,
        rows: QuerySet[AccessRequest],
        name: str,  # noqa: ARG002
        value: str,
    ) -> QuerySet[AccessRequest]:
        user: Any = self.request and self.request.user
        mine = Exists(Review.objects.filter(request=OuterRef("pk"), reviewer=user))
        reached = Exists(Route.objects.to(user).filter(request=OuterRef("pk")))
        # Without the other half PostgreSQL begins with what is the caller's.
        return rows.filter(mine) if value == "me" else rows.filter(reached, ~mine)


class FiguresQuery(serializers.Serializer[Any]):
    days = serializers.IntegerField(
        default=PERIODS[0], min_value=1, max_value=366, help_text="how far back"
    )


class OutcomesSerializer(serializers.Serializer[Any]):
    approved = serializers.IntegerField()
    denied = serializers.IntegerField()
    automatic = serializers.IntegerField()
    break_glass = serializers.IntegerField()
    expired = serializers.IntegerField()


class WaitSerializer(serializers.Serializer[Any]):
    up_to = DurationField(allow_null=True)
    count = serializers.IntegerField()


class DeciderSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    approved = serializers.IntegerField()
    denied = serializers.IntegerField()


class FiguresSerializer(serializers.Serializer[Any]):
    days = serializers.IntegerField()
    total = serializers.IntegerField()
    outcomes = OutcomesSerializer()
    automatic_percent = serializers.IntegerField(help_text="of all")
    denied_percent = serializers.IntegerField(help_text="of what people decided")
    waits = WaitSerializer(many=True, help_text="until the first decision of a person")
    deciders = DeciderSerializer(many=True, help_text="whoever decided most comes first")


@extend_schema_view(list=extend_schema(responses={200: ApprovalSerializer(many=True)}))
class ApprovalViewSet(mixins.ListModelMixin, VisibleViewSet[Route]):
    """What waits for the caller's decision, the most urgent first. Break-glass access waits here
    for its review afterwards."""

    queryset = Route.objects.all()
    serializer_class: Any = ApprovalSerializer
    filterset_class: Any = ApprovalFilter
    expansions: ClassVar[Expansions] = EXPANSIONS
    ordering: tuple[str, ...] = ("sort_at", "request_id")
    endpoint_path = "request__profile__endpoint"

    def get_queryset(self) -> QuerySet[Route]:
        if getattr(self, "swagger_fake_view", False):
            return Route.objects.none()
        rows = waiting_for(caller(self.request)).prefetch_related("request__reviews__reviewer")
        return self.within_token(rows)

    def list(self, request: Request) -> Response:  # noqa: ARG002
        routes = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        for route in routes:
            route.request.sort_at = route.sort_at  # type: ignore[attr-defined]
        requests = [route.request for route in routes]
        data = list(ApprovalSerializer(requests, many=True).data)
        return self.get_paginated_response(expand(self, requests, data, EXPANSIONS))

    @extend_schema(responses={200: RequestSerializer(many=True)})
    @action(
        detail=False,
        filterset_class=DecidedFilter,
        serializer_class=RequestSerializer,
        ordering=("-id",),
    )
    def decided(self, request: Request) -> Response:
        """What the caller decided, and what reached them and was decided without them; newest
        first."""
        user = caller(request)
        found: Any = SHOWN.filter(
            Q(Exists(Review.objects.filter(request=OuterRef("pk"), reviewer=user)))
            | Q(Exists(Route.objects.to(user).filter(request=OuterRef("pk")))),
            decided_at__isnull=False,
        ).exclude(own_of(user))
        found = within(request, found, "profile__endpoint")
        rows: Any = self.paginate_queryset(self.filter_queryset(found.order_by()))
        data = list(RequestSerializer(rows, many=True).data)
        return self.get_paginated_response(expand(self, rows, data, EXPANSIONS))

    @extend_schema(parameters=[FiguresQuery], responses={200: FiguresSerializer}, filters=False)
    @action(detail=False, pagination_class=None, filter_backends=())
    def figures(self, request: Request) -> Response:
        """How requests were decided of late, on the profiles that the caller reviews, owns or
        decided on; auditors get all."""
        check_everywhere(request)
        query = FiguresQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        days = query.validated_data["days"]
        found = figures(caller(request), days=days, today=clock.now().date())
        body = {
            "days": days,
            "total": found.total,
            "outcomes": {bar.key: bar.count for bar in found.outcomes},
            "automatic_percent": found.automatic,
            "denied_percent": found.denied,
            "waits": [
                {"up_to": up_to, "count": bar.count}
                for up_to, bar in zip((*WAITS, None), found.waits, strict=True)
            ],
            "deciders": [
                {"name": each.name, "approved": each.approved.count, "denied": each.denied.count}
                for each in found.deciders
            ],
        }
        return Response(FiguresSerializer(body).data)
