"""What the caller was told, and how they want to be told."""

from typing import Any

import django_filters
from django.conf import settings
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api import ApiView, StrictSerializer, VisibleViewSet, caller, check_empty
from accounts.parsers import StrictJSONParser
from accounts.preconditions import expected, tagged
from notifications import actions
from notifications.kinds import Email, Kind
from notifications.models import HANDLE, Notification, Preference


class FactSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    value = serializers.CharField()


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    about = serializers.UUIDField(source="subject_id", help_text="id of what it is about")
    url = serializers.CharField(help_text="its page in the portal")
    facts = serializers.SerializerMethodField()

    class Meta:
        model = Notification
        fields = ("id", "at", "kind", "about", "url", "sentence", "facts", "quote", "read_at")
        read_only_fields = fields

    @extend_schema_field(FactSerializer(many=True))
    def get_facts(self, row: Notification) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in row.facts]


class ReadSerializer(serializers.Serializer[Any]):
    read = serializers.IntegerField(help_text="those that weren't yet")


class NotificationFilter(django_filters.FilterSet):
    unread = django_filters.BooleanFilter(method="filter_unread", label="true: unread only")
    kind = django_filters.ChoiceFilter(choices=Kind.choices)
    about = django_filters.UUIDFilter(field_name="subject_id", label="id of what it is about")

    def filter_unread(
        self,
        rows: QuerySet[Notification],
        name: str,  # noqa: ARG002
        value: bool,
    ) -> QuerySet[Notification]:
        return rows.filter(read_at__isnull=value)


@extend_schema_view(list=extend_schema(tags=["notifications"]))
class NotificationViewSet(mixins.ListModelMixin, VisibleViewSet[Notification]):
    """The caller's own, newest first."""

    queryset = Notification.objects.order_by()
    serializer_class = NotificationSerializer
    filterset_class = NotificationFilter

    @extend_schema(tags=["notifications"], request=None, responses={200: NotificationSerializer})
    @action(detail=True, methods=["post"])
    def read(self, request: Request, pk: str) -> Response:
        """Mark it as read. Again, it stays as it is."""
        check_empty(request)
        row = actions.mark_read(by=caller(request), notification_id=pk)
        return Response(NotificationSerializer(row).data)

    @extend_schema(
        operation_id="notifications_read_all",
        tags=["notifications"],
        request=None,
        responses={200: ReadSerializer},
        filters=False,
    )
    @action(detail=False, methods=["post"], url_path="read", filter_backends=())
    def read_all(self, request: Request) -> Response:
        """Mark all as read."""
        check_empty(request)
        return Response({"read": actions.mark_all_read(by=caller(request))})


class SettingsSerializer(StrictSerializer):
    email_waiting = serializers.ChoiceField(Email.choices, help_text="what waits for you")
    email_access = serializers.ChoiceField(Email.choices, help_text="your own access")
    email_comments = serializers.ChoiceField(Email.choices)
    chat_waiting = serializers.BooleanField()
    chat_access = serializers.BooleanField()
    chat_comments = serializers.BooleanField()
    chat_handle = serializers.RegexField(
        HANDLE,
        allow_blank=True,
        max_length=64,
        help_text="your name in the chat; empty for no chat",
    )
    digest_hour = serializers.IntegerField(
        min_value=0, max_value=23, help_text="of your own time zone's day"
    )
    email_on = serializers.SerializerMethodField(help_text="whether e-mail is set up")
    chat_on = serializers.SerializerMethodField(help_text="whether chat is set up")

    def get_email_on(self, _: Preference) -> bool:
        return bool(settings.KEYTURN_EMAIL)

    def get_chat_on(self, _: Preference) -> bool:
        return bool(settings.KEYTURN_CHAT_URL)


@extend_schema(tags=["notifications"])
class NotificationSettingsView(ApiView):
    """How the caller wants to be told."""

    parser_classes = (StrictJSONParser,)
    tagged, if_match = ("get",), ("put",)

    @extend_schema(responses={200: SettingsSerializer})
    def get(self, request: Request) -> Response:
        """What was chosen, or the defaults."""
        return tagged(request, _settings(actions.preference(caller(request))))

    @extend_schema(request=SettingsSerializer, responses={200: SettingsSerializer})
    def put(self, request: Request) -> Response:
        """Choose anew, all of it."""
        body = SettingsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.change_settings(
            by=caller(request), expected=expected(request, _settings), **body.validated_data
        )
        return Response(_settings(row))


def _settings(row: Preference) -> Any:
    return SettingsSerializer(row).data
