"""Who is in, emergency stops, what grants do, and what models cost."""

import datetime as dt
import uuid
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import generics, mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests.models import Grant
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
)
from accounts.deprecation import Deprecated, Deprecation
from accounts.door import fetch
from accounts.models import User
from accounts.parsers import StrictJSONParser
from accounts.scope_permission import check_endpoints, check_everywhere, within
from audit import clock
from audit.filters import TimeFilter
from broker.errors import NotFound
from credentials import stopping
from endpoints.actions import set_price
from endpoints.api import ScopeSerializer
from endpoints.models import EmergencyStop, Endpoint, ModelPrice
from gateway.models import Call
from gateway.presence import inside, with_parts
from gateway.usage import NONE, Usage, rates_of

ALONE = "Stopping and lifting take a person."


def endpoint_of(user: User, slug: str) -> Endpoint:
    """The endpoint with this slug that this person may see. Raises NotFound."""
    row = Endpoint.objects.visible_to(user).select_related("owner").filter(slug=slug).first()
    if row is None:
        raise NotFound(kind="endpoint", id=slug)
    return row


def endpoint_for(request: Request, slug: str) -> Endpoint:
    """The same for this call, and within what its token is for."""
    row = endpoint_of(caller(request), slug)
    check_endpoints(request, [row.pk])
    return row


def _dollars(**options: Any) -> serializers.DecimalField:
    return serializers.DecimalField(max_digits=20, decimal_places=4, **options)


class UsageSerializer(serializers.Serializer[Usage]):
    calls = serializers.IntegerField()
    refused = serializers.IntegerField(help_text="of these, by the gateway")
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    tokens = serializers.IntegerField(
        source="tokens.spent", help_text="charged: what wasn't counted is charged by what it may be"
    )
    token_budget = serializers.IntegerField(source="tokens.budget", allow_null=True)
    cost = _dollars(source="cost.spent", help_text="US dollars")
    cost_budget = _dollars(source="cost.budget", allow_null=True)
    last_call_at = serializers.DateTimeField(allow_null=True)


class LiveRows(serializers.ListSerializer[Any]):
    """Looks up for all rows at once how much they call."""

    def to_representation(self, data: Any) -> Any:
        rows = list(data)
        child: Any = self.child
        child.rates = rates_of(rows, clock.now())
        return super().to_representation(rows)


class LiveSerializer(serializers.ModelSerializer[Grant]):
    holder = serializers.EmailField(source="holder.email", read_only=True)
    endpoint = serializers.SlugField(source="request.profile.endpoint.slug", read_only=True)
    profile = serializers.SlugField(source="request.profile.slug", read_only=True)
    scope = ScopeSerializer(source="held", read_only=True)
    credential = serializers.SerializerMethodField(help_text="what is out under it")
    usage = serializers.SerializerMethodField()
    calls_last_minute = serializers.SerializerMethodField()
    refused_last_minute = serializers.SerializerMethodField()
    rates: Any = None

    class Meta:
        model = Grant
        list_serializer_class = LiveRows
        fields = (
            "id",
            "holder",
            "endpoint",
            "profile",
            "scope",
            "starts_at",
            "ends_at",
            "credential",
            "usage",
            "calls_last_minute",
            "refused_last_minute",
        )
        read_only_fields = fields

    def get_credential(self, grant: Any) -> uuid.UUID | None:
        return grant.out[0].pk if grant.out else None

    @extend_schema_field(UsageSerializer)
    def get_usage(self, grant: Grant) -> Any:
        return UsageSerializer(Usage.of(grant)).data

    def get_calls_last_minute(self, grant: Grant) -> int:
        return int(self.rates.get(grant.pk, NONE).calls)

    def get_refused_last_minute(self, grant: Grant) -> int:
        return int(self.rates.get(grant.pk, NONE).refused)


class LiveFilter(django_filters.FilterSet):
    endpoint = django_filters.CharFilter(
        field_name="request__profile__endpoint__slug", label="its slug"
    )
    holder = django_filters.CharFilter(field_name="holder__email", label="their e-mail")


@extend_schema(tags=["live"])
class LiveViewSet(mixins.ListModelMixin, VisibleViewSet[Grant]):
    """Who is in at this moment: everywhere for auditors and administrators, on their own
    endpoints for owners."""

    queryset = Grant.objects.order_by()
    serializer_class = LiveSerializer
    filterset_class = LiveFilter
    endpoint_path = "request__profile__endpoint"

    def get_queryset(self) -> QuerySet[Grant]:
        if getattr(self, "swagger_fake_view", False):
            return Grant.objects.none()
        return self.within_token(with_parts(inside(caller(self.request))).order_by())


