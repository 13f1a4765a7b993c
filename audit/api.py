"""Reading the record. Auditors read all of it, others what concerns themselves."""

import uuid

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, mixins, serializers, viewsets

from audit.events import Event
from audit.filters import TimeFilter
from audit.models import AuditEvent, AuditEvents


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    class Meta:
        model = AuditEvent
        fields = (
            "id",
            "at",
            "event",
            "actor_id",
            "actor",
            "via",
            "address",
            "trace",
            "subject_kind",
            "subject_id",
            "subject",
            "related",
            "data",
        )
        read_only_fields = fields


class EventFilter(django_filters.FilterSet):
    event = django_filters.ChoiceFilter(choices=Event.choices)
    about = django_filters.UUIDFilter(
        method="filter_about", label="id of a request, grant, credential, endpoint or person"
    )
    actor_id = django_filters.UUIDFilter()
    since = TimeFilter(field_name="at", lookup_expr="gte")
    until = TimeFilter(field_name="at", lookup_expr="lt")

    def filter_about(
        self,
        rows: AuditEvents,
        name: str,  # noqa: ARG002
        value: uuid.UUID,
    ) -> AuditEvents:
        return rows.about(value)


@extend_schema(tags=["audit"])
class AuditEventViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AuditEvent]
):
    """The record, newest first."""

    queryset = AuditEvent.objects.order_by()
    serializer_class = AuditEventSerializer
    filterset_class = EventFilter
    lookup_value_converter = "int"

    def get_queryset(self) -> QuerySet[AuditEvent]:
        if getattr(self, "swagger_fake_view", False):
            return AuditEvent.objects.none()
        if not self.request.user.is_authenticated:
            raise exceptions.NotAuthenticated
        return AuditEvent.objects.order_by().visible_to(self.request.user)
