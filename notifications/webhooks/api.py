"""Webhooks, what was sent to them, and sending it again."""

import datetime as dt
from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema, extend_schema_serializer, extend_schema_view
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import stepup
from accounts.api import (
    LOCATION,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
    created,
)
from accounts.details import Details, Lists
from accounts.models import User
from accounts.preconditions import Expected, expected
from audit.filters import TimeFilter
from broker.errors import InvalidInput
from notifications.webhooks import actions
from notifications.webhooks.models import Webhook, WebhookAttempt, WebhookMessage
from notifications.webhooks.seeing import withhold
from notifications.webhooks.types import TYPES


class WebhookSerializer(serializers.ModelSerializer[Webhook]):
    owner = serializers.EmailField(source="owner.email", read_only=True)

    class Meta:
        model = Webhook
        fields = (
            "id",
            "owner",
            "name",
            "url",
            "types",
            "created_at",
            "changed_at",
            "earlier_until",
            "delivered_at",
            "failing_since",
            "disabled_at",
            "disabled_because",
        )
        read_only_fields = fields


class WebhookWithSecretSerializer(WebhookSerializer):
    secret = serializers.CharField(help_text="whsec_…, to verify by; shown this once")

    class Meta(WebhookSerializer.Meta):
        fields = (*WebhookSerializer.Meta.fields, "secret")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class _TypesField(serializers.ListField):
    child = serializers.ChoiceField(choices=[(name, name) for name in TYPES])


class WebhookCreateSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100, help_text="what receives it")
    url = serializers.CharField(max_length=500)
    types = _TypesField(required=False, max_length=200, help_text="of events; none for all")
    owner = serializers.EmailField(
        required=False, help_text="a service account of the caller's; else the caller"
    )


class WebhookChangeSerializer(StrictSerializer):
    name = serializers.CharField(max_length=100, required=False)
    url = serializers.CharField(max_length=500, required=False)
    types = _TypesField(required=False, max_length=200)


class RotateSecretSerializer(StrictSerializer):
    overlap = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=int(actions.LONGEST_OVERLAP.total_seconds()),
        help_text="seconds in which the secret before signs too; a day unless said",
    )


@extend_schema_serializer(component_name="WebhookReplay")
class ReplaySerializer(StrictSerializer):
    since = serializers.DateTimeField()
    delivered = serializers.BooleanField(default=False, help_text="also what was delivered")


class ReplayedSerializer(serializers.Serializer[Any]):
    messages = serializers.IntegerField(help_text="that are sent again")


class AttemptSerializer(serializers.ModelSerializer[WebhookAttempt]):
    class Meta:
        model = WebhookAttempt
        fields = ("at", "status", "milliseconds", "error")
        read_only_fields = fields


class WebhookMessageSerializer(serializers.ModelSerializer[WebhookMessage]):
    webhook = serializers.UUIDField(source="webhook_id", read_only=True)
    payload = serializers.DictField(
        read_only=True,
        allow_null=True,
        help_text="null where you may not see what it tells of any more",
    )
    attempts = AttemptSerializer(source="tries", many=True, read_only=True)

    class Meta:
        model = WebhookMessage
        fields = (
            "id",
            "webhook",
            "type",
            "payload",
            "at",
            "state",
            "next_attempt_at",
            "give_up_at",
            "delivered_at",
            "attempts",
        )
        read_only_fields = fields


class MessageFilter(django_filters.FilterSet):
    webhook = django_filters.UUIDFilter(field_name="webhook_id", label="id of a webhook")
    state = django_filters.ChoiceFilter(choices=WebhookMessage.State.choices)
    type = django_filters.CharFilter()
    since = TimeFilter(field_name="at", lookup_expr="gte")
    until = TimeFilter(field_name="at", lookup_expr="lt")


def _with_secret(row: Webhook, secret: str) -> dict[str, Any]:
    return {**WebhookSerializer(row).data, "secret": secret}


def _expected(request: Request) -> Expected:
    return expected(request, lambda row: WebhookSerializer(row).data)


def _never_stored(response: Response) -> Response:
    response["Cache-Control"] = "no-store"
    return response