class StopSerializer(serializers.ModelSerializer[EmergencyStop]):
    endpoint = serializers.SlugField(
        source="endpoint.slug", read_only=True, allow_null=True, help_text="null: all of them"
    )
    stopped_by = serializers.EmailField(source="stopped_by.email", read_only=True)
    lifted_by = serializers.EmailField(source="lifted_by.email", read_only=True, allow_null=True)

    class Meta:
        model = EmergencyStop
        fields = (
            "id",
            "endpoint",
            "reason",
            "stopped_at",
            "stopped_by",
            "lifted_at",
            "lifted_by",
        )
        read_only_fields = fields


class DeclareSerializer(StrictSerializer):
    endpoint = serializers.SlugField(allow_null=True, help_text="its slug; null: all of them")
    reason = serializers.CharField(
        max_length=stopping.REASON_LENGTH, help_text="everybody whose access ends reads it"
    )
    open_again = serializers.BooleanField(
        default=False, help_text="end all that is live, and let people ask again at once"
    )


class StopFilter(django_filters.FilterSet):
    endpoint = django_filters.CharFilter(field_name="endpoint__slug", label="its slug")
    in_force = django_filters.BooleanFilter(
        field_name="lifted_at", lookup_expr="isnull", label="whether nobody has lifted it"
    )


@extend_schema(tags=["live"])
class StopViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[EmergencyStop]):
    """Emergency stops: of one's own endpoints; all for auditors and administrators."""

    queryset = EmergencyStop.objects.select_related(
        "endpoint", "stopped_by", "lifted_by"
    ).order_by()
    serializer_class = StopSerializer
    filterset_class: Any = StopFilter
    endpoint_path = "endpoint"

    @extend_schema(
        request=DeclareSerializer,
        responses={201: StopSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    def create(self, request: Request) -> Response:
        """Stop an endpoint, or all of them: nothing is handed out, approved or let through until
        the stop is lifted, and all that is live ends. Takes the session of an administrator or the
        endpoint's owner, with a second factor proved within five minutes."""
        user = caller(request)
        body = DeclareSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        said = body.validated_data
        if said["endpoint"] is None:
            check_everywhere(request)
            endpoint = None
        else:
            endpoint = endpoint_for(request, said["endpoint"])
        check_person(request, ALONE)
        verb = stopping.end_all if said["open_again"] else stopping.stop
        row = verb(by=user, endpoint=endpoint, reason=said["reason"], proofs=stepup.proofs(request))
        return created(StopSerializer(row).data, "api-stop-detail", row.pk)

    @extend_schema(request=None, responses={200: StopSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def lift(self, request: Request, pk: str) -> Response:
        """Lift a stop. What it ended doesn't come back: people ask again. Takes what stopping
        takes; what an administrator stopped, only an administrator lifts."""
        self.get_object()
        check_person(request, ALONE)
        check_empty(request)
        stopping.lift(by=caller(request), stop_id=pk, proofs=stepup.proofs(request))
        return Response(StopSerializer(self.get_object()).data)


class CallSerializer(serializers.ModelSerializer[Call]):
    cost = serializers.SerializerMethodField(help_text="US dollars")

    class Meta:
        model = Call
        fields = (
            "id",
            "at",
            "trace",
            "credential",
            "method",
            "path",
            "model",
            "streamed",
            "tools_declared",
            "tools_called",
            "status",
            "refusal",
            "input_tokens",
            "output_tokens",
            "charged_tokens",
            "cost",
            "request_bytes",
            "response_bytes",
            "first_byte_ms",
            "duration_ms",
            "client",
        )
        read_only_fields = fields

    def get_cost(self, call: Call) -> str:
        return f"{call.charged_cost / 1_000_000:.6f}"


class CallFilter(django_filters.FilterSet):
    model = django_filters.CharFilter()
    status = django_filters.NumberFilter()
    refusal = django_filters.CharFilter(label="code of the gateway's error")
    refused = django_filters.BooleanFilter(method="filter_refused", label="by the gateway")
    since = TimeFilter(field_name="at", lookup_expr="gte")
    until = TimeFilter(field_name="at", lookup_expr="lt")

    def filter_refused(
        self,
        rows: QuerySet[Call],
        name: str,  # noqa: ARG002
        value: bool,
    ) -> QuerySet[Call]:
        return rows.exclude(refusal="") if value else rows.filter(refusal="")


def _grant(request: Request, pk: uuid.UUID) -> Grant:
    rows = Grant.objects.visible_to(caller(request)).select_related("meter")
    return fetch(within(request, rows, "request__profile__endpoint"), pk)


@extend_schema(tags=["grants"])
class CallsView(ApiView, generics.ListAPIView[Call]):
    """The calls made under a grant, newest first, up to a second late. Bodies are not stored."""

    queryset = Call.objects.none()
    serializer_class = CallSerializer
    filterset_class = CallFilter
    ordering = ("-at",)
    endpoint_path = "grant__request__profile__endpoint"

    def get_queryset(self) -> QuerySet[Call]:
        if getattr(self, "swagger_fake_view", False):
            return Call.objects.none()
        return Call.objects.filter(grant=_grant(self.request, self.kwargs["pk"])).order_by()


@extend_schema(tags=["grants"])
class UsageView(ApiView, generics.GenericAPIView[Any]):
    """What a grant has spent of what it may."""

    serializer_class = UsageSerializer
    endpoint_path = "grant__request__profile__endpoint"

    def get(self, request: Request, pk: uuid.UUID) -> Response:
        """What a grant has spent of what it may."""
        return Response(UsageSerializer(Usage.of(_grant(request, pk))).data)


class PriceSerializer(serializers.ModelSerializer[ModelPrice]):
    set_by = serializers.EmailField(source="set_by.email", read_only=True)

    class Meta:
        model = ModelPrice
        fields = ("model", "input_price", "output_price", "since", "set_by", "set_at")
        read_only_fields = fields


class SetPriceSerializer(StrictSerializer):
    model = serializers.CharField(max_length=200)
    input_price = serializers.DecimalField(
        max_digits=12, decimal_places=4, min_value=0, help_text="US dollars per million tokens"
    )
    output_price = serializers.DecimalField(
        max_digits=12, decimal_places=4, min_value=0, help_text="US dollars per million tokens"
    )
    since = serializers.DateField(required=False, help_text="UTC; today if left out")


class PriceFilter(django_filters.FilterSet):
    model = django_filters.CharFilter()


@extend_schema(tags=["endpoints"])
class PricesView(ApiView, generics.ListAPIView[ModelPrice]):
    """What models cost on an endpoint, and did: the latest day that has come holds."""

    queryset = ModelPrice.objects.none()
    serializer_class = PriceSerializer
    filterset_class = PriceFilter
    endpoint_path = "endpoint"
    parser_classes = (StrictJSONParser,)

    def endpoint(self) -> Endpoint:
        """Whose prices they are. Raises NotFound."""
        visible = Endpoint.objects.visible_to(caller(self.request)).select_related("owner")
        return fetch(within(self.request, visible, "pk"), self.kwargs["pk"])

    def get_queryset(self) -> QuerySet[ModelPrice]:
        if getattr(self, "swagger_fake_view", False):
            return ModelPrice.objects.none()
        endpoint = self.endpoint()
        return endpoint.prices.select_related("set_by").order_by()

    @extend_schema(request=SetPriceSerializer, responses={201: PriceSerializer}, auth=IN_PERSON)
    def post(self, request: Request, **_: Any) -> Response:
        """Say what a model costs from a day on. Takes the session of the endpoint's owner or an
        administrator, with a second factor proved within five minutes."""
        endpoint = self.endpoint()
        check_person(request, "Prices take a person.")
        body = SetPriceSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = set_price(
            by=caller(request),
            endpoint=endpoint,
            proofs=stepup.proofs(request),
            **body.validated_data,
        )
        return Response(PriceSerializer(row).data, status=status.HTTP_201_CREATED)


@extend_schema_view(
    get=extend_schema(operation_id="endpoints_prices_by_slug_list"),
    post=extend_schema(
        operation_id="endpoints_prices_by_slug_create",
        request=SetPriceSerializer,
        responses={201: PriceSerializer},
        auth=IN_PERSON,
    ),
)
class PricesBySlugView(Deprecated, PricesView):
    """The same by the endpoint's slug, where all else of an endpoint goes by its id."""

    deprecation = Deprecation(
        dt.date(2026, 11, 23), dt.date(2027, 6, 30), "/api/v1/endpoints/{id}/prices/"
    )
    found: Endpoint | None = None

    def endpoint(self) -> Endpoint:
        self.found = endpoint_for(self.request, self.kwargs["slug"])
        return self.found

    def successor(self) -> str | None:
        return reverse("api-endpoint-prices", args=[self.found.pk]) if self.found else None