@extend_schema_view(
    list=extend_schema(tags=["webhooks"]), retrieve=extend_schema(tags=["webhooks"])
)
class WebhookViewSet(Lists[Webhook], Details[Webhook]):
    """Where what happens is told to programs: the caller's own and those of service accounts of
    theirs; all of them for auditors and administrators."""

    queryset = Webhook.objects.select_related("owner").order_by()
    serializer_class = WebhookSerializer
    if_match = ("partial_update", "destroy")
    # Names are looked up, and Vault seals secrets.
    one_transaction = False

    @extend_schema(
        request=WebhookCreateSerializer,
        responses={201: WebhookWithSecretSerializer},
        parameters=[LOCATION],
    )
    def create(self, request: Request) -> Response:
        """A new webhook. The answer has its signing secret, this once. It takes a second factor
        proved for it (`webhook:`)."""
        body = WebhookCreateSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        said = dict(body.validated_data)
        by = caller(request)
        row, secret = actions.create_webhook(
            by=by,
            owner=_owner(by, said.pop("owner", None)),
            proofs=stepup.proofs(request),
            **said,
        )
        answer = created(_with_secret(row, secret), "api-webhook-detail", row.pk)
        return _never_stored(answer)

    @extend_schema(request=WebhookChangeSerializer, responses={200: WebhookSerializer})
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is given. Another URL takes a second factor proved for it."""
        body = WebhookChangeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.change_webhook(
            by=caller(request),
            webhook_id=pk,
            proofs=stepup.proofs(request),
            expected=_expected(request),
            **body.validated_data,
        )
        return Response(WebhookSerializer(row).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete it, with what it was sent and was to be sent."""
        actions.delete_webhook(by=caller(request), webhook_id=pk, expected=_expected(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=RotateSecretSerializer, responses={200: WebhookWithSecretSerializer})
    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, pk: str) -> Response:
        """Another signing secret, in the answer this once. What is sent is signed by both for a
        while. It takes a second factor proved for it."""
        body = RotateSecretSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        seconds = body.validated_data.get("overlap")
        row, secret = actions.rotate_secret(
            by=caller(request),
            webhook_id=pk,
            overlap=actions.OVERLAP if seconds is None else dt.timedelta(seconds=seconds),
            proofs=stepup.proofs(request),
        )
        return _never_stored(Response(_with_secret(row, secret)))

    @extend_schema(request=None, responses={200: WebhookSerializer})
    @action(detail=True, methods=["post"])
    def enable(self, request: Request, pk: str) -> Response:
        """Send to it again what happens from now on."""
        check_empty(request)
        row = actions.enable_webhook(by=caller(request), webhook_id=pk)
        return Response(WebhookSerializer(row).data)

    @extend_schema(request=None, responses={200: WebhookSerializer})
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        """Send nothing more to it. What was due is withdrawn."""
        check_empty(request)
        row = actions.disable_webhook(by=caller(request), webhook_id=pk)
        return Response(WebhookSerializer(row).data)

    @extend_schema(request=None, responses={202: WebhookMessageSerializer})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Send `webhook.test` to it. The message tells what became of it."""
        check_empty(request)
        row = actions.send_test(by=caller(request), webhook_id=pk)
        return Response(WebhookMessageSerializer(row).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(request=ReplaySerializer, responses={202: ReplayedSerializer})
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Send again what was to be sent since a moment and wasn't delivered, under the same
        ids."""
        body = ReplaySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        count = actions.replay_since(by=caller(request), webhook_id=pk, **body.validated_data)
        return Response({"messages": count}, status=status.HTTP_202_ACCEPTED)


@extend_schema_view(
    list=extend_schema(tags=["webhooks"]), retrieve=extend_schema(tags=["webhooks"])
)
class WebhookMessageViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[WebhookMessage]
):
    """What was sent to webhooks or is to be, each with its tries; kept for 30 days."""

    queryset = (
        WebhookMessage.objects.select_related("webhook__owner__owner")
        .prefetch_related("tries")
        .order_by()
    )
    serializer_class = WebhookMessageSerializer
    filterset_class = MessageFilter

    def paginate_queryset(self, queryset: Any) -> Any:
        rows: Any = super().paginate_queryset(queryset)
        withhold(caller(self.request), rows)
        return rows

    def get_object(self) -> WebhookMessage:
        row = super().get_object()
        withhold(caller(self.request), [row])
        return row

    @extend_schema(tags=["webhooks"], request=None, responses={202: WebhookMessageSerializer})
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Send it again, under the same id."""
        check_empty(request)
        by = caller(request)
        row = actions.replay_message(by=by, message_id=pk)
        withhold(by, [row])
        return Response(WebhookMessageSerializer(row).data, status=status.HTTP_202_ACCEPTED)


def _owner(by: User, email: str | None) -> User | None:
    """The service account that is meant. What isn't the caller's is answered as if there were
    none."""
    if email is None or email.strip().lower() == by.email:
        return None
    row = User.objects.filter(owner=by, email=User.objects.normalize_email(email)).first()
    if row is None:
        raise InvalidInput({"owner": "There is no such service account of yours."})
    return row
